package guard

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var theRef = content.Ref{ID: "app", Version: 1}

// issue is one issue of the content.
type issue struct {
	parsed *content.Manifest
	bytes  []byte
	files  map[string]string
}

func (i *issue) digest() content.Digest { return content.DigestOf(i.bytes) }

// makeIssue makes an issue of files with these bytes.
func makeIssue(t *testing.T, files map[string]string) *issue {
	t.Helper()
	var list []content.File
	var pieces [][]content.Digest
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := content.NewFileHasher()
		h.Write([]byte(files[name]))
		f, p := h.Sum(name, false)
		list, pieces = append(list, f), append(pieces, p)
	}
	m, _, err := content.BuildManifest(theRef, list, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return &issue{m, content.AppendManifest(nil, m), files}
}

// bare returns the issue as a publisher makes it who takes no SHA-1.
func (i *issue) bare() *issue {
	m := *i.parsed
	m.Files = slices.Clone(m.Files)
	for k := range m.Files {
		m.Files[k].SHA1 = content.SHA1{}
	}
	return &issue{&m, content.AppendManifest(nil, &m), i.files}
}

// claiming returns the issue with a manifest that claims the SHA-1s of another one.
func (i *issue) claiming(other *issue) *issue {
	m := withSums(i.parsed, other.sha1s())
	return &issue{m, content.AppendManifest(nil, m), i.files}
}

// sha1s are those of the files' bytes, whatever the manifest says.
func (i *issue) sha1s() []content.SHA1 {
	var sums []content.SHA1
	for _, f := range i.parsed.Files {
		sums = append(sums, sha1.Sum([]byte(i.files[f.Name])))
	}
	return sums
}

// expect is what a management system says of the issue, by SHA-1.
func (i *issue) expect() expected.Content {
	c := expected.Content{Ref: theRef}
	for _, f := range i.parsed.Files {
		c.Files = append(c.Files, expected.FileContent{Name: f.Name, Algorithm: content.SHA1Algorithm, Digest: slices.Clone(f.SHA1[:]), Size: f.Size})
	}
	return c
}

// answer is Content Policy's word of an issue.
func (i *issue) answer(generation int64) *api.ContentPolicy {
	return &api.ContentPolicy{
		ContentId: string(theRef.ID), Version: theRef.Version, Generation: generation, Peerable: true,
		ManifestDigest: i.digest().String(), HashOfHashes: i.parsed.HashOfHashes.Base64(), Size: i.parsed.Size,
		ContentCdnUrls: []string{"https://dp1/bytes/" + i.digest().String(), "https://dp2/bytes/" + i.digest().String()},
	}
}

// world is what a guard sees: services, a cache, a device. Its methods lock mu, and its fields
// are set before what may read them.
type world struct {
	t *testing.T
	g *Guard

	logMu sync.Mutex // guards log
	log   strings.Builder

	mu sync.Mutex // guards the following

	policy   func() (*api.ContentPolicy, error)
	sure     func(base string) (*api.LszReply, error)
	asked    int // Content Policy
	forced   []api.LszRequest
	differs  []api.Differs
	metadata func() (expected.Content, error)

	held   []freshness.Held
	shelf  map[content.Digest]*issue
	looks  int  // at what is held
	broken bool // what is held is not told once bytes were read
	reads  int
	kept   map[content.Digest][]content.SHA1
	bans   map[freshness.Device]bool
	last   *records.Record
	holds  map[content.Digest]bool
	ever   map[content.Digest]bool // on hold once
	gone   []content.Digest
	stuck  bool // what is retired does not go
	sent   []wire.Validate
	issued []records.Record // confirmed
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, shelf: map[content.Digest]*issue{}, kept: map[content.Digest][]content.SHA1{},
		bans: map[freshness.Device]bool{}, holds: map[content.Digest]bool{},
	}
}

// Write takes a line of the log.
func (w *world) Write(b []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(b)
}

// said checks that a line of the log has a text.
func (w *world) said(text string) {
	w.t.Helper()
	w.logMu.Lock()
	defer w.logMu.Unlock()
	if !strings.Contains(w.log.String(), text) {
		w.t.Errorf("nothing in the log has %q:\n%s", text, w.log.String())
	}
}

// count counts a text in the log.
func (w *world) count(text string) int {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return strings.Count(w.log.String(), text)
}

func (w *world) lock() func() {
	w.mu.Lock()
	return w.mu.Unlock
}

