package agent

import (
	"bytes"
	crand "crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/buffers"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/memnet"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/services"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// publisher signs contents, and is pinned for them.
type publisher struct {
	key  minisign.PrivateKey
	pins []string
	text string // of the public key
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	public, private, err := minisign.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{key: private, text: public.String()}
}

// sign signs goods for groups. The key is pinned for them.
func (p *publisher) sign(t *testing.T, g *goods, generation int64, groups ...string) []byte {
	t.Helper()
	p.pins = append(p.pins, string(g.ref.ID)+"="+p.text)
	terms := identity.Terms{Generation: generation, Groups: groups, Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
	signature, err := identity.SignFor(p.key, g.manifest, terms)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// pinned returns the settings of devices.
func (p *publisher) pinned() map[string]string {
	return map[string]string{"publisherKeys": strings.Join(p.pins, ",")}
}

// asks is what a distribution point was asked for, how often.
type asks struct {
	lsz, manifests, hashes atomic.Int64
	slow                   time.Duration // before it says what a content is
}

// register pins a publisher, and lets a distribution point register goods that it signed, and answer
// for them without the services. Its replies carry no manifest.
func (f *fleet) register(p *publisher, d *dp, g *goods, signature []byte) *asks {
	f.Helper()
	_, err := f.admin.SetSetting(f.Context(), api.Setting{Name: "publisherKeys", Value: p.pinned()["publisherKeys"]})
	f.want(err)
	services, err := client.New(client.Options{Address: f.addr, Credentials: d.creds})
	f.want(err)
	defer services.CloseIdle()
	_, err = services.Publish(f.Context(), api.PublishRequest{Manifest: g.manifest, HashFile: g.hashes, Origins: []string{d.url}, Signature: signature})
	f.want(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.goods[g.digest().String()] = g
	n, mux := &asks{}, http.NewServeMux()
	hashes := "pieceshash/" + g.parsed.HashOfHashes.String() + ".bin"
	mux.HandleFunc(fmt.Sprintf("POST /lsz/%s/{version}", g.ref.ID), func(w http.ResponseWriter, r *http.Request) {
		n.lsz.Add(1)
		select {
		case <-time.After(n.slow):
		case <-r.Context().Done():
		}
		w.Write(api.JSON(api.LszReply{
			ContentId: string(g.ref.ID), Version: g.ref.Version, Outcome: api.LszFits, Generation: 99, Size: g.parsed.Size,
			ManifestDigest: g.digest().String(), HashOfHashes: g.parsed.HashOfHashes.Base64(), PublisherSignature: signature,
			ManifestUrl: d.url + "metadata/" + g.digest().String(), PiecesHashFileUrl: d.url + hashes, ContentUrl: d.url + "bytes/" + g.digest().String(),
		}))
	})
	mux.HandleFunc("GET /metadata/"+g.digest().String(), func(w http.ResponseWriter, r *http.Request) {
		n.manifests.Add(1)
		w.Write(g.manifest)
	})
	mux.HandleFunc("GET /"+hashes, func(w http.ResponseWriter, r *http.Request) {
		n.hashes.Add(1)
		w.Write(g.hashes)
	})
	d.more = mux
	return n
}

// recordOf returns what a device keeps of goods.
func (d *device) recordOf(g *goods) records.Record {
	d.f.Helper()
	rec, err := d.agent.dev.Records.Get(d.f.Context(), g.digest())
	d.f.want(err)
	return rec
}

// TestUnservedSubnet: while no service answers, a subnet gets a signed content that none of its
// devices ever heard of. One of them asks outside what it is, one goes out for its bytes, all
// others ask these. A device that comes later gets it from them, and when services answer again
// all have their grants.
func TestUnservedSubnet(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	origin := f.newDP()
	g := oneFile(t, "app", 12*mib)
	asked := f.register(p, origin, g, p.sign(t, g, 5, identity.AllGroups))
	segment := &memnet.Segment{}
	var devices []*device
	for n := range 4 {
		d := f.onSegment(fmt.Sprintf("127.0.1.%d", n+1), segment, func(d *device) { d.set, d.leaseWait = p.pinned(), 6*time.Second })
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
		devices = append(devices, d)
	}
	f.stop()
	asked.slow = 3 * time.Second // longer than a turn of those who ask the subnet
	gets := []*getting{devices[0].begin(g.ref), devices[1].begin(g.ref)}
	waitFor(t, "the leader to say when it goes out", func() bool {
		for _, w := range gets {
			if strings.Contains(w.progress().Waits, "no array answers, going out in about 10 s") {
				return true
			}
		}
		return false
	})
	gets = append(gets, devices[2].begin(g.ref))
	fromOrigin := int64(0)
	for _, w := range gets {
		fromOrigin += w.right(g).FromOrigin
	}
	if size := int64(len(g.bytes)); fromOrigin != size {
		t.Errorf("%d bytes from the origin, want one copy of %d", fromOrigin, size)
	}
	if l, m, h := asked.lsz.Load(), asked.manifests.Load(), asked.hashes.Load(); l != 1 || m != 1 || h != 1 {
		t.Errorf("the distribution point was asked %d times what it is, %d times for the manifest, %d times for the hash file; want once each", l, m, h)
	}
	if w := devices[3].get(g); w.FromPeers != int64(len(g.bytes)) {
		t.Errorf("a device that came later got %d bytes from the others", w.FromPeers)
	}
	for _, d := range devices {
		if rec := d.recordOf(g); len(rec.Grant) > 0 || len(rec.Signature) == 0 || rec.Generation != 5 && rec.Generation != 99 {
			t.Errorf("a device keeps a grant of %d bytes, a signature of %d, generation %d", len(rec.Grant), len(rec.Signature), rec.Generation)
		}
	}
	f.serve()
	for _, d := range devices {
		s := d.agent.shareOf(g.parsed.HashOfHashes)
		s.LeaveOut([]wire.DeviceID{{}})
		s.LeaveOut(nil) // so that it joins now, and not when its time has come
	}
	waitFor(t, "grants", func() bool {
		for _, d := range devices {
			if rec := d.recordOf(g); len(rec.Grant) == 0 || len(rec.Signature) == 0 {
				return false
			}
		}
		return true
	})
}

// TestUnservedLater: who asks while the device that asked outside waits for the lease hears of it.
func TestUnservedLater(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	g := oneFile(t, "app", 2*mib)
	asked := f.register(p, f.newDP(), g, p.sign(t, g, 5, identity.AllGroups))
	segment := &memnet.Segment{}
	set := func(d *device) { d.set = p.pinned() }
	a, b := f.onSegment("127.0.1.1", segment, set), f.onSegment("127.0.1.2", segment, set)
	for _, d := range []*device{a, b} {
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
	}
	f.stop()
	first := a.begin(g.ref)
	waitFor(t, "the first one to lead", func() bool { return a.status(g).Role == "leading" })
	began := time.Now()
	second := b.begin(g.ref)
	waitFor(t, "the second one to follow", func() bool { return b.status(g).Role == "following" })
	if n, took := asked.lsz.Load(), time.Since(began); n != 1 || took > 8*time.Second {
		t.Errorf("the distribution point was asked %d times, and the second device followed after %v", n, took)
	}
	for _, w := range []*getting{first, second} {
		w.stop()
		w.fails("context canceled")
	}
}

// TestUnservedRestart: what came without services is there after a restart without them, and is given
// to others, as long as the key that signed it is pinned.
func TestUnservedRestart(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	g := oneFile(t, "app", 2*mib)
	f.register(p, f.newDP(), g, p.sign(t, g, 5, identity.AllGroups))
	segment := &memnet.Segment{}
	set := func(d *device) { d.set, d.leaseWait = p.pinned(), time.Millisecond }
	a, b := f.onSegment("127.0.1.1", segment, set), f.onSegment("127.0.1.2", segment, set)
	f.stop()
	a.get(g)
	a.stop()
	a.start()
	if w := a.get(g); w.FromCache != int64(len(g.bytes)) {
		t.Errorf("after a restart %d bytes are there", w.FromCache)
	}
	waitFor(t, "keys and a pass", func() bool { return a.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
	if w := b.get(g); w.FromPeers != int64(len(g.bytes)) {
		t.Errorf("the other device got %d bytes from it", w.FromPeers)
	}
	a.stop()
	a.set = nil
	a.start()
	w := a.begin(g.ref)
	waitFor(t, "what nobody vouches for any more to be turned down", func() bool {
		f := w.progress().Freshness
		return f != nil && f.Outcome == freshness.NotBelieved
	})
	w.stop()
	w.fails("context canceled")
}

// TestUnservedExpected: a device that expects an older issue than others of its subnet hold finds
// the one that holds it, while no service answers.
func TestUnservedExpected(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	old, next := issues(t)
	dp := f.newDP()
	segment := &memnet.Segment{}
	on := func(local, expected string) *device {
		d := f.onSegment(local, segment, func(d *device) {
			d.set = p.pinned()
			if expected != "" {
				d.expects(expected)
			}
		})
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
		return d
	}
	f.register(p, dp, old, p.sign(t, old, 5, identity.AllGroups))
	signed := p.sign(t, next, 6, identity.AllGroups)
	document := documentOf(old, content.SHA256Algorithm)
	a, d := on("127.0.1.1", document), on("127.0.1.3", document)
	a.get(old)
	f.register(p, dp, next, signed)
	b := on("127.0.1.2", "")
	b.get(next)
	waitFor(t, "the first device to serve what it expects", func() bool { _, serves := a.holds(old); return serves })
	f.stop()
	if w := d.get(old); w.FromPeers+w.FromCache != w.Size || w.FromOrigin != 0 {
		t.Errorf("%d bytes came from devices and %d from the distribution point, want all %d of what is expected from devices", w.FromPeers, w.FromOrigin, w.Size)
	}
	if !strings.Contains(d.log.String(), "device="+a.id().String()) {
		t.Errorf("the content was not named by the device that holds it")
	}
}

// TestUnservedUnknown: where nobody can say what a content is, or nobody vouches for it, there is
// an error that names what to do.
func TestUnservedUnknown(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", 2*mib)
	f.publish(g, f.newDP())
	holder := f.onSegment("127.0.1.1", &memnet.Segment{}, nil)
	holder.get(g)
	lonely := f.device("127.0.0.1")
	f.stop()
	lonely.begin(g.ref).fails("app@1 is not known here", f.addr, "--sign", "publisherKeys")
}

// TestUnservedUnsigned: what a distribution point names, and nobody signed, waits with the reason.
func TestUnservedUnsigned(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", 2*mib)
	f.register(&publisher{}, f.newDP(), g, nil)
	d := f.device("127.0.0.1")
	<-d.agent.booted // it has heard of the distribution point
	f.stop()
	w := d.begin(g.ref)
	waitFor(t, "the reason", func() bool { return strings.HasPrefix(w.progress().Waits, "not-believed: ") })
	if entry, _ := d.holds(g); entry {
		t.Error("what nobody vouches for has become an entry")
	}
	w.stop()
	w.fails("context canceled")
}

// TestSignatureStandsForGrant: who shows no grant is let in where a publisher's signature stands for
// one, by its group, while it is not banned; and learns nothing where it does not.
func TestSignatureStandsForGrant(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	point := f.newDP()
	g, plain := oneFile(t, "app", 2*mib), oneFile(t, "plain", 2*mib)
	f.register(p, point, g, p.sign(t, g, 5, identity.AllGroups))
	f.publish(plain, point)
	a := f.enrol("127.0.0.1", f.token(identity.TokenJoin))
	a.set = p.pinned()
	a.start()
	for _, c := range []*goods{g, plain} {
		a.get(c)
	}
	friend := f.enrol("127.0.0.2", f.token(identity.TokenJoin))
	banned := f.enrol("127.0.0.3", f.token(identity.TokenJoin))
	foreign := f.enrol("127.0.0.4", f.groupToken("office"))
	f.want(a.agent.dev.Store.Ban(t.Context(), store.Ban{Device: banned.id().String(), Digest: g.digest(), Until: a.creds.Expires()}))
	for _, c := range []struct {
		name string
		who  *device
		g    *goods
		in   bool
	}{
		{"of the group", friend, g, true}, {"of another group", foreign, g, false}, {"banned", banned, g, false},
		{"unsigned", friend, plain, false}, {"not here", friend, oneFile(t, "elsewhere", mib), false},
	} {
		got, _ := knock(t, a, c.who.creds, peer.Hello{HashOfHashes: c.g.parsed.HashOfHashes, Device: c.who.id()})
		if (len(got) > 0) != c.in {
			t.Errorf("%s: %d bytes came, want some: %v", c.name, len(got), c.in)
		}
	}
	hello := peer.Hello{HashOfHashes: g.parsed.HashOfHashes, Device: friend.id()}
	bare := f.enrol("127.0.0.5", f.token(identity.TokenJoin))
	bare.set = p.pinned()
	bare.set["plainSwarm"] = "true"
	bare.start()
	bare.get(g)
	if _, err := bare.agent.admit(friend.creds.Name(), hello); err == nil {
		t.Error("without TLS somebody is let in without a grant")
	}
	s, keys := a.agent.shareOf(g.parsed.HashOfHashes), identity.PublishersOf(a.agent.opt.Settings)
	if err := s.Vouches(keys, identity.Reader{Group: services.DefaultGroup, Now: time.Now().Add(2 * time.Hour)}); err == nil {
		t.Error("a signature that is expired stands for a grant")
	}
	rec := s.Record()
	rec.Signature = nil
	s.Update(rec)
	if err := s.Vouches(keys, identity.Reader{Group: services.DefaultGroup, Now: time.Now()}); err != nil {
		t.Errorf("a later word on the same manifest takes its signature away: %v", err)
	}
	rec.Signature = p.sign(t, g, 6, "office")
	s.Update(rec)
	if _, err := a.agent.admit(friend.creds.Name(), hello); err == nil {
		t.Error("a signature for another group stands for a grant")
	}
}

// TestDialledWithoutGrant: a device that was dialled needs no grant where the bytes are known from
// Content Policy; one that dials does, unless they are signed.
func TestDialledWithoutGrant(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", 2*mib)
	f.publish(g, f.newDP())
	a := f.device("127.0.0.1")
	a.get(g)
	name := f.enrol("127.0.0.2", f.token(identity.TokenJoin)).creds.Name()
	foreign := f.enrol("127.0.0.3", f.groupToken("office")).creds.Name()
	hello := func(n identity.Name) peer.Hello {
		return peer.Hello{HashOfHashes: g.parsed.HashOfHashes, Device: n.Device}
	}
	m := &teller{device: f.enrol("127.0.0.4", f.token(identity.TokenJoin))}
	s := a.agent.shareOf(g.parsed.HashOfHashes)
	c, _, err := a.agent.endpoint.Dial(t.Context(), m.listen().String(), s.Hello())
	if err != nil {
		t.Fatalf("who was dialled is turned away: %v", err)
	}
	c.Close()
	if err := a.agent.admitDialled(foreign, hello(foreign)); err == nil {
		t.Error("a device of another group is let in")
	}
	if _, err := a.agent.admit(name, hello(name)); err == nil {
		t.Error("who dials without a grant is let in")
	}
}

// teller is a member that says of a content what it wants to.
type teller struct {
	*device
	ep        peer.Endpoint
	signature []byte
	manifest  []byte
}

// Layout implements peer.Handler.
func (m *teller) Layout() *content.Layout { return nil }

// Run implements peer.Handler.
func (m *teller) Run(_ *peer.Conn, _ int, b []byte) { m.ep.Receive.Put(b) }

// Message implements peer.Handler.
func (m *teller) Message(c *peer.Conn, w wire.Message) {
	t, rest, err := wire.ParseEnvelope(w.Body)
	if w.Kind != wire.Envelope || err != nil {
		return
	}
	off, err := wire.ParseGet(t, rest)
	if err != nil {
		return
	}
	all := map[wire.Type][]byte{wire.GetSignature: m.signature, wire.GetManifest: m.manifest}[t]
	p := wire.Part{Of: t, Offset: off, Total: uint64(len(all))}
	if rest := all[min(off, p.Total):]; len(rest) > 0 {
		p.Frame = metadata.Pack(rest[:min(len(rest), 100)])
	}
	c.Post(func(b []byte) []byte { return wire.AppendPart(b, p) })
}

// listen serves the swarm port, and returns where that is.
func (m *teller) listen() netip.AddrPort {
	m.f.Helper()
	m.ep = peer.Endpoint{
		Self: m.id(), Credentials: m.creds, Receive: buffers.New(1), Send: buffers.New(1),
		Admit: func(_ identity.Name, theirs peer.Hello) (peer.Hello, error) {
			return peer.Hello{HashOfHashes: theirs.HashOfHashes, Device: m.id()}, nil
		},
	}
	ln, err := net.Listen("tcp", netip.AddrPortFrom(m.local, 0).String())
	m.f.want(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			if c, _, err := m.ep.Answer(m.f.Context(), raw); err == nil {
				c.Run(m.f.Context(), m) // ends when the other end closes
			}
		}
	}()
	m.f.Cleanup(func() { ln.Close(); <-ended })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// knowing gives a device a client to which these distribution points were named last.
func (d *device) knowing(origins ...string) {
	d.f.Helper()
	dir := d.f.TempDir()
	last := struct{ KeyValue api.KeyValue }{api.KeyValue{Origins: origins}}
	d.f.want(os.WriteFile(filepath.Join(dir, "services.json"), api.JSON(last), 0o600))
	c, err := client.New(client.Options{Address: d.f.addr, Credentials: d.creds, Local: d.local, CacheDir: dir})
	d.f.want(err)
	d.f.Cleanup(c.CloseIdle)
	d.agent.opt.Client = c
}

// TestHoldersSay: what devices hold is taken by what their publisher signed, and by nothing that
// they say themselves. The newest issue counts.
func TestHoldersSay(t *testing.T) {
	f, p := newFleet(t), newPublisher(t)
	old, next := issues(t)
	other := oneFile(t, "other", mib)
	signed, newer, strange := p.sign(t, old, 5, identity.AllGroups), p.sign(t, next, 6, identity.AllGroups), p.sign(t, other, 9, identity.AllGroups)
	a := f.onSegment("127.0.1.1", &memnet.Segment{}, func(d *device) { d.set = p.pinned() })
	a.knowing("https://dp1.example:7444/", "https://dp2.example")

	said := map[string]struct {
		g         *goods
		signature []byte
		manifest  []byte
		say       string
	}{
		"old":           {old, signed, old.manifest, ""},
		"newer":         {next, newer, next.manifest, ""},
		"unsigned":      {next, nil, next.manifest, "no publisher signed"},
		"no manifest":   {next, newer, nil, "not have the manifest yet"},
		"another one":   {next, newer, old.manifest, "not the one that it named"},
		"another's":     {next, signed, next.manifest, "is not pinned"},
		"another id":    {other, strange, other.manifest, "is of other@1"},
		"altered":       {next, append([]byte("x"), newer...), next.manifest, "signature"},
		"for office":    {next, p.sign(t, next, 7, "office"), next.manifest, "for groups"},
		"no signature'": {next, bytes.Repeat([]byte("no"), 300), next.manifest, "signature"},
	}
	holdings := map[string]subnet.Holding{}
	for name, s := range said {
		m := &teller{device: f.enrol("127.0.1.7", f.token(identity.TokenJoin)), signature: s.signature, manifest: s.manifest}
		at := m.listen()
		h := subnet.Holding{Swarm: at}
		h.Device, h.HashOfHashes, h.Manifest, h.Generation = m.id(), s.g.parsed.HashOfHashes, s.g.digest(), 1000
		holdings[name] = h
		rec, err := a.agent.recordOf(t.Context(), &h, old.ref)
		if s.say != "" && (err == nil || !strings.Contains(err.Error(), s.say)) || s.say == "" && err != nil {
			t.Errorf("%s: %v, want it to say %q", name, err, s.say)
		}
		if err == nil && (rec.Size != s.g.parsed.Size || rec.Ref != old.ref || rec.Generation != map[string]int64{"old": 5, "newer": 6}[name] ||
			!bytes.Equal(rec.Inline, s.manifest) || !rec.Peerable || len(rec.Grant) > 0) {
			t.Errorf("%s: the record is of %s, generation %d, %d bytes", name, rec.Ref, rec.Generation, rec.Size)
		}
		if err == nil && rec.ContentURLs[0] != "https://dp1.example:7444/bytes/"+s.g.digest().String() ||
			err == nil && rec.HashFileURLs[1] != "https://dp2.example/pieceshash/"+s.g.parsed.HashOfHashes.String()+".bin" {
			t.Errorf("%s: bytes are at %q, hash files at %q", name, rec.ContentURLs, rec.HashFileURLs)
		}
	}
	var err error
	rec, from, ok := a.agent.signedBy(t.Context(), []subnet.Holding{holdings["old"], holdings["another one"], holdings["newer"], {}}, old.ref)
	if !ok || rec.Manifest != next.digest() || from != holdings["newer"].Device {
		t.Errorf("of all that is held, generation %d of %v is taken, %v", rec.Generation, from, ok)
	}
	a.agent.opt.Settings, err = policy.Resolve()
	f.want(err)
	h := holdings["old"]
	if _, err := a.agent.recordOf(t.Context(), &h, old.ref); err == nil || !strings.Contains(err.Error(), "no pinned key") {
		t.Errorf("of a publisher that is not pinned: %v", err)
	}
	foreign := &teller{device: f.enrol("127.0.1.8", f.groupToken("office")), signature: signed, manifest: old.manifest}
	h.Swarm = foreign.listen()
	if _, err := a.agent.recordOf(t.Context(), &h, old.ref); err == nil {
		t.Error("a device of another group is asked")
	}
}
