package testbed

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/expected"
)

// TestRecipe: a changed content has the named share of each file anew, from its start; the same
// recipe makes the same bytes.
func TestRecipe(t *testing.T) {
	r := recipe{name: "c", size: 10_001, files: 3}
	read := func(r recipe) (all [][]byte) {
		for i := range r.files {
			b, err := io.ReadAll(r.file(i))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		return all
	}
	first := read(r)
	if n := len(slices.Concat(first...)); n != 10_001 {
		t.Errorf("%d bytes", n)
	}
	if !slices.EqualFunc(first, read(r), bytes.Equal) {
		t.Error("the same recipe made other bytes")
	}
	r.changes = []float64{0.5}
	second := read(r)
	r.changes = []float64{0.5, 0.25}
	third := read(r)
	for i := range first {
		n := len(first[i])
		same := func(a, b []byte, from, to float64) bool {
			return bytes.Equal(a[int(from*float64(n)):int(to*float64(n))], b[int(from*float64(n)):int(to*float64(n))])
		}
		if same(first[i], second[i], 0, 0.5) || !same(first[i], second[i], 0.5, 1) {
			t.Errorf("file %d: half is not new, or more", i)
		}
		if same(second[i], third[i], 0, 0.25) || same(first[i], third[i], 0, 0.25) || !same(second[i], third[i], 0.25, 1) {
			t.Errorf("file %d: a quarter is not new after that, or more", i)
		}
	}
}

// TestIssue: what was written is found again, anything else is not, and its metadata is what
// devices read.
func TestIssue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	is, err := recipe{name: "c", size: 1000, files: 3}.write(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := is.same(t.Context(), dir); err != nil {
		t.Error(err)
	}
	text, err := is.metadata(3)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := expected.Parse(bytes.NewReader(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%s\n%v, %v", text, docs, err)
	}
	if d, err := content.Compare(is.manifest, docs[0].Entries(), content.Exact); err != nil || d.Fit() != content.Fits {
		t.Errorf("the metadata differs from its issue: %v, %v", d, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file-00002"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := is.same(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("a file of other bytes: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := is.same(ctx, dir); err == nil {
		t.Error("it went on when it was cancelled")
	}
}

func TestLongestGap(t *testing.T) {
	at := func(s ...int) (times []time.Time) {
		for _, n := range s {
			times = append(times, time.Unix(int64(n), 0))
		}
		return times
	}
	for _, c := range []struct {
		times []time.Time
		want  int
	}{
		{at(), 10}, {at(15), 5}, {at(11, 12, 19), 7}, {at(1, 9), 11}, {at(1, 9, 11, 12, 13, 14, 20), 6}, {at(30), 20},
	} {
		if got := longestGap(c.times, time.Unix(10, 0), time.Unix(20, 0)); got != time.Duration(c.want)*time.Second {
			t.Errorf("%v: %v, want %d s", c.times, got, c.want)
		}
	}
}

// TestStall: a get stands still from one byte to the next, and no more when it has all.
func TestStall(t *testing.T) {
	now := time.Now()
	g := &get{moved: now.Add(-3 * time.Second), done: make(chan struct{})}
	if got := g.stall(); got < 3*time.Second || got > time.Minute {
		t.Errorf("before the first byte %v", got)
	}
	g.heard(agent.Progress{Held: 1, Size: 2})
	g.heard(agent.Progress{Held: 1, Size: 2})
	if got := g.stall(); got < 3*time.Second || got > time.Minute {
		t.Errorf("after it %v", got)
	}
	g.restart(now.Add(-time.Second))
	if got := g.stall(); got < time.Second || got >= 3*time.Second {
		t.Errorf("since a mark %v", got)
	}
	g.heard(agent.Progress{Held: 2, Size: 2})
	g.restart(now.Add(-time.Hour))
	if got := g.stall(); got != 0 {
		t.Errorf("with all bytes %v", got)
	}
}
