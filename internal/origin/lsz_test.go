package origin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"freshet/internal/api"
	"freshet/internal/blob"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/records"
)

// readings counts the log's lines of a kind.
type readings struct {
	slog.Handler
	n atomic.Int64
}

func (c *readings) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "content is read again" {
		c.n.Add(1)
	}
	return nil
}

func (c *readings) Enabled(context.Context, slog.Level) bool { return true }

// registeredBench is a distribution point whose content the server took.
func registeredBench(t *testing.T, files map[string][]byte) (b *bench, o *Origin, base string, count *readings) {
	t.Helper()
	b = newBench(t)
	b.place(testRef, files)
	o, base = b.open(nil)
	count = &readings{Handler: slog.DiscardHandler}
	o.cfg.Log = slog.New(count)
	o.cfg.Patience = time.Minute
	if !o.RegisterAll(t.Context()) {
		t.Fatal("not registered")
	}
	return b, o, base, count
}

// expecting returns the question of a device whose management system knows these files.
func expecting(files map[string][]byte, alg content.Algorithm, force bool) api.LszRequest {
	q := api.LszRequest{Force: force}
	for name, b := range files {
		h := content.NewFileHasher()
		h.Write(b)
		f, _ := h.Sum(name, false)
		d := f.SHA256[:]
		if alg == content.SHA1Algorithm {
			d = f.SHA1[:]
		}
		q.Files = append(q.Files, api.ExpectedFile{Name: strings.ToUpper(name), Algorithm: alg.String(), Digest: hex.EncodeToString(d)})
	}
	return q
}

// ask asks, and returns the reply or the problem.
func (b *bench) ask(c *http.Client, base string, ref content.Ref, body any, header ...string) (int, http.Header, *api.LszReply, api.Problem) {
	b.t.Helper()
	raw, ok := body.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			b.t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", fmt.Sprintf("%s/lsz/%s/%d", base, ref.ID, ref.Version), bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	reply, p := &api.LszReply{}, api.Problem{}
	var into any = reply
	if resp.StatusCode != 200 {
		into = &p
	}
	if err := json.Unmarshal(got, into); err != nil {
		b.t.Fatalf("status %d: %q: %v", resp.StatusCode, got, err)
	}
	return resp.StatusCode, resp.Header, reply, p
}

