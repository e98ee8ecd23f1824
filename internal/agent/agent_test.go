package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/guard"
	"freshet/internal/store"
	"freshet/internal/wire"
)

const mib = 1 << 20

// TestOneCopy: of six devices at two sites, one a site fetches each run from outside.
func TestOneCopy(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := makeGoods(t, "app", map[string][]byte{
		"big": noise(1, 5*mib+7), "deep/er/small": noise(2, 1000), "empty": {}, "one": {1}, "z": noise(3, 2*mib),
	})
	f.publish(g, origin)
	var gets []*getting
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.1.0.1", "127.1.0.2", "127.1.0.3"} {
		gets = append(gets, f.device(local).begin(g.ref))
	}
	var fromOrigin, fromPeers, sent int64
	for _, w := range gets {
		p := w.right(g)
		fromOrigin, fromPeers = fromOrigin+p.FromOrigin, fromPeers+p.FromPeers
		if p.FromOrigin+p.FromPeers != p.Size || p.Held != p.Size || p.Phase != "done" || p.Files != 5 {
			t.Errorf("device %s: %+v", w.d.local, p)
		}
	}
	for _, w := range gets {
		d := w.d
		waitFor(t, "all sends to be counted", func() bool { return d.status(g).Held == int64(len(g.bytes)) })
		sent += d.status(g).ToPeers
	}
	size := int64(len(g.bytes))
	if served, _ := origin.counts(); fromOrigin != 2*size || !about(served, 2*size) {
		t.Errorf("%d bytes from the origin, which sent %d; want two copies of %d", fromOrigin, served, size)
	}
	if fromPeers != 4*size {
		t.Errorf("%d bytes from peers, want four copies of %d", fromPeers, size)
	}
	if sent < fromPeers || sent > fromPeers+4*mib {
		t.Errorf("devices count %d bytes sent to peers, %d were received", sent, fromPeers)
	}
}

// TestFarPeers: with one lease for each site and peers of all sites, bytes from afar are counted
// at both ends.
func TestFarPeers(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 16*mib)
	f.publish(g, origin)
	here, there := f.enrol("127.0.0.1", f.token("join")), f.enrol("127.1.0.1", f.token("join"))
	here.set, there.set = map[string]string{"DODownloadMode": "2"}, map[string]string{"DODownloadMode": "2"}
	here.start()
	here.get(g)
	there.start()
	p := there.get(g)
	if p.FromPeers != p.Size {
		t.Errorf("%d bytes came from the other site, want all: progress %+v", p.FromPeers, p)
	}
	if far := there.status(g).FromFar; far != p.FromPeers {
		t.Errorf("%d bytes counted from other sites, %d came from peers, who are all there", far, p.FromPeers)
	}
	waitFor(t, "the sender to count the same", func() bool { return here.status(g).ToFar == p.FromPeers })
}

// TestSmall: a small content waits for no lease, and one of empty files for nothing.
func TestSmall(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	d := f.device("127.0.0.1")
	small := oneFile(t, "small", 1000)
	f.publish(small, origin)
	begun := time.Now()
	d.get(small)
	if took := time.Since(begun); took > 2*time.Second { // 5 s is what a lease is waited for
		t.Errorf("1000 bytes took %s", took)
	}
	empty := makeGoods(t, "empty", map[string][]byte{"a": {}, "b/c": {}})
	f.publish(empty, origin)
	if p := d.get(empty); p.Size != 0 || p.Files != 2 {
		t.Errorf("progress of two empty files: %+v", p)
	}
	peer := f.device("127.0.0.2")
	if p := peer.get(small); p.FromPeers+p.FromOrigin != 1000 {
		t.Errorf("progress %+v", p)
	}
}

// TestSameBytesOtherNames: a content is placed under its own names though its bytes are
// another's.
func TestSameBytesOtherNames(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	b := noise(1, 2*mib+5)
	first := makeGoods(t, "first", map[string][]byte{"a": b, "b": noise(2, 10)})
	second := makeGoods(t, "second", map[string][]byte{"x/y": b, "z": noise(2, 10)})
	f.publish(first, origin)
	f.publish(second, origin)
	d := f.device("127.0.0.1")
	d.get(first)
	d.get(second)
	if sent, _ := origin.counts(); !about(sent, int64(len(first.bytes))) {
		t.Errorf("the origin sent %d bytes, want %d", sent, len(first.bytes))
	}
	both := f.device("127.0.0.2")
	one, two := both.begin(second.ref), both.begin(first.ref)
	one.right(second)
	two.right(first)
	d.stop()
	d.start()
	d.get(second)
	d.get(first)
}

