package blob

import (
	"os"
	"path/filepath"
	"testing"

	"freshet/internal/content"
)

// TestHashTreeReadsWhatChanged: files with their old stamps are not read; those that changed,
// came, or lack a SHA-1 are. The result is as if all were read.
func TestHashTreeReadsWhatChanged(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	big := make([]byte, 2*content.PieceSize+5)
	put("a", []byte("first"))
	put("b", big)
	put("c", nil)
	ref := content.Ref{ID: "x", Version: 1}
	m, h, stamps, err := HashTree(t.Context(), dir, HashOptions{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	// What is known says something wrong of b: whoever believes it has not read.
	lying := *m
	lying.Files = append([]content.File{}, m.Files...)
	lying.Files[1].SHA256[0]++
	lying.Files[2].SHA1 = content.SHA1{}
	known := &Hashed{Manifest: &lying, HashFile: h, Stamps: stamps}
	put("a", []byte("other"))
	put("d", []byte("new"))
	got, hf, _, err := HashTree(t.Context(), dir, HashOptions{Ref: ref, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	want, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	if got.Files[1] != lying.Files[1] {
		t.Error("a file with its old stamp was read")
	}
	got.Files[1] = want.Files[1]
	if len(content.CompareManifests(want, got)) != 0 || got.HashOfHashes != want.HashOfHashes || got.Files[2].SHA1 != want.Files[2].SHA1 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := content.ParseHashFileRaw(content.AppendHashFileRaw(nil, hf), got); err != nil {
		t.Error(err)
	}
	known.Stamps = stamps[1:]
	if _, _, _, err := HashTree(t.Context(), dir, HashOptions{Ref: ref, Known: known}); err == nil {
		t.Error("stamps of other files were taken")
	}
}
