package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"freshet/internal/content"
)

// issues returns two issues of one content: a large file that stays, one of which the second of
// three pieces changes, small ones of which one changes, and one that is moved.
func issues(t *testing.T) (old, next *fixture) {
	t.Helper()
	part := func(seeds ...uint64) []byte {
		var b []byte
		for _, seed := range seeds {
			b = append(b, newFixture(t, "x", []spec{{size: mib, seed: seed}}).data...)
		}
		return b
	}
	build := func(files map[string][]byte) *fixture { return namedFixture(t, "app", files) }
	old = build(map[string][]byte{"a": part(1, 2), "b": part(3, 4, 5), "s1": part(6)[:500], "s2": part(7)[:500], "t": part(8)[:mib-1]})
	next = build(map[string][]byte{"a": part(1, 2), "b": part(3, 9, 5), "s1": part(6)[:500], "s2": part(10)[:500], "z/t": part(8)[:mib-1]})
	return old, next
}

// namedFixture is a content of these files.
func namedFixture(t testing.TB, id content.ID, files map[string][]byte) *fixture {
	t.Helper()
	var list []content.File
	var pieces [][]content.Digest
	fx := &fixture{}
	for _, name := range []string{"a", "b", "s1", "s2", "t", "z/t"} {
		b, ok := files[name]
		if !ok {
			continue
		}
		h := content.NewFileHasher()
		h.Write(b)
		f, p := h.Sum(name, false)
		list, pieces = append(list, f), append(pieces, p)
		fx.data = append(fx.data, b...)
	}
	m, hf, err := content.BuildManifest(content.Ref{ID: id, Version: 1}, list, pieces)
	if err != nil {
		t.Fatal(err)
	}
	fx.manifest, fx.hashes = content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, hf)
	fx.digest, fx.layout = content.DigestOf(fx.manifest), content.NewLayout(m.Files)
	return fx
}

// wants checks that e lacks what changed, and nothing else.
func wantsChanged(t *testing.T, e *Entry, next *fixture) {
	t.Helper()
	heldRight(t, e, next)
	var missing int64
	for run := range e.Layout().Runs() {
		if !e.Held(run) {
			missing += int64(e.Layout().Run(run).Len)
		}
	}
	if want := int64(mib + 1000); missing != want { // b's second piece, and the run of s1 and s2
		t.Errorf("%d bytes are missing, want %d", missing, want)
	}
}

// TestStock: a retired entry is nobody's any more, and its pieces are there for the next issue;
// over a restart too, and for as long as was said.
func TestStock(t *testing.T) {
	old, next := issues(t)
	other := namedFixture(t, "other", map[string][]byte{"b": old.file(1)})
	now := time.Unix(1_700_000_000, 0)
	dir := filepath.Join(t.TempDir(), "c")
	o := Options{Dir: dir, Now: func() time.Time { return now }}
	s := openStore(t, o)
	e := create(t, s, old, "lab")
	fill(t, e, old)
	wantErr(t, s.Retire(t.Context(), old.digest, time.Hour), ErrInUse)
	e.Release()
	if err := s.Pin(t.Context(), old.digest, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Retire(t.Context(), old.digest, time.Hour); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Get(old.digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a retired entry is got: %v", err)
		}
		if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("listed: %v, %v", list, err)
		}
		if got := s.ByHashOfHashes(mustParse(t, old).HashOfHashes); len(got) != 0 {
			t.Error("a retired entry is found by its bytes")
		}
		if s.used != int64(len(old.data)) {
			t.Errorf("%d bytes are used, want %d", s.used, len(old.data))
		}
		closeStore(t, s)
		s = openStore(t, o)
	}
	n := create(t, s, other, "lab")
	if runs, err := s.Adopt(t.Context(), n, "lab"); err != nil || runs != 0 {
		t.Errorf("another content took %d runs from the stock, %v", runs, err)
	}
	n.Release()
	n = create(t, s, next, "lab")
	defer n.Release()
	if _, err := s.Adopt(t.Context(), n, "lab"); err != nil {
		t.Fatal(err)
	}
	wantsChanged(t, n, next)
	fill(t, n, next)
	checkEntry(t, n, next)
	if _, err := s.Evict(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, stockPath(old.digest))); err != nil {
		t.Errorf("the stock went before its time: %v", err)
	}
	now = now.Add(time.Hour)
	freed, err := s.Evict(t.Context(), 0)
	if err != nil || freed != int64(len(old.data)) {
		t.Errorf("%d bytes freed, %v", freed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, stockPath(old.digest))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stock stays: %v", err)
	}
	checkEntry(t, n, next)
}

