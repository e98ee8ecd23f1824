package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/buffers"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/identity"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/store"
	"freshet/internal/wire"
)

// member is a device of the fleet whose swarm protocol the test plays.
type member struct {
	*device
	g     *goods
	grant []byte
	ep    peer.Endpoint
	ln    net.Listener
	seen  sync.Map     // by connection, the first run that was asked for
	parts atomic.Int64 // parts of metadata asked of it

	fleeting bool // it serves one run a connection, and closes it when it is charged
}

// member makes a device that claims to hold all of g, and listens.
func (f *fleet) member(local string, g *goods) *member {
	f.Helper()
	m := &member{device: f.enrol(local, f.token(identity.TokenJoin)), g: g}
	m.connect()
	m.ep = peer.Endpoint{
		Self: m.id(), Credentials: m.creds, Local: m.local, Receive: buffers.New(4), Send: buffers.New(4),
		Admit: func(identity.Name, peer.Hello) (peer.Hello, error) { return m.hello(), nil },
	}
	var err error
	m.ln, err = net.Listen("tcp", netip.AddrPortFrom(m.local, 0).String())
	f.want(err)
	f.Cleanup(func() { m.ln.Close() })
	go func() {
		for {
			raw, err := m.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if c, _, err := m.ep.Answer(f.Context(), raw); err == nil {
					m.run(c)
				}
			}()
		}
	}()
	return m
}

// connect makes the client of a device that is not started, and gets its grant.
func (m *member) connect() {
	m.f.Helper()
	var err error
	m.client, err = client.New(client.Options{Address: m.f.addr, Credentials: m.creds, Local: m.local})
	m.f.want(err)
	m.f.Cleanup(m.client.CloseIdle)
	p, err := m.client.ContentPolicy(m.f.Context(), m.g.ref)
	m.f.want(err)
	m.grant = p.Grant
}

func (m *member) hello() peer.Hello {
	return peer.Hello{HashOfHashes: m.g.parsed.HashOfHashes, Device: m.id(), Grant: m.grant}
}

// join tells the array that the member holds all but left bytes.
func (m *member) join(left int64, lease bool) api.JoinReply {
	m.f.Helper()
	arrays, err := m.client.Discovery(m.f.Context(), m.g.ref.ID, m.g.parsed.HashOfHashes)
	m.f.want(err)
	r, err := m.client.Join(m.f.Context(), arrays[0].CollectiveArray, api.JoinRequest{
		ContentId: string(m.g.ref.ID), Version: 1, HashOfHashes: m.g.parsed.HashOfHashes.Base64(), ManifestDigest: m.g.digest().String(),
		PeerId: m.id().String() + "00000000", Port: api.Number(m.ln.Addr().(*net.TCPAddr).Port), Scope: 1, Left: api.Number(left),
		ReportedIp: m.local.String(), JoinRequestEvent: 1, Seq: 1, WantLease: lease,
	})
	m.f.want(err)
	return r
}

// dial connects to a device and claims to hold everything; the error is that of the opening.
func (m *member) dial(d *device) error {
	c, _, err := m.ep.Dial(m.f.Context(), d.swarmAddr(), m.hello())
	if err == nil {
		m.run(c)
	}
	return err
}

func (d *device) swarmAddr() string {
	return netip.AddrPortFrom(d.local, uint16(d.agent.dev.Port)).String()
}

func (m *member) run(c *peer.Conn) {
	all := make([]byte, (m.g.layout.Pieces()+7)/8)
	for p := range m.g.layout.Pieces() {
		all[p/8] |= 1 << (7 - p%8)
	}
	c.Post(func(b []byte) []byte { return wire.AppendState(wire.AppendBitfield(b, all), wire.Unchoke) })
	c.Run(m.f.Context(), m)
}

// Layout implements peer.Handler.
func (m *member) Layout() *content.Layout { return m.g.layout }

// Run implements peer.Handler: the member asks for nothing.
func (m *member) Run(_ *peer.Conn, _ int, b []byte) { m.ep.Receive.Put(b) }

