package deliver

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/store"
)

var tree = map[string][]byte{
	"a/b/small":  []byte("small"),
	"a/large":    bytes.Repeat([]byte("large file, two pieces and a bit"), 70_000),
	"a/one":      bytes.Repeat([]byte{7}, content.PieceSize),
	"empty":      {},
	"z/program":  []byte("#!/bin/sh\n"),
	"z/y/x/deep": []byte("deep"),
}

// held returns an entry that holds all of tree.
func held(t *testing.T) *store.Entry {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	var files []content.File
	var pieces [][]content.Digest
	h := content.NewFileHasher()
	for name, b := range tree {
		h.Write(b)
		f, p := h.Sum(name, name == "z/program")
		files, pieces = append(files, f), append(pieces, p)
	}
	m, hf, err := content.BuildManifest(content.Ref{ID: "tree", Version: 1}, files, pieces)
	if err != nil {
		t.Fatal(err)
	}
	e, err := st.Create(t.Context(), content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, hf), []string{"g"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Release)
	var all []byte
	for _, f := range m.Files {
		all = append(all, tree[f.Name]...)
	}
	for r := range e.Layout().Runs() {
		run := e.Layout().Run(r)
		if err := e.Write(r, all[run.Offset:run.Offset+int64(run.Len)]); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// deliver runs a whole order into dir.
func deliver(t *testing.T, s *Stages, e *store.Entry, dir string, wait func(run int) error) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	p, err := s.Begin(Order{Entry: e, Dest: root, Owner: Owner{UID: os.Geteuid(), GID: os.Getegid()}, Sums: NewSums(e, NewLot(buffers.New(8), 2), false)})
	if err != nil {
		return err
	}
	defer p.Close()
	for i := range e.Manifest().Files {
		if err := p.File(i, wait); err != nil {
			return err
		}
	}
	n, err := p.Finish()
	if err == nil && n != len(tree) {
		t.Errorf("Finish placed %d files, want %d", n, len(tree))
	}
	return err
}

func now(int) error { return nil }

// find returns the files below dir with their bytes.
func find(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDeliver(t *testing.T) {
	for name, before := range map[string]map[string]string{
		"into an empty directory": {},
		"beside other files":      {"other": "mine", "a/other": "mine", "z/y/other": "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, b := range before {
				write(t, dir, name, b)
			}
			if err := deliver(t, &Stages{}, held(t), dir, now); err != nil {
				t.Fatal(err)
			}
			got := find(t, dir)
			for name, want := range tree {
				if got[name] != string(want) {
					t.Errorf("%s: %d bytes, want %d, or others", name, len(got[name]), len(want))
				}
			}
			for name, want := range before {
				if got[name] != want {
					t.Errorf("%s is %q, was %q", name, got[name], want)
				}
			}
			if len(got) != len(tree)+len(before) {
				t.Errorf("%d files, want %d: something was left behind", len(got), len(tree)+len(before))
			}
			st, err := os.Stat(filepath.Join(dir, "z/program"))
			if err != nil || st.Mode().Perm()&0o111 == 0 {
				t.Errorf("z/program is not executable: %v, %v", st, err)
			}
		})
	}
}

// TestNothingIsReplaced puts a file in the way, before the delivery and while it runs: it
// stays, and nothing else is there afterwards.
func TestNothingIsReplaced(t *testing.T) {
	for _, name := range []string{"a/large", "empty", "z"} {
		for _, late := range []bool{false, true} {
			dir := t.TempDir()
			put := func() { write(t, dir, name, "mine") }
			wait := now
			if late {
				wait = func(int) error {
					if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
						put()
					}
					return nil
				}
			} else {
				put()
			}
			err := deliver(t, &Stages{}, held(t), dir, wait)
			if err == nil || !strings.Contains(err.Error(), "exists in the destination") {
				t.Errorf("%s, late %v: error is %v, want one that says it exists", name, late, err)
			}
			if got := find(t, dir); len(got) != 1 || got[name] != "mine" {
				t.Errorf("%s, late %v: left behind: %d files, %q", name, late, len(got), got[name])
			}
		}
	}
}

// TestGivenUp ends a delivery half way: nothing of it stays.
func TestGivenUp(t *testing.T) {
	dir, n, enough := t.TempDir(), 0, errors.New("enough")
	err := deliver(t, &Stages{}, held(t), dir, func(int) error {
		if n++; n > 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("error is %v, want %v", err, enough)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestSweep removes what an agent that was killed left, and only that.
func TestSweep(t *testing.T) {
	e, dir := held(t), t.TempDir()
	stale := StagePrefix + e.Digest().Short() + "-1-1/file"
	write(t, dir, stale, "half")
	write(t, dir, StagePrefix+"000000000000-1-1/file", "of another content")
	if err := deliver(t, &Stages{}, e, dir, now); err != nil {
		t.Fatal(err)
	}
	got := find(t, dir)
	if _, ok := got[stale]; ok || len(got) != len(tree)+1 {
		t.Errorf("%d files, stale one there: %v; want %d and no", len(got), ok, len(tree)+1)
	}
}

// TestKilledWhilePlacing: what a killed agent had placed is not in the way of the next try,
// but what somebody else put there is.
func TestKilledWhilePlacing(t *testing.T) {
	for name, there := range map[string]struct {
		file, bytes string
		fits        bool
	}{
		"a file of the content":  {"a/b/small", string(tree["a/b/small"]), true},
		"the large one":          {"a/large", string(tree["a/large"]), true},
		"somebody else's":        {"a/b/small", "mine", false},
		"a directory in the way": {"a/large/file", "mine", false},
	} {
		t.Run(name, func(t *testing.T) {
			e, dir := held(t), t.TempDir()
			stale := StagePrefix + e.Digest().Short() + "-1-1" + placingSuffix
			write(t, dir, stale+"/z/program", "x")
			write(t, dir, there.file, there.bytes)
			for range 2 { // a second try after a failure must say the same
				err := deliver(t, &Stages{}, e, dir, now)
				if there.fits {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				if err == nil || !strings.Contains(err.Error(), "exists in the destination") {
					t.Fatalf("error is %v, want one that says it exists", err)
				}
			}
			got := find(t, dir)
			if got[there.file] != there.bytes {
				t.Errorf("%s is %q", there.file, got[there.file])
			}
			if !there.fits {
				return
			}
			if len(got) != len(tree) {
				t.Errorf("%d files, want %d", len(got), len(tree))
			}
			for name, want := range tree {
				if got[name] != string(want) {
					t.Errorf("%s: %d bytes, want %d, or others", name, len(got[name]), len(want))
				}
			}
		})
	}
}

func write(t *testing.T, dir, name, b string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(b), 0o644); err != nil {
		t.Fatal(err)
	}
}
