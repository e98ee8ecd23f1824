package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"freshet/internal/content"
	"freshet/internal/origin"
	"freshet/internal/services"
)

const (
	// insideEnv marks the process that has mounts of its own.
	insideEnv = "FRESHET_TEST_INSIDE"
	// allEnv makes a test fail that cannot run here, instead of skipping it: make test sets it.
	allEnv = "FRESHET_TEST_ALL"
)

// withMounts runs the test once more in a process with mounts of its own, which end with it,
// and reports whether this is that process. Where root is not at hand, a user namespace will do.
func withMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		// In a chroot there is no mount at /; then the test's own end with the test.
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil && err != unix.EINVAL {
			cannot(t, fmt.Sprintf("keeping mounts private: %v", err))
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(out.String(), "--- SKIP"):
		t.Skip(&out)
	case err == nil:
		t.Log(&out)
	case errors.As(err, &exit):
		t.Fatalf("%v\n%s", err, &out)
	default:
		cannot(t, fmt.Sprintf("a process with mounts of its own: %v", err))
	}
	return false
}

// cannot ends a test that the machine does not allow.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(allEnv) != "" {
		t.Fatalf("%s is set, and this machine does not allow %s", allEnv, why)
	}
	t.Skipf("this machine does not allow %s", why)
}

// disk is a file system of a size of its own.
type disk struct {
	t    *testing.T
	path string
}

func newDisk(t *testing.T, size int64) disk {
	t.Helper()
	d := disk{t, shortDir(t)}
	if err := unix.Mount("tmpfs", d.path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
		cannot(t, fmt.Sprintf("mounting a tmpfs: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d disk) resize(size int64) {
	d.t.Helper()
	if err := unix.Mount("tmpfs", d.path, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		d.t.Fatal(err)
	}
}

// fill writes a file until there is no room; free removes it.
func (d disk) fill() (free func()) {
	d.t.Helper()
	name := filepath.Join(d.path, "filler")
	f, err := os.Create(name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			d.t.Error(err)
		}
	}
}

// diskFleet is a fleet with one content and one agent, whose state and destination may lie on
// small disks.
type diskFleet struct {
	*testing.T
	server, url string
	body        []byte
	state       string
	agent       *process
	socket      string
}

func newDiskFleet(t *testing.T, state string, size int, rate int64) *diskFleet {
	t.Helper()
	f := &diskFleet{T: t, server: startServices(t), state: state, body: make([]byte, size)}
	rand.NewChaCha8([32]byte{}).Read(f.body)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "big.bin"), f.body, 0o644); err != nil {
		t.Fatal(err)
	}
	f.url, _ = startOrigin(t, origin.Options{
		State: filepath.Join(t.TempDir(), "dp"), Join: services.TokenFile(f.server, "origin"), Root: t.TempDir(),
		Mapped: map[content.Ref]string{{ID: "big", Version: 1}: src}, Uplink: rate,
	})
	until(t, "the content to be published", func() bool {
		_, out, _ := freshet(t, "content", "list", "--token", services.TokenFile(f.server, "admin"))
		return strings.Contains(out, "big")
	})
	f.start()
	return f
}

// start starts the agent.
func (f *diskFleet) start() {
	f.Helper()
	f.agent, f.socket = startAgent(f.T, f.server, f.state, "--set", "DOMaxCacheSize=100")
}

// get begins a get of the content into dir.
func (f *diskFleet) get(dir string) *process {
	f.Helper()
	return startProcess(f.T, "get", "big", "-o", dir, "--socket", f.socket, "--json")
}