// Message implements peer.Handler.
func (m *member) Message(c *peer.Conn, w wire.Message) {
	switch w.Kind {
	case wire.Request:
		run, first, err := c.Wants(m.g.layout, w)
		switch {
		case err != nil:
			c.Close()
		case first && (!m.fleeting || m.isFirst(c, run)):
			c.Send(run, lies{}, func(int, error) {})
		}
	case wire.Envelope:
		if t, _, err := wire.ParseEnvelope(w.Body); err == nil && t == wire.WrongPiece && m.fleeting {
			c.Close()
		}
		if t, _, err := wire.ParseEnvelope(w.Body); err == nil && (t == wire.GetManifest || t == wire.GetHashFile) {
			m.parts.Add(1)
			part := wire.Part{Of: t, Total: uint64(len(m.g.manifest)), Frame: metadata.Pack(noise(9, len(m.g.manifest)))}
			c.Post(func(b []byte) []byte { return wire.AppendPart(b, part) })
		}
	}
}

// isFirst reports whether run is the first that was asked for on a connection. Its blocks may
// come in several requests, with sends between them.
func (m *member) isFirst(c *peer.Conn, run int) bool {
	first, _ := m.seen.LoadOrStore(c, run)
	return first == run
}

// lies reads as noise.
type lies struct{}

func (lies) Read(_, _, n int, b []byte) error { copy(b, noise(99, n)); return nil }

// TestPoisonedPeer: the pieces of a liar are dropped, the second one bans it, also over a
// restart; everybody's copy is right.
func TestPoisonedPeer(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 5*mib)
	f.publish(g, origin)
	liar := f.member("127.0.0.9", g)
	liar.join(0, false)
	release := origin.hold()
	a, b := f.device("127.0.0.1"), f.device("127.0.0.2")
	one, two := a.begin(g.ref), b.begin(g.ref)
	for _, d := range []*device{a, b} {
		waitFor(t, "the liar to be banned", func() bool { return len(d.bans(g)) == 1 })
	}
	release()
	one.right(g)
	two.right(g)
	for _, d := range []*device{a, b} {
		if bans := d.bans(g); len(bans) != 1 || bans[0].Device != liar.id().String() {
			t.Errorf("device %s bans %v, want the liar %s", d.local, bans, liar.id())
		}
		if s := d.status(g); s.Bans != 1 || s.Wrong == 0 || s.Wrong > 16*mib {
			t.Errorf("device %s: %+v", d.local, s)
		}
	}
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
		t.Errorf("the origin sent %d bytes, want %d: the liar cost a copy", sent, len(g.bytes))
	}
	a.stop()
	a.start()
	a.joined(g)
	if err := liar.dial(a); !errors.Is(err, peer.ErrRefused) {
		t.Errorf("the liar is let in after a restart: %v", err)
	}
	a.get(g)
}

// TestFleetingLiar: who leaves after each charge and comes back is banned at the second one all
// the same.
func TestFleetingLiar(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 5*mib)
	f.publish(g, origin)
	a, honest := f.device("127.0.0.1"), f.device("127.0.0.2")
	honest.get(g)
	honest.stop()
	defer origin.hold()()
	w := a.begin(g.ref)
	waitFor(t, "the share", func() bool { return a.ready(g) })
	liar := f.member("127.0.0.9", g)
	liar.fleeting = true
	for n := range 2 {
		if len(a.bans(g)) != 0 {
			t.Errorf("banned after %d pieces", n)
		}
		f.want(liar.dial(a))
	}
	waitFor(t, "the ban", func() bool { return len(a.bans(g)) != 0 })
	if err := liar.dial(a); !errors.Is(err, peer.ErrRefused) {
		t.Errorf("the banned one is let in: %v", err)
	}
	honest.start()
	w.right(g)
	if bans := a.bans(g); len(bans) != 1 || bans[0].Device != liar.id().String() {
		t.Errorf("bans %v, want the liar %s alone", bans, liar.id())
	}
}

