package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

// openTree hashes and opens a directory of these files; it returns their concatenation too.
func openTree(t *testing.T, files map[string][]byte) (*Tree, *content.Manifest, []byte, string) {
	t.Helper()
	dir := writeTree(t, files)
	m, _, stamps, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := OpenTree(dir, m, stamps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	var all []byte
	for _, f := range m.Files {
		all = append(all, files[f.Name]...)
	}
	return tree, m, all, dir
}

func TestTreeRangesAreOfTheConcatenation(t *testing.T) {
	tree, m, all, _ := openTree(t, sample())
	if tree.Size() != int64(len(all)) || m.Size != tree.Size() {
		t.Fatalf("size %d, want %d", tree.Size(), len(all))
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(all)-1).Draw(t, "off")
		n := rapid.IntRange(0, min(len(all)-off, 3<<20)).Draw(t, "n")
		p := make([]byte, n)
		if got, err := tree.ReadAt(p, int64(off)); err != nil || got != n {
			t.Fatalf("read %d at %d: got %d, %v", n, off, got, err)
		}
		if !bytes.Equal(p, all[off:off+n]) {
			t.Fatalf("read %d at %d: other bytes", n, off)
		}
	})
	p := make([]byte, 10)
	if n, err := tree.ReadAt(p, tree.Size()-4); n != 4 || err != io.EOF {
		t.Errorf("read over the end: got %d, %v, want 4, EOF", n, err)
	}
	if _, err := tree.ReadAt(p, -1); err == nil {
		t.Error("a negative offset was taken")
	}
	if err := tree.Check(); err != nil {
		t.Error(err)
	}
}

func TestTreeSpan(t *testing.T) {
	files := sample()
	tree, m, all, _ := openTree(t, files)
	for _, f := range m.Files {
		off, n, ok := tree.Span(f.Name)
		if !ok || !bytes.Equal(all[off:off+n], files[f.Name]) {
			t.Errorf("%q: span %d+%d %v is not its bytes", f.Name, off, n, ok)
		}
	}
	if _, _, ok := tree.Span("nothing"); ok {
		t.Error("a name that is not in the manifest has a span")
	}
}

// TestTreeManyReaders shares the open files among readers, more files than are kept open.
func TestTreeManyReaders(t *testing.T) {
	files := map[string][]byte{}
	for i := range 2 * keepOpen {
		files[fmt.Sprintf("f%02d", i)] = bytesOf(uint64(i), keepMinimum+i)
	}
	tree, _, all, _ := openTree(t, files)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := make([]byte, 300_000)
			for off := g * 1000; off < len(all)-len(p); off += 170_000 {
				if _, err := tree.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, all[off:off+len(p)]) {
					t.Errorf("read at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if tree.used.Len() != len(tree.open) || tree.used.Len() > keepOpen {
		t.Errorf("%d files are open, %d by number, want at most %d", tree.used.Len(), len(tree.open), keepOpen)
	}
}

func TestTreeRefusesChangedFiles(t *testing.T) {
	changes := map[string]func(path string) error{
		"same size, same mtime": func(p string) error {
			info, err := os.Stat(p)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b[7] ^= 1
			return errors.Join(os.WriteFile(p, b, 0o644), os.Chtimes(p, info.ModTime(), info.ModTime()))
		},
		"longer":  func(p string) error { return os.Truncate(p, 5<<20) },
		"shorter": func(p string) error { return os.Truncate(p, 5) },
		"removed": os.Remove,
		"replaced": func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte("new"), 0o644), os.Rename(p+".new", p))
		},
		"a directory now": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
		"a link out": func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p))
		},
	}
	for name, change := range changes {
		for _, warm := range []bool{false, true} { // warm: the tree has the file open already
			t.Run(fmt.Sprintf("%s warm=%v", name, warm), func(t *testing.T) {
				tree, _, all, dir := openTree(t, map[string][]byte{"a.bin": bytesOf(1, 2<<20), "b.bin": bytesOf(2, 1000)})
				p := make([]byte, 100)
				if warm {
					if _, err := tree.ReadAt(p, 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := change(filepath.Join(dir, "a.bin")); err != nil {
					t.Fatal(err)
				}
				if _, err := tree.ReadAt(p, 0); err == nil {
					t.Error("bytes of a changed file were given out")
				} else if !errors.Is(err, ErrChanged) {
					t.Errorf("got %v, want ErrChanged", err)
				}
				if _, err := tree.ReadAt(p, 2<<20); err != nil || !bytes.Equal(p, all[2<<20:2<<20+100]) {
					t.Errorf("the other file: %v", err)
				}
				if err := tree.Check(); !errors.Is(err, ErrChanged) {
					t.Errorf("check: got %v, want ErrChanged", err)
				}
			})
		}
	}
}

// TestTreeSeesChangeDuringRead changes a file after its first check.
func TestTreeSeesChangeDuringRead(t *testing.T) {
	tree, _, _, dir := openTree(t, map[string][]byte{"a.bin": bytesOf(1, 1000)})
	tree.hadRead = func() {
		if err := os.WriteFile(filepath.Join(dir, "a.bin"), bytesOf(2, 1000), 0o644); err != nil {
			t.Error(err)
		}
	}
	if _, err := tree.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}
