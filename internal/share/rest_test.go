package share

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"testing"

	"freshet/internal/records"
	"freshet/internal/store"
)

// retires is a daemon that retires shares, and notes the last one.
type retires struct {
	idle
	last *Share
}

func (d *retires) Retire(s *Share) { d.last = s; s.Stop() }

// TestRestEndsWhenEvicted: a share that rests ends, and its record goes, when its entry is not in
// the cache any more; not when the cache cannot be read.
func TestRestEndsWhenEvicted(t *testing.T) {
	r := newRig(t, mib)
	d := &retires{}
	r.owner = d
	r.want(r.Want(t.Context(), false))
	r.letGo()
	r.brain, r.dormant = nil, true
	good := r.dev.Store
	bad, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	r.want(err)
	r.want(bad.Close())
	kept := func(what string, want bool) {
		t.Helper()
		r.rest()
		_, err := r.dev.Records.Get(t.Context(), r.Record().Manifest)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if kept := d.last == nil; kept != want || (err == nil) != want {
			t.Errorf("%s: the share stays %v, its record %v; want %v", what, kept, err, want)
		}
	}
	kept("with the entry", true)
	r.dev.Store = bad
	kept("with a cache that cannot be read", true)
	if r.wake(false) || !r.dormant || d.last != nil {
		t.Error("a peer wakes a share whose cache cannot be read")
	}
	if r.wake(true) || !r.dormant || r.Facts().Failed == nil {
		t.Errorf("a download wakes a share whose cache cannot be read: %+v", r.Facts())
	}
	r.dev.Store, d.last = good, nil
	r.want(good.Remove(t.Context(), r.Record().Manifest))
	kept("without the entry", false)
}

// TestRestWithCaller: the record of a share stays for which a download waits by now.
func TestRestWithCaller(t *testing.T) {
	r := newRig(t, mib)
	r.want(r.Want(t.Context(), true))
	r.letGo()
	r.brain, r.dormant = nil, true
	r.want(r.dev.Store.Remove(t.Context(), r.Record().Manifest))
	r.rest()
	if _, err := r.dev.Records.Get(t.Context(), r.Record().Manifest); err != nil {
		t.Errorf("the record of a share that a download waits for: %v", err)
	}
}

// TestWantedIsWrittenOnce: what a share writes of its own accord does not say that a content is
// wanted when the download of it has ended meanwhile.
func TestWantedIsWrittenOnce(t *testing.T) {
	r := newRig(t, mib)
	r.want(r.Want(t.Context(), true))
	manifest, done := r.Record().Manifest, make(chan struct{})
	r.want(r.dev.Records.Change(t.Context(), manifest, func(*records.Record) bool {
		go func() {
			defer close(done)
			r.complete()
		}()
		for range 1000 {
			runtime.Gosched() // until it waits for its turn
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rec.Wanted = false
		return false
	}))
	<-done
	if rec, err := r.dev.Records.Get(t.Context(), manifest); err != nil || rec.Wanted || r.Record().Wanted {
		t.Errorf("kept is %+v, %v, the share says %v; want it not to be wanted", rec, err, r.Record().Wanted)
	}
}
