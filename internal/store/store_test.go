package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/store/journal"
)

func TestWriteReadReopen(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	dir := filepath.Join(t.TempDir(), "deep", "cache")
	s := openStore(t, Options{Dir: dir})
	e := create(t, s, fx, "lab")
	if e.Complete() || e.Held(0) {
		t.Error("a new entry holds something")
	}
	for run := range e.Layout().Runs() {
		if !e.Verify(run, fx.run(run)) {
			t.Fatalf("run %d does not verify", run)
		}
		if err := e.Write(run, fx.run(run)); err != nil {
			t.Fatal(err)
		}
		if !e.Held(run) {
			t.Errorf("run %d is not held at once", run)
		}
	}
	checkEntry(t, e, fx)
	if err := e.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.Release()
	closeStore(t, s)

	s = openStore(t, Options{Dir: dir})
	e = get(t, s, fx)
	defer e.Release()
	checkEntry(t, e, fx)
}

// checkEntry reads a complete entry in every way.
func checkEntry(t *testing.T, e *Entry, fx *fixture) {
	t.Helper()
	if !e.Complete() || e.HeldBytes() != int64(len(fx.data)) {
		t.Fatalf("complete %t with %d of %d bytes", e.Complete(), e.HeldBytes(), len(fx.data))
	}
	if !bytes.Equal(e.ManifestBytes(), fx.manifest) || !bytes.Equal(e.HashFileRaw(), fx.hashes) {
		t.Error("manifest or hash file is not what was given")
	}
	buf := make([]byte, mib)
	for run := range e.Layout().Runs() {
		n := e.Layout().Run(run).Len
		want := fx.run(run)
		for _, part := range [][2]int{{n / 3, n - n/3}, {0, n}, {n - 1, 1}, {0, 0}} {
			if err := e.Read(run, part[0], part[1], buf); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf[:part[1]], want[part[0]:part[0]+part[1]]) {
				t.Errorf("run %d: bytes %d+%d differ", run, part[0], part[1])
			}
		}
		if sp, ok := e.File(run); ok {
			got := make([]byte, sp.Len)
			if _, err := sp.File.ReadAt(got, sp.Off); err != nil || !bytes.Equal(got, want) {
				t.Errorf("span of run %d differs (%v)", run, err)
			}
			sp.Release()
		}
	}
	for i := range e.Layout().Files() {
		r, err := e.OpenFile(i)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, fx.file(i)) || r.Size() != int64(len(got)) {
			t.Errorf("file %d differs (%v)", i, err)
		}
		r.Close()
	}
}

