package agent

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/memnet"
	"freshet/internal/origin"
	"freshet/internal/peer"
	"freshet/internal/services"
	"freshet/internal/wire"
)

// point is a real distribution point.
type point struct {
	f    *fleet
	root string
	log  *logged
}

// newPoint starts a distribution point of goods, and waits until the catalog names them.
func (f *fleet) newPoint(g *goods) *point {
	f.Helper()
	p := &point{f: f, root: f.TempDir(), log: &logged{}}
	p.place(g)
	defer f.names(g)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- origin.Run(ctx, origin.Options{
			State: filepath.Join(f.TempDir(), "dp"), Listen: "127.0.0.1:0", Root: p.root,
			Join: services.TokenFile(f.state, identity.TokenOrigin),
			Log:  slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	f.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			f.Errorf("distribution point: %v", err)
		}
		if f.Failed() {
			f.Logf("the distribution point says:\n%s", p.log)
		}
	})
	return p
}

// place writes the files of goods. Sizes and times stay as they were, so that nobody but who
// reads them sees that they changed.
func (p *point) place(g *goods) {
	p.f.Helper()
	at := time.Unix(1_700_000_000, 0)
	for name, b := range g.files {
		path := filepath.Join(p.root, string(g.ref.ID), "1", name)
		p.f.want(os.MkdirAll(filepath.Dir(path), 0o755))
		p.f.want(os.WriteFile(path, b, 0o644))
		p.f.want(os.Chtimes(path, at, at))
	}
}

// readings counts how often the point read a content again.
func (p *point) readings() int { return strings.Count(p.log.String(), "content is read again") }

// names waits until the catalog names goods.
func (f *fleet) names(g *goods) {
	f.Helper()
	waitFor(f.T, "the catalog to name the content", func() bool {
		list, err := f.admin.Contents(f.Context())
		f.want(err)
		for _, c := range list {
			if c.ManifestDigest == g.digest().String() {
				return true
			}
		}
		return false
	})
}

// issues returns two issues of a content: five MiB of which one changes.
func issues(t *testing.T) (old, next *goods) {
	t.Helper()
	big, patch := noise(1, 4*mib), noise(2, mib)
	old = makeGoods(t, "app", map[string][]byte{"big": big, "patch": patch})
	next = makeGoods(t, "app", map[string][]byte{"big": big, "patch": noise(3, mib)})
	return old, next
}

// documentOf is the document of a management system for goods.
func documentOf(g *goods, alg content.Algorithm, names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<Content ContentId=%q Version=\"1\">\n", g.ref.ID)
	for _, f := range g.parsed.Files {
		if len(names) > 0 && !slices.Contains(names, f.Name) {
			continue
		}
		h := content.NewFileHasher()
		h.Write(g.files[f.Name])
		sum, _ := h.Sum(f.Name, false)
		digest := hex.EncodeToString(sum.SHA256[:])
		if alg == content.SHA1Algorithm {
			digest = sum.SHA1.String()
		}
		fmt.Fprintf(&b, "<FileContent Name=%q Hash=%q HashAlgorithm=%q Size=\"%d\"/>\n", f.Name, strings.ToUpper(digest), alg, f.Size)
	}
	return b.String() + "</Content>\n"
}

// expects lets a device expect the files of goods, from its directory of metadata.
func (d *device) expects(text string) {
	d.f.Helper()
	dir := filepath.Join(d.state, "metadata")
	if d.set == nil {
		d.set = map[string]string{}
	}
	d.set["metadataDirectory"] = dir
	d.f.want(os.MkdirAll(dir, 0o755))
	d.f.want(os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o644))
	d.f.want(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "app.xml")))
}

// expecting starts a device that expects a text.
func (f *fleet) expecting(local, text string, settings ...string) *device {
	f.Helper()
	d := f.enrol(local, f.token(identity.TokenJoin))
	d.look = 20 * time.Millisecond
	d.set = map[string]string{}
	for i := 0; i < len(settings); i += 2 {
		d.set[settings[i]] = settings[i+1]
	}
	if text != "" {
		d.expects(text)
	}
	d.start()
	return d
}