// TestKeepBesideStatus: what a download of other names notes does not race with who looks at it, as
// the race detector sees.
func TestKeepBesideStatus(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", mib)
	f.publish(g, f.newDP())
	dev := f.device("127.0.0.1")
	dev.get(g)
	d := &download{a: dev.agent, share: dev.agent.shareOf(g.parsed.HashOfHashes), rec: dev.recordOf(g)}
	d.rec.Manifest = content.Digest{1}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		d.state()
	}()
	f.want(d.keep(t.Context(), true))
	<-looked
	if rec, err := dev.agent.dev.Records.Get(t.Context(), d.rec.Manifest); err != nil || !rec.Wanted {
		t.Errorf("the record of other names is %+v, %v; want it to be wanted", rec, err)
	}
}

// TestTwoDownloads: two callers of one content are served by one fetch.
func TestTwoDownloads(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	release := origin.hold()
	one, two := d.begin(g.ref), d.begin(g.ref)
	waitFor(t, "a request to the origin", func() bool { _, asked := origin.counts(); return asked > 0 })
	release()
	one.right(g)
	two.right(g)
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
		t.Errorf("the origin sent %d bytes, want %d", sent, len(g.bytes))
	}
}

// TestForegroundJoinsBackground: a download in the background gives peers their time before HTTP;
// one that somebody waits for ends that for both, and the hurry with itself.
func TestForegroundJoinsBackground(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	d := f.enrol("127.0.0.1", f.token("join"))
	d.set = map[string]string{"DODelayBackgroundDownloadFromHttp": "3600"}
	d.start()
	counts := func() callers {
		d.agent.mu.Lock()
		defer d.agent.mu.Unlock()
		return d.agent.calls[d.agent.shares[g.parsed.HashOfHashes]]
	}
	one := d.begin(g.ref)
	waitFor(t, "the download in the background", func() bool {
		return counts() == callers{1, 0} && d.agent.shareOf(g.parsed.HashOfHashes).Sought() != nil
	})
	release := origin.hold()
	given := d.beginWith(Request{Ref: g.ref, Foreground: true})
	waitFor(t, "a request to the origin", func() bool { _, asked := origin.counts(); return asked > 0 })
	if got := counts(); got != (callers{2, 1}) {
		t.Errorf("callers of the share are %+v", got)
	}
	given.stop()
	if err := given.wait(); !errors.Is(err, context.Canceled) || counts() != (callers{1, 0}) {
		t.Errorf("one that is given up: %v, callers left are %+v", err, counts())
	}
	release()
	one.right(g)
}

// TestReportSaysIdle: the report of a download says how long nothing came from outside though this
// device was to fetch.
func TestReportSaysIdle(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	dev := f.device("127.0.0.1")
	release := origin.hold()
	w := dev.begin(g.ref)
	waitFor(t, "the WAN to be idle", func() bool {
		s := dev.agent.shareOf(g.parsed.HashOfHashes)
		return s != nil && s.Facts().Stats.WANIdle > 200*time.Millisecond
	})
	release()
	w.right(g)
	d := &download{a: dev.agent, guard: dev.agent.theGuard(), share: dev.agent.shareOf(g.parsed.HashOfHashes), rec: dev.recordOf(g)}
	if r := d.ended(nil); r.WanIdleMillis < 200 || r.WanIdleMillis != d.share.Facts().Stats.WANIdle.Milliseconds() || r.BytesFromOrigin != 3*mib {
		t.Errorf("the report says %+v", r)
	}
}

// TestLeaveOutByDownload: a download that ends lets in those that it left out, and none that another
// download of the content leaves out.
func TestLeaveOutByDownload(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", 2*mib)
	f.publish(g, f.newDP())
	a, b, c := f.device("127.0.0.1"), f.enrol("127.0.0.2", f.token("join")), f.device("127.0.0.3")
	a.get(g)
	one, two := &download{a: a.agent}, &download{a: a.agent}
	for _, d := range []*download{one, two} {
		d.req.Ref = g.ref
		a.agent.enter(d)
		d.Do(guard.Order{Kind: guard.LeaveOut, Device: b.id()})
		d.Do(guard.Order{Kind: guard.LeaveOut, Device: c.id()})
	}
	two.out = []wire.DeviceID{b.id()}
	one.readmit()
	b.start()
	if p := b.get(g); p.FromPeers != 0 {
		t.Errorf("a device that a download leaves out got %d bytes", p.FromPeers)
	}
	b.stop()
	if p := c.get(g); p.FromPeers != p.Size {
		t.Errorf("a device that is let in again got %d bytes of %d", p.FromPeers, p.Size)
	}
}

