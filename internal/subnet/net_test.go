package subnet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/election"
	"freshet/internal/identity"
	"freshet/internal/lan"
	"freshet/internal/memnet"
	"freshet/internal/wire"
)

var server = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))

func deviceID(n int) wire.DeviceID { return wire.DeviceID{byte(n), 15: 1} }

func hohOf(n int) content.Digest { return content.Digest{0xc0, byte(n)} }

func link(index int, local string) lan.Link {
	return lan.Link{Index: index, Name: fmt.Sprint("eth", index), Local: netip.MustParsePrefix(local)}
}

// device is a device with one content.
type device struct {
	*Subnet
	*memnet.Host
	n    int
	at   netip.Addr
	c    *Content
	end  func() // stops it in order
	kill func() // stops it without a word

	mu     sync.Mutex // guards the following
	stand  Stand
	stands []Stand
	met    []Neighbour
	hints  []Hint
	held   int64
	wan    int64 // bytes fetched from outside
}

func (d *device) Stands(st Stand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stand = st
	d.stands = append(d.stands, st)
}

func (d *device) Meets(n Neighbour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.met = append(d.met, n)
}

// Proves takes a piece at once: every connection is open.
func (d *device) Proves(by wire.DeviceID) { go d.c.Proved(by) }

func (d *device) now() Stand {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stand
}

// got books bytes.
func (d *device) got(n int64, from wire.DeviceID) {
	d.mu.Lock()
	d.held += n
	held := d.held
	if from.IsZero() {
		d.wan += n
	}
	d.mu.Unlock()
	d.c.Held(held)
}

// world is some devices that want one content.
type world struct {
	*testing.T
	size    int64
	devices []*device
	lease   *device // who may go out for the site; nil: nobody said
}

func newWorld(t *testing.T, mibs int64) *world { return &world{T: t, size: mibs * mib} }

// add runs a device on links; the first one's address is its own.
func (w *world) add(on map[lan.Link]*memnet.Segment, change func(*Options)) *device {
	w.Helper()
	n := len(w.devices) + 1
	d := &device{n: n, Host: &memnet.Host{}}
	d.Plug(on)
	for l := range on {
		if !d.at.IsValid() || l.Local.Addr().Less(d.at) {
			d.at = l.Local.Addr()
		}
	}
	opt := Options{
		LAN:        lan.Options{Trust: lan.Trust{Self: deviceID(n), Now: time.Now}, Network: d.Host},
		Conditions: election.Conditions{MayGoOut: true},
		Seed:       func() uint64 { return uint64(n) },
		Log:        slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	d.Subnet = New(opt)
	d.Subnet.OnHint(func(h Hint) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hints = append(d.hints, h)
	})
	w.speak(d)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	d.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	})
	d.kill = func() {
		d.Cut()
		d.end()
	}
	w.Cleanup(d.end)
	<-d.Ready()
	w.devices = append(w.devices, d)
	return d
}

// speak gives a device what it needs to be heard.
func (w *world) speak(d *device) {
	w.Helper()
	keys, err := lan.ParseKeys("lab", []api.LANKey{{ID: bytes.Repeat([]byte{1}, 8), Secret: bytes.Repeat([]byte{1}, 32), Starts: time.Now().Add(-time.Hour).Unix()}})
	if err != nil {
		w.Fatal(err)
	}
	s, err := identity.NewSpeaker()
	if err != nil {
		w.Fatal(err)
	}
	pass := identity.Pass{Device: deviceID(d.n), Key: [32]byte(s.Public()), Group: "lab", Expires: time.Now().Add(24 * time.Hour)}
	if s, err = s.With(identity.SignPass(server, pass)); err != nil {
		w.Fatal(err)
	}
	d.LAN().SetKeys(keys, []ed25519.PublicKey{server.Public().(ed25519.PublicKey)})
	d.LAN().SetSpeaker(s, uint16(7000+d.n))
}

// enter lets a device hold some MiB of the content, and want the others.
func (w *world) enter(d *device, held int64) {
	d.held = held * mib
	d.c = d.Enter(hohOf(1), w.size, d)
	d.c.Know(election.Entry{Manifest: hohOf(9), Ref: content.Ref{ID: "app", Version: 1}, Generation: 3})
	d.c.Held(d.held)
	d.c.Lease(Lease{Known: true, Mine: w.lease == d})
	if d.held < w.size {
		d.c.Want(wire.Background)
	}
}

// connect opens swarm connections between all devices.
func (w *world) connect() {
	for _, d := range w.devices {
		for _, o := range w.devices {
			if o != d {
				d.Connected(o.id(), o.at, wireTo{d, o})
			}
		}
	}
}

func (d *device) id() wire.DeviceID { return deviceID(d.n) }

// wireTo is a connection from one device to another.
type wireTo struct{ from, to *device }

func (c wireTo) Say(message []byte) {
	m, err := wire.ParseLAN(message)
	if err != nil {
		panic(err)
	}
	go c.to.Heard(c.from.id(), m)
}

// closed lets all others see that a device's connections close.
func (w *world) closed(d *device) {
	for _, o := range w.devices {
		if o != d {
			o.Disconnected(d.id(), wireTo{o, d})
		}
	}
}

// run lets time pass. Who is out fetches a MiB each 100 ms, all others take one of their leader.
func (w *world) run(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		<-time.After(100 * time.Millisecond)
		for _, d := range w.devices {
			switch st := d.now(); {
			case d.c == nil || d.held >= w.size:
			case st.Out:
				d.got(mib, wire.DeviceID{})
			case st.Role == Following:
				if l := w.devices[st.Leader[0]-1]; l.held > d.held {
					d.got(mib, st.Leader)
				}
			}
		}
	}
	synctest.Wait()
}

// one returns the only leader of some devices, who all others follow.
func (w *world) one(devices ...*device) *device {
	w.Helper()
	var leader *device
	for _, d := range devices {
		if d.now().Role == Leading {
			if leader != nil {
				w.Fatalf("devices %d and %d lead", leader.n, d.n)
			}
			leader = d
		}
	}
	if leader == nil {
		w.Fatal("nobody leads")
	}
	for _, d := range devices {
		if st := d.now(); d != leader && (st.Role != Following || st.Leader != leader.id() || st.Epoch != leader.stand.Epoch || st.Out) {
			w.Errorf("device %d is %+v, want it to follow %d", d.n, st, leader.n)
		}
	}
	return leader
}

// without returns the devices but one.
func (w *world) without(not *device) []*device {
	var out []*device
	for _, d := range w.devices {
		if d != not {
			out = append(out, d)
		}
	}
	return out
}

func entryOf(sha1, sha256 content.Digest) election.Entry {
	return election.Entry{Ref: content.Ref{ID: "app", Version: 1}, MetadataSHA1: sha1, MetadataSHA256: sha256}
}
