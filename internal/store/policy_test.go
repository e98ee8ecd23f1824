package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
	"freshet/internal/store/index"
)

// small returns a content of one file below a piece.
func small(tb testing.TB, size int64, seed uint64) *fixture {
	return newFixture(tb, fmt.Sprintf("s%d", seed), []spec{{size: size, seed: seed}})
}

func TestEvictionOrder(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := openStore(t, Options{
		Dir: filepath.Join(t.TempDir(), "c"), MaxAge: time.Hour,
		Now: func() time.Time { return now },
	})
	names := map[content.Digest]string{}
	entries := map[string]*Entry{}
	for i, name := range []string{"old", "pinned", "used", "expired", "first", "second", "third"} {
		fx := small(t, 1000, uint64(i))
		names[fx.digest] = name
		entries[name] = create(t, s, fx)
		if name == "old" || name == "pinned" || name == "used" {
			now = now.Add(time.Second)
		} else {
			now = now.Add(20 * time.Minute)
		}
		if name != "used" {
			entries[name].Release()
		}
	}
	left := func() string {
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range list {
			out = append(out, names[i.Digest])
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if err := s.Pin(t.Context(), entries["pinned"].Digest(), true); err != nil {
		t.Fatal(err)
	}
	if err := s.SetExpiry(t.Context(), entries["expired"].Digest(), now); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		need, freed int64
		left        string
	}{
		// first was last used 60 minutes ago, not longer
		{0, 2000, "first pinned second third used"},
		{1, 1000, "pinned second third used"},
		{1500, 2000, "pinned used"},
		{1, 0, "pinned used"},
	}
	for _, st := range steps {
		freed, err := s.Evict(t.Context(), st.need)
		if err != nil || freed != st.freed || left() != st.left {
			t.Errorf("evict %d: freed %d, %v, left %q; want %d, %q", st.need, freed, err, left(), st.freed, st.left)
		}
	}
	wantErr(t, s.Remove(t.Context(), entries["used"].Digest()), ErrInUse)
	entries["used"].Release()
	if err := s.Pin(t.Context(), entries["pinned"].Digest(), false); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.Evict(t.Context(), 1<<40); err != nil || freed != 2000 || left() != "" {
		t.Errorf("at the end freed %d, %v, left %q", freed, err, left())
	}
	if s.used != 0 {
		t.Errorf("%d bytes counted in an empty cache", s.used)
	}
	wantErr(t, s.Pin(t.Context(), content.Digest{}, true), fs.ErrNotExist)
	wantErr(t, s.Remove(t.Context(), content.Digest{}), fs.ErrNotExist)
}

func TestLimit(t *testing.T) {
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c"), MaxBytes: 2500})
	a, b, c := small(t, 1000, 1), small(t, 1000, 2), small(t, 1000, 3)
	ea := create(t, s, a)
	create(t, s, b).Release()
	create(t, s, c).Release() // evicts b
	if _, err := s.Get(b.digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("b: %v", err)
	}
	big := small(t, 2000, 4)
	_, err := s.Create(t.Context(), big.manifest, big.hashes, nil)
	wantErr(t, err, ErrFull)
	var full *FullError
	if !errors.As(err, &full) || full.Needed != 2000 || full.Free != 1500 || full.Limit != 2500 {
		t.Errorf("%+v", full)
	}
	ea.Release()
	create(t, s, big).Release()
}

func TestFullDisk(t *testing.T) {
	d := memdisk.New()
	s := openStore(t, Options{disk: d, index: filepath.Join(t.TempDir(), "index")})
	a := newFixture(t, "a", sizes(3*mib))
	e := create(t, s, a)
	d.Resize(spareBytes + 4*mib)
	b := newFixture(t, "b", sizes(2*mib, 5))
	_, err := s.Create(t.Context(), b.manifest, b.hashes, nil)
	var full *FullError
	if !errors.As(err, &full) || full.Needed != 2*mib+5 || full.Free < mib/2 || full.Free > mib {
		t.Errorf("%v", err)
	}
	if left, err := d.List(tmpDir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	e.Release()
	create(t, s, b).Release() // evicts a
	if _, err := s.Get(a.digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	old := newFixture(t, "app", []spec{{size: 3*mib + 7, seed: 1}, {size: 20, seed: 2}, {size: 2 * mib, seed: 3}, {size: 2 * mib, seed: 4}})
	specs := []spec{{size: 3*mib + 7, seed: 1}, {size: 25, seed: 9}, {size: 2 * mib, seed: 3, executable: true}, {size: 2 * mib, seed: 5}}
	next := newFixture(t, "app2", specs)
	dir := filepath.Join(t.TempDir(), "c")
	s := openStore(t, Options{Dir: dir})
	e := create(t, s, old, "lab")
	fill(t, e, old)
	e.Release()
	closeStore(t, s)
	damage(t, filepath.Join(dir, old.digest.String(), "f", "000000"), mib+1, true)

	// Two opens: what is taken was hashed in an earlier process, so it is hashed again.
	s = openStore(t, Options{Dir: dir})
	n := create(t, s, next, "lab")
	runs, err := s.Adopt(t.Context(), n, "lab")
	if err != nil || runs != 4 {
		t.Errorf("with a damaged file %d runs adopted, %v; want 2 of it and the 2 of the one that is executable now", runs, err)
	}
	heldRight(t, n, next)
	e = get(t, s, old)
	fill(t, e, old)
	e.Release()
	runs, err = s.Adopt(t.Context(), n, "lab")
	if err != nil || runs != 1 {
		t.Errorf("%d runs adopted, %v; want the one that was damaged", runs, err)
	}
	heldRight(t, n, next)
	names := []string{old.digest.String(), next.digest.String()}
	var infos []os.FileInfo
	for _, d := range names {
		st, err := os.Stat(filepath.Join(dir, d, "f", "000000"))
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, st)
	}
	if !os.SameFile(infos[0], infos[1]) {
		t.Error("equal files take room twice")
	}
	fill(t, n, next)
	checkEntry(t, n, next)
	n.Release()
	if err := s.Remove(t.Context(), old.digest); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, Options{Dir: dir})
	n = get(t, s, next)
	defer n.Release()
	checkEntry(t, n, next)
}

// TestAdoptSameBytes takes everything, small files too, from an entry of the same bytes.
func TestAdoptSameBytes(t *testing.T) {
	a, b := newFixture(t, "a", mixed()), newFixture(t, "b", mixed())
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	e := create(t, s, a)
	defer e.Release()
	fill(t, e, a)
	n := create(t, s, b)
	defer n.Release()
	if runs, err := s.Adopt(t.Context(), n, "lab"); err != nil || runs != n.Layout().Runs() {
		t.Errorf("%d runs, %v", runs, err)
	}
	checkEntry(t, n, b)
	both := s.ByHashOfHashes(n.Manifest().HashOfHashes)
	if len(both) != 2 {
		t.Errorf("%d entries of the same bytes", len(both))
	}
	for _, o := range both {
		o.Release()
	}
}

// TestLostIndex opens a cache whose index is gone, damaged, or from a process that was killed.
func TestLostIndex(t *testing.T) {
	for name, spoil := range map[string]func(index string) error{
		"gone":    os.Remove,
		"damaged": func(i string) error { return os.WriteFile(i, bytes.Repeat([]byte("nonsense"), 999), 0o600) },
		"empty":   func(i string) error { return os.WriteFile(i, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newFixture(t, "a", mixed()), newFixture(t, "b", sizes(mib))
			dir := filepath.Join(t.TempDir(), "c")
			s := openStore(t, Options{Dir: dir})
			e := create(t, s, a, "lab", "office")
			fill(t, e, a)
			e.Release()
			create(t, s, b).Release()
			closeStore(t, s)
			if err := spoil(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, Options{Dir: dir})
			s.wg.Wait()
			list, err := s.List(t.Context())
			if err != nil || len(list) != 2 {
				t.Fatalf("%v, %v", list, err)
			}
			slices.SortFunc(list, func(x, y Info) int { return strings.Compare(string(x.Ref.ID), string(y.Ref.ID)) })
			if i := list[0]; i.State != Complete || i.Held != i.Size || strings.Join(i.Groups, " ") != "lab office" {
				t.Errorf("a is %+v", i)
			}
			if i := list[1]; i.State != Partial || i.Held != 0 {
				t.Errorf("b is %+v", i)
			}
			if want := int64(len(a.data) + len(b.data)); s.used != want {
				t.Errorf("%d bytes counted, want %d", s.used, want)
			}
			n := create(t, s, b)
			n.Release()
		})
	}
}

func TestUnsoundIndex(t *testing.T) {
	a, b, c := newFixture(t, "a", sizes(mib, 10)), small(t, 10, 1), small(t, 10, 2)
	dir := filepath.Join(t.TempDir(), "c")
	s := openStore(t, Options{Dir: dir})
	ea := create(t, s, a)
	create(t, s, b).Release()
	ec := create(t, s, c)
	fill(t, ec, c)
	ec.Release()
	if err := ea.Write(0, a.run(0)); err != nil {
		t.Fatal(err)
	}
	if err := ea.commit(t.Context()); err != nil { // the index is told by Sync only
		t.Fatal(err)
	}
	abandon(s)
	s.disk.Close()
	if err := os.RemoveAll(filepath.Join(dir, b.digest.String())); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir})
	s.wg.Wait()
	list, err := s.idx.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, i := range list {
		if want := map[content.Digest]int64{a.digest: mib, c.digest: 10}[i.Digest]; i.Held != want {
			t.Errorf("%s holds %d, want %d", i.Ref, i.Held, want)
		}
	}
}