// TestLeaveOutEndsWithShare: a download that takes bytes no more from the share of another content
// keeps nobody from it.
func TestLeaveOutEndsWithShare(t *testing.T) {
	f := newFleet(t)
	g := makeGoods(t, "first", map[string][]byte{"a": noise(1, 2*mib)})
	other := makeGoods(t, "second", map[string][]byte{"b": noise(1, 2*mib)})
	f.publish(g, f.newDP())
	a, b := f.device("127.0.0.1"), f.enrol("127.0.0.2", f.token("join"))
	a.get(g)
	d := &download{a: a.agent, req: Request{Ref: other.ref}, rec: a.recordOf(g)}
	d.rec.Ref, d.rec.Manifest = other.ref, other.digest()
	a.agent.enter(d)
	f.want(d.open(t.Context()))
	d.Do(guard.Order{Kind: guard.LeaveOut, Device: b.id()})
	d.drop()
	d.Do(guard.Order{Kind: guard.Readmit})
	b.start()
	if p := b.get(g); p.FromPeers != p.Size {
		t.Errorf("a device that nobody leaves out got %d bytes of %d", p.FromPeers, p.Size)
	}
}

// TestCancel: a download that is given up and asked for again goes on; one of two that is
// given up does not end the other.
func TestCancel(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 6*mib)
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	origin.spoiled(origin.halfThenHang)
	one, two := d.begin(g.ref), d.begin(g.ref)
	waitFor(t, "half of it", func() bool { return d.status(g).Held == 3*mib })
	one.stop()
	one.fails("context canceled")
	two.stop()
	two.fails("context canceled")
	origin.spoil.Store(nil)
	for range 20 { // also while the share ends
		w := d.begin(g.ref)
		w.stop()
		if err := w.wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if p := d.get(g); p.FromCache < 3*mib {
		t.Errorf("%d bytes were in the cache, want at least %d", p.FromCache, 3*mib)
	}
	if sent, _ := origin.counts(); sent > int64(len(g.bytes))+4*mib {
		t.Errorf("the origin sent %d bytes for a content of %d", sent, len(g.bytes))
	}
}

// TestRestart: a download that the agent's end interrupts goes on by itself at the next start.
func TestRestart(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 6*mib)
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	origin.spoiled(origin.halfThenHang)
	w := d.begin(g.ref)
	waitFor(t, "half of it", func() bool { return d.status(g).Held == 3*mib })
	d.stop()
	if err := w.wait(); err == nil {
		t.Fatal("the download ended well")
	}
	origin.spoil.Store(nil)
	d.start()
	waitFor(t, "the rest", func() bool { return d.status(g).State == string(store.Complete) })
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
		t.Errorf("the origin sent %d bytes, want %d", sent, len(g.bytes))
	}
	d.get(g)
}

// TestServerGone: after the first contact devices get from each other what they hold, without
// any service; also after a restart.
func TestServerGone(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 3*mib)
	f.publish(g, origin)
	a, b := f.device("127.0.0.1"), f.device("127.0.0.2")
	release := origin.hold()
	one, two := a.begin(g.ref), b.begin(g.ref)
	waitFor(t, "them to be connected", func() bool { return one.progress().Peers == 1 && two.progress().Peers == 1 })
	f.stop()
	release()
	one.right(g)
	two.right(g)
	a.stop()
	a.start()
	a.get(g)
	origin.ln.Close()
	if err := a.begin(content.Ref{ID: "other", Version: 1}).fails("other"); err == nil {
		t.Error("a content that was never heard of came without services")
	}
}

// TestDormancy: a complete content that nobody uses is given back to the cache, serves peers
// and callers again when they come, and leaves when it is evicted.
func TestDormancy(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 2*mib)
	f.publish(g, origin)
	d := f.enrol("127.0.0.1", f.token("join"))
	d.resting = 20 * time.Millisecond
	d.start()
	d.get(g)
	asleep := func() bool {
		list, err := d.agent.dev.Store.List(t.Context())
		f.want(err)
		return len(list) == 1 && !list[0].InUse
	}
	waitFor(t, "the share to rest", asleep)
	d.get(g) // a caller wakes it
	waitFor(t, "the share to rest again", asleep)
	peer := f.device("127.0.0.2")
	if p := peer.get(g); p.FromPeers != p.Size {
		t.Errorf("a resting device gave %d bytes of %d", p.FromPeers, p.Size)
	}
	peer.stop()
	waitFor(t, "the share to rest after the peer", asleep)
	f.want(d.agent.dev.Store.Remove(t.Context(), g.digest()))
	waitFor(t, "the share to end", func() bool {
		return d.agent.shareOf(g.parsed.HashOfHashes) == nil
	})
	if jobs, err := d.agent.dev.Store.Jobs(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("records %v, %v; want none", jobs, err)
	}
	d.get(g)
	waitFor(t, "the share to rest once more", asleep)
	f.want(d.agent.dev.Store.Remove(t.Context(), g.digest()))
	d.get(g) // it may not have noticed
}