// TestLyingManifest: the giver of a wrong manifest is charged and not asked again; the next one
// is.
func TestLyingManifest(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	files := map[string][]byte{}
	for i := range 400 {
		files[fmt.Sprintf("dir/%03d", i)] = noise(byte(i), 50+i)
	}
	g := makeGoods(t, "app", files)
	f.publish(g, origin)
	a, b := f.device("127.0.0.1"), f.device("127.0.0.2")
	a.get(g)
	a.stop()
	liar := f.member("127.0.0.9", g)
	waitFor(t, "the lease", func() bool { return liar.join(1, true).Lease.Mine })
	w := b.begin(g.ref)
	waitFor(t, "the liar to be asked", func() bool { return liar.parts.Load() > 0 })
	a.start()
	w.right(g)
	if n := liar.parts.Load(); n != 1 {
		t.Errorf("the liar was asked for %d parts, want 1", n)
	}
	if !strings.Contains(b.log.String(), "peer sent wrong metadata") {
		t.Error("the liar is not charged")
	}
}

// knock opens TLS to a device, shows h, and returns what came back until the end.
func knock(t *testing.T, d *device, cred *identity.Credentials, h peer.Hello) (got []byte, raw int64) {
	t.Helper()
	c, err := net.Dial("tcp", d.swarmAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := &counting{Conn: c}
	app := tls.Client(n, cred.ClientConfig(identity.RoleDevice))
	b := wire.AppendHandshake(nil, wire.Handshake{HashOfHashes: h.HashOfHashes, Device: h.Device})
	if _, err := app.Write(wire.AppendGrant(b, h.Grant)); err != nil {
		t.Fatal(err)
	}
	got = make([]byte, wire.HandshakeSize)
	k, _ := io.ReadFull(app, got)
	return got[:k], n.n
}

type counting struct {
	net.Conn
	n int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += int64(n)
	return n, err
}

// TestNoGrant: a device without a grant, or of another group, gets nothing, and cannot tell
// from what it gets whether the content is there.
func TestNoGrant(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g, other := oneFile(t, "app", 2*mib), oneFile(t, "other", 1000)
	f.publish(g, origin)
	f.publish(other, origin)
	a := f.device("127.0.0.1")
	a.get(g)
	friend := f.member("127.0.0.2", g)
	foreign := &member{device: f.enrol("127.0.0.3", f.groupToken("office")), g: g}
	foreign.connect()
	banned := f.member("127.0.0.4", g)
	f.want(a.agent.dev.Store.Ban(t.Context(), store.Ban{Device: banned.id().String(), Digest: g.digest(), Until: a.creds.Expires()}))
	elsewhere, err := friend.client.ContentPolicy(t.Context(), other.ref)
	f.want(err)

	if got, _ := knock(t, a, friend.creds, friend.hello()); len(got) != wire.HandshakeSize {
		t.Fatalf("a device with a grant gets %d bytes", len(got))
	}
	refused := map[string]struct {
		who *member
		h   peer.Hello
	}{
		"no grant":         {friend, peer.Hello{Grant: []byte("please")}},
		"altered grant":    {friend, peer.Hello{Grant: append([]byte{friend.grant[0] ^ 1}, friend.grant[1:]...)}},
		"another's grant":  {friend, peer.Hello{Grant: banned.grant}},
		"another content":  {friend, peer.Hello{Grant: elsewhere.Grant}},
		"another group":    {foreign, foreign.hello()},
		"banned":           {banned, banned.hello()},
		"another's name":   {friend, banned.hello()},
		"not there at all": {friend, peer.Hello{HashOfHashes: other.parsed.HashOfHashes, Grant: elsewhere.Grant}},
	}
	sizes := map[string]int64{}
	for name, try := range refused {
		if try.h.Device == (wire.DeviceID{}) {
			try.h.Device = try.who.id()
		}
		if try.h.HashOfHashes == (content.Digest{}) {
			try.h.HashOfHashes = g.parsed.HashOfHashes
		}
		got, raw := knock(t, a, try.who.creds, try.h)
		if len(got) != 0 {
			t.Errorf("%s: got %d bytes", name, len(got))
		}
		sizes[name] = raw
	}
	for name, n := range sizes {
		if d := n - sizes["not there at all"]; d < -8 || d > 8 {
			t.Errorf("%s: %d raw bytes, and %d where the content is not", name, n, sizes["not there at all"])
		}
	}
	if s := a.status(g); s.ToPeers != 0 {
		t.Errorf("%d bytes were sent", s.ToPeers)
	}
}

// TestFlippedBit: a bit that flipped in a cache reaches no other device and no caller, and the
// honest device is not banned.
func TestFlippedBit(t *testing.T) {
	for name, running := range map[string]bool{"while it was off": false, "while it runs": true} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			origin := f.newDP()
			g := makeGoods(t, "app", map[string][]byte{"big": noise(1, 4*mib), "small": noise(2, 10)})
			f.publish(g, origin)
			a, b := f.device("127.0.0.1"), f.device("127.0.0.2")
			a.get(g)
			if !running {
				a.stop()
			}
			a.flip(g, 0, mib+77)
			if !running {
				a.start()
			}
			a.joined(g)
			begun := time.Now()
			p := b.get(g)
			if took := time.Since(begun); !running && took > 5*time.Second { // as long as a device that claims too much is believed
				t.Errorf("the damaged piece took %s", took)
			}
			if !strings.Contains(a.log.String(), "piece on disk is wrong") {
				t.Error("the damage was not found")
			}
			if running && p.FromPeers < 3*mib { // the other case connects anew, and may go out meanwhile
				t.Errorf("%d bytes from the peer, want all but a piece: %+v", p.FromPeers, p)
			}
			if bans := b.bans(g); len(bans) != 0 {
				t.Errorf("the honest device is banned: %v", bans)
			}
			if !running && b.status(g).Wrong != 0 {
				t.Errorf("%d wrong bytes reached the other device", b.status(g).Wrong)
			}
			a.get(g) // its own callers
			waitFor(t, "the damage to be mended", func() bool { return a.status(g).Held == int64(len(g.bytes)) })
		})
	}
}

