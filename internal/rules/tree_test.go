package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const module = "freshet"

// tree is the source of a module.
type tree struct {
	root  string
	fset  *token.FileSet
	files []file // in the order of their paths
}

// file is one Go file.
type file struct {
	path string // from the root, /-separated
	ast  *ast.File
}

// pkg is the file's package: "content", "catalog/sqlite" below internal/, else the whole folder.
func (f file) pkg() string { return strings.TrimPrefix(path.Dir(f.path), "internal/") }

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// imports returns the import paths of f with the names that f calls them by.
func (f file) imports() map[string]string {
	m := map[string]string{}
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has refused it already
		}
		m[p] = path.Base(strings.TrimSuffix(p, "/v2"))
		if spec.Name != nil {
			m[p] = spec.Name.Name
		}
	}
	return m
}

// at writes where pos is, for failures.
func (t *tree) at(pos token.Pos) string {
	p := t.fset.Position(pos)
	rel, err := filepath.Rel(t.root, p.Filename)
	if err != nil {
		rel = p.Filename
	}
	return filepath.ToSlash(rel) + ":" + strconv.Itoa(p.Line)
}

// repository is the module that this package stands in.
func repository(t *testing.T) *tree {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return load(t, dir)
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// load parses every Go file below root, for every platform. It leaves out testdata and hidden folders.
func load(t *testing.T, root string) *tree {
	t.Helper()
	tr := &tree{root: root, fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(p) != ".go":
			return nil
		}
		parsed, err := parser.ParseFile(tr.fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		tr.files = append(tr.files, file{filepath.ToSlash(rel), parsed})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// example loads a small module from testdata.
func example(t *testing.T, name string) *tree {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range archive.Files {
		p := filepath.Join(root, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return load(t, root)
}

// holds fails the test for each breach of a rule in the repository.
func holds(t *testing.T, breaches []string) {
	t.Helper()
	for _, b := range breaches {
		t.Error(b)
	}
}

// finds compares the breaches of an example with what a golden list says: the beginning of
// each line, up to the reason.
func finds(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("not found: %s", want[i])
		case i >= len(want):
			t.Errorf("found besides: %s", got[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("found  %s\nwanted %s", got[i], want[i])
		}
	}
}