func (w *world) ContentPolicy(context.Context, content.Ref) (*api.ContentPolicy, error) {
	defer w.lock()()
	w.asked++
	return w.policy()
}

func (w *world) MakeSure(_ context.Context, base string, _ content.Ref, q api.LszRequest, _ func(int64, int64)) (*api.LszReply, error) {
	defer w.lock()()
	w.forced = append(w.forced, q)
	return w.sure(base)
}

func (w *world) ReportDiffers(_ context.Context, _ content.ID, d api.Differs) error {
	defer w.lock()()
	w.differs = append(w.differs, d)
	return nil
}

func (w *world) Lookup(context.Context, content.Ref) (expected.Content, error) {
	defer w.lock()()
	if w.metadata == nil {
		return expected.Content{}, expected.ErrNone
	}
	return w.metadata()
}

func (w *world) Held(context.Context, content.Ref) ([]freshness.Held, error) {
	defer w.lock()()
	w.looks++
	if w.broken && w.reads > 0 {
		return nil, errors.New("the disk has an error")
	}
	return slices.Clone(w.held), nil
}

func (w *world) Manifest(_ context.Context, d content.Digest) (*content.Manifest, error) {
	defer w.lock()()
	if i := w.shelf[d]; i != nil {
		return i.parsed, nil
	}
	return nil, fs.ErrNotExist
}

func (w *world) Sums(_ context.Context, d content.Digest) ([]content.SHA1, error) {
	defer w.lock()()
	i := w.shelf[d]
	if i == nil {
		return nil, fs.ErrNotExist
	}
	w.reads++
	sums := i.sha1s()
	w.kept[d] = sums
	for k := range w.held {
		if w.held[k].Digest == d {
			w.held[k].SHA1Sum, _ = withSums(i.parsed, sums).MetadataHash(content.SHA1Algorithm)
		}
	}
	return sums, nil
}

func (w *world) Summed(d content.Digest) ([]content.SHA1, bool) {
	defer w.lock()()
	sums, ok := w.kept[d]
	return sums, ok
}

func (w *world) Keep(d content.Digest, sums []content.SHA1) error {
	defer w.lock()()
	w.kept[d] = sums
	return nil
}

func (w *world) Ban(_ context.Context, d freshness.Device, _ content.Digest, on bool) error {
	defer w.lock()()
	w.bans[d] = on
	return nil
}

func (w *world) Last(context.Context, content.Ref) (records.Record, bool) {
	defer w.lock()()
	if w.last == nil {
		return records.Record{}, false
	}
	return *w.last, true
}

func (w *world) Hold(d content.Digest, on bool) {
	defer w.lock()()
	w.holds[d] = on
	if on && w.ever != nil {
		w.ever[d] = true
	}
}

func (w *world) Retire(_ content.Ref, d content.Digest, stock time.Duration) {
	defer w.lock()()
	if stock != freshness.StockTime {
		w.t.Errorf("stock for %s", stock)
	}
	w.gone = append(w.gone, d)
	w.holds[d] = true
	if w.stuck {
		return
	}
	w.held = slices.DeleteFunc(w.held, func(h freshness.Held) bool { return h.Digest == d })
	delete(w.shelf, d)
	go w.g.Gone(theRef, d)
}

func (w *world) Confirm(r records.Record) {
	defer w.lock()()
	w.issued = append(w.issued, r)
}

func (w *world) Broadcast(v wire.Validate) {
	defer w.lock()()
	w.sent = append(w.sent, v)
}

// set changes what the world is.
func (w *world) set(change func()) {
	defer w.lock()()
	change()
}

// rest lets time pass, and all that falls due happen.
func rest(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// hold puts an issue into the cache.
func (w *world) hold(i *issue, generation uint64) {
	w.t.Helper()
	defer w.lock()()
	h := freshness.Held{Digest: i.digest(), Generation: generation}
	var err error
	if h.SHA1Sum, h.SHA256Sum, err = i.parsed.MetadataHashes(); err != nil {
		w.t.Fatal(err)
	}
	w.held, w.shelf[i.digest()] = append(w.held, h), i
}

// names lets Content Policy name an issue.
func (w *world) names(i *issue, generation int64) {
	defer w.lock()()
	w.policy = func() (*api.ContentPolicy, error) { return i.answer(generation), nil }
}

// expects lets the device's provider say what an issue is.
func (w *world) expects(i *issue) {
	defer w.lock()()
	w.metadata = func() (expected.Content, error) { return i.expect(), nil }
}

// inWorld runs a test with a guard in virtual time.
func inWorld(t *testing.T, change func(*Options), test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		opt := w.options(filepath.Join(t.TempDir(), "freshness.json"))
		if change != nil {
			change(&opt)
		}
		stop := w.boot(opt)
		defer stop()
		test(w)
	})
}