// TestPlain: the laboratory setting does without TLS, and sends by sendfile where there is one.
func TestPlain(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := makeGoods(t, "app", map[string][]byte{"a": noise(1, 3*mib+9), "b": noise(2, 100), "c": noise(3, 5000)})
	f.publish(g, origin)
	var gets []*getting
	for _, local := range []string{"127.0.0.1", "127.0.0.2"} {
		d := f.enrol(local, f.token("join"))
		d.set = map[string]string{"plainSwarm": "true"}
		d.start()
		gets = append(gets, d.begin(g.ref))
	}
	for _, w := range gets {
		w.right(g)
	}
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
		t.Errorf("the origin sent %d bytes, want %d", sent, len(g.bytes))
	}
}

func TestTwoAgentsOneCache(t *testing.T) {
	f := newFleet(t)
	d := f.device("127.0.0.1")
	_, err := New(t.Context(), Options{State: d.state, Settings: d.agent.opt.Settings, Credentials: d.creds, Client: d.client, Log: d.agent.log})
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("a second agent on the cache: %v, want %v", err, store.ErrLocked)
	}
}

// TestDestination: what is in the destination is not touched, and nothing is left there.
func TestDestination(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := makeGoods(t, "app", map[string][]byte{"a": noise(1, 100), "dir/b": noise(2, 2*mib)})
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	dir := t.TempDir()
	f.want(os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	f.want(os.WriteFile(filepath.Join(dir, "dir", "b"), []byte("mine"), 0o644))
	err := d.beginTo(g.ref, dir).wait()
	if err == nil || !contains(err, `"dir/b" exists`, "remove it") {
		t.Errorf("a destination with a file: %v", err)
	}
	if err := sameFiles(dir, map[string][]byte{"dir/b": []byte("mine")}); err != nil {
		t.Error(err)
	}
	d.get(g)
}

// TestStaleStaging: what a killed agent left in a destination does not stay there, and what
// another download uses is not touched.
func TestStaleStaging(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := makeGoods(t, "app", map[string][]byte{"a": noise(1, 2*mib), "dir/b": noise(2, 100)})
	f.publish(g, origin)
	d := f.device("127.0.0.1")
	dir := t.TempDir()
	stale := filepath.Join(dir, deliver.StagePrefix+g.digest().Short()+"-1-1")
	f.want(os.MkdirAll(filepath.Join(stale, "dir"), 0o700))
	f.want(os.WriteFile(filepath.Join(stale, "dir", "b"), noise(2, 50), 0o600))
	release := origin.hold()
	one := d.beginTo(g.ref, dir)
	waitFor(t, "the staging directory", func() bool {
		list, err := os.ReadDir(dir)
		f.want(err)
		return len(list) == 1 && list[0].Name() != filepath.Base(stale)
	})
	two := d.beginTo(g.ref, dir)
	waitFor(t, "a second staging directory", func() bool { list, err := os.ReadDir(dir); return err == nil && len(list) == 2 })
	release()
	errs := []error{one.wait(), two.wait()}
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("two downloads into one directory: %v; want one to be refused", errs)
	}
	f.want(sameFiles(dir, g.files))
}

// TestResumeSkips: a content that cannot be opened, and a record that cannot be read, keep no other
// content from being served after a restart.
func TestResumeSkips(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	bad, good := oneFile(t, "one", 2*mib), oneFile(t, "three", mib)
	if bad.digest().String() > good.digest().String() { // they are opened in this order
		bad, good = good, bad
	}
	f.publish(bad, origin)
	f.publish(good, origin)
	d := f.device("127.0.0.1")
	d.get(bad)
	d.get(good)
	d.stop()
	cache := filepath.Join(d.state, "cache")
	st, err := store.Open(t.Context(), store.Options{Dir: cache})
	f.want(err)
	f.want(errors.Join(st.PutJob(t.Context(), store.Job{ID: "content/0", JSON: []byte("7")}), st.Close()))
	manifest := filepath.Join(cache, bad.digest().String(), "manifest")
	f.want(errors.Join(os.Remove(manifest), os.Mkdir(manifest, 0o700)))
	d.start()
	waitFor(t, "the other content to be served", func() bool { return d.agent.shareOf(good.parsed.HashOfHashes) != nil })
	if _, err := d.agent.Status(t.Context()); err != nil {
		t.Errorf("status with a record that cannot be read: %v", err)
	}
}