// TestFlippedBitForCaller: what rots in a cache is not delivered, large files and small.
func TestFlippedBitForCaller(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := makeGoods(t, "app", map[string][]byte{"a": noise(1, mib), "b": noise(2, 3*mib)})
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	d.get(g)
	d.stop()
	d.flip(g, 0, 1)
	d.flip(g, 1, 2*mib)
	d.start()
	d.get(g)
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))+2*mib) {
		t.Errorf("the origin sent %d bytes, want the content and two pieces", sent)
	}
}

// TestHostileOrigin: whatever an origin sends, no wrong byte is placed; what passes is
// overcome, what stays is told.
func TestHostileOrigin(t *testing.T) {
	part := func(r *http.Request) (from, to int64) {
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		return from, to
	}
	tests := map[string]struct {
		spoil func(w http.ResponseWriter, from, to int64, b []byte)
		fails string // while it lasts; empty: it waits
	}{
		"truncated": {func(w http.ResponseWriter, from, to int64, b []byte) {
			head(w, from, to, int64(len(b)))
			w.Write(b[from : from+(to-from)/3])
		}, ""},
		"endless": {func(w http.ResponseWriter, from, to int64, b []byte) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(b)))
			w.WriteHeader(http.StatusPartialContent)
			for range 64 {
				if _, err := w.Write(b[:mib]); err != nil {
					return
				}
			}
		}, "other bytes than the manifest says"},
		"changed": {func(w http.ResponseWriter, _, _ int64, _ []byte) { w.WriteHeader(http.StatusConflict) }, "publish the content anew"},
		"another range": {func(w http.ResponseWriter, from, to int64, b []byte) {
			head(w, from+1, to, int64(len(b)))
			w.Write(b[from+1 : to+1])
		}, "publish the content anew"},
		"all of it": {func(w http.ResponseWriter, from, to int64, b []byte) { w.Write(append(b, 1)) }, "publish the content anew"},
		"shorter": {func(w http.ResponseWriter, from, to int64, b []byte) {
			head(w, from, to, int64(len(b))-1)
			w.Write(b[from : to+1])
		}, "publish the content anew"},
		"other bytes": {func(w http.ResponseWriter, from, to int64, b []byte) {
			head(w, from, to, int64(len(b)))
			w.Write(noise(0xff, int(to-from+1))) // no content here is made with this seed
		}, "publish the content anew"},
		"busy":    {func(w http.ResponseWriter, _, _ int64, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) }, ""},
		"a page":  {func(w http.ResponseWriter, _, _ int64, _ []byte) { io.WriteString(w, "<html>sign in</html>") }, "publish the content anew"},
		"no such": {func(w http.ResponseWriter, _, _ int64, _ []byte) { w.WriteHeader(http.StatusNotFound) }, ""},
	}
	f := newFleet(t)
	n := 0
	for name, test := range tests {
		n++
		local, seed := fmt.Sprintf("127.0.2.%d", n), byte(n)
		t.Run(name, func(t *testing.T) {
			f := &fleet{T: t, state: f.state, addr: f.addr, ca: f.ca, admin: f.admin}
			origin := f.newDP()
			g := makeGoods(t, "app-"+strings.ReplaceAll(name, " ", "-"), map[string][]byte{"f": noise(seed, 3*mib+11)})
			f.publish(g, origin)
			var spoiled atomic.Int64
			origin.spoiled(func(w http.ResponseWriter, r *http.Request, g *goods) bool {
				from, to := part(r)
				spoiled.Add(1)
				test.spoil(w, from, to, g.bytes)
				return true
			})
			d := f.device(local)
			w := d.begin(g.ref)
			if test.fails != "" {
				w.fails(g.ref.String(), test.fails)
			} else {
				waitFor(t, "a second try", func() bool { return spoiled.Load() > 1 })
				waitFor(t, "a reason", func() bool { return w.progress().Waits != "" || name == "truncated" })
				if err := sameFiles(w.dir, nil); err != nil && !strings.Contains(err.Error(), deliver.StagePrefix) {
					t.Error(err)
				}
			}
			origin.spoil.Store(nil)
			if test.fails != "" {
				d.get(g)
			} else {
				w.right(g)
			}
		})
	}
}