// fails waits for a get to fail in words, with exit status 1 and nothing in its directory.
func (f *diskFleet) fails(p *process, dir string, words ...string) {
	f.Helper()
	err := <-p.done
	if p.ProcessState.ExitCode() != exitFailed {
		f.Fatalf("get: %v, want status %d", err, exitFailed)
	}
	f.Logf("get says: %s", &p.errs)
	for _, w := range words {
		if !strings.Contains(p.errs.String(), w) {
			f.Errorf("get says %q, want %q in it", &p.errs, w)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		f.Errorf("%v is in the destination, %v; want nothing", entries, err)
	}
}

// right waits for a get to end well.
func (f *diskFleet) right(p *process, dir string) {
	f.Helper()
	if err := <-p.done; err != nil {
		f.Fatalf("get: %v: %s", err, &p.errs)
	}
	got, err := os.ReadFile(filepath.Join(dir, "big.bin"))
	if err != nil || !bytes.Equal(got, f.body) {
		f.Errorf("the file differs (%v)", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		f.Errorf("%v is in the destination, %v; want the file alone", entries, err)
	}
}

// fetched is what the origin sent of the content, headers and manifest included.
func (f *diskFleet) fetched() int64 {
	f.Helper()
	return sentBy(f.T, f.server, f.url)
}

// fetchedOnce looks that one copy was sent in all.
func (f *diskFleet) fetchedOnce() {
	f.Helper()
	size := int64(len(f.body))
	until(f.T, "the origin to have counted what it sent", func() bool { return f.fetched() >= size })
	if n := f.fetched(); n > size+mib {
		f.Errorf("%d bytes were fetched in all, want one copy of %d", n, size)
	}
}

const mib = 1 << 20

// TestCacheDiskTooSmall: what has no room is refused before it is fetched, and comes when
// there is room.
func TestCacheDiskTooSmall(t *testing.T) {
	if !withMounts(t) {
		return
	}
	d := newDisk(t, 24*mib)
	f := newDiskFleet(t, d.path, 16*mib, 0)
	dir := t.TempDir()
	remedy := []string{"big@1", filepath.Join(d.path, "cache"), "free some or move the cache"}
	f.fails(f.get(dir), dir, remedy...)
	free := d.fill()
	f.fails(f.get(dir), dir, remedy...)
	free()
	if n := f.fetched(); n > mib {
		t.Errorf("%d bytes were fetched for what has no room", n)
	}
	d.resize(64 * mib)
	f.right(f.get(dir), dir)
	f.fetchedOnce()
}

// TestCacheDiskFills: the disk fills up in the midst of a download. It ends well, since its
// pieces have their room reserved, and what is held can be had again, also by an agent that
// was killed. Nothing that was verified is lost.
func TestCacheDiskFills(t *testing.T) {
	if !withMounts(t) {
		return
	}
	d := newDisk(t, 64*mib)
	f := newDiskFleet(t, d.path, 24*mib, 8*mib)
	first, second, third := t.TempDir(), t.TempDir(), t.TempDir()
	get := f.get(first)
	until(t, "the download to be under way", func() bool { return held(t, f.socket) >= 8*mib })
	free := d.fill()
	f.right(get, first)
	f.right(f.get(second), second)
	f.agent.Process.Kill()
	<-f.agent.done
	p := startProcess(t, "agent", "--state", d.path, "--listen", "127.0.0.1:0")
	if <-p.done; p.ProcessState.ExitCode() != exitFailed || !strings.Contains(p.errs.String(), "free some or move the cache") {
		t.Errorf("an agent on a full disk ended with status %d: %s", p.ProcessState.ExitCode(), &p.errs)
	}
	free()
	f.start()
	f.right(f.get(third), third)
	f.fetchedOnce()
}

// TestDestinationDiskTooSmall: a destination without room costs nothing but the try.
func TestDestinationDiskTooSmall(t *testing.T) {
	if !withMounts(t) {
		return
	}
	d := newDisk(t, 8*mib)
	f := newDiskFleet(t, shortDir(t), 16*mib, 0)
	f.fails(f.get(d.path), d.path, "big", d.path, "free some room there or choose another directory")
	d.resize(32 * mib)
	f.right(f.get(d.path), d.path)
	f.fetchedOnce()
}
