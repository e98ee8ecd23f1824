package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// ticket returns a signed ticket for testRef, changed by change.
func (b *bench) ticket(change func(*identity.Ticket)) []byte {
	b.t.Helper()
	t := identity.Ticket{Ref: testRef, Groups: []string{"staff"}, Expires: time.Now().Add(time.Hour)}
	if change != nil {
		change(&t)
	}
	signed, err := identity.SignTicket(b.key, t)
	if err != nil {
		b.t.Fatal(err)
	}
	return signed
}

// publisher hashes dir and returns the publisher of it at base.
func (b *bench) publisher(base, dir string, ticket []byte) *Publisher {
	b.t.Helper()
	m, _, _, err := blob.HashTree(b.t.Context(), dir, blob.HashOptions{Ref: testRef})
	if err != nil {
		b.t.Fatal(err)
	}
	return &Publisher{HTTP: b.client(nil), Base: base, Ticket: ticket, Manifest: m}
}

func openDir(t *testing.T, dir string) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// upload publishes dir by upload.
func (b *bench) upload(base, dir string) (*Result, error) {
	b.t.Helper()
	p := b.publisher(base, dir, b.ticket(nil))
	missing, err := p.Begin(b.t.Context())
	if err != nil {
		return nil, err
	}
	if err := p.Upload(b.t.Context(), openDir(b.t, dir), missing, nil); err != nil {
		return nil, err
	}
	return p.Publish(b.t.Context(), FromUpload, func(int64, int64) {})
}

// isProblem reports whether err is a problem of this type that says all of texts.
func isProblem(err error, kind string, texts ...string) bool {
	var p *api.Problem
	if !errors.As(err, &p) || p.Type != kind {
		return false
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			return false
		}
	}
	return true
}

// tree returns the files below dir.
func tree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameFiles(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%q differs", name)
		}
	}
}

func TestPublishByUpload(t *testing.T) {
	b := newBench(t)
	o, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, sample())
	if err := os.Chmod(filepath.Join(dir, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := b.publisher(base, dir, b.ticket(nil))
	missing, err := p.Begin(t.Context())
	if err != nil || len(missing) != len(p.Manifest.Files) {
		t.Fatalf("%d files are missing, %v, want %d", len(missing), err, len(p.Manifest.Files))
	}

	half := missing[:len(missing)/2]
	if err := p.Upload(t.Context(), openDir(t, dir), half, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.root, pathOf(testRef))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half an upload has the final name: %v", err)
	}
	if _, err := p.Publish(t.Context(), FromUpload, func(int64, int64) {}); !isProblem(err, "differs", "is missing") {
		t.Errorf("half an upload: got %v, want a problem that names a missing file", err)
	}

	r, err := b.upload(base, dir)
	if err != nil {
		t.Fatal(err)
	}
	want := content.DigestOf(content.AppendManifest(nil, p.Manifest))
	if r.ManifestDigest != want.String() || r.Files != len(p.Manifest.Files) || r.Size != p.Manifest.Size || r.Generation == 0 {
		t.Errorf("got %+v, want manifest %s", r, want)
	}
	sameFiles(t, tree(t, filepath.Join(b.root, pathOf(testRef))), sample())
	if got := tree(t, filepath.Join(b.root, uploadDir)); len(got) != 0 {
		t.Errorf("%d files stay in the upload directory", len(got))
	}
	reg := b.registered[len(b.registered)-1]
	if len(reg.Groups) != 1 || reg.Groups[0] != "staff" || len(reg.Ticket) == 0 || content.DigestOf(reg.Manifest) != want {
		t.Errorf("registered groups %q with a ticket of %d bytes", reg.Groups, len(reg.Ticket))
	}
	e, _ := o.current(testRef)
	resp, body, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+r.ManifestDigest, identity.GrantHeader, b.grantFor(want, e.hoh))
	if resp.StatusCode != 200 || !bytes.Equal(body, concatenation(sample())) {
		t.Errorf("status %d, %d bytes, want the content", resp.StatusCode, len(body))
	}
}