// rewriteFile changes a file and keeps size and mtime.
func rewriteFile(t *testing.T, path string, b []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func TestLszFitsAtOnce(t *testing.T) {
	b, o, base, count := registeredBench(t, sample())
	e, _ := o.current(testRef)
	subset := expecting(map[string][]byte{"one": {1}}, content.SHA256Algorithm, false)
	subset.Match = "subset"
	questions := map[string]api.LszRequest{
		"SHA-1": expecting(sample(), content.SHA1Algorithm, true), "SHA-256": expecting(sample(), content.SHA256Algorithm, true),
		"nothing": {}, "subset": subset,
	}
	for name, q := range questions {
		status, _, got, _ := b.ask(b.client(b.device), base, testRef, q)
		if status != 200 || got.Outcome != api.LszFits || got.ManifestDigest != e.record.Manifest.String() || got.Generation != 1 {
			t.Fatalf("%s: status %d, %+v", name, status, got)
		}
		if content.DigestOf(got.Manifest) != e.record.Manifest || content.DigestOf(got.HashFile) != e.hoh {
			t.Errorf("%s: manifest or hash file are not inline", name)
		}
		n, err := b.device.OriginTrust().VerifyManifest(e.record.Manifest, got.Signature)
		if err != nil || n != b.origin.Name() {
			t.Errorf("%s: signed by %v, %v", name, n, err)
		}
		if want := "https://dp.example:1/bytes/" + got.ManifestDigest; got.ContentUrl != want {
			t.Errorf("%s: bytes at %q, want %q", name, got.ContentUrl, want)
		}
	}
	if n := count.n.Load(); n != 0 {
		t.Errorf("%d readings for what fits", n)
	}
}

// TestLszOneReadingForAll: the files changed under the manifest; 20 devices that know it ask.
func TestLszOneReadingForAll(t *testing.T) {
	b, o, base, count := registeredBench(t, sample())
	old, _ := o.current(testRef)
	files := sample()
	files["big.bin"] = bytesOf(9, len(files["big.bin"]))
	rewriteFile(t, filepath.Join(b.root, pathOf(testRef), "big.bin"), files["big.bin"])
	q := expecting(files, content.SHA1Algorithm, true)
	digests := make([]string, 20)
	var wg sync.WaitGroup
	for i := range digests {
		c := b.client(b.device)
		wg.Go(func() {
			status, _, got, p := b.ask(c, base, testRef, q)
			if digests[i] = got.ManifestDigest; status != 200 || got.Outcome != api.LszFits {
				t.Errorf("status %d, %+v, %+v", status, got, p)
			}
		})
	}
	wg.Wait()
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings for 20 who asked, want 1", n)
	}
	e, _ := o.current(testRef)
	for _, d := range digests {
		if d != e.record.Manifest.String() || d == old.record.Manifest.String() {
			t.Errorf("answered %s, served is %s, before %s", d, e.record.Manifest, old.record.Manifest)
		}
	}
	last := b.registered[len(b.registered)-1]
	if len(b.registered) != 2 || last.Replaces != old.record.Manifest.String() || content.DigestOf(last.Manifest) != e.record.Manifest {
		t.Errorf("%d registrations, the last replaces %q", len(b.registered), last.Replaces)
	}
	c := b.client(b.device)
	resp, body, _ := b.do(c, "GET", base+"/bytes/"+old.record.Manifest.String(), identity.GrantHeader, b.grantFor(old.record.Manifest, old.hoh), "Range", "bytes=0-9")
	if resp.StatusCode != 409 {
		t.Errorf("the old digest: status %d %q, want 409", resp.StatusCode, body)
	}
	resp, body, _ = b.do(c, "GET", base+"/bytes/"+e.record.Manifest.String(), identity.GrantHeader, b.grantFor(e.record.Manifest, e.hoh))
	if resp.StatusCode != 200 || !bytes.Equal(body, concatenation(files)) {
		t.Errorf("the new digest: status %d, %d bytes", resp.StatusCode, len(body))
	}
	if resp, _, _ = b.do(c, "GET", base+"/bytes/"+e.record.Manifest.String()); resp.StatusCode != 404 {
		t.Errorf("the new digest without a grant: status %d, want 404: the server has it", resp.StatusCode)
	}
}

// TestLszSwapWhileRead: whoever is reading the old digest gets its bytes or a broken reply.
func TestLszSwapWhileRead(t *testing.T) {
	files := map[string][]byte{"a.bin": bytesOf(1, 8<<20), "z.bin": bytesOf(2, 56<<20)}
	b, o, base, _ := registeredBench(t, files)
	body, head := b.beginReading(o, base)
	want := concatenation(files)
	files["z.bin"] = bytesOf(3, 56<<20)
	rewriteFile(t, filepath.Join(b.root, pathOf(testRef), "z.bin"), files["z.bin"])
	if status, _, got, p := b.ask(b.client(b.device), base, testRef, expecting(files, content.SHA1Algorithm, true)); status != 200 || got.Outcome != api.LszFits {
		t.Fatalf("status %d, %v", status, p)
	}
	rest, err := io.ReadAll(body)
	got := append(head, rest...)
	if !bytes.HasPrefix(want, got) || len(got) == len(want) || err == nil {
		t.Errorf("%d of %d bytes arrived, %v: want fewer, the old ones, and an error", len(got), len(want), err)
	}
}