// holds reports whether the device has an entry of goods, and serves it.
func (d *device) holds(g *goods) (entry, serves bool) {
	d.f.Helper()
	e, err := d.agent.dev.Store.Get(g.digest())
	switch {
	case err == nil:
		e.Release()
	case !errors.Is(err, fs.ErrNotExist):
		d.f.Fatal(err)
	}
	s := d.agent.shareOf(g.parsed.HashOfHashes)
	return err == nil, s != nil && !s.OnHold() && !s.Stopped()
}

// waits waits until the download says why it waits.
func (g *getting) waits(code freshness.Outcome) {
	g.d.f.Helper()
	waitFor(g.d.f.T, "the download to wait for "+code.String(), func() bool {
		select {
		case err := <-g.err:
			g.d.f.Fatalf("the download ended: %v", err)
		default:
		}
		return strings.HasPrefix(g.progress().Waits, code.String()+": ")
	})
}

// TestReissued: a content changes under its id and version. A device whose metadata is of the new
// files gets them, and the stale holder stops at once, though the services never told it; what
// did not change it fetches nowhere again.
func TestReissued(t *testing.T) {
	f := newFleet(t)
	old, next := issues(t)
	dp := f.newPoint(old)
	holder := f.device("127.0.0.2")
	holder.get(old)
	dp.place(next)
	d := f.expecting("127.0.0.1", documentOf(next, content.SHA1Algorithm))
	p := d.get(next)
	if p.Freshness == nil || p.Freshness.Outcome != freshness.OK {
		t.Errorf("the finding is %+v", p.Freshness)
	}
	told := time.Now()
	waitFor(t, "the stale holder to stop", func() bool { entry, serves := holder.holds(old); return !entry && !serves })
	if took := time.Since(told); took > 2*2*time.Second { // twice the figure: the machine may be busy
		t.Errorf("the stale holder stopped after %s", took)
	}
	if n := dp.readings(); n != 1 {
		t.Errorf("the distribution point read its files %d times", n)
	}
	if p := holder.get(next); p.FromCache < 4*mib || p.FromPeers+p.FromOrigin > mib {
		t.Errorf("the holder got %d bytes from its cache, and %d from elsewhere; four of five MiB did not change", p.FromCache, p.FromPeers+p.FromOrigin)
	}
	list, err := f.admin.Contents(t.Context())
	f.want(err)
	if len(list) != 1 || list[0].ManifestDigest != next.digest().String() {
		t.Errorf("the catalog has %+v", list)
	}
}

// TestOwnStaleCopy: the device itself holds the old issue; its metadata changes.
func TestOwnStaleCopy(t *testing.T) {
	f := newFleet(t)
	old, next := issues(t)
	dp := f.newPoint(old)
	d := f.expecting("127.0.0.1", documentOf(old, content.SHA256Algorithm))
	d.get(old)
	dp.place(next)
	d.expects(documentOf(next, content.SHA256Algorithm))
	if p := d.get(next); p.FromOrigin > mib {
		t.Errorf("%d bytes came from the origin, one MiB changed", p.FromOrigin)
	}
	waitFor(t, "the old copy to go", func() bool { entry, _ := d.holds(old); return !entry })
	d.stop()
	d.start()
	if entry, serves := d.holds(old); entry || serves {
		t.Error("the old copy is back after a restart")
	}
	d.get(next)
}

// TestOldMetadata: a device whose metadata is the old one waits, with the reason; nobody who has
// the new files deletes them or stops serving. New metadata lets it go on at once.
func TestOldMetadata(t *testing.T) {
	f := newFleet(t)
	old, next := issues(t)
	f.newPoint(next)
	var holders []*device
	for _, local := range []string{"127.0.0.2", "127.0.0.3"} {
		h := f.device(local)
		h.get(next)
		holders = append(holders, h)
	}
	d := f.expecting("127.0.0.1", documentOf(old, content.SHA1Algorithm))
	w := d.begin(old.ref)
	w.waits(freshness.OriginStale)
	p := w.progress()
	if p.Phase != "waiting" || p.Freshness == nil || p.Freshness.Outcome != freshness.OriginStale || !slices.Equal(p.Freshness.Changed, []string{"patch"}) {
		t.Errorf("progress %+v, finding %+v", p, p.Freshness)
	}
	list, err := d.agent.Status(t.Context())
	f.want(err)
	if len(list) != 1 || !strings.HasPrefix(list[0].Waits, "origin-stale: ") || list[0].Freshness == nil {
		t.Errorf("status %+v", list)
	}
	if entry, _ := d.holds(next); entry {
		t.Error("a manifest that was turned down has become an entry")
	}
	for _, h := range holders {
		if entry, serves := h.holds(next); !entry || !serves {
			t.Errorf("device %s: entry %t, serves %t", h.local, entry, serves)
		}
	}
	d.expects(documentOf(next, content.SHA1Algorithm))
	if p := w.right(next); p.FromPeers == 0 {
		t.Errorf("progress %+v: nothing came from those who have it", p)
	}
	listed, err := f.admin.Contents(t.Context())
	f.want(err)
	if listed[0].Differs != 1 {
		t.Errorf("the catalog was told by %d devices that they expect other files", listed[0].Differs)
	}
}