func TestPublishResumes(t *testing.T) {
	b := newBench(t)
	first, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, sample())
	p := b.publisher(base, dir, b.ticket(nil))
	missing, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Upload(t.Context(), openDir(t, dir), missing[:30], nil); err != nil {
		t.Fatal(err)
	}
	first.Close()

	_, base = b.open(nil) // the distribution point was started again
	write(t, dir, map[string][]byte{p.Manifest.Files[missing[3]].Name: []byte("changed since")})
	again := b.publisher(base, dir, b.ticket(nil))
	left, err := again.Begin(t.Context())
	if err != nil || len(left) != len(missing)-29 {
		t.Fatalf("%d files are missing, %v, want %d: one has changed, 29 are there", len(left), err, len(missing)-29)
	}
	var sent atomic.Int64
	if err := again.Upload(t.Context(), openDir(t, dir), left, func(n int64) { sent.Add(n) }); err != nil {
		t.Fatal(err)
	}
	var want int64
	for _, i := range left {
		want += again.Manifest.Files[i].Size
	}
	if sent.Load() != want {
		t.Errorf("%d bytes were sent, want %d", sent.Load(), want)
	}
	if _, err := again.Publish(t.Context(), FromUpload, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, tree(t, filepath.Join(b.root, pathOf(testRef))), tree(t, dir))
}

// TestPublishAgain replaces a content: the old digest answers 409, the new one is served;
// publishing the same twice sends nothing.
func TestPublishAgain(t *testing.T) {
	b := newBench(t)
	o, e, url, grant := b.serving()
	base := strings.TrimSuffix(url, "/bytes/"+e.record.Manifest.String())
	dir := t.TempDir()
	files := sample()
	files["new/file"], files["one"] = []byte("new"), []byte{2}
	delete(files, "empty")
	write(t, dir, files)
	r, err := b.upload(base, dir)
	if err != nil {
		t.Fatal(err)
	}
	sameFiles(t, tree(t, filepath.Join(b.root, pathOf(testRef))), files)
	c := b.client(b.device)
	if resp, _, _ := b.do(c, "GET", url, identity.GrantHeader, grant); resp.StatusCode != 409 {
		t.Errorf("the replaced digest: status %d, want 409", resp.StatusCode)
	}
	now, _ := o.current(testRef)
	resp, body, _ := b.do(c, "GET", base+"/bytes/"+r.ManifestDigest, identity.GrantHeader, b.grantFor(now.record.Manifest, now.hoh))
	if resp.StatusCode != 200 || !bytes.Equal(body, concatenation(files)) {
		t.Errorf("the new digest: status %d, %d bytes", resp.StatusCode, len(body))
	}

	p := b.publisher(base, dir, b.ticket(nil))
	if missing, err := p.Begin(t.Context()); err != nil || len(missing) != 0 {
		t.Errorf("the same again: %d files are missing, %v, want none", len(missing), err)
	}
	if _, err := p.Publish(t.Context(), FromUpload, func(int64, int64) {}); err != nil {
		t.Error(err)
	}
	if still, _ := o.current(testRef); still.tree != now.tree {
		t.Error("the same content was opened again under its readers")
	}
}

func TestPublishInPlace(t *testing.T) {
	b := newBench(t)
	mapped := t.TempDir()
	o, base := b.open(map[content.Ref]string{testRef: mapped})
	if e, ok := o.current(testRef); !ok || e.size != 0 {
		t.Fatal("the empty directory is not served as it is")
	}
	dir := t.TempDir()
	write(t, dir, sample())
	publish := func() (*Result, error) {
		return b.publisher(base, dir, b.ticket(nil)).Publish(t.Context(), FromPlace, func(int64, int64) {})
	}
	before := len(b.registered)
	if _, err := publish(); !isProblem(err, "differs", "is missing", mapped) {
		t.Errorf("an empty place: got %v, want a problem that names the first file", err)
	}
	write(t, mapped, sample())
	if _, err := publish(); err != nil {
		t.Error(err)
	}
	write(t, mapped, map[string][]byte{"one": {9}, "small/007": []byte("longer than it was")})
	if _, err := publish(); !isProblem(err, "differs", `"one"`, "SHA-256") {
		t.Errorf("another file: got %v, want a problem that names it", err)
	}
	if len(b.registered) != before+1 {
		t.Errorf("%d contents were registered, want the right one alone", len(b.registered)-before)
	}
	if _, err := b.upload(base, dir); !isProblem(err, "mapped", "--in-place", mapped) {
		t.Errorf("upload to a mapped content: got %v, want the remedy", err)
	}
}

