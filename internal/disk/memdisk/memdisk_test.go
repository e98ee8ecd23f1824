package memdisk_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"testing"

	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
)

func all() bool  { return true }
func none() bool { return false }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, d disk.Disk, name, want string) {
	t.Helper()
	b, err := disk.ReadFile(d, name, 100)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte("none"), nil
	}
	if err != nil || string(b) != want {
		t.Errorf("%s is %q, %v, want %q", name, b, err, want)
	}
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	d := memdisk.New()
	must(t, disk.WriteFile(d, "both", []byte("1")), disk.SyncFile(d, "both"))
	must(t, disk.WriteFile(d, "name", []byte("2")), d.SyncDir("."))
	must(t, disk.WriteFile(d, "bytes", []byte("3")), disk.SyncFile(d, "bytes"))
	killed, cut := d.Crash(all), d.Crash(none)
	want(t, killed, "both", "1")
	want(t, killed, "name", "2")
	want(t, killed, "bytes", "3")
	want(t, cut, "both", "1")
	want(t, cut, "name", "")
	want(t, cut, "bytes", "none")
}

// TestFailedSync: the bytes of a failed sync read as before and are on the medium never.
func TestFailedSync(t *testing.T) {
	d := memdisk.New()
	d.FailSync = 2
	must(t, disk.WriteFile(d, "f", []byte("1")), d.SyncDir("."))
	if err := disk.SyncFile(d, "f"); !errors.Is(err, syscall.EIO) {
		t.Errorf("the second sync: %v", err)
	}
	must(t, disk.SyncFile(d, "f"))
	want(t, d, "f", "1")
	want(t, d.Crash(none), "f", "\x00")
	if got := d.Synced(); !slices.Equal(got, []string{"./", "f", "f"}) {
		t.Errorf("synced %q", got)
	}
}

func TestKillAt(t *testing.T) {
	d := memdisk.New()
	d.KillAt = 3
	must(t, d.Mkdir("x"), d.Mkdir("y"))
	if err := d.Mkdir("z"); err == nil || !d.Dead() {
		t.Errorf("the third step: %v", err)
	}
	if _, err := d.Stat("x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a machine that is off answers %v", err)
	}
	if _, err := d.Crash(all).Stat("x"); err != nil {
		t.Errorf("after the next boot: %v", err)
	}
}

func TestResize(t *testing.T) {
	d := memdisk.New()
	d.Resize(10)
	f, err := d.Open("f", os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err, f.Allocate(6))
	if err := f.Allocate(11); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("more than there is: %v", err)
	}
	if n, err := d.Free(); err != nil || n != 4 {
		t.Errorf("%d bytes free, %v", n, err)
	}
}

// TestReplaceFile: after a power cut at any step it is the old file or the new one.
func TestReplaceFile(t *testing.T) {
	for n := 1; ; n++ {
		d := memdisk.New()
		must(t, disk.WriteFile(d, "f", []byte("old")), disk.SyncFile(d, "f"), d.SyncDir("."))
		d = d.Crash(none)
		d.KillAt = n
		err := disk.ReplaceFile(d, "f", []byte("new"))
		b, readErr := disk.ReadFile(d.Crash(none), "f", 3)
		if readErr != nil || string(b) != "new" && (err == nil || string(b) != "old") {
			t.Errorf("cut at step %d: %q, %v", n, b, readErr)
		}
		if err == nil {
			return
		}
	}
}
