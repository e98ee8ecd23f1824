package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
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

	"go.uber.org/goleak"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/identity"
	"freshet/internal/lan"
	"freshet/internal/metadata"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/services"
	"freshet/internal/store"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// fleet is a server in this process, with its CA, and what a test needs to add origins and
// devices. Devices at 127.0.x.y are of site "here", those at 127.1.x.y of site "there".
type fleet struct {
	*testing.T
	state string
	addr  string
	ca    *identity.CA
	admin *client.Client
	log   *logged // what the server was asked
	stop  func()  // ends the server
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{T: t, state: filepath.Join(t.TempDir(), "server"), log: &logged{}, addr: "127.0.0.1:0"}
	f.serve()
	var err error
	f.ca, err = identity.OpenCA(filepath.Join(f.state, "ca"))
	f.want(err)
	token := f.token(identity.TokenAdmin)
	f.admin, err = client.New(client.Options{Token: &token})
	f.want(err)
	t.Cleanup(f.admin.CloseIdle)
	for site, cidr := range map[string]string{"here": "127.0.0.0/16", "there": "127.1.0.0/16"} {
		_, err := f.admin.AddSite(t.Context(), api.Site{Name: site, CIDRs: []string{cidr}})
		f.want(err)
	}
	return f
}

// serve starts the server, again at its old address.
func (f *fleet) serve() {
	f.Helper()
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := services.Open(f.Context(), services.Options{State: f.state, Listen: f.addr, Log: log})
	f.want(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(s.Run(ctx), s.Close()) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Errorf("server: %v", err)
		}
	})
	f.Cleanup(f.stop)
	f.addr = s.Address()
}

func (f *fleet) want(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) token(kind string) identity.Token {
	f.Helper()
	t, err := identity.ReadToken(services.TokenFile(f.state, kind))
	f.want(err)
	return t
}

// groupToken makes a group and a join token for it.
func (f *fleet) groupToken(group string) identity.Token {
	f.Helper()
	_, err := f.admin.AddGroup(f.Context(), api.Group{Name: group})
	f.want(err)
	made, err := f.admin.AddToken(f.Context(), api.Token{Kind: identity.TokenJoin, Group: group})
	f.want(err)
	t, err := identity.ParseToken(made.Text)
	f.want(err)
	return t
}

// goods is a content as its publisher has it.
type goods struct {
	ref      content.Ref
	files    map[string][]byte
	manifest []byte
	hashes   []byte
	parsed   *content.Manifest
	layout   *content.Layout
	bytes    []byte // the concatenation
}

func (g *goods) digest() content.Digest { return content.DigestOf(g.manifest) }

// noise returns n bytes that look like nothing else.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// makeGoods makes a content of these files.
func makeGoods(t *testing.T, id string, files map[string][]byte) *goods {
	t.Helper()
	g := &goods{ref: content.Ref{ID: content.ID(id), Version: 1}, files: files}
	var list []content.File
	var pieces [][]content.Digest
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := content.NewFileHasher()
		h.Write(files[name])
		file, p := h.Sum(name, false)
		list, pieces = append(list, file), append(pieces, p)
		g.bytes = append(g.bytes, files[name]...)
	}
	m, hf, err := content.BuildManifest(g.ref, list, pieces)
	if err != nil {
		t.Fatal(err)
	}
	g.parsed, g.manifest, g.hashes = m, content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, hf)
	g.layout = content.NewLayout(m.Files)
	return g
}

// oneFile makes a content of one file of n bytes.
func oneFile(t *testing.T, id string, n int) *goods {
	t.Helper()
	return makeGoods(t, id, map[string][]byte{"file.bin": noise(byte(len(id)), n)})
}

// dp is a distribution point that a test can spoil: it serves ranges of goods, and counts.
type dp struct {
	url   string
	creds *identity.Credentials
	ln    net.Listener
	spoil atomic.Pointer[func(w http.ResponseWriter, r *http.Request, g *goods) bool] // true: it has answered
	meta  atomic.Pointer[func(w http.ResponseWriter, r *http.Request)]                // answers for hash files; nil: there are none here
	more  http.Handler                                                                // answers for all but bytes and hash files; nil: there is nothing more here

	mu    sync.Mutex // guards the following
	goods map[string]*goods
	sent  int64                   // bytes of contents
	by    map[wire.DeviceID]int64 // the same, by device
	asked int                     // for bytes
	gate  chan struct{}           // not nil: bytes wait until it is closed
}