// TestForcedOnce: the distribution point is stale; it reads its files once for all who ask.
func TestForcedOnce(t *testing.T) {
	f := newFleet(t)
	old, next := issues(t)
	dp := f.newPoint(old)
	var all []*device
	for i := range 5 {
		all = append(all, f.expecting(fmt.Sprintf("127.0.0.%d", i+1), documentOf(next, content.SHA1Algorithm)))
	}
	dp.place(next)
	var gets []*getting
	for _, d := range all {
		gets = append(gets, d.begin(next.ref))
	}
	for _, w := range gets {
		w.right(next)
	}
	if n := dp.readings(); n != 1 {
		t.Errorf("the distribution point read its files %d times for five devices", n)
	}
}

// TestSubsetIsNoAlarm: under subset a content may hold more than is expected.
func TestSubsetIsNoAlarm(t *testing.T) {
	f := newFleet(t)
	g, _ := issues(t)
	dp := f.newPoint(g)
	holder := f.device("127.0.0.2")
	holder.get(g)
	d := f.expecting("127.0.0.1", documentOf(g, content.SHA1Algorithm, "big"), "metadataMatch", "subset")
	d.get(g)
	if n := dp.readings(); n != 0 {
		t.Errorf("the distribution point read its files %d times", n)
	}
	if entry, serves := holder.holds(g); !entry || !serves {
		t.Error("the holder does not serve any more")
	}
	exact := f.expecting("127.0.0.3", documentOf(g, content.SHA1Algorithm, "big"))
	w := exact.begin(g.ref)
	w.waits(freshness.OriginStale)
	if f := w.progress().Freshness; f == nil || !slices.Equal(f.Extra, []string{"patch"}) {
		t.Errorf("exact: finding %+v", f)
	}
}

// withoutSHA1 is goods as a publisher makes them who takes no SHA-1.
func withoutSHA1(t *testing.T, g *goods) *goods {
	t.Helper()
	bare := *g
	m := *g.parsed
	m.Files = slices.Clone(m.Files)
	for i := range m.Files {
		m.Files[i].SHA1 = content.SHA1{}
	}
	bare.parsed, bare.manifest = &m, content.AppendManifest(nil, &m)
	return &bare
}

// TestBytesDecide: a manifest without SHA-1 against metadata with nothing else. What fits is
// delivered, what does not is not.
func TestBytesDecide(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	old, next := issues(t)
	g := withoutSHA1(t, next)
	f.publish(g, dp)
	d := f.expecting("127.0.0.1", documentOf(next, content.SHA1Algorithm))
	if p := d.get(g); p.Freshness == nil || p.Freshness.Outcome != freshness.OK {
		t.Errorf("finding %+v", p.Freshness)
	}
	other := f.expecting("127.0.0.2", documentOf(old, content.SHA1Algorithm))
	w := other.begin(g.ref)
	w.waits(freshness.OriginUnavailable)
	if f := w.progress().Freshness; f == nil || !slices.Equal(f.Changed, []string{"patch"}) {
		t.Errorf("finding %+v", f)
	}
	if err := sameFiles(w.dir, nil); err != nil {
		t.Errorf("what does not fit was delivered: %v", err)
	}
	if entry, _ := d.holds(g); !entry {
		t.Error("the device that has what it expects lost it")
	}
}

// claiming is goods with a manifest that claims the SHA-1s of others.
func (g *goods) claiming(other *goods) *goods {
	liar := *g
	m := *g.parsed
	m.Files = slices.Clone(m.Files)
	for i := range m.Files {
		m.Files[i].SHA1 = other.parsed.Files[i].SHA1
	}
	liar.parsed, liar.manifest = &m, content.AppendManifest(nil, &m)
	return &liar
}

