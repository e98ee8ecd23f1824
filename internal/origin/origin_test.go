package origin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/fetch"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

var testRef = content.Ref{ID: "tools", Version: 3}

// bench is a fleet with one distribution point and what its server would have seen.
type bench struct {
	t      *testing.T
	ca     *identity.CA
	key    ed25519.PrivateKey
	origin *identity.Credentials
	device *identity.Credentials
	state  string
	root   string

	mu         sync.Mutex // guards the following
	registered []api.PublishRequest
	refuse     error // what Register returns
	hashed     int   // calls of Progress
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, state: filepath.Join(t.TempDir(), "state"), root: filepath.Join(t.TempDir(), "root")}
	var err error
	if b.ca, err = identity.CreateCA(t.TempDir(), "test"); err != nil {
		t.Fatal(err)
	}
	if b.key, err = identity.GrantKey(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b.origin = b.issue(identity.RoleOrigin, "", 1)
	b.device = b.issue(identity.RoleDevice, "staff", 2)
	return b
}

func (b *bench) issue(role identity.Role, group string, id byte) *identity.Credentials {
	b.t.Helper()
	c, err := b.ca.IssueCredentials(identity.Name{Fleet: "test", Role: role, Group: group, Device: wire.DeviceID{id}})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// write writes files below dir.
func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// place writes files where the content of ref lies.
func (b *bench) place(ref content.Ref, files map[string][]byte) {
	b.t.Helper()
	write(b.t, filepath.Join(b.root, filepath.FromSlash(pathOf(ref))), files)
}

func bytesOf(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// sample has empty, one-byte, deep, small and large files.
func sample() map[string][]byte {
	files := map[string][]byte{
		"empty": {}, "one": {1}, "a/b/c/deep file +%41.txt": bytesOf(1, 70_000),
		"big.bin": bytesOf(2, 3*content.PieceSize+17), "exact.bin": bytesOf(3, content.PieceSize),
	}
	for i := range 40 {
		files[fmt.Sprintf("small/%03d", i)] = bytesOf(byte(i), i*130)
	}
	return files
}

func concatenation(files map[string][]byte) []byte {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	var all []byte
	for _, n := range names {
		all = append(all, files[n]...)
	}
	return all
}

// open opens and loads the distribution point, and serves it over TLS.
func (b *bench) open(mapped map[content.Ref]string) (*Origin, string) {
	b.t.Helper()
	o, err := Open(Config{
		State: b.state, Root: b.root, Mapped: mapped, Self: wire.DeviceID{1}, BaseURL: "https://dp.example:1", Sign: b.origin.SignManifest,
		Keys: func() []ed25519.PublicKey { return []ed25519.PublicKey{b.key.Public().(ed25519.PublicKey)} },
		Register: func(_ context.Context, p api.PublishRequest) (api.Content, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.registered = append(b.registered, p)
			return api.Content{Generation: int64(len(b.registered))}, b.refuse
		},
		Progress: func(content.Ref, int64, int64) { b.hashed++ },
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { o.Close() })
	if err := o.Load(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(web.Log(o.Handler(), slog.New(slog.DiscardHandler)))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.TLS = b.origin.ServerConfig(identity.ServerOptions{Optional: true})
	srv.StartTLS()
	b.t.Cleanup(srv.Close)
	return o, srv.URL
}

// client calls as c, or without a certificate.
func (b *bench) client(c *identity.Credentials) *http.Client {
	cfg := b.device.ClientConfig(identity.RoleOrigin)
	cfg.GetClientCertificate, cfg.ClientSessionCache = nil, nil
	if c != nil {
		cfg = c.ClientConfig(identity.RoleOrigin)
	}
	tr := &http.Transport{TLSClientConfig: cfg, DisableCompression: true}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// grantFor returns the header value of a grant of the device for what e serves.
func (b *bench) grantFor(manifest, hoh content.Digest) string {
	return base64.StdEncoding.EncodeToString(identity.SignGrant(b.key, identity.Grant{
		Device: wire.DeviceID{2}, Group: "staff", Ref: testRef, Manifest: manifest, HashOfHashes: hoh, Expires: time.Now().Add(time.Hour),
	}))
}

func (b *bench) do(c *http.Client, method, url string, header ...string) (*http.Response, []byte, error) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, url, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// serving opens a distribution point with the sample and returns what a device needs of it.
func (b *bench) serving() (o *Origin, e *entry, url, grant string) {
	b.t.Helper()
	b.place(testRef, sample())
	o, base := b.open(nil)
	e, ok := o.current(testRef)
	if !ok {
		b.t.Fatal("the content is not served")
	}
	return o, e, base + "/bytes/" + e.record.Manifest.String(), b.grantFor(e.record.Manifest, e.hoh)
}

func TestBytesRangesAreOfTheConcatenation(t *testing.T) {
	b := newBench(t)
	_, e, url, grant := b.serving()
	all, c := concatenation(sample()), b.client(b.device)
	size := len(all)
	rapid.Check(t, func(rt *rapid.T) {
		first := rapid.IntRange(0, size-1).Draw(rt, "first")
		last := rapid.IntRange(first, size+10).Draw(rt, "last")
		resp, body, err := b.do(c, "GET", url, identity.GrantHeader, grant, "Range", fmt.Sprintf("bytes=%d-%d", first, last))
		end := min(last, size-1)
		if err != nil || resp.StatusCode != 206 || !bytes.Equal(body, all[first:end+1]) {
			rt.Fatalf("bytes %d-%d: status %d, %d bytes, %v", first, last, resp.StatusCode, len(body), err)
		}
		if got, want := resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", first, end, size); got != want {
			rt.Fatalf("Content-Range %q, want %q", got, want)
		}
	})
	resp, body, err := b.do(c, "GET", url, identity.GrantHeader, grant)
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, all) {
		t.Errorf("whole: status %d, %d bytes, %v", resp.StatusCode, len(body), err)
	}
	if got, want := resp.Header.Get("ETag"), `"`+e.record.Manifest.String()+`"`; got != want {
		t.Errorf("ETag %s, want %s", got, want)
	}
	resp, body, _ = b.do(c, "HEAD", url, identity.GrantHeader, grant, "Range", "bytes=0-1")
	if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength != int64(size) {
		t.Errorf("HEAD: status %d, length %d, want 200, %d", resp.StatusCode, resp.ContentLength, size)
	}
}

func TestBytesOfFiles(t *testing.T) {
	b := newBench(t)
	_, _, url, grant := b.serving()
	c := b.client(b.device)
	for name, want := range sample() {
		resp, body, err := b.do(c, "GET", url+"/"+escape(name), identity.GrantHeader, grant)
		if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, want) {
			t.Errorf("%q: status %d, %d bytes, %v", name, resp.StatusCode, len(body), err)
		}
	}
	resp, body, _ := b.do(c, "GET", url+"/big.bin", identity.GrantHeader, grant, "Range", "bytes=-5")
	if want := sample()["big.bin"]; resp.StatusCode != 206 || !bytes.Equal(body, want[len(want)-5:]) {
		t.Errorf("the last 5 bytes of a file: status %d, %x", resp.StatusCode, body)
	}
	for _, name := range []string{"nothing", "small", "BIG.BIN", "..%2fbig.bin", "small%2f..%2fone"} {
		if resp, _, _ := b.do(c, "GET", url+"/"+name, identity.GrantHeader, grant); resp.StatusCode != 404 {
			t.Errorf("%q: status %d, want 404", name, resp.StatusCode)
		}
	}
}

func TestBytesConditionsAndRefusals(t *testing.T) {
	b := newBench(t)
	_, e, url, grant := b.serving()
	tag, size := `"`+e.record.Manifest.String()+`"`, e.size
	tests := map[string]struct {
		header []string
		status int
		rng    string // Content-Range
	}{
		"several ranges":   {[]string{"Range", "bytes=0-1,5-6"}, 416, fmt.Sprintf("bytes */%d", size)},
		"two headers":      {[]string{"Range", "bytes=0-1", "Range", "bytes=5-6"}, 400, ""},
		"behind the end":   {[]string{"Range", fmt.Sprintf("bytes=%d-", size)}, 416, fmt.Sprintf("bytes */%d", size)},
		"another unit":     {[]string{"Range", "items=0-1"}, 200, ""},
		"nonsense":         {[]string{"Range", "bytes=a-b"}, 416, fmt.Sprintf("bytes */%d", size)},
		"if range fits":    {[]string{"Range", "bytes=0-1", "If-Range", tag}, 206, fmt.Sprintf("bytes 0-1/%d", size)},
		"if range differs": {[]string{"Range", "bytes=0-1", "If-Range", `"x"`}, 200, ""},
		"client has it":    {[]string{"If-None-Match", tag}, 304, ""},
	}
	c := b.client(b.device)
	for name, test := range tests {
		resp, _, err := b.do(c, "GET", url, append(test.header, identity.GrantHeader, grant)...)
		if err != nil || resp.StatusCode != test.status || resp.Header.Get("Content-Range") != test.rng {
			t.Errorf("%s: status %d, Content-Range %q, %v; want %d, %q", name, resp.StatusCode, resp.Header.Get("Content-Range"), err, test.status, test.rng)
		}
	}
}

// TestNothingWithoutGrant asks for all that is served in all the wrong ways: each answer is
// the one for unknown content.
func TestNothingWithoutGrant(t *testing.T) {
	b := newBench(t)
	_, e, url, grant := b.serving()
	base := strings.TrimSuffix(url, "/bytes/"+e.record.Manifest.String())
	paths := []string{
		"/bytes/" + e.record.Manifest.String(), "/bytes/" + e.record.Manifest.String() + "/one", "/metadata/" + e.record.Manifest.String(),
		"/pieceshash/" + e.hoh.String(), "/pieceshash/" + e.hoh.String() + ".bin",
	}
	callers := map[string]struct {
		who   *identity.Credentials
		grant string
	}{
		"no certificate": {nil, grant},
		"no grant":       {b.device, ""},
		"other content":  {b.device, b.grantFor(content.Digest{1}, content.Digest{2})},
		"other device":   {b.issue(identity.RoleDevice, "staff", 9), grant},
		"other group":    {b.issue(identity.RoleDevice, "guests", 2), grant},
	}
	_, unknown, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+content.Digest{7}.String(), identity.GrantHeader, b.grantFor(content.Digest{7}, content.Digest{}))
	for name, caller := range callers {
		for _, path := range paths {
			resp, body, _ := b.do(b.client(caller.who), "GET", base+path, identity.GrantHeader, caller.grant)
			if resp.StatusCode != 404 || !bytes.Equal(body, unknown) {
				t.Errorf("%s, %s: status %d %q, want 404 %q", name, path, resp.StatusCode, body, unknown)
			}
		}
	}
	for _, path := range paths {
		if resp, body, _ := b.do(b.client(b.device), "GET", base+path, identity.GrantHeader, grant); resp.StatusCode != 200 || len(body) == 0 {
			t.Errorf("%s with a good grant: status %d", path, resp.StatusCode)
		}
	}
}

func TestFetchFromOrigin(t *testing.T) {
	b := newBench(t)
	o, e, url, grant := b.serving()
	all := concatenation(sample())
	raw, err := o.files.Manifest(t.Context(), e.record.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := content.ParseManifest(raw)
	if err != nil {
		t.Fatal(err)
	}
	layout := content.NewLayout(m.Files)
	src := fetch.New(b.client(b.device), url, func() http.Header { return http.Header{identity.GrantHeader: {grant}} })
	var got []byte
	err = src.Fetch(t.Context(), layout, 0, layout.Runs(), onePool{make([]byte, content.PieceSize)}, func(_ int, b []byte) error {
		got = append(got, b...)
		return nil
	})
	if err != nil || !bytes.Equal(got, all) {
		t.Errorf("got %d of %d bytes, %v", len(got), len(all), err)
	}
	path := filepath.Join(b.root, pathOf(testRef), "big.bin")
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if err := src.Fetch(t.Context(), layout, 1, 2, onePool{make([]byte, content.PieceSize)}, nil); !errors.Is(err, fetch.ErrChanged) {
		t.Errorf("a changed file: got %v, want fetch.ErrChanged", err)
	}
}

// onePool lends one buffer again and again.
type onePool struct{ b []byte }

func (p onePool) Get(context.Context) ([]byte, error) { return p.b, nil }
func (p onePool) Put([]byte)                          {}

// beginReading asks for the bytes of the test's content and reads the first MiB of them.
func (b *bench) beginReading(o *Origin, base string) (rest io.Reader, head []byte) {
	b.t.Helper()
	e, _ := o.current(testRef)
	r, err := http.NewRequestWithContext(b.t.Context(), "GET", base+"/bytes/"+e.record.Manifest.String(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set(identity.GrantHeader, b.grantFor(e.record.Manifest, e.hoh))
	resp, err := b.client(b.device).Do(r)
	if err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("got %v, %v", resp, err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	head = make([]byte, 1<<20)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		b.t.Fatal(err)
	}
	return resp.Body, head
}

// TestChangeBreaksTheReply changes a file while it is being sent: the reader gets nothing but
// right bytes, too few of them.
func TestChangeBreaksTheReply(t *testing.T) {
	b := newBench(t)
	want := bytesOf(1, 64<<20)
	b.place(testRef, map[string][]byte{"big.bin": want})
	o, base := b.open(nil)
	e, _ := o.current(testRef)
	reply, head := b.beginReading(o, base)
	f, err := os.OpenFile(filepath.Join(b.root, pathOf(testRef), "big.bin"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("other bytes"), 60<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	rest, err := io.ReadAll(reply)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
	if got := append(head, rest...); len(got) == len(want) || !bytes.Equal(got, want[:len(got)]) {
		t.Errorf("%d of %d bytes arrived, or other ones", len(got), len(want))
	}
	resp, body, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+e.record.Manifest.String(), identity.GrantHeader, b.grantFor(e.record.Manifest, e.hoh))
	if resp.StatusCode != 409 || !strings.Contains(string(body), "origin-stale") {
		t.Errorf("next request: status %d %s, want 409 origin-stale", resp.StatusCode, body)
	}
}

func TestRestartReadsNothingAgain(t *testing.T) {
	b := newBench(t)
	b.place(testRef, sample())
	mapped := t.TempDir()
	write(t, mapped, map[string][]byte{"x": {1, 2, 3}})
	other := map[content.Ref]string{{ID: "mapped", Version: 1}: mapped}
	first, _ := b.open(other)
	if !first.RegisterAll(t.Context()) || len(b.registered) != 2 {
		t.Fatalf("%d contents are registered, want 2", len(b.registered))
	}
	if first.RegisterAll(t.Context()); len(b.registered) != 2 {
		t.Error("what the server knows was registered again")
	}
	e, _ := first.current(testRef)
	if b.hashed == 0 {
		t.Error("the hashing was not shown")
	}
	first.Close()

	b.hashed = 0
	second, _ := b.open(other)
	if again, ok := second.current(testRef); !ok || again.record.Manifest != e.record.Manifest || b.hashed != 0 {
		t.Errorf("restart: served %v, %d steps of hashing, want the same content and none", ok, b.hashed)
	}
	second.Close()

	b.place(testRef, map[string][]byte{"one": {2}})
	third, _ := b.open(other)
	changed, _ := third.current(testRef)
	if changed.record.Manifest == e.record.Manifest || b.hashed == 0 {
		t.Error("a changed file was not seen")
	}
	b.registered = nil
	third.RegisterAll(t.Context())
	for _, p := range b.registered {
		m, err := content.ParseManifest(p.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if m.Ref == testRef {
			want = e.record.Manifest.String()
		}
		if p.Replaces != want || p.Origins[0] != "https://dp.example:1/" {
			t.Errorf("%v: replaces %q from %v, want %q", m.Ref, p.Replaces, p.Origins, want)
		}
	}
}

func TestLoadLeavesOutWhatCannotBeServed(t *testing.T) {
	b := newBench(t)
	b.place(testRef, sample())
	bad := content.Ref{ID: "bad", Version: 1}
	b.place(bad, map[string][]byte{"x": {1}})
	if err := os.Symlink("x", filepath.Join(b.root, pathOf(bad), "link")); err != nil {
		t.Skip(err)
	}
	for _, d := range []string{"tools/04", "tools/x", "-no/1", "ok"} { // not contents
		if err := os.MkdirAll(filepath.Join(b.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o, err := Open(Config{State: b.state, Root: b.root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Load(t.Context()); err == nil || !strings.Contains(err.Error(), `"link"`) {
		t.Errorf("got %v, want an error that names the link", err)
	}
	if len(o.byRef) != 1 || len(o.byDigest) != 1 {
		t.Errorf("%d contents are served, want 1", len(o.byRef))
	}
}
