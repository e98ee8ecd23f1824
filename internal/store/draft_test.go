package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
	"freshet/internal/store/place"
)

func draft(tb testing.TB, s *Store, fx *fixture) *Draft {
	tb.Helper()
	d, err := s.Draft(context.Background(), fx.manifest, []string{"lab"})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// pour writes the right bytes until the run to.
func pour(d *Draft, fx *fixture, to int) error {
	for d.Next() < to {
		if err := d.Write(fx.run(d.Next())); err != nil {
			return err
		}
	}
	return nil
}

// finish makes a whole draft an entry by its own hash file.
func finish(d *Draft) (*Entry, error) {
	raw, err := d.HashFile()
	if err != nil {
		return nil, err
	}
	return d.Become(context.Background(), raw)
}

func memStore(tb testing.TB, o Options) *Store {
	tb.Helper()
	if o.disk == nil {
		o.disk = memdisk.New()
	}
	o.index = filepath.Join(tb.TempDir(), "index")
	return openStore(tb, o)
}

// TestDraft makes a whole draft an entry: its store files are the same ones, and a reopened
// cache knows it.
func TestDraft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	s := openStore(t, Options{Dir: dir})
	fx := newFixture(t, "a", mixed())
	d := draft(t, s, fx)
	if _, err := s.Draft(t.Context(), fx.manifest, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a second user of a draft: %v, want %v", err, ErrInUse)
	}
	if _, err := d.HashFile(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("hash file of half a draft: %v, want %v", err, ErrIncomplete)
	}
	if err := pour(d, fx, fx.layout.Runs()); err != nil {
		t.Fatal(err)
	}
	if err := d.Write([]byte{1}); err == nil {
		t.Error("a whole draft took more")
	}
	if raw, err := d.HashFile(); err != nil || !bytes.Equal(raw, fx.hashes) {
		t.Errorf("hash file of the draft differs: %v", err)
	}
	before, err := os.Stat(filepath.Join(dir, draftDir(fx.digest), place.Large(0)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := finish(d)
	if err != nil {
		t.Fatal(err)
	}
	checkEntry(t, e, fx)
	after, err := os.Stat(filepath.Join(dir, e.files[0].Name))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the bytes were copied: %v", err)
	}
	e.Release()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Draft(t.Context(), fx.manifest, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a draft of an entry: %v, want %v", err, fs.ErrExist)
	}
	if s.used != fx.layout.Size() || len(s.Drafts()) != 0 {
		t.Errorf("%d bytes in use and %d drafts, want %d and none", s.used, len(s.Drafts()), fx.layout.Size())
	}
	closeStore(t, s)
	s = openStore(t, Options{Dir: dir})
	e = get(t, s, fx)
	defer e.Release()
	checkEntry(t, e, fx)
	if list, err := s.List(t.Context()); err != nil || len(list) != 1 || list[0].State != Complete {
		t.Errorf("list %+v, %v", list, err)
	}
}

// TestDraftWrongFile spoils one byte of each piece in turn: the file is named, written again
// from its beginning, and all ends right.
func TestDraftWrongFile(t *testing.T) {
	fx := newFixture(t, "a", mixed())
	s := memStore(t, Options{})
	l := fx.layout
	for p := range l.Pieces() {
		d := draft(t, s, fx)
		at, first := l.RunOf(p), l.RunOf(firstPiece(l, p))
		for d.Next() < l.Runs() && d.Next() != at {
			if err := d.Write(fx.run(d.Next())); err != nil {
				t.Fatal(err)
			}
		}
		bad := bytes.Clone(fx.run(at))
		bad[l.PieceOffset(p)-l.Run(at).Offset] ^= 1
		err := d.Write(bad)
		for err == nil && d.Next() < l.Runs() {
			err = d.Write(fx.run(d.Next()))
		}
		var wrong *WrongFileError
		if !errors.As(err, &wrong) || wrong.File != l.PieceFile(p) || wrong.Name != fmt.Sprintf("f%06d", wrong.File) {
			t.Fatalf("piece %d wrong: error %v, want one of file %d", p, err, l.PieceFile(p))
		}
		if d.Next() != first {
			t.Errorf("piece %d wrong: goes on at run %d, want %d", p, d.Next(), first)
		}
		var held int64
		for run := range first {
			held += int64(l.Run(run).Len)
		}
		if d.Held() != held {
			t.Errorf("piece %d wrong: %d bytes held, want %d", p, d.Held(), held)
		}
		if err := pour(d, fx, l.Runs()); err != nil {
			t.Fatalf("piece %d was wrong: %v", p, err)
		}
		e, err := finish(d)
		if err != nil {
			t.Fatal(err)
		}
		checkEntry(t, e, fx)
		e.Release()
		if err := s.Remove(t.Context(), fx.digest); err != nil {
			t.Fatal(err)
		}
	}
}

func firstPiece(l *content.Layout, p int) int {
	first, _ := l.FilePieces(l.PieceFile(p))
	return first
}

// TestDraftSureFile: a file that was right is compared with itself when its last piece comes
// again in a run that another file spoilt.
func TestDraftSureFile(t *testing.T) {
	fx := newFixture(t, "a", sizes(2*mib+100, 10))
	s := memStore(t, Options{})
	d := draft(t, s, fx)
	if err := pour(d, fx, 2); err != nil {
		t.Fatal(err)
	}
	for i, at := range []int{105, 5, 105} { // in the second file, in the first one, again
		bad := bytes.Clone(fx.run(2))
		bad[at] ^= 1
		var wrong *WrongFileError
		if err := d.Write(bad); !errors.As(err, &wrong) || wrong.File != at/100 || d.Next() != 2 {
			t.Fatalf("write %d: %v, goes on at run %d; want file %d wrong and run 2", i, err, d.Next(), at/100)
		}
	}
	if err := pour(d, fx, 3); err != nil {
		t.Fatal(err)
	}
	e, err := finish(d)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Release()
	checkEntry(t, e, fx)
}

// TestDraftGoodHashFile lets a good hash file come after each run: what fits it is kept, and a
// run that does not is not.
func TestDraftGoodHashFile(t *testing.T) {
	fx := newFixture(t, "a", sizes(3*mib+5, 10, 2*mib))
	s := memStore(t, Options{})
	for n := range fx.layout.Runs() + 1 {
		for _, spoilt := range []int{-1, 1} {
			d := draft(t, s, fx)
			var err error
			for run := 0; run < n && err == nil; run++ {
				b := bytes.Clone(fx.run(run))
				if run == spoilt {
					b[0] ^= 1
				}
				err = d.Write(b)
			}
			held := content.NewBits(fx.layout.Runs())
			for run := range d.Next() {
				if run != spoilt {
					held.Add(run)
				}
			}
			if e, err := d.Become(t.Context(), fx.hashes[:len(fx.hashes)-1]); err == nil {
				e.Release()
				t.Fatal("a draft became an entry by a hash file that is too short")
			}
			e, err := d.Become(t.Context(), fx.hashes)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.HeldRuns(); fmt.Sprint(got) != fmt.Sprint(held) {
				t.Errorf("%d runs, run %d wrong: %b held, want %b", n, spoilt, got, held)
			}
			heldRight(t, e, fx)
			fill(t, e, fx)
			checkEntry(t, e, fx)
			e.Release()
			if err := s.Remove(t.Context(), fx.digest); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDraftWronglyPublished: right files whose hashes do not make the manifest's HashOfHashes.
func TestDraftWronglyPublished(t *testing.T) {
	fx := newFixture(t, "a", sizes(mib, 10))
	m, err := content.ParseManifest(fx.manifest)
	if err != nil {
		t.Fatal(err)
	}
	m.HashOfHashes[0] ^= 1
	fx.manifest = content.AppendManifest(nil, m)
	d := draft(t, memStore(t, Options{}), fx)
	defer d.Close()
	if err := pour(d, fx, fx.layout.Runs()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.HashFile(); err == nil || !bytes.Contains([]byte(err.Error()), []byte("published wrongly")) {
		t.Errorf("hash file: %v", err)
	}
}

// TestDraftReopened: a draft goes on after its store was closed; bits that rotted meanwhile
// cut it back to their file.
func TestDraftReopened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	fx := newFixture(t, "a", sizes(mib+9, 10, 3*mib, 7))
	for _, rot := range []bool{false, true} {
		s := openStore(t, Options{Dir: dir})
		d := draft(t, s, fx)
		want := 5 // the third file begins at run 2
		if err := pour(d, fx, want); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s) // with the draft open
		if rot {
			name := filepath.Join(dir, draftDir(fx.digest), place.Large(2))
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b[mib+3] ^= 1
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
			want = 2
		}
		s = openStore(t, Options{Dir: dir})
		if s.used != fx.layout.Size() {
			t.Errorf("%d bytes in use, want %d", s.used, fx.layout.Size())
		}
		d = draft(t, s, fx)
		if d.Next() != want {
			t.Errorf("rot %v: goes on at run %d, want %d", rot, d.Next(), want)
		}
		if err := pour(d, fx, fx.layout.Runs()); err != nil {
			t.Fatal(err)
		}
		e, err := finish(d)
		if err != nil {
			t.Fatal(err)
		}
		checkEntry(t, e, fx)
		e.Release()
		if err := s.Remove(t.Context(), fx.digest); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
	}
}

// TestDraftRoom: a draft's bytes count; one that nobody uses gives way before any entry, one
// in use to nothing, and one that lies long enough leaves by itself.
func TestDraftRoom(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := memStore(t, Options{MaxBytes: 4 * mib, Now: func() time.Time { return now }})
	kept := newFixture(t, "kept", sizes(mib))
	e := create(t, s, kept, "lab")
	fill(t, e, kept)
	e.Release()
	fx, other := newFixture(t, "a", sizes(2*mib)), newFixture(t, "b", []spec{{size: 2 * mib, seed: 9}})
	d := draft(t, s, fx)
	if _, err := s.Draft(t.Context(), newFixture(t, "big", sizes(3*mib)).manifest, nil); !errors.Is(err, ErrFull) {
		t.Errorf("a draft where another one in use takes the room: %v, want %v", err, ErrFull)
	}
	if err := s.RemoveDraft(fx.digest); !errors.Is(err, ErrInUse) {
		t.Errorf("removing a draft in use: %v, want %v", err, ErrInUse)
	}
	e = create(t, s, kept, "lab") // the attempt evicted it
	fill(t, e, kept)
	e.Release()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	o := draft(t, s, other)
	if _, err := s.Get(kept.digest); err != nil || s.HasDraft(fx.digest) {
		t.Errorf("the entry gave way (%v), the idle draft did not (%v)", err, s.HasDraft(fx.digest))
	} else {
		get(t, s, kept).Release()
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	for _, later := range []struct {
		by   time.Duration
		want bool
	}{{draftIdle - time.Second, true}, {2 * time.Second, false}} {
		now = now.Add(later.by)
		if _, err := s.Evict(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if got := s.HasDraft(other.digest); got != later.want {
			t.Errorf("draft there %v, want %v", got, later.want)
		}
	}
	if _, err := s.disk.Stat(draftDir(other.digest)); !errors.Is(err, fs.ErrNotExist) || s.used != mib {
		t.Errorf("%v, %d bytes in use; want nothing left and %d", err, s.used, mib)
	}
}

// TestDraftAndEntry: an entry that comes by another way ends its draft, and a damaged one ends
// for a draft.
func TestDraftAndEntry(t *testing.T) {
	s := memStore(t, Options{})
	fx := newFixture(t, "a", sizes(2*mib, 5))
	d := draft(t, s, fx)
	e := create(t, s, fx, "lab") // while the draft is in use
	again, err := d.Become(t.Context(), fx.hashes)
	if err != nil || again != e || s.HasDraft(fx.digest) {
		t.Errorf("the draft beside an entry became %v, %v; draft there %v", again, err, s.HasDraft(fx.digest))
	}
	again.Release()
	e.Release()
	if err := s.Remove(t.Context(), fx.digest); err != nil {
		t.Fatal(err)
	}
	if err := draft(t, s, fx).Close(); err != nil {
		t.Fatal(err)
	}
	create(t, s, fx, "lab").Release()
	if s.HasDraft(fx.digest) || s.used != fx.layout.Size() {
		t.Errorf("draft there %v, %d bytes in use", s.HasDraft(fx.digest), s.used)
	}
	s.unload(s.loaded[fx.digest])
	if err := disk.ReplaceFile(s.disk, fx.digest.String()+"/hashes", fx.hashes[1:]); err != nil {
		t.Fatal(err)
	}
	d = draft(t, s, fx)
	defer d.Close()
	if s.used != fx.layout.Size() {
		t.Errorf("%d bytes in use, want those of the draft alone", s.used)
	}
}

// TestDraftEmpty: an entry that a draft became is durable, also when nothing was written.
func TestDraftEmpty(t *testing.T) {
	mem := memdisk.New()
	fx := newFixture(t, "a", sizes(2*mib, 5))
	d := draft(t, memStore(t, Options{disk: mem}), fx)
	e, err := d.Become(t.Context(), fx.hashes)
	if err != nil {
		t.Fatal(err)
	}
	e.Release()
	s := memStore(t, Options{disk: mem.Crash(losesAll.kept(0))})
	e = get(t, s, fx)
	defer e.Release()
	if got := e.Groups(); len(got) != 1 || got[0] != "lab" {
		t.Errorf("groups %q", got)
	}
	fill(t, e, fx)
	checkEntry(t, e, fx)
}

// TestDraftPowerCut cuts the power at every step of a draft's life. What is left goes on, and
// ends right; what a commit had made durable is not written again.
func TestDraftPowerCut(t *testing.T) {
	fx := newFixture(t, "a", sizes(mib+100, 10, 2*mib, 3000))
	stride := 1
	if testing.Short() || raceEnabled {
		stride = 7
	}
	live := func(s *Store, durable *int) error {
		d, err := s.Draft(context.Background(), fx.manifest, []string{"lab"})
		if err != nil {
			return err
		}
		if err := pour(d, fx, 2); err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
		*durable = 2
		if d, err = s.Draft(context.Background(), fx.manifest, []string{"lab"}); err != nil {
			return err
		}
		bad := bytes.Clone(fx.run(3))
		bad[5] ^= 1
		var wrong *WrongFileError
		err = errors.Join(pour(d, fx, 3), d.Write(bad))
		for err == nil {
			err = d.Write(fx.run(d.Next()))
		}
		if !errors.As(err, &wrong) {
			return err
		}
		if err := pour(d, fx, fx.layout.Runs()); err != nil {
			return err
		}
		e, err := finish(d)
		if err != nil {
			return err
		}
		*durable = fx.layout.Runs()
		e.Release()
		return nil
	}
	for n := 1; ; n += stride {
		over := false
		for _, how := range []loss{losesAll, losesNone, losesSome} {
			dir := t.TempDir()
			d := memdisk.New()
			d.KillAt = n
			durable := 0
			s, err := Open(context.Background(), Options{disk: d, index: filepath.Join(dir, "index"), window: crashWindow})
			if err == nil {
				err = live(s, &durable)
			}
			if err != nil && !d.Dead() {
				t.Fatalf("step %d: %v", n, err)
			}
			over = err == nil
			if s != nil {
				abandon(s)
			}
			revive(t, fmt.Sprintf("step %d, loses %v", n, how), d.Crash(how.kept(uint64(n))), fx, durable)
			if t.Failed() {
				t.FailNow()
			}
		}
		if over {
			t.Logf("%d steps", n)
			return
		}
	}
}

// revive opens what a power cut left of a draft or its entry, and finishes it.
func revive(t *testing.T, name string, mem *memdisk.Disk, fx *fixture, durable int) {
	t.Helper()
	index := filepath.Join(t.TempDir(), "index")
	s, err := Open(context.Background(), Options{disk: mem, index: index, window: crashWindow})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	e, err := s.Get(fx.digest)
	if errors.Is(err, fs.ErrNotExist) {
		var d *Draft
		if d, err = s.Draft(context.Background(), fx.manifest, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d.Next() < durable {
			t.Errorf("%s: goes on at run %d, those before %d were durable", name, d.Next(), durable)
		}
		if err = pour(d, fx, fx.layout.Runs()); err == nil {
			e, err = finish(d)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !e.Complete() {
		t.Errorf("%s: an entry that is not complete came of a whole draft", name)
	}
	heldRight(t, e, fx)
	e.Release()
	closeStore(t, s)
	s, err = Open(context.Background(), Options{disk: mem.Crash(losesAll.kept(0)), index: index})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	e = get(t, s, fx)
	heldRight(t, e, fx)
	if !e.Complete() || len(e.Groups()) == 0 && durable > 0 || len(s.Drafts()) != 0 {
		t.Errorf("%s: complete %v, groups %q, %d drafts", name, e.Complete(), e.Groups(), len(s.Drafts()))
	}
	e.Release()
	closeStore(t, s)
}