// TestFalseSHA1: a manifest that claims the metadata's SHA-1s, with other bytes, is never
// delivered: in files of one piece and of several, without the check that callers may leave out,
// from the device's own cache, and in simple mode.
func TestFalseSHA1(t *testing.T) {
	of := func(file, other []byte) *goods {
		return makeGoods(t, "app", map[string][]byte{"a/one": file, "b/other": other, "c": noise(9, 3*mib)})
	}
	small, large := noise(1, 700), noise(2, 2*mib)
	for name, x := range map[string]struct {
		right, wrong *goods
		changed      string
		simple       bool
	}{
		"one piece":      {of(small, large), of(noise(3, 700), large), "a/one", false},
		"several pieces": {of(small, large), of(small, noise(4, 2*mib)), "b/other", false},
		"simple mode":    {of(small, large), of(small, noise(4, 2*mib)), "b/other", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			dp := f.newDP()
			g := x.wrong.claiming(x.right)
			f.publish(g, dp)
			d := f.enrol("127.0.0.1", f.token(identity.TokenJoin))
			if x.simple {
				f.lose(g)
				d.patience = soon
			}
			d.start()
			d.get(g) // nothing is expected
			docs, err := expected.Parse(strings.NewReader(documentOf(x.right, content.SHA1Algorithm)))
			f.want(err)
			fresh := f.enrol("127.0.0.2", f.token(identity.TokenJoin))
			fresh.patience = d.patience
			fresh.start()
			for _, d := range []*device{d, fresh} {
				for _, r := range []Request{{Ref: g.ref, Expect: docs}, {Ref: g.ref, Expect: docs, NoCheck: true}} {
					w := d.beginWith(r)
					w.waits(freshness.OriginUnavailable)
					if f := w.progress().Freshness; f == nil || !slices.Equal(f.Changed, []string{x.changed}) {
						t.Errorf("finding %+v", f)
					}
					if err := sameFiles(w.dir, nil); err != nil {
						t.Errorf("what does not fit was delivered: %v", err)
					}
				}
			}
			list, err := f.admin.Contents(t.Context())
			f.want(err)
			if len(list) != 1 || list[0].Differs != 2 {
				t.Errorf("the catalog has %+v", list)
			}
		})
	}
}

// TestFalseSHA256: a manifest that claims the metadata's SHA-256 with the pieces of other bytes is
// not delivered either, though the caller leaves the check to the pieces.
func TestFalseSHA256(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	right, wrong := oneFile(t, "app", 2*mib), makeGoods(t, "app", map[string][]byte{"file.bin": noise(9, 2*mib)})
	m := *wrong.parsed
	m.Files = slices.Clone(m.Files)
	m.Files[0].SHA256 = right.parsed.Files[0].SHA256
	wrong.parsed, wrong.manifest = &m, content.AppendManifest(nil, &m)
	f.publish(wrong, dp)
	docs, err := expected.Parse(strings.NewReader(documentOf(right, content.SHA256Algorithm)))
	f.want(err)
	d := f.device("127.0.0.1")
	d.beginWith(Request{Ref: wrong.ref, Expect: docs, NoCheck: true}).fails(`the SHA-256 of "file.bin"`)
}

// TestUnreadMetadata: while the metadata cannot be read nobody knows what fits.
func TestUnreadMetadata(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	g, _ := issues(t)
	f.publish(g, dp)
	whole := documentOf(g, content.SHA1Algorithm)
	d := f.expecting("127.0.0.1", whole[:len(whole)-5])
	w := d.begin(g.ref)
	w.waits(freshness.ExpectedUnread)
	d.expects(whole)
	w.right(g)
	reporting := f.expecting("127.0.0.2", whole[:len(whole)-5], "metadataValidation", "report")
	reporting.get(g)
	off := f.expecting("127.0.0.3", whole[:len(whole)-5], "metadataValidation", "off")
	off.get(g)
}

