package blob

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"freshet/internal/content"
)

var testRef = content.Ref{ID: "tools", Version: 3}

// writeTree writes files and returns their directory.
func writeTree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bytesOf returns n bytes that depend on seed.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	r.Read(b)
	return b
}

// sample has empty, one-byte, deep, small and large files.
func sample() map[string][]byte {
	files := map[string][]byte{
		"empty":              {},
		"one":                {1},
		"a/b/c/d/e/f/g/deep": bytesOf(1, 70_000),
		"big.bin":            bytesOf(2, 3*content.PieceSize+17),
		"bigger.bin":         bytesOf(3, bigFile+content.PieceSize),
		"exact.bin":          bytesOf(4, 2*content.PieceSize),
		"a-b":                bytesOf(5, 10), // sorts before "a/b/…"
		"z.last":             {9},
	}
	for i := range 200 {
		files[fmt.Sprintf("small/%03d", i)] = bytesOf(uint64(i), i*13)
	}
	return files
}

func TestHashTree(t *testing.T) {
	files := sample()
	dir := writeTree(t, files)
	if err := os.Chmod(filepath.Join(dir, "one"), 0o654); err != nil { // any x bit
		t.Fatal(err)
	}
	var calls int
	var last, of int64
	m, h, stamps, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef, Progress: func(done, total int64) {
		if done < last {
			t.Errorf("progress fell from %d to %d", last, done)
		}
		calls, last, of = calls+1, done, total
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Ref != testRef || len(m.Files) != len(files) || len(stamps) != len(files) {
		t.Fatalf("got %v, %d files, %d stamps, want %v, %d files", m.Ref, len(m.Files), len(stamps), testRef, len(files))
	}
	if last != m.Size || of != m.Size || calls < 2 {
		t.Errorf("progress ended at %d of %d after %d calls, want %d", last, of, calls, m.Size)
	}
	for i, f := range m.Files {
		b := files[f.Name]
		if f.Size != int64(len(b)) || f.SHA1 != sha1.Sum(b) || f.SHA256 != sha256.Sum256(b) {
			t.Errorf("%q: its entry %+v is not that of its bytes", f.Name, f)
		}
		if want := f.Name == "one" && runtime.GOOS != "windows"; f.Executable != want {
			t.Errorf("%q: executable %v, want %v", f.Name, f.Executable, want)
		}
		info, err := os.Lstat(filepath.Join(dir, f.Name))
		if err != nil || StampOf(info) != stamps[i] {
			t.Errorf("%q: stamp %+v is not the file's (%v)", f.Name, stamps[i], err)
		}
	}
	if err := h.Fits(m, content.NewLayout(m.Files)); err != nil {
		t.Error(err)
	}

	want := content.AppendManifest(nil, m)
	for _, workers := range []int{1, 2, 7} {
		again, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef, Workers: workers})
		if err != nil || !bytes.Equal(content.AppendManifest(nil, again), want) {
			t.Errorf("%d workers give another manifest (%v)", workers, err)
		}
	}
}

func TestHashTreeRefuses(t *testing.T) {
	tests := map[string]struct {
		make func(dir string) error
		want []string // in the error
	}{
		"link to a file":      {func(d string) error { return os.Symlink("one", filepath.Join(d, "link")) }, []string{`"link"`, "--follow"}},
		"link to a directory": {func(d string) error { return os.Symlink(".", filepath.Join(d, "sub/up")) }, []string{`"sub/up"`, "--follow"}},
		"link out":            {func(d string) error { return os.Symlink("/etc", filepath.Join(d, "out")) }, []string{`"out"`, "--follow"}},
		"pipe":                {func(d string) error { return mkfifo(filepath.Join(d, "pipe")) }, []string{`"pipe"`, "special"}},
		"name": {func(d string) error { return os.WriteFile(filepath.Join(d, "a:b"), nil, 0o600) },
			[]string{"a:b", "rename it"}},
		"case": {func(d string) error { return os.WriteFile(filepath.Join(d, "ONE"), nil, 0o600) }, []string{"ONE"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("links and pipes of Unix")
			}
			dir := writeTree(t, map[string][]byte{"one": {1}, "sub/two": {2}})
			if err := test.make(dir); err != nil {
				t.Fatal(err)
			}
			_, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef})
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestHashTreeFollows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links of Unix")
	}
	outside := writeTree(t, map[string][]byte{"far": []byte("far away"), "sub/x": {1, 2}})
	dir := writeTree(t, map[string][]byte{"near": []byte("here")})
	for name, to := range map[string]string{"file": filepath.Join(outside, "far"), "tree": outside} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	m, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	if got, want := strings.Join(names, " "), "file near tree/far tree/sub/x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	if err := os.Symlink(dir, filepath.Join(outside, "sub/loop")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef, Follow: true}); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("a loop of links: got %v", err)
	}
}

// TestHashTreeSeesChange writes to a file from the progress call, which runs between two
// reads of it.
func TestHashTreeSeesChange(t *testing.T) {
	changes := map[string]func(path string) error{
		"same size": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{1, 2, 3}, 5)
			return errors.Join(err, f.Close())
		},
		"longer": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte{1})
			return errors.Join(err, f.Close())
		},
		"shorter": func(p string) error { return os.Truncate(p, 100) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			dir := writeTree(t, map[string][]byte{"busy.bin": bytesOf(1, 2<<20)})
			path, did := filepath.Join(dir, "busy.bin"), false
			_, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef, Progress: func(done, _ int64) {
				if done > 0 && !did {
					did = true
					if err := change(path); err != nil {
						t.Error(err)
					}
				}
			}})
			if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "busy.bin") {
				t.Errorf("got %v, want ErrChanged for busy.bin", err)
			}
		})
	}
}

func TestHashTreeStops(t *testing.T) {
	dir := writeTree(t, map[string][]byte{"x": bytesOf(1, 4<<20)})
	ctx, cancel := context.WithCancel(t.Context())
	_, _, _, err := HashTree(ctx, dir, HashOptions{Ref: testRef, Progress: func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, _, _, err := HashTree(t.Context(), filepath.Join(dir, "none"), HashOptions{Ref: testRef}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: got %v", err)
	}
	if _, _, _, err := HashTree(t.Context(), filepath.Join(dir, "x"), HashOptions{Ref: testRef}); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// BenchmarkHashTree hashes 15,000 files of together 270 MB, as a Go toolchain has them. Its
// bound is two SHA-256 and one SHA-1 over the bytes, shared by the processors.
func BenchmarkHashTree(b *testing.B) {
	dir := b.TempDir()
	var size int64
	for i := range 15_000 {
		n := 14_000
		if i%3000 == 0 {
			n = 12 << 20
		}
		path := filepath.Join(dir, fmt.Sprintf("d%02d", i/200), fmt.Sprintf("f%05d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, bytesOf(uint64(i), n), 0o644); err != nil {
			b.Fatal(err)
		}
		size += int64(n)
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, _, _, err := HashTree(b.Context(), dir, HashOptions{Ref: testRef}); err != nil {
			b.Fatal(err)
		}
	}
}
