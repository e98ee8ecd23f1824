package origin

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"freshet/internal/api"
	"freshet/internal/content"
)

func TestSettler(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := settler{quiet: 10 * time.Second, last: map[content.Ref]time.Time{}}
	a, b := content.Ref{ID: "a", Version: 1}, content.Ref{ID: "b", Version: 1}
	if _, ok := s.next(now); ok {
		t.Error("something is due, and nothing happened")
	}
	s.touch(now, a)
	s.touch(now.Add(3*time.Second), b)
	s.touch(now.Add(5*time.Second), a)
	if d, ok := s.next(now.Add(6 * time.Second)); !ok || d != 7*time.Second {
		t.Errorf("due in %v, %v; want 7 s", d, ok)
	}
	if got := s.due(now.Add(13 * time.Second)); !slices.Equal(got, []content.Ref{b}) {
		t.Errorf("due are %v, want b", got)
	}
	if got := s.due(now.Add(15 * time.Second)); !slices.Equal(got, []content.Ref{a}) {
		t.Errorf("due are %v, want a", got)
	}
	if got := s.due(now.Add(time.Hour)); len(got) != 0 {
		t.Errorf("due again: %v", got)
	}
}

// watched runs a distribution point whose registrations after the first come over the channel.
func watched(t *testing.T, set func(*Config)) (b *bench, registered chan api.PublishRequest) {
	t.Helper()
	b = newBench(t)
	b.place(testRef, map[string][]byte{"a": {1}, "dir/b": {2}})
	o, _ := b.open(nil)
	if !o.RegisterAll(t.Context()) {
		t.Fatal("not registered")
	}
	registered = make(chan api.PublishRequest, 10)
	o.cfg.Quiet = 50 * time.Millisecond
	o.cfg.Register = func(_ context.Context, p api.PublishRequest) (api.Content, error) {
		registered <- p
		return api.Content{Generation: 2}, nil
	}
	set(&o.cfg)
	b.runWatch(o)
	return b, registered
}