func (f *fleet) newDP() *dp { return f.newDPAs(identity.RoleOrigin) }

// newDPAs starts a distribution point whose certificate has a role.
func (f *fleet) newDPAs(role identity.Role) *dp {
	f.Helper()
	name := identity.Name{Role: role, Device: wire.DeviceID{1, byte(rand.Uint32())}}
	if role == identity.RoleDevice {
		name.Group = services.DefaultGroup
	}
	cred, err := f.ca.IssueCredentials(name)
	f.want(err)
	d := &dp{creds: cred, goods: map[string]*goods{}, by: map[wire.DeviceID]int64{}}
	d.ln, err = net.Listen("tcp", "127.0.0.1:0")
	f.want(err)
	d.url = "https://" + d.ln.Addr().String() + "/"
	srv := &http.Server{Handler: d, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(tls.NewListener(d.ln, cred.ServerConfig(identity.ServerOptions{})))
	}()
	f.Cleanup(func() { srv.Close(); <-done })
	return d
}

// ServeHTTP answers for bytes, and where a test wants it for hash files; manifests come from
// the server.
func (d *dp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if meta := d.meta.Load(); meta != nil && strings.HasPrefix(r.URL.Path, "/pieceshash/") {
		(*meta)(w, r)
		return
	}
	digest, ok := strings.CutPrefix(r.URL.Path, "/bytes/")
	d.mu.Lock()
	g, gate := d.goods[digest], d.gate
	if ok {
		d.asked++
	}
	d.mu.Unlock()
	if !ok && d.more != nil {
		d.more.ServeHTTP(w, r)
		return
	}
	if !ok || g == nil {
		http.NotFound(w, r)
		return
	}
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	if spoil := d.spoil.Load(); spoil != nil && (*spoil)(w, r, g) {
		return
	}
	var from, to int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	head(w, from, to, int64(len(g.bytes)))
	d.send(w, r, g.bytes[from:to+1])
}

func head(w http.ResponseWriter, from, to, total int64) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, total))
	w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
	w.WriteHeader(http.StatusPartialContent)
}

func (d *dp) send(w http.ResponseWriter, r *http.Request, b []byte) {
	name, err := identity.PeerName(*r.TLS)
	if err != nil {
		return
	}
	for len(b) > 0 {
		n, err := w.Write(b[:min(len(b), 64<<10)])
		d.mu.Lock()
		d.sent += int64(n)
		d.by[name.Device] += int64(n)
		d.mu.Unlock()
		if err != nil {
			return
		}
		b = b[n:]
	}
}

func (d *dp) counts() (sent int64, asked int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent, d.asked
}

// hold makes all bytes wait until the returned function is called.
func (d *dp) hold() (release func()) {
	gate := make(chan struct{})
	d.mu.Lock()
	d.gate = gate
	d.mu.Unlock()
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.gate = nil
		d.mu.Unlock()
		close(gate)
	})
}

// spoiled lets every request for bytes be answered by spoil.
func (d *dp) spoiled(spoil func(w http.ResponseWriter, r *http.Request, g *goods) bool) {
	d.spoil.Store(&spoil)
}

// publish registers goods, whose bytes are at these points.
func (f *fleet) publish(g *goods, at ...*dp) {
	f.Helper()
	q := api.PublishRequest{Manifest: g.manifest, HashFile: g.hashes}
	for _, d := range at {
		d.mu.Lock()
		d.goods[g.digest().String()] = g
		d.mu.Unlock()
		q.Origins = append(q.Origins, d.url)
	}
	_, err := f.admin.Publish(f.Context(), q)
	f.want(err)
}

// device is an enrolled device, whose agent can be stopped and started.
type device struct {
	f        *fleet
	state    string
	local    netip.Addr
	creds    *identity.Credentials
	client   *client.Client
	set      map[string]string // settings
	resting  time.Duration     // 0: as in production
	patience metadata.Patience // zero: as in production
	look     time.Duration     // at expected metadata; 0: as in production
	log      *logged
	network  lan.Network // of datagrams; nil: none, as at any loopback address
	resolve  func([]api.Setting) (policy.Settings, error)
	// leaseWait is how long a leader waits for an array's word; 0: as in production.
	leaseWait time.Duration
	// cacheBytes limits the cache to less than a setting can say; 0: as in production.
	cacheBytes int64

	agent *Agent
	stop  func() // ends the agent
}