// TestLszNeverFits: one full reading, then the same answer from memory, over a restart too,
// until a file changes.
func TestLszNeverFits(t *testing.T) {
	files := map[string][]byte{"a": bytesOf(1, 5000), "b": bytesOf(2, 300)}
	b, o, base, count := registeredBench(t, files)
	wrong := map[string][]byte{"a": bytesOf(7, 5000), "b": bytesOf(2, 300)}
	q := expecting(wrong, content.SHA256Algorithm, true)
	stale := func(base string) {
		t.Helper()
		status, h, _, p := b.ask(b.client(b.device), base, testRef, q)
		if status != 409 || p.Type != api.LszStale || h.Get("Retry-After") != "60" || p.RetrySecs != 60 || !strings.Contains(p.Detail, `"a"`) {
			t.Errorf("status %d, %v, Retry-After %q", status, p, h.Get("Retry-After"))
		}
	}
	e, _ := o.current(testRef)
	for range 3 {
		stale(base)
	}
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings for three questions, want 1", n)
	}
	if now, _ := o.current(testRef); now.record.Manifest != e.record.Manifest || len(b.registered) != 1 {
		t.Error("another manifest of the same files is served or registered")
	}
	o.Close()
	again, base2 := b.open(nil)
	again.cfg.Log = slog.New(count)
	stale(base2)
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings after a restart, want 1", n)
	}
	write(t, filepath.Join(b.root, pathOf(testRef)), map[string][]byte{"a": wrong["a"]})
	if status, _, got, p := b.ask(b.client(b.device), base2, testRef, q); status != 200 || got.ManifestDigest == e.record.Manifest.String() {
		t.Errorf("after the files were brought: status %d, %v", status, p)
	}
	q.Files = append(q.Files, api.ExpectedFile{Name: "c", Algorithm: "SHA1", Digest: strings.Repeat("0", 40)})
	status, _, _, p := b.ask(b.client(b.device), base2, testRef, q)
	if status != 409 || p.Type != api.LszStale {
		t.Errorf("a file that is missing: status %d, %v", status, p)
	}
	n := count.n.Load()
	write(t, filepath.Join(b.root, pathOf(testRef)), map[string][]byte{"c": {1}})
	b.ask(b.client(b.device), base2, testRef, q)
	if n++; count.n.Load() < n {
		t.Error("a new file was not read")
	}
	n = count.n.Load()
	b.ask(b.client(b.device), base2, testRef, q)
	if count.n.Load() != n {
		t.Error("nothing changed, and all was read again")
	}
}

// TestRecalled: what was recalled stays so when the distribution point starts again and devices
// ask for it, until it is published anew.
func TestRecalled(t *testing.T) {
	b, o, _, _ := registeredBench(t, map[string][]byte{"a": {1}})
	o.Close()
	b.refuse = &api.Problem{Status: 409, Type: "recalled", Title: "was recalled"}
	o, base := b.open(nil)
	o.RegisterAll(t.Context())
	e, _ := o.current(testRef)
	q := expecting(map[string][]byte{"a": {1}}, content.SHA1Algorithm, true)
	if status, _, got, _ := b.ask(b.client(b.device), base, testRef, q); status != 404 {
		t.Errorf("status %d, outcome %q, want 404", status, got.Outcome)
	}
	if resp, _, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+e.record.Manifest.String()); resp.StatusCode != 404 {
		t.Errorf("bytes without a grant: status %d, want 404", resp.StatusCode)
	}
	publisher := newPublisher(t)
	manifest, err := o.files.Manifest(t.Context(), e.record.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	s := e.standing()
	s.signature, o.cfg.Publishers = publisher.sign(manifest, time.Hour, "staff"), publisher.pinned()
	e.registered(s)
	if resp, _, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+e.record.Manifest.String()); resp.StatusCode != 404 {
		t.Errorf("signed bytes without a grant: status %d, want 404", resp.StatusCode)
	}
	b.refuse = nil
	if _, err := o.register(t.Context(), e, []byte("a ticket")); err != nil {
		t.Fatal(err)
	}
	if status, _, _, p := b.ask(b.client(b.device), base, testRef, q); status != 200 {
		t.Errorf("published anew: status %d, %v", status, p)
	}
}

// TestLszUnreadable: files that cannot be read are tried once however often devices ask, and
// again when something of the directory changed.
func TestLszUnreadable(t *testing.T) {
	b, _, base, count := registeredBench(t, map[string][]byte{"a": {1}})
	dir := filepath.Join(b.root, pathOf(testRef))
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	q := expecting(map[string][]byte{"a": {2}}, content.SHA1Algorithm, true)
	for range 3 {
		status, _, _, p := b.ask(b.client(b.device), base, testRef, q)
		if status != 409 || p.Type != api.LszStale || !strings.Contains(p.Detail, "cannot be read") {
			t.Errorf("status %d, %v", status, p)
		}
	}
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings for three questions, want 1", n)
	}
	if err := os.Remove(filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string][]byte{"a": {2}})
	if status, _, got, p := b.ask(b.client(b.device), base, testRef, q); status != 200 || got.Outcome != api.LszFits {
		t.Errorf("after the link went: status %d, %v", status, p)
	}
}