// TestReport: what does not fit is used, and reported.
func TestReport(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	old, next := issues(t)
	f.publish(next, dp)
	d := f.expecting("127.0.0.1", documentOf(old, content.SHA1Algorithm), "metadataValidation", "report")
	if p := d.get(next); p.Freshness == nil || p.Freshness.Outcome != freshness.ExpectedDiffers || len(p.Freshness.Changed) != 1 {
		t.Errorf("finding %+v", p.Freshness)
	}
	waitFor(t, "the catalog to be told", func() bool {
		list, err := f.admin.Contents(t.Context())
		f.want(err)
		return len(list) == 1 && list[0].Differs == 1
	})
}

// TestMetadataOfTheCaller: what a caller brings decides for that download alone.
func TestMetadataOfTheCaller(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	old, next := issues(t)
	f.publish(next, dp)
	ask := func(d *device, text string) *getting {
		docs, err := expected.Parse(strings.NewReader(text))
		f.want(err)
		return d.beginWith(Request{Ref: next.ref, Expect: docs})
	}
	d := f.device("127.0.0.1")
	ask(d, documentOf(old, content.SHA256Algorithm)).waits(freshness.OriginUnavailable)
	ask(d, documentOf(next, content.SHA256Algorithm)).right(next)
	d.get(next)
	other := strings.ReplaceAll(documentOf(next, content.SHA256Algorithm), `"app"`, `"other"`)
	ask(d, other).fails("says nothing of app@1")
	off := f.expecting("127.0.0.2", "", "metadataValidation", "off")
	ask(off, documentOf(next, content.SHA256Algorithm)).fails("metadataValidation is off")
}

// TestUnsigned: where a signature is required, nothing unsigned is taken, whoever names it.
func TestUnsigned(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	g, _ := issues(t)
	f.publish(g, dp)
	d := f.expecting("127.0.0.1", "", "requireSignature", "true")
	w := d.begin(g.ref)
	w.waits(freshness.Unsigned)
	if entry, _ := d.holds(g); entry {
		t.Error("an unsigned manifest has become an entry")
	}
}

// hints is a member that sends Validate Metadata.
type hints struct {
	*member
	acks chan freshness.Ack
}

func (h *hints) Message(c *peer.Conn, m wire.Message) {
	if m.Kind == wire.Envelope {
		if kind, rest, err := wire.ParseEnvelope(m.Body); err == nil && kind == wire.Acknowledge {
			if a, err := wire.ParseAck(rest); err == nil && a.Of == wire.ValidateMetadata {
				ack, err := freshness.ParseAck(a.Body)
				h.f.want(err)
				h.acks <- ack
			}
			return
		}
	}
	h.member.Message(c, m)
}

// send tells a device something, and returns its acknowledgement.
func (h *hints) send(d *device, v wire.Validate) freshness.Ack {
	h.f.Helper()
	c, _, err := h.ep.Dial(h.f.Context(), d.swarmAddr(), h.hello())
	h.f.want(err)
	defer c.Close()
	done := make(chan struct{})
	go func() { defer close(done); c.Run(h.f.Context(), h) }()
	defer func() { c.Close(); <-done }()
	body := wire.AppendValidate(nil, v)
	c.Post(func(b []byte) []byte { return wire.AppendValidateMetadata(b, body) })
	select {
	case ack := <-h.acks:
		return ack
	case <-time.After(patience):
		h.f.Fatal("no acknowledgement")
		return 0
	}
}

// TestLiar: a member calls good content stale. The device checks once, keeps it, serves again,
// and does not listen to it any more.
func TestLiar(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	g, other := issues(t)
	f.publish(g, dp)
	d := f.device("127.0.0.1")
	d.get(g)
	liar := &hints{f.member("127.0.0.9", g), make(chan freshness.Ack, 4)}
	wrong := wire.Validate{Ref: g.ref, Rejected: g.digest()}
	if ack := liar.send(d, wrong); ack != freshness.AckChecking {
		t.Errorf("the first lie: %s", ack)
	}
	waitFor(t, "the device to serve again", func() bool { entry, serves := d.holds(g); return entry && serves })
	wanted, err := other.parsed.MetadataHash(content.SHA256Algorithm)
	f.want(err)
	if ack := liar.send(d, wire.Validate{Ref: g.ref, Algorithm: content.SHA256Algorithm, Wanted: wanted}); ack != freshness.AckIgnored {
		t.Errorf("the second lie: %s", ack)
	}
	honest := &hints{f.member("127.0.0.8", g), make(chan freshness.Ack, 4)}
	if ack := honest.send(d, wrong); ack != freshness.AckKept {
		t.Errorf("the same from another one: %s", ack)
	}
	if ack := honest.send(d, wire.Validate{Ref: g.ref, Rejected: other.digest()}); ack != freshness.AckNothing {
		t.Errorf("what the device does not hold: %s", ack)
	}
	if entry, serves := d.holds(g); !entry || !serves {
		t.Errorf("entry %t, serves %t", entry, serves)
	}
	if p := f.device("127.0.0.2").get(g); p.FromPeers != p.Size {
		t.Errorf("%d of %d bytes came from the device that was lied to", p.FromPeers, p.Size)
	}
}