func TestBadArguments(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	e := create(t, s, fx)
	defer e.Release()
	buf := make([]byte, mib)
	for name, err := range map[string]error{
		"write beyond":    e.Write(e.Layout().Runs(), buf),
		"write negative":  e.Write(-1, buf),
		"write short":     e.Write(0, buf[:5]),
		"read beyond":     e.Read(99, 0, 1, buf),
		"read past end":   e.Read(0, mib-1, 2, buf),
		"read negative":   e.Read(0, -1, 2, buf),
		"read overflow":   e.Read(0, 1, int(^uint(0)>>1), buf),
		"read small":      e.Read(0, 0, 10, buf[:9]),
		"read not held":   e.Read(0, 0, 10, buf),
		"link incomplete": e.LinkTo(0, nil, "x"),
		"link small":      e.LinkTo(1, nil, "x"),
		"link beyond":     e.LinkTo(-1, nil, "x"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	wantErr(t, e.Read(0, 0, 10, buf), ErrNotHeld)
	wantErr(t, e.LinkTo(0, nil, "x"), ErrIncomplete)
	wantErr(t, e.LinkTo(1, nil, "x"), ErrNoLink)
	if e.Verify(0, fx.run(1)) || e.Verify(0, nil) {
		t.Error("wrong bytes verify")
	}
	if _, err := s.Create(t.Context(), fx.manifest[1:], fx.hashes, nil); err == nil {
		t.Error("a damaged manifest is taken")
	}
	other := newFixture(t, "b", sizes(5))
	if _, err := s.Create(t.Context(), other.manifest, fx.hashes, nil); err == nil {
		t.Error("another content's hash file is taken")
	}
	if _, err := s.Create(t.Context(), other.manifest, other.hashes, []string{"a\nb"}); err == nil {
		t.Error("a group with a line feed is taken")
	}
	_, err := s.Get(other.digest)
	wantErr(t, err, fs.ErrNotExist)
}

func TestCreateIsIdempotent(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			e, err := s.Create(context.Background(), fx.manifest, fx.hashes, []string{"lab"})
			if err != nil {
				t.Error(err)
				return
			}
			for run := range e.Layout().Runs() {
				if err := e.Write(run, fx.run(run)); err != nil {
					t.Error(err)
				}
			}
			e.Release()
		})
	}
	wg.Wait()
	e := create(t, s, fx, "office")
	checkEntry(t, e, fx)
	if got := strings.Join(e.Groups(), " "); got != "lab office" {
		t.Errorf("groups %q", got)
	}
	e.Release()
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("list %v, %v", list, err)
	}
	if i := list[0]; i.State != Complete || i.Held != i.Size || i.Size != int64(len(fx.data)) || i.InUse || i.Ref.ID != "a" || len(i.Groups) != 2 {
		t.Errorf("listed as %+v", i)
	}
}

func TestSecondOpenerIsLockedOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	s := openStore(t, Options{Dir: dir})
	for range 20 {
		_, err := Open(t.Context(), Options{Dir: dir})
		wantErr(t, err, ErrLocked)
		if err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("%v does not name the directory", err)
		}
	}
	closeStore(t, s)
	closeStore(t, openStore(t, Options{Dir: dir}))
}

func TestOpenRefuses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links differ")
	}
	const marker = "FRESHET-CACHE"
	fx := newFixture(t, "a", sizes(5))
	for name, spoil := range map[string]func(dir string) error{
		"link":       func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) },
		"file":       func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
		"no marker":  func(dir string) error { return os.Remove(filepath.Join(dir, marker)) },
		"bad marker": func(dir string) error { return os.WriteFile(filepath.Join(dir, marker), []byte("hm"), 0o600) },
		"newer marker": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, marker), []byte("freshet cache 2\n"), 0o600)
		},
		"marker link": func(dir string) error {
			m := filepath.Join(dir, marker)
			return errors.Join(os.Rename(m, m+"x"), os.Symlink(marker+"x", m))
		},
		"others write": func(dir string) error { return os.Chmod(dir, 0o770) },
		"index link": func(dir string) error {
			i := filepath.Join(dir, "index")
			return errors.Join(os.Rename(i, i+"x"), os.Symlink("indexx", i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stored(t, fx)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), Options{Dir: dir})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			t.Log(err)
		})
	}
	dir := stored(t, fx)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	openStore(t, Options{Dir: dir})
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestLinksInsideAreNotFollowed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege")
	}
	fx := newFixture(t, "a", mixed())
	dir := stored(t, fx)
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	entry := filepath.Join(dir, fx.digest.String())
	for _, name := range []string{"f/000000", "small", "journal"} {
		p := filepath.Join(entry, name)
		if err := errors.Join(os.Remove(p), os.Symlink(canary, p)); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, Options{Dir: dir})
	if e, err := s.Get(fx.digest); err == nil {
		for run := range e.Layout().Runs() {
			e.Write(run, fx.run(run))
		}
		e.Release()
	}
	if err := s.Remove(t.Context(), fx.digest); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "untouched" {
		t.Errorf("canary is %q, %v", b, err)
	}
}