// TestLszPassingFailure: a reading that failed for another reason than the directory is tried again
// after the next look at all files, not for each question, and until then nobody is told that the
// files are not what is expected.
func TestLszPassingFailure(t *testing.T) {
	b, o, base, count := registeredBench(t, map[string][]byte{"a": {1}})
	dir := filepath.Join(b.root, pathOf(testRef))
	write(t, dir, map[string][]byte{"a": {2}})
	o.noteReading(testRef, failure{lookAt(dir), false, blame(&fs.PathError{Op: "read", Path: "a", Err: syscall.EIO})})
	q := expecting(map[string][]byte{"a": {2}}, content.SHA1Algorithm, true)
	for range 2 {
		status, header, _, p := b.ask(b.client(b.device), base, testRef, q)
		if status != 503 || p.Type != "unavailable" || header.Get("Retry-After") != "60" {
			t.Errorf("status %d, %v, again after %q", status, p, header.Get("Retry-After"))
		}
	}
	if n := count.n.Load(); n != 0 {
		t.Errorf("%d readings before the next look, want none", n)
	}
	w := &watch{o: o, notify: &fsnotify.Watcher{}, settler: settler{last: map[content.Ref]time.Time{}}}
	w.checkAll()
	if got := w.settler.due(time.Now()); !slices.Equal(got, []content.Ref{testRef}) {
		t.Errorf("to be read are %v, want %v", got, testRef)
	}
	if status, _, got, p := b.ask(b.client(b.device), base, testRef, q); status != 200 || got.Outcome != api.LszFits {
		t.Errorf("after the look: status %d, %v", status, p)
	}
}

// TestBlame: what a directory is to blame for is not read again before it changes, all else is.
func TestBlame(t *testing.T) {
	of := func(err error) error { return fmt.Errorf("hash: %w", &fs.PathError{Op: "read", Path: "a", Err: err}) }
	for err, want := range map[error]bool{
		of(syscall.EACCES): true, of(syscall.ENOENT): true, of(errors.New("path escapes from parent")): true,
		blob.ErrChanged: true, errors.New("a link"): true,
		of(syscall.EIO): false, of(syscall.EMFILE): false, of(syscall.ENOMEM): false,
	} {
		if got := errors.As(blame(err), new(unreadable)); got != want {
			t.Errorf("%v: the directory is to blame: %v, want %v", err, got, want)
		}
	}
}

