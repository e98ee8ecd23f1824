package guard

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/records"
	"freshet/internal/store"
)

// shelf is a Cache over a real store that holds an issue.
func shelf(t *testing.T, i *issue, held bool) *Cache {
	t.Helper()
	c := openShelf(t, filepath.Join(t.TempDir(), "cache"))
	c.put(t, i, held)
	return c
}

// openShelf is a Cache over the store in a directory.
func openShelf(t *testing.T, dir string) *Cache {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.DiscardHandler)
	return &Cache{Store: s, Records: records.NewBook(s, log), Leads: func(content.Digest) bool { return true }, SumsDir: filepath.Join(t.TempDir(), "sums"), Log: log}
}

// put makes the entry of an issue, with its bytes when they are held.
func (c *Cache) put(t *testing.T, i *issue, held bool) {
	t.Helper()
	var pieces [][]content.Digest
	for _, f := range i.parsed.Files {
		h := content.NewFileHasher()
		h.Write([]byte(i.files[f.Name]))
		_, p := h.Sum(f.Name, false)
		pieces = append(pieces, p)
	}
	_, hashes, err := content.BuildManifest(theRef, i.parsed.Files, pieces)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Store.Create(t.Context(), i.bytes, content.AppendHashFileRaw(nil, hashes), []string{"lab"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Release()
	if !held {
		return
	}
	var all []byte
	for _, f := range i.parsed.Files {
		all = append(all, i.files[f.Name]...)
	}
	for run := range e.Layout().Runs() {
		r := e.Layout().Run(run)
		if err := e.Write(run, all[r.Offset:r.Offset+int64(r.Len)]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCache: what is held of a manifest without SHA-1 is known after its bytes were read, which
// is done once, restarts included.
func TestCache(t *testing.T) {
	full := makeIssue(t, map[string]string{"a": "one", "b": "", "c": "three"})
	i := full.bare()
	c := shelf(t, i, true)
	rec := records.Record{Ref: theRef, Manifest: i.digest(), HashOfHashes: i.parsed.HashOfHashes, Generation: 7}
	if err := c.Records.Keep(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	one := func() freshness.Held {
		t.Helper()
		held, err := c.Held(t.Context(), theRef)
		if err != nil || len(held) != 1 {
			t.Fatalf("held %+v, %v", held, err)
		}
		return held[0]
	}
	sha256, err := i.parsed.MetadataHash(content.SHA256Algorithm)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := one(), (freshness.Held{Digest: i.digest(), Generation: 7, SHA256Sum: sha256, Leads: true}); got != want {
		t.Errorf("before its bytes were read: %+v, want %+v", got, want)
	}
	sums, err := c.Sums(t.Context(), i.digest())
	if err != nil || len(sums) != 3 {
		t.Fatalf("sums %v, %v", sums, err)
	}
	for k, f := range full.parsed.Files {
		if sums[k] != f.SHA1 {
			t.Errorf("SHA-1 of %q is %s, want %s", f.Name, sums[k], f.SHA1)
		}
	}
	want, err := full.expect().MetadataHash()
	if err != nil {
		t.Fatal(err)
	}
	if got := one().SHA1Sum; got != want {
		t.Errorf("MetadataHash %s, want %s", got, want)
	}
	again := &Cache{Store: c.Store, Records: c.Records, Leads: c.Leads, SumsDir: c.SumsDir}
	if kept, ok := again.Summed(i.digest()); !ok || kept[0] != sums[0] {
		t.Errorf("after a restart: %v, %t", kept, ok)
	}
	if last, ok := c.Last(t.Context(), theRef); !ok || last.Generation != 7 {
		t.Errorf("the last record is %+v, %t", last, ok)
	}
	if err := c.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Summed(i.digest()); !ok {
		t.Error("what is held was tidied away")
	}
	err = c.Store.Remove(t.Context(), i.digest())
	for errors.Is(err, store.ErrInUse) { // the store looks at what is new
		runtime.Gosched()
		err = c.Store.Remove(t.Context(), i.digest())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(c.SumsDir); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := c.Manifest(t.Context(), i.digest()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the manifest of what is gone: %v", err)
	}
	if held, err := c.Held(t.Context(), theRef); err != nil || len(held) != 0 {
		t.Errorf("held %+v, %v", held, err)
	}
}

// TestSumsMeanwhile: MetadataHashes that were taken before the bytes were read are not remembered
// after.
func TestSumsMeanwhile(t *testing.T) {
	full := makeIssue(t, map[string]string{"a": "one"})
	i := full.bare()
	c := shelf(t, i, true)
	before, err := c.take(i.digest())
	if err != nil || !before.sha1.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	kept := c.kept
	if _, err := c.Sums(t.Context(), i.digest()); err != nil {
		t.Fatal(err)
	}
	c.remember(i.digest(), before, kept)
	held, err := c.Held(t.Context(), theRef)
	if err != nil || len(held) != 1 || held[0].SHA1Sum.IsZero() {
		t.Errorf("held %+v, %v", held, err)
	}
}

// TestCachePartial: bytes that are missing cannot be read.
func TestCachePartial(t *testing.T) {
	i := makeIssue(t, map[string]string{"a": "one"}).bare()
	c := shelf(t, i, false)
	if _, err := c.Sums(t.Context(), i.digest()); !errors.Is(err, store.ErrNotHeld) {
		t.Errorf("sums of nothing: %v", err)
	}
	if held, err := c.Held(t.Context(), theRef); err != nil || len(held) != 1 || held[0].Generation != 0 {
		t.Errorf("held %+v, %v", held, err)
	}
}

// TestUnreadable: an entry that cannot be read is held all the same, and hides no other one.
func TestUnreadable(t *testing.T) {
	bad, good := makeIssue(t, map[string]string{"a": "one"}), makeIssue(t, map[string]string{"a": "two"})
	dir := filepath.Join(t.TempDir(), "cache")
	c := openShelf(t, dir)
	for _, i := range []*issue{bad, good} {
		c.put(t, i, true)
		rec := records.Record{Ref: theRef, Manifest: i.digest(), HashOfHashes: i.parsed.HashOfHashes, Generation: 7}
		if err := c.Records.Keep(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Store.Close(); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, bad.digest().String(), "manifest")
	if err := errors.Join(os.Remove(manifest), os.Mkdir(manifest, 0o700)); err != nil {
		t.Fatal(err)
	}
	c = openShelf(t, dir)
	got, err := c.Held(t.Context(), theRef)
	if err != nil || len(got) != 2 {
		t.Fatalf("held %+v, %v", got, err)
	}
	for _, h := range got {
		if unread := h.Digest == bad.digest(); h.SHA1Sum.IsZero() != unread || h.SHA256Sum.IsZero() != unread || h.Generation != 7 {
			t.Errorf("unreadable %t: %+v", unread, h)
		}
	}
}

func TestCacheBans(t *testing.T) {
	i := makeIssue(t, map[string]string{"a": "one"})
	c := shelf(t, i, true)
	for _, on := range []bool{true, false} {
		if err := c.Ban(context.Background(), freshness.Device{5}, i.digest(), on); err != nil {
			t.Fatal(err)
		}
		bans, err := c.Store.Bans(t.Context(), i.digest())
		if err != nil || (len(bans) == 1) != on {
			t.Errorf("bans %v, %v", bans, err)
		}
	}
}