func TestPublishInPlaceNotThere(t *testing.T) {
	b := newBench(t)
	_, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, sample())
	_, err := b.publisher(base, dir, b.ticket(nil)).Publish(t.Context(), FromPlace, func(int64, int64) {})
	if !isProblem(err, "not-there", filepath.Join(b.root, "tools", "3"), "--content tools@3=DIR") {
		t.Errorf("got %v, want where the distribution point looks, and the remedy", err)
	}
}

func TestPublishNeedsTicket(t *testing.T) {
	b := newBench(t)
	_, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, map[string][]byte{"x": {1}})
	other := newBench(t)
	used := b.ticket(nil)
	tests := map[string]struct {
		ticket []byte
		says   string
	}{
		"none":          {nil, "no ticket"},
		"another key":   {other.ticket(nil), ""},
		"another ref":   {b.ticket(func(t *identity.Ticket) { t.Ref.Version = 4 }), "tools@4"},
		"expired":       {b.ticket(func(t *identity.Ticket) { t.Expires = time.Now().Add(-time.Second) }), "expired"},
		"another point": {b.ticket(func(t *identity.Ticket) { t.Origin = wire.DeviceID{7} }), "distribution point"},
		"a grant":       {identity.SignGrant(b.key, identity.Grant{Device: wire.DeviceID{2}, Group: "staff", Ref: testRef, Expires: time.Now().Add(time.Hour)}), ""},
		"used":          {used, "used"},
	}
	p := b.publisher(base, dir, used)
	missing, err := p.Begin(t.Context())
	if err == nil {
		err = p.Upload(t.Context(), openDir(t, dir), missing, nil)
	}
	if err == nil {
		_, err = p.Publish(t.Context(), FromUpload, func(int64, int64) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	registered := len(b.registered)
	for name, test := range tests {
		p := b.publisher(base, dir, test.ticket)
		_, begin := p.Begin(t.Context())
		upload := p.Upload(t.Context(), openDir(t, dir), []int{0}, nil)
		_, publish := p.Publish(t.Context(), FromPlace, func(int64, int64) {})
		for call, err := range map[string]error{"begin": begin, "upload": upload, "publish": publish} {
			if !isProblem(err, "no-ticket", test.says) {
				t.Errorf("%s, %s: got %v, want a refusal that says %q", name, call, err, test.says)
			}
		}
	}
	if len(b.registered) != registered {
		t.Error("something was registered")
	}
}

// TestUploadRefuses sends what the manifest does not have.
func TestUploadRefuses(t *testing.T) {
	b := newBench(t)
	_, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, map[string][]byte{"sub/x": []byte("right"), "sub/y": []byte("y")})
	p := b.publisher(base, dir, b.ticket(nil))
	put := func(path, body string) (int, string) {
		resp, err := p.call(t.Context(), http.MethodPut, p.path("upload")+path, strings.NewReader(body), int64(len(body)))
		var problem *api.Problem
		if errors.As(err, &problem) {
			return problem.Status, problem.Type
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, ""
	}
	if status, kind := put("/sub/x", "right"); status != 409 || kind != "no-upload" {
		t.Errorf("before the manifest: %d %q, want 409 no-upload", status, kind)
	}
	if status, kind := put("", "{}"); status != 400 || kind != "bad-manifest" {
		t.Errorf("a bad manifest: %d %q, want 400 bad-manifest", status, kind)
	}
	evil := strings.Replace(string(content.AppendManifest(nil, p.Manifest)), `"sub/x"`, `"../x"`, 1)
	if status, kind := put("", evil); status != 400 || kind != "bad-manifest" {
		t.Errorf("a name that climbs: %d %q, want 400 bad-manifest", status, kind)
	}
	if _, err := p.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path, body string
		status     int
		kind       string
	}{
		"right":          {"/sub/x", "right", 204, ""},
		"other bytes":    {"/sub/x", "wrong", 422, "bad-file"},
		"too short":      {"/sub/x", "righ", 400, "bad-length"},
		"too long":       {"/sub/x", "right!", 400, "bad-length"},
		"unknown name":   {"/sub/z", "right", 400, "bad-name"},
		"climbing":       {"/..%2f..%2fx", "right", 400, "bad-name"},
		"a directory":    {"/sub", "right", 400, "bad-name"},
		"the manifest's": {"/..%2fmanifest", "right", 400, "bad-name"},
	}
	for name, test := range tests {
		if status, kind := put(test.path, test.body); status != test.status || kind != test.kind {
			t.Errorf("%s: %d %q, want %d %q", name, status, kind, test.status, test.kind)
		}
	}
	staged := tree(t, b.root)
	base = uploadDir + "/" + testRef.String()
	if len(staged) != 2 || string(staged[base+"/tree/sub/x"]) != "right" || staged[base+"/manifest"] == nil {
		t.Errorf("below ROOT lie %d files, want the manifest and the right one", len(staged))
	}
}