func mustParse(t *testing.T, fx *fixture) *content.Manifest {
	t.Helper()
	m, err := content.ParseManifest(fx.manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestAdoptNextIssue: the next issue takes what did not change from an entry that is in use still.
func TestAdoptNextIssue(t *testing.T) {
	old, next := issues(t)
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	e := create(t, s, old, "lab")
	defer e.Release()
	fill(t, e, old)
	n := create(t, s, next, "lab")
	defer n.Release()
	if _, err := s.Adopt(t.Context(), n, "lab"); err != nil {
		t.Fatal(err)
	}
	wantsChanged(t, n, next)
	if got, err := s.ByRef(t.Context(), content.Ref{ID: "app", Version: 1}); err != nil || len(got) != 2 {
		t.Errorf("entries of the content: %v, %v", got, err)
	}
	if got, err := s.ByRef(t.Context(), content.Ref{ID: "app", Version: 2}); err != nil || len(got) != 0 {
		t.Errorf("entries of another version: %v, %v", got, err)
	}
}

// TestStockDamaged: wrong bytes in stock are not taken, and a retired entry that held nothing
// leaves none.
func TestStockDamaged(t *testing.T) {
	old, next := issues(t)
	dir := filepath.Join(t.TempDir(), "c")
	s := openStore(t, Options{Dir: dir})
	e := create(t, s, old, "lab")
	fill(t, e, old)
	e.Release()
	if err := s.Retire(t.Context(), old.digest, time.Hour); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	damage(t, filepath.Join(dir, stockPath(old.digest), "f", "000000"), 5, true)
	s = openStore(t, Options{Dir: dir})
	n := create(t, s, next, "lab")
	if _, err := s.Adopt(t.Context(), n, "lab"); err != nil {
		t.Fatal(err)
	}
	heldRight(t, n, next)
	if n.Held(0) || !n.Held(1) {
		t.Errorf("the damaged piece is held: %t, the one beside it: %t", n.Held(0), n.Held(1))
	}
	n.Release()
	empty := namedFixture(t, "empty", map[string][]byte{"a": old.file(0)})
	create(t, s, empty).Release()
	if err := s.Retire(t.Context(), empty.digest, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, stockPath(empty.digest))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is kept as stock: %v", err)
	}
	wantErr(t, s.Retire(t.Context(), empty.digest, time.Hour), fs.ErrNotExist)
}

// TestStockMakesRoom: stock goes before entries do.
func TestStockMakesRoom(t *testing.T) {
	old, next := issues(t)
	size := int64(len(old.data))
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c"), MaxBytes: 2*size + 100})
	kept := namedFixture(t, "kept", map[string][]byte{"b": old.file(1), "a": next.file(1)[mib : 3*mib]})
	for _, fx := range []*fixture{kept, old} {
		e := create(t, s, fx)
		fill(t, e, fx)
		e.Release()
	}
	if err := s.Retire(t.Context(), old.digest, time.Hour); err != nil {
		t.Fatal(err)
	}
	create(t, s, next).Release()
	if len(s.stock) != 0 {
		t.Error("the stock stays though there is no room")
	}
	get(t, s, kept).Release()
}
