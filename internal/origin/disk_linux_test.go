package origin

import (
	"errors"
	"io/fs"
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
	if _, err := os.Stat(filepath.Join(b.root, pathOf(testRef))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half an upload has the final name: %v", err)
	}
	write(t, dir, map[string][]byte{"big.bin": {1}})
	if err := os.Remove(filepath.Join(dir, "exact.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.upload(base, dir); err != nil {
		t.Errorf("less, after that: %v", err)
	}
	if got := tree(t, filepath.Join(b.root, uploadDir)); len(got) != 0 {
		t.Errorf("%d files stay in the upload directory", len(got))
	}
}