func (w *world) options(file string) Options {
	return Options{
		File: file, Group: "lab", Trust: func() identity.OriginTrust { return identity.OriginTrust{} }, Now: time.Now,
		Services: w, Provider: w, Look: 15 * time.Second, Shelf: w, Device: w, Log: slog.New(slog.NewTextHandler(w, nil)),
	}
}

// boot starts a guard. stop ends it and waits.
func (w *world) boot(opt Options) (stop func()) {
	w.g = New(opt)
	g := w.g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	<-g.Booted()
	return sync.OnceFunc(func() { cancel(); <-done })
}

// getter is a download that gets what it seeks at once, from what there is.
type getter struct {
	w    *world
	job  *Job
	all  map[content.Digest]*issue
	mute bool // nothing is shown to the guard

	mu     sync.Mutex // guards the following
	orders []Order
}

// Do implements Download.
func (d *getter) Do(o Order) {
	d.mu.Lock()
	d.orders = append(d.orders, o)
	d.mu.Unlock()
	if i := d.all[o.Digest]; o.Kind == Seek && i != nil && !d.mute {
		go func() { d.theJob().Found(o, i.bytes, i.parsed) }()
	}
}

func (d *getter) theJob() *Job {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.job
}

// start begins a download of an issue that Content Policy named just now.
func (w *world) start(from *issue, generation int64, all ...*issue) *getter {
	w.t.Helper()
	rec, err := records.Of(from.answer(generation))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.startWith(Request{Record: rec, Answered: true}, append(all, from)...)
}

func (w *world) startWith(r Request, all ...*issue) *getter {
	w.t.Helper()
	d := &getter{w: w, all: map[content.Digest]*issue{}}
	for _, i := range all {
		d.all[i.digest()] = i
	}
	r.Download = d
	d.mu.Lock()
	var err error
	d.job, err = w.g.Start(context.Background(), r)
	d.mu.Unlock()
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return d
}

// done says that all bytes of what is used are there.
func (d *getter) done(used *issue) { d.job.Done(used.sha1s()) }

// take returns what was ordered since, as text.
func (d *getter) take() string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	text := ""
	for _, o := range d.orders {
		text += " " + d.text(o)
	}
	d.orders = nil
	return text
}

func (d *getter) text(o Order) string {
	names := map[OrderKind]string{Ask: "ask", Seek: "seek", Use: "use", Drop: "drop", Wait: "wait", Deliver: "deliver", Fail: "fail", Tell: "tell", LeaveOut: "leave-out", Readmit: "readmit"}
	text := names[o.Kind]
	if o.Kind == Wait || o.Kind == Use && o.Outcome != freshness.OK {
		text += ":" + o.Outcome.String()
	}
	if o.Kind == Tell || o.Kind == LeaveOut {
		text += fmt.Sprintf(":%x", o.Device[:1])
	}
	return text
}

// wants compares what was ordered since with a text.
func (d *getter) wants(want string) {
	d.w.t.Helper()
	if got := d.take(); got != want {
		d.w.t.Errorf("ordered%s, want%s", got, want)
	}
}

// What there is to see of the world.

func (w *world) forcings() int                 { defer w.lock()(); return len(w.forced) }
func (w *world) question(n int) api.LszRequest { defer w.lock()(); return w.forced[n] }
func (w *world) lookups() int                  { defer w.lock()(); return w.looks }
func (w *world) questions() int                { defer w.lock()(); return w.asked }
func (w *world) readings() int                 { defer w.lock()(); return w.reads }
func (w *world) confirmed() int                { defer w.lock()(); return len(w.issued) }
func (w *world) onHold(i *issue) bool          { defer w.lock()(); return w.holds[i.digest()] }
func (w *world) retired() []content.Digest     { defer w.lock()(); return slices.Clone(w.gone) }
func (w *world) told() []api.Differs           { defer w.lock()(); return slices.Clone(w.differs) }
func (w *world) broadcasts() []wire.Validate   { defer w.lock()(); return slices.Clone(w.sent) }
func (w *world) banned() map[freshness.Device]bool {
	defer w.lock()()
	return maps.Clone(w.bans)
}