// TestQuarantine: a copy that is being checked is served to nobody, over a restart too, and is
// again when it is released.
func TestQuarantine(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	g, _ := issues(t)
	f.publish(g, dp)
	d := f.device("127.0.0.1")
	d.get(g)
	liar := &hints{f.member("127.0.0.9", g), make(chan freshness.Ack, 4)}
	f.stop() // nobody answers what the device asks
	d.joined(g)
	if ack := liar.send(d, wire.Validate{Ref: g.ref, Rejected: g.digest()}); ack != freshness.AckChecking {
		t.Fatalf("acknowledged as %s", ack)
	}
	waitFor(t, "the quarantine", func() bool { entry, serves := d.holds(g); return entry && !serves })
	if _, _, err := liar.ep.Dial(t.Context(), d.swarmAddr(), liar.hello()); err == nil {
		t.Error("a peer is let in")
	}
	d.stop()
	d.start()
	waitFor(t, "the quarantine to hold after a restart", func() bool {
		s := d.agent.shareOf(g.parsed.HashOfHashes)
		return s != nil && s.OnHold()
	})
	d.get(g) // who asks here has it all the same: nothing says that it is wrong
	d.agent.theGuard().Gone(g.ref, g.digest())
	waitFor(t, "it to be served again", func() bool { _, serves := d.holds(g); return serves })
}

// TestRetireAgain: what was found stale is served to nobody though it cannot be put away, and goes
// at the next start.
func TestRetireAgain(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	old, next := issues(t)
	f.publish(old, dp)
	d := f.device("127.0.0.1")
	d.get(old)
	stock := filepath.Join(d.state, "cache", "stock")
	f.want(os.RemoveAll(stock))
	f.want(os.WriteFile(stock, nil, 0o600)) // where a directory is wanted
	neighbour := &hints{f.member("127.0.0.9", old), make(chan freshness.Ack, 4)}
	v := wire.Validate{Ref: old.ref, Rejected: old.digest()}
	d.joined(old)
	f.publish(next, dp)
	if ack := neighbour.send(d, v); ack != freshness.AckChecking {
		t.Errorf("acknowledged as %s", ack)
	}
	waitFor(t, "a try to retire it", func() bool { return strings.Contains(d.log.String(), "retiring a stale content") })
	if entry, serves := d.holds(old); !entry || serves {
		t.Errorf("after an error: entry %t, serves %t", entry, serves)
	}
	if held := d.agent.isHeld(old.digest()); !held {
		t.Error("after an error the quarantine has ended")
	}
	d.stop()
	f.want(os.Remove(stock))
	d.start()
	waitFor(t, "it to go", func() bool { entry, _ := d.holds(old); return !entry && !d.agent.isHeld(old.digest()) })
	d.stop()
	d.start()
	if entry, serves := d.holds(old); entry || serves {
		t.Errorf("after it went: entry %t, serves %t", entry, serves)
	}
	d.get(next)
}

func (a *Agent) isHeld(digest content.Digest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[digest]
}