// runWatch runs the watch until the test ends.
func (b *bench) runWatch(o *Origin) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error)
	go func() { done <- o.Watch(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

// next waits for a registration and checks what it is of.
func next(t *testing.T, b *bench, registered chan api.PublishRequest, replaces string, want ...string) (digest string) {
	t.Helper()
	select {
	case p := <-registered:
		m, err := content.ParseManifest(p.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range m.Files {
			names = append(names, f.Name)
		}
		if p.Replaces != replaces || !slices.Equal(names, want) {
			t.Fatalf("registered are %q in place of %q, want %q, %q", names, p.Replaces, want, replaces)
		}
		return content.DigestOf(p.Manifest).String()
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was registered")
	}
	return ""
}

func firstDigest(b *bench) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return content.DigestOf(b.registered[0].Manifest).String()
}

// TestWatch: a change, a new directory and a file in it, and a removal are each registered.
func TestWatch(t *testing.T) {
	b, registered := watched(t, func(c *Config) { c.CheckEvery = time.Hour })
	dir := filepath.Join(b.root, pathOf(testRef))
	b.place(testRef, map[string][]byte{"a": {3}})
	d := next(t, b, registered, firstDigest(b), "a", "dir/b")
	b.place(testRef, map[string][]byte{"new/deep/c": {4}})
	d = next(t, b, registered, d, "a", "dir/b", "new/deep/c")
	b.place(testRef, map[string][]byte{"new/deep/d": {5}})
	d = next(t, b, registered, d, "a", "dir/b", "new/deep/c", "new/deep/d")
	if err := os.Remove(filepath.Join(dir, "dir", "b")); err != nil {
		t.Fatal(err)
	}
	next(t, b, registered, d, "a", "new/deep/c", "new/deep/d")
}

// TestWatchWithoutNotices: the look at all files finds what no notice told.
func TestWatchWithoutNotices(t *testing.T) {
	b := newBench(t)
	b.place(testRef, map[string][]byte{"a": {1}})
	o, _ := b.open(nil)
	o.RegisterAll(t.Context())
	w := &watch{o: o, notify: &fsnotify.Watcher{}, settler: settler{last: map[content.Ref]time.Time{}}}
	w.checkAll()
	if len(w.settler.last) != 0 {
		t.Error("nothing changed, and was noted")
	}
	b.place(testRef, map[string][]byte{"b": {2}})
	w.lost(fsnotify.ErrEventOverflow)
	if got := w.settler.due(time.Now()); !slices.Equal(got, []content.Ref{testRef}) {
		t.Errorf("noted are %v, want %v", got, testRef)
	}
}

// TestWatchFindsNew: what comes after the start is found at a look, with no notice of it.
func TestWatchFindsNew(t *testing.T) {
	b, registered := watched(t, func(c *Config) { c.CheckEvery = 50 * time.Millisecond })
	b.place(content.Ref{ID: "late", Version: 2}, map[string][]byte{"x": {5}})
	next(t, b, registered, "", "x")
}

// TestWatchAfterFailedLoad: what could not be read at the start is read when its directory is in order.
func TestWatchAfterFailedLoad(t *testing.T) {
	b := newBench(t)
	b.place(testRef, map[string][]byte{"a": {1}})
	o, _ := b.open(nil)
	bad := content.Ref{ID: "bad", Version: 1}
	b.place(bad, map[string][]byte{"x": {5}})
	link := filepath.Join(b.root, pathOf(bad), "link")
	if err := os.Symlink("x", link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := o.Load(t.Context()); err == nil {
		t.Fatal("a directory with a link is served")
	}
	registered := make(chan api.PublishRequest, 10)
	o.cfg.Register = func(_ context.Context, p api.PublishRequest) (api.Content, error) {
		registered <- p
		return api.Content{Generation: 1}, nil
	}
	o.cfg.Quiet, o.cfg.CheckEvery = 50*time.Millisecond, time.Hour
	b.runWatch(o)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	next(t, b, registered, "", "x")
}

// TestWatchLeavesWhatFails: a directory that cannot be read is read once, and again when something
// of it changed; what the server was told of it before is not forgotten.
func TestWatchLeavesWhatFails(t *testing.T) {
	b, o, _, count := registeredBench(t, map[string][]byte{"a": {1}})
	o.Close()
	dir := filepath.Join(b.root, pathOf(testRef))
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	o, err := Open(o.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Load(t.Context()); err == nil {
		t.Fatal("a directory with a link is served")
	}
	w := &watch{o: o, notify: &fsnotify.Watcher{}, dirs: map[string]content.Ref{}, settler: settler{last: map[content.Ref]time.Time{}}}
	read := func() error {
		f := o.reread(testRef, false)
		<-f.done
		return f.err
	}
	for range 3 {
		if w.checkAll(); len(w.settler.last) != 0 {
			t.Fatal("nothing changed, and it is to be read again")
		}
		if err := read(); err == nil {
			t.Fatal("a directory with a link was read")
		}
	}
	if n := count.n.Load(); n != 0 {
		t.Errorf("%d readings though nothing changed", n)
	}
	if err := os.Remove(filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string][]byte{"b": {2}})
	w.checkAll()
	if got := w.settler.due(time.Now()); !slices.Equal(got, []content.Ref{testRef}) {
		t.Errorf("noted are %v, want %v", got, testRef)
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if last := b.registered[len(b.registered)-1]; len(b.registered) != 2 || last.Replaces != firstDigest(b) {
		t.Errorf("%d registrations, the last replaces %q, want %q", len(b.registered), last.Replaces, firstDigest(b))
	}
}

// TestRenewalWaitsForPublish: what a publish is changing is not read.
func TestRenewalWaitsForPublish(t *testing.T) {
	b := newBench(t)
	b.place(testRef, map[string][]byte{"a": {1}})
	o, _ := b.open(nil)
	o.lock(testRef)
	f := o.reread(testRef, true)
	<-f.done
	if !errors.Is(f.err, errBusy) {
		t.Errorf("got %v, want errBusy", f.err)
	}
	o.unlock(testRef)
	o.cfg.Log = slog.New(slog.DiscardHandler)
	if err := os.RemoveAll(filepath.Join(b.root, pathOf(testRef))); err != nil {
		t.Fatal(err)
	}
	f = o.reread(testRef, true)
	<-f.done
	if !errors.Is(f.err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", f.err)
	}
	o.Close()
	if f = o.reread(testRef, true); !errors.Is(f.err, context.Canceled) {
		t.Errorf("after Close: %v", f.err)
	}
}