// TestChangingOrigin: an origin that changes in the middle never gives a mixed file; another
// origin that has the right bytes is used.
func TestChangingOrigin(t *testing.T) {
	f := newFleet(t)
	bad, good := f.newDP(), f.newDP()
	g := oneFile(t, "app", 6*mib)
	f.publish(g, bad, good)
	bad.spoiled(func(w http.ResponseWriter, r *http.Request, g *goods) bool {
		var from, to int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		head(w, from, to, int64(len(g.bytes)))
		bad.send(w, r, g.bytes[from:from+2*mib])
		bad.send(w, r, noise(8, int(to+1-from-2*mib)))
		return true
	})
	f.device("127.0.0.1").get(g)
}

// TestPosers: who has a certificate of another role, or of another CA, is not believed.
func TestPosers(t *testing.T) {
	f := newFleet(t)
	poser := f.newDPAs(identity.RoleDevice)
	g := oneFile(t, "app", 2*mib)
	f.publish(g, poser)
	d := f.device("127.0.0.1")
	w := d.begin(g.ref)
	waitFor(t, "the origin's certificate to be refused", func() bool { return strings.Contains(d.log.String(), "origin failed") })
	if _, asked := poser.counts(); asked != 0 {
		t.Errorf("an origin with a device's certificate was asked %d times", asked)
	}
	w.stop()
	w.fails("context canceled")

	posing := f.enrol("127.0.0.2", f.token("join"))
	posing.f = &fleet{T: t, addr: poser.ln.Addr().String(), state: f.state}
	posing.start()
	posing.begin(g.ref).fails("app@1", poser.ln.Addr().String(), "certificate")

	other := newFleet(t)
	lost := other.enrol("127.0.0.3", other.token("join"))
	lost.f = &fleet{T: t, addr: f.addr, state: f.state}
	lost.start()
	lost.begin(g.ref).fails("app@1", f.addr, "certificate")
}