// logged keeps what an agent says.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// device enrols a device of the default group at an address, and starts it.
func (f *fleet) device(local string) *device {
	f.Helper()
	d := f.enrol(local, f.token(identity.TokenJoin))
	d.start()
	return d
}

// enrol enrols a device.
func (f *fleet) enrol(local string, token identity.Token) *device {
	f.Helper()
	d := &device{f: f, state: f.TempDir(), local: netip.MustParseAddr(local), log: &logged{}}
	var err error
	d.creds, _, err = client.Enrol(f.Context(), token, "pc", filepath.Join(d.state, "identity"), d.local)
	f.want(err)
	f.Cleanup(func() {
		if f.Failed() {
			f.Logf("device %s says:\n%s", local, d.log)
		}
	})
	return d
}

func (d *device) id() wire.DeviceID { return d.creds.Name().Device }

func (d *device) start() {
	d.f.Helper()
	layer := policy.Layer{Provider: policy.Flag}
	for name, value := range d.set {
		layer.Entries = append(layer.Entries, policy.Entry{Name: name, Value: value})
	}
	settings, err := policy.Resolve(layer)
	d.f.want(err)
	log := slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.client, err = client.New(client.Options{Address: d.f.addr, Credentials: d.creds, Local: d.local, CacheDir: d.state, Log: log})
	d.f.want(err)
	d.agent, err = New(d.f.Context(), Options{
		State: d.state, Settings: settings, Credentials: d.creds, Client: d.client,
		Facts: policy.DeviceFacts{RAM: 1 << 40, Disk: 1 << 40}, Local: d.local, Log: log,
		Network: d.network, Resolve: d.resolve, leaseWait: d.leaseWait,
	})
	d.f.want(err)
	if d.resting != 0 {
		d.agent.dev.Resting = d.resting
	}
	if d.look != 0 {
		d.agent.look = d.look
	}
	if d.patience != (metadata.Patience{}) {
		d.agent.dev.Patience = d.patience
	}
	if d.cacheBytes != 0 {
		d.f.want(d.agent.dev.Store.Close())
		st, err := store.Open(d.f.Context(), store.Options{Dir: filepath.Join(d.state, "cache"), MaxBytes: d.cacheBytes})
		d.f.want(err)
		d.agent.dev.Store, d.agent.dev.Records = st, records.NewBook(st, slog.New(slog.DiscardHandler))
	}
	ln, err := net.Listen("tcp", netip.AddrPortFrom(d.local, 0).String())
	d.f.want(err)
	d.stop = d.serve(ln)
	d.f.Cleanup(d.stop)
}

func (d *device) serve(ln net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	a, ended := d.agent, make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		close(ready)
		ended <- a.Run(ctx, ln)
	}()
	<-ready
	waitFor(d.f.T, "the agent to run", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.ctx != nil })
	return sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err = errors.Join(err, a.Close()); err != nil {
				d.f.Errorf("agent %s: %v", d.local, err)
			}
		case <-time.After(patience):
			d.f.Errorf("agent %s does not stop", d.local)
		}
		if n := a.dev.Receive.Lent(); n != 0 {
			d.f.Errorf("agent %s lost %d receive buffers", d.local, n)
		}
		if n := a.endpoint.Send.Lent(); n != 0 {
			d.f.Errorf("agent %s lost %d send buffers", d.local, n)
		}
	})
}

// waitFor polls until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// getting is a download under way.
type getting struct {
	d    *device
	dir  string
	err  chan error
	stop context.CancelFunc

	mu   sync.Mutex // guards the following
	last Progress
}

func (g *getting) progress() Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// begin begins to get a content.
func (d *device) begin(ref content.Ref) *getting {
	d.f.Helper()
	return d.beginTo(ref, d.f.TempDir())
}

func (d *device) beginTo(ref content.Ref, dir string) *getting {
	d.f.Helper()
	return d.beginIn(Request{Ref: ref}, dir)
}

// beginWith begins a request into a directory of its own.
func (d *device) beginWith(req Request) *getting {
	d.f.Helper()
	return d.beginIn(req, d.f.TempDir())
}

func (d *device) beginIn(req Request, dir string) *getting {
	d.f.Helper()
	root, err := os.OpenRoot(dir)
	d.f.want(err)
	ctx, cancel := context.WithCancel(context.Background())
	d.f.Cleanup(cancel)
	g := &getting{d: d, dir: dir, err: make(chan error, 1), stop: cancel}
	a := d.agent
	go func() {
		defer root.Close()
		req.Dest, req.Owner = root, deliver.Owner{UID: os.Geteuid(), GID: os.Getegid()}
		g.err <- a.Download(ctx, req, func(p Progress) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.last = p
		})
	}()
	return g
}

