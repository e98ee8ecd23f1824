package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
)

// loss says what a power cut leaves of what was not synced.
type loss int

const (
	losesAll  loss = iota
	losesNone      // a killed process, not a power cut
	losesSome
)

func (l loss) String() string { return fmt.Sprint([]string{"all", "none", "some"}[l]) }

// kept decides for one sector or name.
func (l loss) kept(seed uint64) func() bool {
	rng := rand.New(rand.NewPCG(seed, 1))
	return func() bool { return l == losesNone || l == losesSome && rng.IntN(2) == 0 }
}

// life is what a store went through before its machine went off.
type life struct {
	s       *Store
	disk    *memdisk.Disk
	fx, sib *fixture // sib shares a large file with fx
	written map[*fixture]map[int]bool
	synced  map[*fixture]map[int]bool // after a Sync said so
}

const crashWindow = 2 * mib

// lifeFixtures returns two contents that share a large file.
func lifeFixtures(tb testing.TB) [2]*fixture {
	return [2]*fixture{
		newFixture(tb, "a", []spec{
			{size: mib + 100, seed: 1}, {size: 10, seed: 2}, {},
			{size: 3000, seed: 3}, {size: mib, seed: 4}, {size: 70000, seed: 5},
		}),
		newFixture(tb, "b", []spec{{size: mib, seed: 4}, {size: 50, seed: 6}}),
	}
}

func newLife(fx [2]*fixture, d *memdisk.Disk, index string) (*life, error) {
	l := &life{disk: d, fx: fx[0], sib: fx[1]}
	l.written = map[*fixture]map[int]bool{l.fx: {}, l.sib: {}}
	l.synced = map[*fixture]map[int]bool{l.fx: {}, l.sib: {}}
	var err error
	l.s, err = Open(context.Background(), Options{disk: d, index: index, window: crashWindow})
	return l, err
}

func (l *life) write(e *Entry, fx *fixture, run int) error {
	err := e.Write(run, fx.run(run))
	if err == nil {
		l.written[fx][run] = true
	}
	return err
}

func (l *life) sync(e *Entry, fx *fixture) error {
	err := e.Sync(context.Background())
	if err == nil {
		for run := range e.HeldRuns().All {
			l.synced[fx][run] = true
		}
	}
	return err
}

// live goes through everything that changes the disk. Each step may be its last.
func (l *life) live() error {
	ctx := context.Background()
	e, err := l.s.Create(ctx, l.fx.manifest, l.fx.hashes, []string{"lab"})
	if err != nil {
		return err
	}
	released := false
	defer func() {
		if !released {
			e.Release()
		}
	}()
	for run := range e.Layout().Runs() {
		if err := l.write(e, l.fx, run); err != nil {
			return err
		}
		if run == 1 {
			if err := l.sync(e, l.fx); err != nil {
				return err
			}
		}
	}
	delete(l.synced[l.fx], 1)
	delete(l.written[l.fx], 1)
	e.drop(1)
	if err := l.write(e, l.fx, 1); err != nil {
		return err
	}
	if err := l.sync(e, l.fx); err != nil {
		return err
	}
	if err := l.liveSibling(); err != nil {
		return err
	}
	e.Release()
	released = true
	l.synced[l.fx], l.written[l.fx] = map[int]bool{}, map[int]bool{}
	return l.s.Remove(ctx, l.fx.digest)
}

func (l *life) liveSibling() error {
	ctx := context.Background()
	e, err := l.s.Create(ctx, l.sib.manifest, l.sib.hashes, []string{"lab"})
	if err != nil {
		return err
	}
	defer e.Release()
	if err := l.write(e, l.sib, 1); err != nil {
		return err
	}
	if err := l.sync(e, l.sib); err != nil {
		return err
	}
	if n, err := l.s.Adopt(ctx, e, "lab"); err != nil {
		return err
	} else if n != 1 {
		return fmt.Errorf("%d runs adopted, want 1", n)
	}
	l.synced[l.sib][0] = true
	for run := range e.Layout().Runs() {
		if err := l.write(e, l.sib, run); err != nil {
			return err
		}
	}
	if err := l.sync(e, l.sib); err != nil {
		return err
	}
	again, err := l.s.Create(ctx, l.sib.manifest, l.sib.hashes, []string{"office"})
	if err == nil {
		again.Release()
	}
	return err
}

// abandon stops a store's goroutines without letting it write anything.
func abandon(s *Store) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	s.wg.Wait()
	s.idx.Close(false)
}

