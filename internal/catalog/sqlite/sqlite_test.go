package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"freshet/internal/catalog"
	"freshet/internal/catalog/catalogtest"
)

func openTest(t *testing.T, path string) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestConformance(t *testing.T) {
	catalogtest.Test(t, func(t *testing.T) catalogtest.Engine {
		return openTest(t, filepath.Join(t.TempDir(), "catalog.db"))
	})
}

// TestReopen keeps what was written, over a path with characters that mean something in a URL.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c%20#d.db")
	first, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.AddGroup(t.Context(), "lab", time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	groups, err := openTest(t, path).Groups(t.Context())
	if err != nil || len(groups) != 1 {
		t.Errorf("groups %v, %v; want lab", groups, err)
	}
}

func TestOpenSaysWhich(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "catalog.db")
	_, err := Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "catalog.db") {
		t.Errorf("error %v, want one that names the file", err)
	}
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(t.Context(), broken); err == nil {
		t.Error("a file that is no database was opened")
	}
}

func TestPragmas(t *testing.T) {
	c := openTest(t, filepath.Join(t.TempDir(), "catalog.db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		if err := c.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := c.read.Exec(`DELETE FROM fleet_groups`); err == nil {
		t.Error("a reader wrote")
	}
}

// BenchmarkContent is the look-up behind every Content Policy request.
func BenchmarkContent(b *testing.B) {
	c, err := Open(b.Context(), filepath.Join(b.TempDir(), "catalog.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := catalog.Publication{Content: catalog.Content{Groups: []string{"a"}, Origins: []catalog.Origin{{URL: "https://dp"}}}}
	p.Content.Ref.ID, p.Content.Ref.Version = "tool", 1
	if _, err := c.Publish(b.Context(), p, time.Unix(1, 0)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Content(b.Context(), p.Content.Ref); err != nil {
			b.Fatal(err)
		}
	}
}