// signedBy publishes goods with a signature, and returns the setting that pins its key.
func (f *fleet) signedBy(g *goods, at *dp) (setting string) {
	f.Helper()
	public, private, err := minisign.GenerateKey(crand.Reader)
	f.want(err)
	terms := identity.Terms{Generation: 5, Groups: []string{identity.AllGroups}, Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
	signature, err := identity.SignFor(private, g.manifest, terms)
	f.want(err)
	at.mu.Lock()
	at.goods[g.digest().String()] = g
	at.mu.Unlock()
	setting = string(g.ref.ID) + "=" + public.String()
	_, err = f.admin.SetSetting(f.Context(), api.Setting{Name: "publisherKeys", Value: setting})
	f.want(err)
	_, err = f.admin.Publish(f.Context(), api.PublishRequest{Manifest: g.manifest, HashFile: g.hashes, Origins: []string{at.url}, Signature: signature})
	f.want(err)
	return setting
}

// TestUnserved: while no service answers, a device gets a content that it never heard of from
// those who hold it on its subnet, if a pinned publisher signed it. What nobody vouches for it
// does not use.
func TestUnserved(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	g, _ := issues(t)
	unsigned := makeGoods(t, "plain", map[string][]byte{"file": noise(7, 2*mib)})
	keys := f.signedBy(g, dp)
	set := func(d *device) { d.set = map[string]string{"publisherKeys": keys} }
	f.publish(unsigned, dp)
	segment := &memnet.Segment{}
	holder, newcomer := f.onSegment("127.0.1.1", segment, set), f.onSegment("127.0.1.2", segment, set)
	for _, d := range []*device{holder, newcomer} {
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
	}
	holder.get(g)
	holder.get(unsigned)
	f.stop()
	if p := newcomer.get(g); p.FromPeers != p.Size {
		t.Errorf("progress %+v, want all from the holder", p)
	}
	newcomer.begin(unsigned.ref).fails("is not known here, and nobody can be asked")
	if entry, _ := newcomer.holds(unsigned); entry {
		t.Error("what nobody vouches for has become an entry")
	}
}

// TestReissuedOnSubnet: the stale holders of a subnet stop when the new issue is found, by one
// broadcast.
func TestReissuedOnSubnet(t *testing.T) {
	f := newFleet(t)
	old, next := issues(t)
	dp := f.newPoint(old)
	segment := &memnet.Segment{}
	var holders []*device
	for i := range 3 {
		h := f.onSegment(fmt.Sprintf("127.0.1.%d", i+1), segment, nil)
		waitFor(t, "keys and a pass", func() bool { return h.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
		h.get(old)
		holders = append(holders, h)
	}
	dp.place(next)
	d := f.onSegment("127.0.1.9", segment, func(d *device) { d.expects(documentOf(next, content.SHA1Algorithm)) })
	waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
	d.get(next)
	told := time.Now()
	for _, h := range holders {
		waitFor(t, "the stale holders to stop", func() bool { entry, serves := h.holds(old); return !entry && !serves })
	}
	if took := time.Since(told); took > 2*2*time.Second { // twice the figure: the machine may be busy
		t.Errorf("the stale holders stopped after %s", took)
	}
	for _, h := range holders {
		if n := h.agent.theGuard().Counts()[freshness.HintConfirmed]; n != 1 {
			t.Errorf("device %s confirmed %d hints", h.local, n)
		}
	}
}

// TestPublishedAnew: the catalog names the new issue already; nothing is turned down. The stale
// holder, which would hear of it at its next join, is found on the subnet and told.
func TestPublishedAnew(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	old, next := issues(t)
	f.publish(old, dp)
	segment := &memnet.Segment{}
	holder := f.onSegment("127.0.1.1", segment, nil)
	holder.get(old)
	d := f.onSegment("127.0.1.2", segment, func(d *device) { d.expects(documentOf(next, content.SHA1Algorithm)) })
	for _, d := range []*device{holder, d} {
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
	}
	f.publish(next, dp)
	d.get(next)
	told := time.Now()
	waitFor(t, "the stale holder to stop", func() bool { entry, serves := holder.holds(old); return !entry && !serves })
	if took := time.Since(told); took > 2*2*time.Second { // twice the figure: the machine may be busy
		t.Errorf("the stale holder stopped after %s", took)
	}
	if n := holder.agent.theGuard().Counts()[freshness.HintConfirmed]; n != 1 {
		t.Errorf("%d hints were confirmed", n)
	}
}

// TestSmallIsFast: the guard takes no time.
func TestSmallIsFast(t *testing.T) {
	f := newFleet(t)
	dp := f.newDP()
	d := f.device("127.0.0.1")
	best := time.Hour
	for i := range 8 {
		g := makeGoods(t, fmt.Sprintf("small-%d", i), map[string][]byte{"file": noise(byte(i), 1024)})
		f.publish(g, dp)
		begun := time.Now()
		d.get(g)
		best = min(best, time.Since(begun))
	}
	if best > 50*time.Millisecond {
		t.Errorf("1 KiB took %s at best", best)
	}
}