// damage changes a byte of a file below the cache. It keeps the times when quiet.
func damage(t *testing.T, name string, off int64, quiet bool) {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour)
	if quiet {
		at = st.ModTime()
	}
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestHashedAgain(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	now := time.Now()
	var clock sync.Mutex
	later := func(d time.Duration) { clock.Lock(); now = now.Add(d); clock.Unlock() }
	timeNow := func() time.Time { clock.Lock(); defer clock.Unlock(); return now }
	buf := make([]byte, mib)
	tests := map[string]struct {
		reopen  bool
		quiet   bool
		wait    time.Duration
		recheck bool
		found   bool
	}{
		"earlier process":           {reopen: true, quiet: true, found: true},
		"over a day ago":            {quiet: true, wait: 25 * time.Hour, found: true},
		"file changed":              {found: true},
		"told to":                   {quiet: true, recheck: true, found: true},
		"just written, times faked": {quiet: true, found: false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "c")
			s := openStore(t, Options{Dir: dir, Now: timeNow})
			e := create(t, s, fx)
			fill(t, e, fx)
			damage(t, filepath.Join(dir, fx.digest.String(), "f", "000000"), mib+7, tt.quiet)
			if tt.reopen {
				e.Release()
				closeStore(t, s)
				s = openStore(t, Options{Dir: dir, Now: timeNow})
				e = get(t, s, fx)
			}
			later(tt.wait)
			if tt.recheck {
				if bad, err := e.Recheck(t.Context()); bad != 1 || err != nil {
					t.Errorf("recheck finds %d, %v", bad, err)
				}
			}
			if _, ok := e.File(1); ok == tt.found {
				t.Errorf("span given: %t", ok)
			}
			err := e.Read(1, 3, 9, buf)
			if got := err != nil; got != tt.found {
				t.Fatalf("reading it: %v", err)
			}
			if tt.found && e.Held(1) {
				t.Error("still held")
			}
			if err := e.Read(0, 0, 100, buf); err != nil {
				t.Errorf("another run: %v", err)
			}
			if !tt.found {
				e.Release()
				return
			}
			e.Release()
			closeStore(t, s)
			s = openStore(t, Options{Dir: dir, Now: timeNow})
			e = get(t, s, fx)
			if e.Held(1) || e.left != 1 {
				t.Errorf("after opening again held %t, %d missing", e.Held(1), e.left)
			}
			fill(t, e, fx)
			checkEntry(t, e, fx)
			e.Release()
		})
	}
}

// TestBitRot flips bits all over the entry: each is found before a byte is handed out.
func TestBitRot(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	dir := stored(t, fx)
	entry := filepath.Join(dir, fx.digest.String())
	buf := make([]byte, mib)
	for _, tt := range []struct {
		name string
		off  int64
	}{
		{"f/000000", 0}, {"f/000000", 2*mib + 99}, {"f/000004", mib - 1}, {"f/000005", mib + 4},
		{"small", 0}, {"small", 3010}, {"small", 73010},
		{"manifest", 30}, {"hashes", 33}, {"journal", 3}, {"journal", 20}, {"journal", 55},
	} {
		damage(t, filepath.Join(entry, tt.name), tt.off, true)
		s := openStore(t, Options{Dir: dir})
		e := create(t, s, fx)
		bad := 0
		for run := range e.Layout().Runs() {
			err := e.Read(run, 0, fx.layout.Run(run).Len, buf)
			if err != nil {
				bad++
			} else if !bytes.Equal(buf[:fx.layout.Run(run).Len], fx.run(run)) {
				t.Errorf("%s at %d: wrong bytes of run %d are handed out", tt.name, tt.off, run)
			}
		}
		if data := strings.HasPrefix(tt.name, "f/") || tt.name == "small"; data && bad != 1 {
			t.Errorf("%s at %d: %d runs are found wrong", tt.name, tt.off, bad)
		}
		fill(t, e, fx)
		checkEntry(t, e, fx)
		e.Release()
		closeStore(t, s)
	}
}