// TestPromoteRecovers starts after a process that ended between the two renames of a publish.
func TestPromoteRecovers(t *testing.T) {
	b := newBench(t)
	old := filepath.Join(b.root, uploadDir, testRef.String(), stagedOld)
	write(t, old, sample())
	o, _ := b.open(nil)
	if _, ok := o.current(testRef); !ok {
		t.Error("the content that was moved away is not served")
	}
	sameFiles(t, tree(t, filepath.Join(b.root, pathOf(testRef))), sample())
}

func TestRegisterFails(t *testing.T) {
	b := newBench(t)
	o, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, sample())
	b.refuse = fmt.Errorf("no answer")
	if _, err := b.upload(base, dir); !isProblem(err, "publish-failed", "no answer") {
		t.Errorf("got %v, want the cause", err)
	}
	if o.RegisterAll(t.Context()) {
		t.Error("all is registered though the server does not answer")
	}
	b.refuse = nil
	if !o.RegisterAll(t.Context()) {
		t.Error("it is not registered when the server answers again")
	}
	if last := b.registered[len(b.registered)-1]; len(last.Groups) != 1 || last.Groups[0] != "staff" {
		t.Errorf("registered for groups %q, want those of the ticket", last.Groups)
	}
}

func TestFirstDifference(t *testing.T) {
	file := func(name string, size int64, sum byte, x bool) content.File {
		return content.File{Name: name, Size: size, SHA256: content.Digest{sum}, Executable: x}
	}
	want := []content.File{file("a", 1, 1, false), file("b", 2, 2, true)}
	tests := map[string]struct {
		got  []content.File
		says string
	}{
		"same":       {want, ""},
		"missing":    {want[1:], `file "a" is missing`},
		"none":       {nil, `file "a" is missing`},
		"last":       {want[:1], `file "b" is missing`},
		"extra":      {append([]content.File{file("0", 1, 1, false)}, want...), `file "0" is extra`},
		"extra last": {append(want[:2:2], file("c", 1, 1, false)), `file "c" is extra`},
		"size":       {[]content.File{want[0], file("b", 3, 2, true)}, `file "b" has 3 bytes, want 2`},
		"hash":       {[]content.File{file("a", 1, 9, false), want[1]}, `file "a" has SHA-256 090000000000, want 010000000000`},
		"executable": {[]content.File{want[0], file("b", 2, 2, false)}, `file "b" is not executable and ought to be`},
	}
	for name, test := range tests {
		if got := FirstDifference(&content.Manifest{Files: want}, &content.Manifest{Files: test.got}); got != test.says {
			t.Errorf("%s: got %q, want %q", name, got, test.says)
		}
	}
}