// TestUnreadableEntry: an entry of an older freshet's index that cannot be opened does not have the
// cache looked through at each start, and can be removed.
func TestUnreadableEntry(t *testing.T) {
	a := small(t, 10, 1)
	dir := stored(t, a)
	db, err := sql.Open("sqlite", filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DELETE FROM pieces"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, a.digest.String(), "manifest"), []byte("garbled"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Dir: dir})
	s.wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	x, sound, err := index.Open(t.Context(), filepath.Join(dir, "index"), slog.New(slog.DiscardHandler))
	if err != nil || !sound {
		t.Errorf("at the second start the index is sound: %t, %v", sound, err)
	}
	if err := x.Close(sound); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir})
	if err := s.Remove(t.Context(), a.digest); err != nil {
		t.Error(err)
	}
}

func TestNewerIndexIsRefused(t *testing.T) {
	dir := stored(t, small(t, 10, 1))
	db, err := sql.Open("sqlite", filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Dir: dir})
	var version *disk.VersionError
	if !errors.As(err, &version) || version.Version != 99 {
		t.Errorf("%v", err)
	}
}

// TestGolden opens a cache of format 1, as every later freshet must.
func TestGolden(t *testing.T) {
	fx := newFixture(t, "golden", sizes(10, 0, 3000))
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.CopyFS(dir, os.DirFS("testdata/format1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Dir: dir})
	e := get(t, s, fx)
	defer e.Release()
	checkEntry(t, e, fx)
	if got := strings.Join(e.Groups(), " "); got != "lab office" {
		t.Errorf("groups %q", got)
	}
	// And what is written today is the same to the byte.
	fresh := filepath.Join(t.TempDir(), "cache")
	n := openStore(t, Options{Dir: fresh})
	f := create(t, n, fx, "office", "lab")
	fill(t, f, fx)
	f.Release()
	err := fs.WalkDir(os.DirFS("testdata/format1"), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, err := os.ReadFile(filepath.Join("testdata/format1", p))
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(fresh, p))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s is written otherwise", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCommitTimes watches when commits come, on a clock that does not wait.
func TestCommitTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		s, err := Open(t.Context(), Options{disk: d, index: filepath.Join(t.TempDir(), "index"), window: 8 * mib})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		fx := newFixture(t, "a", sizes(9*mib))
		e := create(t, s, fx)
		defer e.Release()
		run := 0
		write := func(n int) {
			for range n {
				if err := e.Write(run, fx.run(run)); err != nil {
					t.Fatal(err)
				}
				run++
			}
		}
		want := func(when string, commits int) {
			t.Helper()
			synctest.Wait()
			got := 0
			for _, n := range d.Synced() {
				if strings.HasSuffix(n, "f/000000") {
					got++
				}
			}
			if got != commits {
				t.Errorf("%s: %d commits, want %d", when, got, commits)
			}
		}
		write(1)
		want("the first after a pause", 1)
		write(1)
		want("the next", 1)
		<-time.After(900 * time.Millisecond)
		write(1)
		want("before a second is over", 1)
		<-time.After(101 * time.Millisecond)
		want("a second after the last commit", 2)
		<-time.After(time.Minute)
		want("nothing written", 2)
		write(1)
		want("after a pause", 3)
		write(4)
		want("half a window", 4)
		write(1)
		want("complete", 5)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.committing {
			t.Error("the committer runs on when there is nothing to commit")
		}
	})
}

// TestWindow holds writers back while a window is not durable.
func TestWindow(t *testing.T) {
	d := memdisk.New()
	s := openStore(t, Options{disk: d, index: filepath.Join(t.TempDir(), "index"), window: 2 * mib})
	fx := newFixture(t, "a", sizes(12*mib))
	e := create(t, s, fx)
	defer e.Release()
	for run := range e.Layout().Runs() {
		if err := e.Write(run, fx.run(run)); err != nil {
			t.Fatal(err)
		}
		e.mu.Lock()
		if n := e.pendingBytes + e.commitBytes; n > 2*mib {
			t.Errorf("%d bytes are not durable", n)
		}
		e.mu.Unlock()
	}
}

func TestNewerJournalIsLeftAlone(t *testing.T) {
	fx := small(t, 10, 1)
	dir := stored(t, fx)
	name := filepath.Join(dir, fx.digest.String(), "journal")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[9] = 7
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Dir: dir})
	var version *disk.VersionError
	if _, err := s.Create(t.Context(), fx.manifest, fx.hashes, nil); !errors.As(err, &version) {
		t.Errorf("%v", err)
	}
	if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, b) {
		t.Errorf("the journal was changed (%v)", err)
	}
}