func TestUnknownContent(t *testing.T) {
	f := newFleet(t)
	d := f.device("127.0.0.1")
	d.begin(content.Ref{ID: "nothing"}).fails("nothing")
	d.begin(content.Ref{ID: "nothing", Version: 7}).fails("nothing@7")
}

// TestFullCache: a content that has no room in the cache is refused by name, with the remedy,
// asks nobody again and again, and comes when there is room.
func TestFullCache(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	d := f.enrol("127.0.0.1", f.token(identity.TokenJoin))
	d.cacheBytes = mib
	d.start()
	err := d.begin(g.ref).fails("app@1", filepath.Join(d.state, "cache"), "raise the limit")
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("error %v, want %v", err, store.ErrFull)
	}
	if list, err := d.agent.dev.Store.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the cache holds %v, %v", list, err)
	}
	if _, asked := origin.counts(); asked != 0 {
		t.Errorf("the origin was asked %d times for what has no room", asked)
	}
	waitFor(t, "the share to end", func() bool { return d.agent.shareOf(g.parsed.HashOfHashes) == nil })
	d.stop()
	d.cacheBytes = 0
	d.start()
	d.get(g)
}

// TestReadOnlyDestination: the error names what failed.
func TestReadOnlyDestination(t *testing.T) {
	if _, err := os.Stat("/sys/kernel"); err != nil {
		t.Skip("no directory here that nobody may write to")
	}
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 1000)
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	if err := d.beginTo(g.ref, "/sys/kernel").wait(); err == nil || !contains(err, "staging directory in the destination") {
		t.Errorf("error %v", err)
	}
	d.get(g)
}

// TestWrongWholeFile: a manifest whose file hashes do not fit, though its pieces do, is refused
// by the publisher's server or by the device; nothing is placed.
func TestWrongWholeFile(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	d := f.device("127.0.0.1")
	for name, size := range map[string]int{"long": 2*mib + 1, "short": 1000} {
		g := makeGoods(t, name, map[string][]byte{"a": noise(1, 10), "wrong.bin": noise(2, size)})
		i := slices.IndexFunc(g.parsed.Files, func(f content.File) bool { return f.Name == "wrong.bin" })
		g.parsed.Files[i].SHA256[0] ^= 1
		g.manifest = content.AppendManifest(nil, g.parsed)
		origin.goods[g.digest().String()] = g
		_, err := f.admin.Publish(t.Context(), api.PublishRequest{Manifest: g.manifest, HashFile: g.hashes, Origins: []string{origin.url}})
		if err != nil {
			if !contains(err, "wrong.bin") {
				t.Errorf("%s: the server's error does not name the file: %v", name, err)
			}
			continue
		}
		d.begin(g.ref).fails("wrong.bin", "SHA-256")
	}
}

// TestRevoked: a device on the deny list is not let into a swarm, who is in it goes, and a restart
// while no service answers forgets nobody.
func TestRevoked(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", mib)
	f.publish(g, origin)
	rogue := f.member("127.0.0.9", g)
	a := f.device("127.0.0.1")
	a.get(g)
	inside := make(chan error, 1)
	go func() { inside <- rogue.dial(a) }()
	s := a.agent.shareOf(g.parsed.HashOfHashes)
	waitFor(t, "the rogue to be in the swarm", func() bool { return slices.Contains(s.Present(), rogue.id()) })
	f.want(f.admin.RevokeDevice(t.Context(), rogue.id().String()))
	<-a.agent.booted // the next look is a minute away
	f.want(a.agent.refreshDenied(t.Context()))
	select {
	case err := <-inside:
		f.want(err)
	case <-time.After(patience):
		t.Fatal("the rogue stays in the swarm")
	}
	refused := func(when string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if _, _, err := rogue.ep.Dial(ctx, a.swarmAddr(), rogue.hello()); err == nil {
			t.Errorf("the rogue was let in %s", when)
		}
	}
	refused("again")

	a.stop()
	f.stop()
	var err error
	a.creds, err = identity.LoadCredentials(filepath.Join(a.state, "identity"))
	f.want(err)
	a.start()
	refused("after a restart without services")
}
