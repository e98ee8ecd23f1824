package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/disk"
)

// suicideDisk kills its own process at a step of the real file system.
type suicideDisk struct {
	disk.Disk
	left *atomic.Int64
}

func (d suicideDisk) step() {
	if d.left.Add(-1) != 0 {
		return
	}
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Kill()
	}
	select {} // the signal is on its way
}

func (d suicideDisk) Mkdir(name string) error      { d.step(); return d.Disk.Mkdir(name) }
func (d suicideDisk) Rename(from, to string) error { d.step(); return d.Disk.Rename(from, to) }
func (d suicideDisk) Link(from, to string) error   { d.step(); return d.Disk.Link(from, to) }
func (d suicideDisk) RemoveAll(name string) error  { d.step(); return d.Disk.RemoveAll(name) }
func (d suicideDisk) SyncDir(name string) error    { d.step(); return d.Disk.SyncDir(name) }
func (f suicideFile) Allocate(size int64) error    { f.d.step(); return f.File.Allocate(size) }
func (f suicideFile) Datasync() error              { f.d.step(); return f.File.Datasync() }
func (f suicideFile) Truncate(size int64) error    { f.d.step(); return f.File.Truncate(size) }
func (f suicideFile) WriteAt(b []byte, off int64) (int, error) {
	if f.d.left.Load() == 1 {
		f.File.WriteAt(b[:len(b)/2], off) // killed in the middle of it
	}
	f.d.step()
	return f.File.WriteAt(b, off)
}

func (d suicideDisk) Open(name string, flag int, perm fs.FileMode) (disk.File, error) {
	if flag&os.O_CREATE != 0 {
		d.step()
	}
	f, err := d.Disk.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return suicideFile{f, d}, nil
}

type suicideFile struct {
	disk.File
	d suicideDisk
}

const childDir, childStep = "FRESHET_TEST_STORE_DIR", "FRESHET_TEST_STORE_STEP"

// TestKilledChild is the process that [TestKill] kills.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("run by TestKill")
	}
	step, err := strconv.ParseInt(os.Getenv(childStep), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := new(atomic.Int64)
	left.Store(step)
	s, err := Open(t.Context(), Options{disk: suicideDisk{d, left}, index: filepath.Join(dir, "index"), window: crashWindow})
	if err != nil {
		t.Fatal(err)
	}
	fx := newFixture(t, "a", mixed())
	e, err := s.Create(t.Context(), fx.manifest, fx.hashes, []string{"lab"})
	if err != nil {
		t.Fatal(err)
	}
	for run := range e.Layout().Runs() {
		if err := e.Write(run, fx.run(run)); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("written %d\n", run)
		if run%3 == 2 {
			if err := e.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("synced %d\n", run)
		}
	}
	if err := e.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("synced %d\n", e.Layout().Runs()-1)
	e.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("finished")
}

// TestKill kills a process that writes to a real cache, at every step and at random, and
// looks at what it leaves.
func TestKill(t *testing.T) {
	stride, random := 1, 40
	if testing.Short() || raceEnabled {
		stride, random = 9, 4
	}
	n := 1
	for ; !killAt(t, n, 0); n += stride {
	}
	t.Logf("%d steps", n)
	for range random {
		killAt(t, 1<<30, rand.N(60*time.Millisecond))
	}
}

// killAt runs the child until its step n, or for a while when that is not 0. It reports
// whether the child finished.
func killAt(t *testing.T, n int, after time.Duration) (finished bool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childStep+"="+strconv.Itoa(n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	written, synced, finished := told(t, out)
	cmd.Wait() // killed, as a rule
	name := fmt.Sprintf("killed at step %d after %v", n, after)

	s := openStore(t, Options{Dir: dir})
	defer s.Close()
	fx := newFixture(t, "a", mixed())
	e, err := s.Get(fx.digest)
	if errors.Is(err, fs.ErrNotExist) && written < 0 {
		return finished
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer e.Release()
	heldRight(t, e, fx)
	gone := 0
	for run := range written + 1 {
		if !e.Held(run) {
			gone += fx.layout.Run(run).Len
		}
		if run <= synced && !e.Held(run) {
			t.Errorf("%s: run %d was synced and is not held", name, run)
		}
	}
	if gone > crashWindow {
		t.Errorf("%s: %d bytes must be fetched again, the window is %d", name, gone, crashWindow)
	}
	buf := make([]byte, mib)
	for run := range e.HeldRuns().All {
		if err := e.Read(run, 0, fx.layout.Run(run).Len, buf); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := e.Sync(context.Background()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return finished
}

// told reads what the child says: the last run written and the last one synced.
func told(t *testing.T, out io.Reader) (written, synced int, finished bool) {
	t.Helper()
	written, synced = -1, -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		verb, num, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(num)
		switch {
		case verb == "finished":
			finished = true
		case err == nil && verb == "written":
			written = n
		case err == nil && verb == "synced":
			synced = n
		case strings.Contains(lines.Text(), "FAIL") || strings.Contains(lines.Text(), "panic"):
			t.Errorf("child: %s", lines.Text())
		}
	}
	return written, synced, finished
}
