package blob

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"freshet/internal/content"
)

func openFiles(t *testing.T) (*Files, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "files")
	f, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, dir
}

func TestFilesKeepByDigest(t *testing.T) {
	f, dir := openFiles(t)
	manifest, raw := []byte(`{"schema":1}`), bytes.Repeat([]byte{7}, 96)
	md, err := f.PutManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	hd, err := f.PutHashFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if md != content.DigestOf(manifest) || hd != content.DigestOf(raw) {
		t.Fatalf("digests %v %v are not those of the bytes", md, hd)
	}
	again, err := OpenFiles(dir) // what a restart sees
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, err := again.Manifest(t.Context(), md); err != nil || !bytes.Equal(got, manifest) {
		t.Errorf("manifest: got %q, %v", got, err)
	}
	if got, err := again.HashFile(t.Context(), hd); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("hash file: got %d bytes, %v", len(got), err)
	}
	if _, err := again.HashFile(t.Context(), md); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a manifest's digest as hash file: got %v, want fs.ErrNotExist", err)
	}
	if _, err := again.PutHashFile(raw[:33]); err == nil {
		t.Error("a hash file of 33 bytes was taken")
	}
}

func TestFilesFindRot(t *testing.T) {
	f, dir := openFiles(t)
	b := []byte("a manifest")
	d, err := f.PutManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, manifestsDir, d.String())
	if err := os.WriteFile(path, []byte("b manifest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Manifest(t.Context(), d); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("rotten manifest: got %q, %v, want fs.ErrNotExist", got, err)
	}
	if _, err := f.PutManifest(b); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Manifest(t.Context(), d); err != nil || !bytes.Equal(got, b) {
		t.Errorf("put again: got %q, %v", got, err)
	}
}

func TestFilesSweepUnfinishedWrites(t *testing.T) {
	f, dir := openFiles(t)
	d, err := f.PutManifest([]byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, manifestsDir, tempPrefix+"left")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unfinished write is still there: %v", err)
	}
	if _, err := again.Manifest(t.Context(), d); err != nil {
		t.Error(err)
	}
}

func TestFilesPutAtOnce(t *testing.T) {
	f, dir := openFiles(t)
	b := bytes.Repeat([]byte("x"), 1<<16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := f.PutManifest(b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(filepath.Join(dir, manifestsDir))
	if err != nil || len(entries) != 1 {
		t.Errorf("got %d entries, %v, want the one manifest", len(entries), err)
	}
}
