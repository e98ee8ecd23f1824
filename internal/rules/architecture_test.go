package rules

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layers is the package list of docs/architecture.md.
type layers struct {
	names  []string       // of the lines, from above
	line   map[string]int // of each package that exists
	toCome map[string]int // of each package that does not exist yet
}

// readLayers reads the page's two blocks. A package below the heading "To come" does not exist.
func readLayers(root string) (*layers, error) {
	f, err := os.Open(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := &layers{line: map[string]int{}, toCome: map[string]int{}}
	inBlock, coming := false, false
	for s := bufio.NewScanner(f); s.Scan(); {
		switch text := s.Text(); {
		case strings.HasPrefix(text, "#"):
			coming = strings.TrimLeft(text, "# ") == "To come"
		case strings.HasPrefix(text, "```"):
			inBlock = text == "```layers"
		case inBlock:
			if err := l.add(text, coming); err != nil {
				return nil, err
			}
		}
	}
	if len(l.names) == 0 {
		return nil, fmt.Errorf("docs/architecture.md has no block of layers")
	}
	return l, nil
}

// add takes one line of a block: "name: package package".
func (l *layers) add(text string, coming bool) error {
	name, packages, ok := strings.Cut(text, ":")
	at := slices.Index(l.names, name)
	switch {
	case !ok || coming && at < 0:
		return fmt.Errorf("docs/architecture.md: line %q names no layer of the first block", text)
	case !coming && at >= 0:
		return fmt.Errorf("docs/architecture.md: layer %q is there twice", name)
	case !coming:
		at = len(l.names)
		l.names = append(l.names, name)
	}
	target := l.line
	if coming {
		target = l.toCome
	}
	for _, p := range strings.Fields(packages) {
		_, here := l.line[p]
		_, there := l.toCome[p]
		if here || there {
			return fmt.Errorf("docs/architecture.md: package %q is there twice", p)
		}
		target[p] = at
	}
	return nil
}

// checkList compares the list with the packages that there are.
func checkList(tr *tree, l *layers) []string {
	var breaches []string
	exists := map[string]bool{}
	for _, f := range tr.files {
		if strings.HasPrefix(f.path, "internal/") {
			exists[f.pkg()] = true
		}
	}
	for _, p := range slices.Sorted(maps.Keys(exists)) {
		if at, ok := l.toCome[p]; ok {
			breaches = append(breaches, fmt.Sprintf("internal/%s exists: in docs/architecture.md move it from \"To come\" up to the line %q, so that the list tells what there is", p, l.names[at]))
		} else if _, ok := l.line[p]; !ok {
			breaches = append(breaches, fmt.Sprintf("internal/%s is not in docs/architecture.md: give it a line there, since its place says what it may import", p))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(l.line)) {
		if !exists[p] {
			breaches = append(breaches, fmt.Sprintf("docs/architecture.md lists %s, which does not exist: drop it or move it to \"To come\"", p))
		}
	}
	return breaches
}

// checkImports finds imports that do not run upwards. Test files may import anything.
func checkImports(tr *tree, l *layers) []string {
	var breaches []string
	for _, f := range tr.files {
		from, ok := l.line[f.pkg()]
		if !ok || f.isTest() {
			continue
		}
		for imported := range f.imports() {
			p, ours := strings.CutPrefix(imported, module+"/internal/")
			to, listed := l.line[p]
			if !ours || !listed || to < from || strings.HasPrefix(f.pkg(), p+"/") {
				continue
			}
			breaches = append(breaches, fmt.Sprintf("%s: %s (%s) imports %s (%s): a package imports only lines above its own in docs/architecture.md, so that each can be understood and tested without what is below it",
				f.path, f.pkg(), l.names[from], p, l.names[to]))
		}
	}
	return breaches
}

var licence = regexp.MustCompile(`(?i)copyright|licen[cs]ed under|spdx-license`)

// checkPackageDocs asks for one package comment in each package.
func checkPackageDocs(tr *tree) []string {
	var breaches []string
	docs, places := map[string]int{}, map[string]string{}
	for _, f := range tr.files {
		if f.isTest() {
			continue
		}
		dir := filepath.ToSlash(filepath.Dir(f.path))
		places[dir] = f.ast.Name.Name
		if f.ast.Doc == nil {
			continue
		}
		docs[dir]++
		text, want := f.ast.Doc.Text(), "Package "+f.ast.Name.Name+" "
		if f.ast.Name.Name == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		switch {
		case licence.MatchString(text):
			breaches = append(breaches, fmt.Sprintf("%s: the package comment is a licence: go doc shows it to everyone who asks what the package does", f.path))
		case !strings.HasPrefix(text, want):
			breaches = append(breaches, fmt.Sprintf("%s: the package comment does not begin with %q, as go doc expects", f.path, want))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(places)) {
		if docs[dir] != 1 {
			breaches = append(breaches, fmt.Sprintf("%s: package %s has %d package comments, want 1: go doc joins them in the order of the files", dir, places[dir], docs[dir]))
		}
	}
	return breaches
}

func TestArchitecture(t *testing.T) {
	tr := repository(t)
	l, err := readLayers(tr.root)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, checkList(tr, l))
	holds(t, checkImports(tr, l))
	holds(t, checkPackageDocs(tr))
}

func TestArchitectureRulesSee(t *testing.T) {
	tr := example(t, "architecture.txtar")
	l, err := readLayers(tr.root)
	if err != nil {
		t.Fatal(err)
	}
	finds(t, checkList(tr, l),
		`internal/early exists: in docs/architecture.md move it from "To come" up to the line "upper"`,
		"internal/stray is not in docs/architecture.md",
		"docs/architecture.md lists gone, which does not exist")
	finds(t, checkImports(tr, l),
		"internal/high/high.go: high (upper) imports low (lower)",
		"internal/high/windows.go: high (upper) imports beside (upper)",
		"internal/high/high.go: high (upper) imports high/part (upper)")
	finds(t, checkPackageDocs(tr),
		"cmd/tool/main.go: the package comment does not begin with \"Command tool \"",
		"internal/beside: package beside has 0 package comments",
		"internal/high: package high has 2 package comments",
		"internal/low/low.go: the package comment is a licence",
		"internal/stray/stray.go: the package comment does not begin with \"Package stray \"")
}

func TestReadLayersRefuses(t *testing.T) {
	for page, want := range map[string]string{
		"# A\n":                   "docs/architecture.md has no block of layers",
		"```layers\na: x\na: y\n": `docs/architecture.md: layer "a" is there twice`,
		"```layers\na: x\nb: x\n": `docs/architecture.md: package "x" is there twice`,
		"```layers\nx y\n":        `docs/architecture.md: line "x y" names no layer of the first block`,
		"```layers\na: x\n```\n## To come\n```layers\nb: y\n": `docs/architecture.md: line "b: y" names no layer of the first block`,
		"```layers\na: x\n```\n## To come\n```layers\na: x\n": `docs/architecture.md: package "x" is there twice`,
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "docs"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "docs", "architecture.md"), []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readLayers(root); err == nil || err.Error() != want {
			t.Errorf("page %q: %v, want %s", page, err, want)
		}
	}
}