// wait waits until the download ended.
func (g *getting) wait() error {
	g.d.f.Helper()
	select {
	case err := <-g.err:
		return err
	case <-time.After(patience):
		g.d.f.Fatalf("device %s: the download does not end: %+v", g.d.local, g.progress())
		return nil
	}
}

// get gets goods and compares every byte.
func (d *device) get(g *goods) Progress {
	d.f.Helper()
	w := d.begin(g.ref)
	return w.right(g)
}

// right waits for the end and compares every byte.
func (g *getting) right(want *goods) Progress {
	g.d.f.Helper()
	if err := g.wait(); err != nil {
		g.d.f.Fatalf("device %s: %v", g.d.local, err)
	}
	g.d.f.want(sameFiles(g.dir, want.files))
	return g.progress()
}

// sameFiles compares a directory with what should be in it.
func sameFiles(dir string, want map[string][]byte) error {
	n := 0
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		w, ok := want[filepath.ToSlash(rel)]
		if !ok {
			return fmt.Errorf("%q is not of the content", rel)
		}
		if !bytes.Equal(b, w) {
			return fmt.Errorf("%q has other bytes", rel)
		}
		n++
		return nil
	})
	if err == nil && n != len(want) {
		err = fmt.Errorf("%d files of %d", n, len(want))
	}
	return err
}

// fails waits for a download to fail with these words, and nothing to be in its directory.
func (g *getting) fails(words ...string) error {
	g.d.f.Helper()
	err := g.wait()
	if err == nil {
		g.d.f.Fatalf("device %s: the download ended well, want an error of %q", g.d.local, words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			g.d.f.Errorf("device %s: error %q, want %q in it", g.d.local, err, w)
		}
	}
	if e := sameFiles(g.dir, nil); e != nil {
		g.d.f.Errorf("device %s left something behind: %v", g.d.local, e)
	}
	return err
}

// status returns what the device says of goods.
func (d *device) status(g *goods) Status {
	d.f.Helper()
	list, err := d.agent.Status(d.f.Context())
	d.f.want(err)
	for _, s := range list {
		if s.Manifest == g.digest().String() {
			return s
		}
	}
	return Status{}
}

// joined waits until the array knows the device.
func (d *device) joined(g *goods) {
	d.f.Helper()
	waitFor(d.f.T, "a join", func() bool {
		s := d.agent.shareOf(g.parsed.HashOfHashes)
		return s != nil && s.Facts().Reach != swarm.ReachUnknown
	})
}

// ready reports whether the device has manifest and hash file of goods.
func (d *device) ready(g *goods) bool {
	s := d.agent.shareOf(g.parsed.HashOfHashes)
	if s == nil {
		return false
	}
	e := s.Use()
	if e != nil {
		e.Release()
	}
	return e != nil
}

// bans returns who is banned for goods.
func (d *device) bans(g *goods) []store.Ban {
	d.f.Helper()
	b, err := d.agent.dev.Store.Bans(d.f.Context(), g.digest())
	d.f.want(err)
	return b
}

// flip flips a bit of a file's byte at off, in the device's cache, without a trace in size or
// time.
func (d *device) flip(g *goods, file int, off int64) {
	d.f.Helper()
	name := filepath.Join(d.state, "cache", g.digest().String(), "f", fmt.Sprintf("%06d", file))
	st, err := os.Stat(name)
	d.f.want(err)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	d.f.want(err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	d.f.want(err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	d.f.want(err)
	d.f.want(os.Chtimes(name, st.ModTime(), st.ModTime()))
}

// contains reports whether an error says all words.
func contains(err error, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) })
}

// halfThenHang serves the first half of a content, and then says nothing more.
func (d *dp) halfThenHang(w http.ResponseWriter, r *http.Request, g *goods) bool {
	var from, to int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
		return false
	}
	if half := int64(len(g.bytes)) / 2; from < half {
		head(w, from, to, int64(len(g.bytes)))
		d.send(w, r, g.bytes[from:min(half, to+1)])
		w.(http.Flusher).Flush()
	}
	<-r.Context().Done()
	return true
}

// about allows for the bytes of a request that was stopped and made again on a busy machine.
func about(sent, want int64) bool { return sent >= want && sent <= want+want/8 }