func TestMissingAndShortFiles(t *testing.T) {
	header := int64(len(journal.AppendHeader(nil, content.Digest{})))
	fx := newFixture(t, "a", mixed())
	for name, spoil := range map[string]func(entry string) error{
		"file gone":    func(p string) error { return os.Remove(p + "/f/000000") },
		"file short":   func(p string) error { return os.Truncate(p+"/f/000000", mib+1) },
		"small gone":   func(p string) error { return os.Remove(p + "/small") },
		"all gone":     func(p string) error { return os.RemoveAll(p + "/f") },
		"journal gone": func(p string) error { return os.Remove(p + "/journal") },
		"journal cut":  func(p string) error { return os.Truncate(p+"/journal", header+3) },
		"journal more": func(p string) error { return os.Truncate(p+"/journal", header+999) },
		"head gone":    func(p string) error { return errors.Join(os.Remove(p+"/manifest"), os.Remove(p+"/hashes")) },
		"dir empty":    func(p string) error { return errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := stored(t, fx)
			if err := spoil(filepath.Join(dir, fx.digest.String())); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, Options{Dir: dir})
			e := create(t, s, fx)
			heldRight(t, e, fx)
			fill(t, e, fx)
			checkEntry(t, e, fx)
			e.Release()
			closeStore(t, s)
			s = openStore(t, Options{Dir: dir})
			e = get(t, s, fx)
			defer e.Release()
			checkEntry(t, e, fx)
		})
	}
	t.Run("file gone while open", func(t *testing.T) {
		dir := stored(t, fx)
		s := openStore(t, Options{Dir: dir})
		e := get(t, s, fx)
		defer e.Release()
		if err := os.Remove(filepath.Join(dir, fx.digest.String(), "f", "000004")); err != nil {
			t.Fatal(err)
		}
		run := e.Layout().RunOf(func() int { p, _ := e.Layout().FilePieces(4); return p }())
		wantErr(t, e.Read(run, 0, 1, make([]byte, 1)), ErrCorrupt)
		fill(t, e, fx)
		checkEntry(t, e, fx)
	})
}

func TestLinkTo(t *testing.T) {
	specs := mixed()
	specs[4].executable = true
	fx := newFixture(t, "a", specs)
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	e := create(t, s, fx)
	defer e.Release()
	fill(t, e, fx)
	out := t.TempDir()
	root, err := os.OpenRoot(out)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for i, mode := range map[int]fs.FileMode{0: 0o644, 4: 0o755, 5: 0o644} {
		if err := e.LinkTo(i, root, "out"+string(rune('0'+i))); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(out, "out"+string(rune('0'+i)))
		b, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(b, fx.file(i)) {
			t.Errorf("file %d differs (%v)", i, err)
		}
		if st, err := os.Stat(name); runtime.GOOS != "windows" && (err != nil || st.Mode().Perm() != mode) {
			t.Errorf("file %d has mode %v, %v", i, st.Mode(), err)
		}
	}
	if err := e.LinkTo(0, root, "out0"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("linking over a file: %v", err)
	}
}