// TestPowerCutAtEveryStep cuts the power at every step that changes the disk, in three ways,
// and opens what is left: with the index that is ahead of it, or without one.
func TestPowerCutAtEveryStep(t *testing.T) {
	stride := 1
	if testing.Short() || raceEnabled {
		stride = 7
	}
	fixtures := lifeFixtures(t)
	for n := 1; ; n += stride {
		over := false
		for _, how := range []loss{losesAll, losesNone, losesSome} {
			dir := t.TempDir()
			d := memdisk.New()
			d.KillAt = n
			l, err := newLife(fixtures, d, filepath.Join(dir, "index"))
			if err == nil {
				err = l.live()
			}
			if err != nil && !d.Dead() {
				t.Fatalf("step %d: %v", n, err)
			}
			over = err == nil
			if l.s != nil {
				abandon(l.s)
			}
			index := filepath.Join(dir, "index")
			if n%2 == 0 {
				index = filepath.Join(dir, "lost")
			}
			reborn := l.disk.Crash(how.kept(uint64(n)))
			name := fmt.Sprintf("step %d, loses %v", n, how)
			l.check(t, name, reborn, index)
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

// check opens what a power cut left and sees the promises kept, then finishes the work.
func (l *life) check(t *testing.T, name string, d *memdisk.Disk, index string) {
	t.Helper()
	s, err := Open(context.Background(), Options{disk: d, index: index, window: crashWindow})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, fx := range []*fixture{l.fx, l.sib} {
		e, err := s.Get(fx.digest)
		if errors.Is(err, fs.ErrNotExist) && len(l.synced[fx]) == 0 {
			e, err = s.Create(context.Background(), fx.manifest, fx.hashes, nil)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		heldRight(t, e, fx)
		l.compare(t, name, e, fx)
		fill(t, e, fx)
		e.Release()
	}
	closeStore(t, s)
	d = d.Crash(losesAll.kept(0)) // what was finished is durable too
	s, err = Open(context.Background(), Options{disk: d, index: index})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, fx := range []*fixture{l.fx, l.sib} {
		e := get(t, s, fx)
		if !e.Complete() {
			t.Errorf("%s: not complete after it was finished", name)
		}
		heldRight(t, e, fx)
		e.Release()
	}
	s.wg.Wait() // the rebuilding of the index
	if list, err := s.List(context.Background()); err != nil || len(list) != 2 {
		t.Errorf("%s: %d entries listed, %v", name, len(list), err)
	}
	closeStore(t, s)
}

// compare sees that what was synced is held and that no more than a window is gone.
func (l *life) compare(t *testing.T, name string, e *Entry, fx *fixture) {
	t.Helper()
	for run := range l.synced[fx] {
		if !e.Held(run) {
			t.Errorf("%s: run %d was synced and is not held", name, run)
		}
	}
	gone := 0
	for run := range l.written[fx] {
		if !e.Held(run) {
			gone += fx.layout.Run(run).Len
		}
	}
	if gone > crashWindow {
		t.Errorf("%s: %d bytes must be fetched again, the window is %d", name, gone, crashWindow)
	}
	if len(l.synced[fx]) > 0 && len(e.Groups()) == 0 {
		t.Errorf("%s: groups are lost", name)
	}
}

// TestEverySyncFails lets each sync fail once. Whatever is held after it and synced by a
// later Sync survives a power cut, though a failed sync's bytes never reach the medium.
func TestEverySyncFails(t *testing.T) {
	fixtures := lifeFixtures(t)
	stride := 1
	if testing.Short() || raceEnabled {
		stride = 5
	}
	for n := 1; ; n += stride {
		dir := t.TempDir()
		d := memdisk.New()
		d.FailSync = n
		l, err := newLife(fixtures, d, filepath.Join(dir, "index"))
		if err == nil {
			err = l.live()
		}
		if err == nil && len(d.Synced()) < n {
			abandon(l.s)
			t.Logf("%d syncs", n-1)
			return
		}
		if l.s == nil {
			t.Fatalf("sync %d: %v", n, err)
		}
		for _, fx := range []*fixture{l.fx, l.sib} {
			e := create(t, l.s, fx, "lab")
			for run := range e.Layout().Runs() {
				if err := l.write(e, fx, run); err != nil {
					t.Fatalf("sync %d: %v", n, err)
				}
			}
			if err := l.sync(e, fx); err != nil && !errors.Is(err, ErrLost) {
				t.Fatalf("sync %d: %v", n, err)
			} else if err != nil {
				l.synced[fx] = map[int]bool{}
			}
			heldRight(t, e, fx)
			e.Release()
		}
		abandon(l.s)
		name := fmt.Sprintf("sync %d fails", n)
		l.written = map[*fixture]map[int]bool{}
		l.check(t, name, d.Crash(losesAll.kept(0)), filepath.Join(dir, "index"))
		if t.Failed() {
			t.FailNow()
		}
	}
}

// TestSyncOrder reads the order of syncs off the disk: head and names, bytes, journal.
func TestSyncOrder(t *testing.T) {
	d := memdisk.New()
	s := openStore(t, Options{disk: d, index: filepath.Join(t.TempDir(), "index")})
	fx := newFixture(t, "a", sizes(mib+5, 7))
	e := create(t, s, fx, "lab")
	defer e.Release()
	fill(t, e, fx)
	var names []string
	for _, n := range d.Synced() {
		rel, err := filepath.Rel(fx.digest.String(), n)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.ToSlash(rel))
	}
	want := "[manifest hashes groups journal f . .."
	got := fmt.Sprint(names)
	if len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("synced %s, want %s first", got, want)
	}
	if last := names[len(names)-1]; last != "journal" {
		t.Errorf("synced %s, the journal not last", got)
	}
}

func TestFullDiskWhileWriting(t *testing.T) {
	d := memdisk.New()
	s := openStore(t, Options{disk: d, index: filepath.Join(t.TempDir(), "index")})
	fx := newFixture(t, "a", mixed())
	e := create(t, s, fx, "lab")
	defer e.Release()
	free, err := d.Free()
	if err != nil {
		t.Fatal(err)
	}
	d.Resize(memdisk.Size - free) // the journal cannot grow
	for run := range e.Layout().Runs() {
		if err := e.Write(run, fx.run(run)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Sync(t.Context()); !disk.IsFull(err) || !errors.Is(err, ErrFull) {
		t.Errorf("sync on a full disk: %v, want %v and its cause", err, ErrFull)
	}
	if !e.Complete() {
		t.Error("verified pieces are lost on a full disk")
	}
	d.Resize(memdisk.Size - free + mib)
	if err := e.Sync(t.Context()); err != nil {
		t.Errorf("sync with room again: %v", err)
	}
	l := &life{fx: fx, synced: map[*fixture]map[int]bool{}}
	r := openStore(t, Options{disk: d.Crash(losesAll.kept(0)), index: filepath.Join(t.TempDir(), "index")})
	e2 := get(t, r, l.fx)
	defer e2.Release()
	checkEntry(t, e2, fx)
}
