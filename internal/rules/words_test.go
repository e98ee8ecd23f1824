package rules

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// machinePaths are absolute paths that exist on somebody's machine only.
var machinePaths = regexp.MustCompile(`(^|[^\w.)}/-])/(work|root)/`)

// checkWords looks for machinePaths in every text file that belongs to the module.
func checkWords(root string) ([]string, error) {
	var breaches []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && isForeign(rel) {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil || bytes.IndexByte(data, 0) >= 0 { // not text
			return err
		}
		for i, line := range strings.Split(string(data), "\n") {
			if machinePaths.MatchString(line) {
				breaches = append(breaches, fmt.Sprintf("%s:%d: a path of one machine: %q means nothing to anyone else", filepath.ToSlash(rel), i+1, strings.TrimSpace(line)))
			}
		}
		return nil
	})
	return breaches, err
}

// isForeign reports whether a folder is no part of the source: git's own, and what the Makefile builds.
func isForeign(rel string) bool { return rel == ".git" || rel == "bin" }

func TestWords(t *testing.T) {
	breaches, err := checkWords(repository(t).root)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, breaches)
}

func TestWordRuleSees(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"README.md":  "fine: framework/work/x, https://example.org/root/, $ROOT/work/\n",
		".ci/run":    "#!/bin/sh\ncd /" + "work/main\n",
		"a/testdata": "see /" + "root/go\n",
		"bin/tool":   "/" + "root/go\n",
		"a/binary":   "\x00 /" + "root/go\n",
	} {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	breaches, err := checkWords(root)
	if err != nil {
		t.Fatal(err)
	}
	finds(t, breaches, ".ci/run:2: a path of one machine", "a/testdata:1: a path of one machine")
}