func TestEmptyContent(t *testing.T) {
	for name, files := range map[string][]spec{"no file": nil, "empty files": sizes(0, 0)} {
		fx := newFixture(t, "a", files)
		dir := filepath.Join(t.TempDir(), "c")
		s := openStore(t, Options{Dir: dir})
		e := create(t, s, fx)
		if err := e.Sync(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkEntry(t, e, fx)
		e.Release()
		closeStore(t, s)
		s = openStore(t, Options{Dir: dir})
		e = get(t, s, fx)
		checkEntry(t, e, fx)
		e.Release()
		closeStore(t, s)
	}
}

func TestUseAfterClose(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	e := create(t, s, fx)
	if err := e.Write(0, fx.run(0)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	wantErr(t, e.Write(1, fx.run(1)), ErrClosed)
	wantErr(t, e.Read(0, 0, 1, make([]byte, 1)), ErrClosed)
	wantErr(t, e.Sync(t.Context()), ErrClosed)
	_, err := s.Get(fx.digest)
	wantErr(t, err, ErrClosed)
	if !e.Held(0) {
		t.Error("a run that was closed is not held")
	}
	e.Release()
}

// TestManyFilesFewHandles has more files in use than may stay open.
func TestManyFilesFewHandles(t *testing.T) {
	fx := newFixture(t, "a", sizes(mib, mib, mib, mib, mib, mib))
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	s.handles = disk.NewHandles(s.disk, 2)
	e := create(t, s, fx)
	defer e.Release()
	var spans []Span
	for run := range e.Layout().Runs() {
		if err := e.Write(run, fx.run(run)); err != nil {
			t.Fatal(err)
		}
		sp, ok := e.File(run)
		if !ok {
			t.Fatalf("no span of run %d", run)
		}
		spans = append(spans, sp)
	}
	got := make([]byte, mib)
	for run, sp := range spans {
		if _, err := sp.File.ReadAt(got, sp.Off); err != nil || !bytes.Equal(got, fx.run(run)) {
			t.Errorf("span of run %d: %v", run, err)
		}
		sp.Release()
	}
	checkEntry(t, e, fx)
}

func TestIdleEntriesLeaveMemory(t *testing.T) {
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c")})
	var all []*fixture
	for i := range maxIdle + 5 {
		fx := newFixture(t, "a", []spec{{size: 100, seed: uint64(i)}})
		all = append(all, fx)
		e := create(t, s, fx)
		if err := e.Write(0, fx.run(0)); err != nil {
			t.Fatal(err)
		}
		if err := e.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.Release()
	}
	s.mu.Lock()
	loaded, idle := len(s.loaded), len(s.idle)
	s.mu.Unlock()
	if loaded > maxIdle+2 || idle != loaded {
		t.Errorf("%d loaded, %d idle", loaded, idle)
	}
	for _, fx := range all {
		e := get(t, s, fx)
		checkEntry(t, e, fx)
		e.Release()
	}
}

// TestTogether does everything at once, for the race detector.
func TestTogether(t *testing.T) {
	s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "c"), MaxBytes: 6 * mib})
	all := []*fixture{newFixture(t, "a", mixed()), newFixture(t, "b", mixed()), newFixture(t, "c", sizes(mib, 5)), newFixture(t, "d", sizes(9))}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for round := range 8 {
				together(t, s, all[(i+round)%len(all)])
			}
		})
	}
	wg.Wait()
}

func together(t *testing.T, s *Store, fx *fixture) {
	ctx := context.Background()
	e, err := s.Create(ctx, fx.manifest, fx.hashes, []string{"lab"})
	if errors.Is(err, ErrFull) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer e.Release()
	if _, err := s.Adopt(ctx, e, "lab"); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			buf := make([]byte, mib)
			for run := w; run < e.Layout().Runs(); run += 2 {
				n := fx.layout.Run(run).Len
				if err := e.Write(run, fx.run(run)); err != nil {
					t.Error(err)
				}
				if err := e.Read(run, 0, n, buf); err != nil || !bytes.Equal(buf[:n], fx.run(run)) {
					t.Errorf("run %d: %v", run, err)
				}
			}
		})
	}
	_, listErr := s.List(ctx)
	_, evictErr := s.Evict(ctx, mib)
	_, checkErr := e.Recheck(ctx)
	for _, other := range s.ByHashOfHashes(e.Manifest().HashOfHashes) {
		other.Release()
	}
	wg.Wait()
	if err := errors.Join(listErr, evictErr, checkErr, e.Sync(ctx)); err != nil {
		t.Error(err)
	}
	if !e.Complete() {
		t.Error("not complete")
	}
}
