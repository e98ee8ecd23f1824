package origin

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUploadToFullDisk uploads to a file system of 2 MiB. It needs the right to mount one.
func TestUploadToFullDisk(t *testing.T) {
	b := newBench(t)
	if err := os.MkdirAll(b.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", b.root, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	_, base := b.open(nil)
	dir := t.TempDir()
	write(t, dir, sample())
	if _, err := b.upload(base, dir); !isProblem(err, "disk-full", "make room") {
		t.Errorf("got %v, want a problem that says that the disk is full", err)
	}
	for name := range tree(t, filepath.Join(b.root, uploadDir)) {
		if filepath.Base(name)[0] == 'p' {
			t.Errorf("%q is half a file and stays", name)
		}
	}
	write(t, dir, map[string][]byte{"big.bin": {1}})
	if err := os.Remove(filepath.Join(dir, "exact.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.upload(base, dir); err != nil {
		t.Errorf("less, after that: %v", err)
	}
}