// TestLszAlone: the catalog has moved on, so the distribution point's manifest is for those
// who ask alone; they may read it, and no other group.
func TestLszAlone(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	e, _ := o.current(testRef)
	s := e.standing()
	s.groups = []string{"staff"}
	e.registered(s)
	b.refuse = &api.Problem{Status: 409, Type: "changed", Title: "changed meanwhile"}
	files := map[string][]byte{"a": {2}}
	write(t, filepath.Join(b.root, pathOf(testRef)), files)
	status, _, got, p := b.ask(b.client(b.device), base, testRef, expecting(files, content.SHA1Algorithm, true))
	if status != 200 || got.Outcome != api.LszDiffers || got.Generation != 0 {
		t.Fatalf("status %d, %+v, %v", status, got, p)
	}
	tries := len(b.registered)
	if !o.RegisterAll(t.Context()) || len(b.registered) != tries {
		t.Error("what the server refused was offered again")
	}
	hoh, err := content.ParseDigestBase64(got.HashOfHashes)
	if err != nil {
		t.Fatal(err)
	}
	guest := b.issue(identity.RoleDevice, "guests", 5)
	for _, path := range []string{"/bytes/" + got.ManifestDigest, "/bytes/" + got.ManifestDigest + "/a", "/metadata/" + got.ManifestDigest, "/pieceshash/" + hoh.String() + ".bin"} {
		for who, want := range map[*identity.Credentials]int{b.device: 200, guest: 404, nil: 404, b.origin: 404} {
			if resp, _, _ := b.do(b.client(who), "GET", base+path); resp.StatusCode != want {
				t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
			}
		}
	}
	if status, _, _, _ := b.ask(b.client(guest), base, testRef, api.LszRequest{}); status != 404 {
		t.Errorf("another group's question: status %d, want 404", status)
	}
	ticket, err := identity.SignInquiry(b.key, identity.Ticket{Ref: testRef, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _, _ := b.ask(b.client(nil), base, testRef, api.LszRequest{}, identity.TicketHeader, base64.StdEncoding.EncodeToString(ticket)); status != 200 {
		t.Errorf("an administrator's question: status %d, want 200", status)
	}
}

// TestLszRegistrationReplyLost: the server took the manifest and its answer was lost.
func TestLszRegistrationReplyLost(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	var replaced []string
	o.cfg.Register = func(_ context.Context, p api.PublishRequest) (api.Content, error) {
		if replaced = append(replaced, p.Replaces); len(replaced) == 1 {
			return api.Content{}, &api.Problem{Status: 409, Type: "changed"}
		}
		return api.Content{Generation: 9}, nil
	}
	files := map[string][]byte{"a": {2}}
	write(t, filepath.Join(b.root, pathOf(testRef)), files)
	_, _, got, _ := b.ask(b.client(b.device), base, testRef, expecting(files, content.SHA1Algorithm, true))
	if got.Outcome != api.LszFits || got.Generation != 9 || len(replaced) != 2 || replaced[1] != got.ManifestDigest {
		t.Errorf("%+v after registrations that replace %q", got, replaced)
	}
}

// TestLszWhileRegistering: who asks while the server is told of the new manifest waits for its
// word; else it would take the content from here alone.
func TestLszWhileRegistering(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	begun, end := make(chan struct{}), make(chan struct{})
	o.cfg.Register = func(context.Context, api.PublishRequest) (api.Content, error) {
		close(begun)
		<-end
		return api.Content{Generation: 9}, nil
	}
	files := map[string][]byte{"a": {2}}
	write(t, filepath.Join(b.root, pathOf(testRef)), files)
	var wg sync.WaitGroup
	ask := func() {
		c := b.client(b.device)
		wg.Go(func() {
			if _, _, got, p := b.ask(c, base, testRef, expecting(files, content.SHA1Algorithm, true)); got.Outcome != api.LszFits || got.Generation != 9 {
				t.Errorf("outcome %s, generation %d, %+v", got.Outcome, got.Generation, p)
			}
		})
	}
	ask()
	<-begun
	ask()
	late := time.AfterFunc(100*time.Millisecond, func() { close(end) }) // the second one asks meanwhile, most often
	defer late.Stop()
	wg.Wait()
}

// TestLszOldManifest: a manifest from before, without SHA-1s, is compared by the bytes, once.
func TestLszOldManifest(t *testing.T) {
	b := newBench(t)
	files := sample()
	b.place(testRef, files)
	o, _ := b.open(nil)
	e, _ := o.current(testRef)
	o.Close()

	old := *e.manifest
	old.Files = append([]content.File{}, old.Files...)
	for i := range old.Files {
		old.Files[i].SHA1 = content.SHA1{}
	}
	r := e.record
	var err error
	o, _ = b.open(nil)
	if r.Manifest, err = o.files.PutManifest(content.AppendManifest(nil, &old)); err != nil {
		t.Fatal(err)
	}
	r.Known = r.Manifest
	if err := o.saveRecord(&r); err != nil {
		t.Fatal(err)
	}
	o.Close()
	count := &readings{Handler: slog.DiscardHandler}
	for range 2 { // the second time after a restart
		o, base := b.open(nil)
		o.cfg.Log, o.cfg.Patience = slog.New(count), time.Minute
		for range 2 {
			status, _, got, p := b.ask(b.client(b.device), base, testRef, expecting(files, content.SHA1Algorithm, false))
			if status != 200 || got.ManifestDigest != r.Manifest.String() || got.Outcome != api.LszFits {
				t.Errorf("status %d, %+v, %v", status, got, p)
			}
		}
		o.Close()
	}
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings, want 1", n)
	}
}

func TestLszRefusals(t *testing.T) {
	b, o, base, count := registeredBench(t, map[string][]byte{"a": {1}})
	file := api.ExpectedFile{Name: "a", Algorithm: "SHA1", Digest: strings.Repeat("0", 40)}
	other := file
	other.Name = `.\A`
	ticket, err := identity.SignInquiry(b.key, identity.Ticket{Ref: testRef, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := identity.SignInquiry(b.key, identity.Ticket{Ref: content.Ref{ID: "x", Version: 1}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	publishes, err := identity.SignTicket(b.key, identity.Ticket{Ref: testRef, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		who    *identity.Credentials
		ref    content.Ref
		body   any
		ticket []byte
		status int
		kind   string
	}{
		"nobody":            {nil, testRef, api.LszRequest{}, nil, 403, "not-authorized"},
		"an origin":         {b.origin, testRef, api.LszRequest{}, nil, 403, "not-authorized"},
		"another's ticket":  {nil, testRef, api.LszRequest{}, foreign, 403, "no-ticket"},
		"to publish":        {nil, testRef, api.LszRequest{}, publishes, 403, "no-ticket"},
		"a ticket":          {nil, testRef, api.LszRequest{}, ticket, 200, ""},
		"unknown content":   {b.device, content.Ref{ID: "none", Version: 1}, api.LszRequest{Force: true}, nil, 404, "unknown-content"},
		"newest of none":    {b.device, content.Ref{ID: "none"}, api.LszRequest{Force: true}, nil, 404, "unknown-content"},
		"newest by ticket":  {nil, content.Ref{ID: "tools"}, api.LszRequest{}, ticket, 400, "bad-request"},
		"two versions":      {b.device, content.Ref{ID: "tools@3"}, api.LszRequest{}, nil, 400, "bad-request"},
		"no JSON":           {b.device, testRef, []byte("{"), nil, 400, "bad-request"},
		"too large":         {b.device, testRef, bytes.Repeat([]byte(" "), api.MaxLsz+1), nil, 413, "too-large"},
		"unknown algorithm": {b.device, testRef, api.LszRequest{Files: []api.ExpectedFile{{Name: "a", Algorithm: "MD5", Digest: "00"}}}, nil, 400, "bad-request"},
		"short digest":      {b.device, testRef, api.LszRequest{Files: []api.ExpectedFile{{Name: "a", Algorithm: "SHA1", Digest: "00"}}}, nil, 400, "bad-request"},
		"duplicate name":    {b.device, testRef, api.LszRequest{Files: []api.ExpectedFile{file, other}}, nil, 400, "bad-request"},
		"unknown match":     {b.device, testRef, api.LszRequest{Match: "about"}, nil, 400, "bad-request"},
		"unforced":          {b.device, testRef, api.LszRequest{Files: []api.ExpectedFile{file}}, nil, 409, api.LszStale},
	}
	for name, test := range tests {
		status, _, _, p := b.ask(b.client(test.who), base, test.ref, test.body, identity.TicketHeader, base64.StdEncoding.EncodeToString(test.ticket))
		if status != test.status || p.Type != test.kind {
			t.Errorf("%s: status %d, %v; want %d %s", name, status, p, test.status, test.kind)
		}
	}
	if n := count.n.Load(); n != 0 {
		t.Errorf("%d readings", n)
	}
	if len(o.flights) != 0 {
		t.Errorf("%d readings stay behind", len(o.flights))
	}
}

// TestLszNewest: without a version, the newest that the device's group may read is meant.
func TestLszNewest(t *testing.T) {
	b := newBench(t)
	for v := range uint64(4) {
		b.place(content.Ref{ID: "tools", Version: 9 + v}, map[string][]byte{"a": {byte(v)}})
		b.place(content.Ref{ID: "other", Version: 99}, map[string][]byte{"a": {9}})
	}
	o, base := b.open(nil)
	o.RegisterAll(t.Context())
	for v, s := range map[uint64]standing{12: {}, 11: {groups: []string{"lab"}}} {
		e, _ := o.current(content.Ref{ID: "tools", Version: v})
		if s.groups != nil {
			s.known = e.record.Manifest
		}
		e.registered(s)
	}
	status, _, got, p := b.ask(b.client(b.device), base, content.Ref{ID: "tools"}, api.LszRequest{})
	if status != 200 || got.Version != 10 || got.ContentId != "tools" {
		t.Errorf("status %d, %+v, %v; want version 10", status, got, p)
	}
}

// TestDownloadFromOriginAlone: with its certificate alone, a device gets all of a content whose
// publisher signed it.
func TestDownloadFromOriginAlone(t *testing.T) {
	b, o, base, _ := registeredBench(t, sample())
	e, _ := o.current(testRef)
	manifest, err := o.files.Manifest(t.Context(), e.record.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t)
	o.cfg.BaseURL, o.cfg.Publishers = base, p.pinned()
	e.registered(standing{known: e.record.Manifest, generation: 7, signature: p.sign(manifest, time.Hour, "staff")})
	c, err := client.New(client.Options{Address: "127.0.0.1:1", Credentials: b.device})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	reply, err := c.MakeSure(t.Context(), base, content.Ref{ID: testRef.ID}, api.LszRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := records.OfLsz(reply)
	if err != nil || rec.Ref != testRef || rec.Generation != 7 || !rec.Peerable || len(rec.Grant) > 0 {
		t.Fatalf("record %+v, %v", rec, err)
	}
	m, raw, err := c.Manifest(t.Context(), rec.ManifestURLs[0], rec.Grant, rec.Manifest)
	if err != nil || m.Size != rec.Size {
		t.Fatal(err)
	}
	if _, ok, err := p.pinned()().VerifyFor(identity.Reader{Group: "staff", Now: time.Now()}, identity.Signed{ID: m.Ref.ID, Manifest: raw, Signature: rec.Signature}); err != nil || !ok {
		t.Errorf("the signature: %v, %v", ok, err)
	}
	if h, err := c.HashFile(t.Context(), rec.HashFileURLs[0], rec.Grant, m); err != nil || h.HashOfHashes != rec.HashOfHashes {
		t.Errorf("hash file: %v", err)
	}
	_, got, err := b.do(b.client(b.device), "GET", rec.ContentURLs[0])
	if err != nil || !bytes.Equal(got, concatenation(sample())) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestLszMakesWhatIsMissing: a directory that came after the start is read when a device asks.
func TestLszMakesWhatIsMissing(t *testing.T) {
	b, _, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	late, files := content.Ref{ID: "late", Version: 2}, map[string][]byte{"x": {5}}
	b.place(late, files)
	c := b.client(b.device)
	if status, _, _, _ := b.ask(c, base, late, expecting(files, content.SHA1Algorithm, false)); status != 404 {
		t.Errorf("unforced: status %d, want 404", status)
	}
	status, _, got, p := b.ask(c, base, late, expecting(files, content.SHA1Algorithm, true))
	if status != 200 || got.Outcome != api.LszFits || got.ContentId != "late" {
		t.Errorf("status %d, %+v, %v", status, got, p)
	}
}

// TestMakeSureByClient: the client waits while files are read, and knows a stale origin.
func TestMakeSureByClient(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	o.cfg.Patience = time.Nanosecond
	c, err := client.New(client.Options{Address: "nobody.example:1", Credentials: b.device})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	files := map[string][]byte{"a": {2}}
	write(t, filepath.Join(b.root, pathOf(testRef)), files)
	waited := 0
	got, err := c.MakeSure(t.Context(), base+"/", testRef, expecting(files, content.SHA1Algorithm, true), func(int64, int64) { waited++ })
	if err != nil || got.Outcome != api.LszFits || waited == 0 {
		t.Fatalf("got %+v, %v after %d waits", got, err, waited)
	}
	o.cfg.Patience = time.Minute
	_, err = c.MakeSure(t.Context(), base, testRef, expecting(map[string][]byte{"a": {3}}, content.SHA1Algorithm, true), nil)
	var stale *client.OriginStale
	if !errors.As(err, &stale) || stale.RetryAfter != time.Minute || !strings.Contains(err.Error(), "1 changed") {
		t.Errorf("got %v, want an OriginStale", err)
	}
	grant, err := base64.StdEncoding.DecodeString(b.grantFor(content.Digest{}, content.Digest{}))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := o.current(testRef)
	if _, _, err := c.Manifest(t.Context(), base+"/metadata/"+got.ManifestDigest, grant, e.record.Manifest); err == nil {
		t.Error("a manifest for the wrong grant")
	}
}

// TestLszForcedTwice: who asks for all bytes after they were read has them not read again.
func TestLszForcedTwice(t *testing.T) {
	_, o, _, count := registeredBench(t, map[string][]byte{"a": {1}})
	for range 3 {
		f := o.reread(testRef, true)
		if <-f.done; f.err != nil {
			t.Fatal(f.err)
		}
	}
	if n := count.n.Load(); n != 1 {
		t.Errorf("%d readings, want 1", n)
	}
}
