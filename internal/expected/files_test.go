package expected

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
)

var (
	seedRef = content.Ref{ID: "c54879c8-215e-413f-afbf-a701afa2d637", Version: 1}
	kbRef   = content.Ref{ID: "fbb5724a-aa0f-47f9-908a-47068fd8ad6f", Version: 1}
)

// put writes a file whose change lies so long ago that its times tell of the next one.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	age(t, path, time.Hour)
}

func age(t *testing.T, path string, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}

// wantHash looks ref up and compares its MetadataHash.
func wantHash(t *testing.T, f *Files, ref content.Ref, want string) {
	t.Helper()
	c, err := f.Lookup(context.Background(), ref)
	if err != nil {
		t.Fatalf("Lookup(%s): %v", ref, err)
	}
	if got, err := c.MetadataHash(); err != nil || got.String() != want {
		t.Errorf("Lookup(%s) has MetadataHash %v, %v, want %s", ref, got, err, want)
	}
}

func wantError(t *testing.T, f *Files, ref content.Ref, want string) {
	t.Helper()
	c, err := f.Lookup(context.Background(), ref)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Lookup(%s) = %+v, %v, want an error with %q", ref, c, err, want)
	}
}

func TestOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "any.name")
	f := NewFiles(path)
	wantError(t, f, seedRef, "any.name")
	put(t, path, sample)
	wantHash(t, f, seedRef, sampleHash)
	if _, err := f.Lookup(context.Background(), kbRef); !errors.Is(err, ErrNone) {
		t.Errorf("Lookup of another content = %v, want ErrNone", err)
	}
	put(t, path, kb)
	wantHash(t, f, kbRef, kbHash)
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	put(t, filepath.Join(dir, "a.xml"), sample)
	put(t, filepath.Join(dir, "readme.txt"), "no metadata")
	if err := os.Mkdir(filepath.Join(dir, "below.xml"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantHash(t, f, seedRef, sampleHash)
	put(t, filepath.Join(dir, "B.XML"), kb)
	wantHash(t, f, kbRef, kbHash)
	if err := os.Remove(filepath.Join(dir, "a.xml")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup(context.Background(), seedRef); !errors.Is(err, ErrNone) {
		t.Errorf("Lookup after its file went = %v, want ErrNone", err)
	}
	if len(f.read) != 1 {
		t.Errorf("%d files are remembered, want 1", len(f.read))
	}
}

// TestUnchangedFilesAreNotReadAgain changes a file behind the back of its times.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.xml")
	put(t, path, kb)
	f := NewFiles(path)
	wantHash(t, f, kbRef, kbHash)
	other := strings.Replace(kb, "199093", "199094", 1)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(info.ModTime())
	if c, err := f.Lookup(context.Background(), kbRef); err != nil || c.Files[0].Size != 199093 {
		t.Errorf("Lookup = %+v, %v: an unchanged file was read again", c, err)
	}
	// A change that was fresh when it was read may hide another in the same tick of the clock.
	write(time.Now())
	if c, err := f.Lookup(context.Background(), kbRef); err != nil || c.Files[0].Size != 199094 {
		t.Fatalf("Lookup = %+v, %v", c, err)
	}
	info, err = os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	other = kb
	write(info.ModTime())
	if c, err := f.Lookup(context.Background(), kbRef); err != nil || c.Files[0].Size != 199093 {
		t.Errorf("Lookup = %+v, %v: a change in the same tick was missed", c, err)
	}
}

// TestBrokenFile: what cannot be read hides only what no other file names.
func TestBrokenFile(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	put(t, filepath.Join(dir, "a.xml"), kb)
	put(t, filepath.Join(dir, "b.xml"), cutSample)
	wantHash(t, f, kbRef, kbHash)
	wantError(t, f, seedRef, `"b.xml": expected: metadata line 3: the text is cut short`)
	put(t, filepath.Join(dir, "b.xml"), sample)
	wantHash(t, f, seedRef, sampleHash)
}

// TestWrongContent: what is wrong with one content is an error of it alone, and a document without
// files says nothing.
func TestWrongContent(t *testing.T) {
	const file = `<FileContent Name="f" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/>`
	ref := content.Ref{ID: "a", Version: 1}
	other := content.Ref{ID: "other", Version: 1}
	for name, c := range map[string]struct{ old, new, want string }{
		"no size":       {` Size="1"`, "", `"b.xml": expected: metadata line 1: file "f": the attribute Size is missing`},
		"SHA-512":       {"SHA1", "SHA512", `"SHA512"`},
		"file twice":    {file, file + file, "twice"},
		"content twice": {one, one + one, `content "a@1" comes twice`},
		"twice, empty":  {one, one + `<Content ContentId="a" Version="1"/>`, `content "a@1" comes twice`},
		"no file":       {file, "", ""},
		"nothing in it": {one, `<Content ContentId="a" Version="1"/>`, ""},
	} {
		text := strings.Replace(one, c.old, c.new, 1) + kb
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "b.xml"), text)
			f := NewFiles(dir)
			wantHash(t, f, kbRef, kbHash)
			if _, err := f.Lookup(t.Context(), other); !errors.Is(err, ErrNone) {
				t.Errorf("Lookup of another content = %v, want ErrNone", err)
			}
			if _, err := f.Lookup(t.Context(), ref); c.want == "" && !errors.Is(err, ErrNone) {
				t.Errorf("Lookup = %v, want ErrNone", err)
			}
			if c.want != "" {
				wantError(t, f, ref, c.want)
			}
			put(t, filepath.Join(dir, "a.xml"), one)
			if _, err := f.Lookup(t.Context(), ref); err != nil {
				t.Errorf("Lookup of what another file names = %v", err)
			}
		})
	}
}

func TestTwoFilesOfOneContent(t *testing.T) {
	dir := t.TempDir()
	f := NewFiles(dir)
	put(t, filepath.Join(dir, "a.xml"), kb)
	put(t, filepath.Join(dir, "b.xml"), "SDMPackage:"+kb)
	wantHash(t, f, kbRef, kbHash)
	put(t, filepath.Join(dir, "b.xml"), strings.Replace(kb, "8E8E", "8E8F", 1))
	wantError(t, f, kbRef, `"a.xml" and "b.xml" say different things`)
}

func TestLinksLeadNowhereElse(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.xml")
	put(t, outside, kb)
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "a.xml")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	wantError(t, NewFiles(dir), kbRef, "a.xml")
}

func TestLookupEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.xml"), kb)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewFiles(dir).Lookup(ctx, kbRef); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup = %v, want that the context ended", err)
	}
}
