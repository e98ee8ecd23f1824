package demo

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSameTree: a copy that differs in anything that is carried is not the same.
func TestSameTree(t *testing.T) {
	write := func(dir, name, bytes string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(bytes), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(dir string){
		"":                   func(string) {},
		"another byte":       func(d string) { write(d, "a/b", "abD", 0o644) },
		"a shorter file":     func(d string) { write(d, "a/b", "ab", 0o644) },
		"a missing file":     func(d string) { os.Remove(filepath.Join(d, "c")) },
		"a file too many":    func(d string) { write(d, "a/c", "", 0o644) },
		"an executable file": func(d string) { os.Chmod(filepath.Join(d, "c"), 0o755) },
	} {
		source, other := t.TempDir(), t.TempDir()
		for _, dir := range []string{source, other} {
			write(dir, "a/b", "abc", 0o644)
			write(dir, "c", "", 0o644)
		}
		change(other)
		if err := sameTree(t.Context(), source, other); (err == nil) != (name == "") {
			t.Errorf("%q: error %v", name, err)
		}
	}
}
