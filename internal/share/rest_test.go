package share

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"freshet/internal/store"
)

// retires is a daemon that notes which share it is to retire.
type retires struct {
	idle
	last *Share
}

func (d *retires) Retire(s *Share) { d.last = s }

// TestRestEndsWhenEvicted: a share that rests ends, and its record goes, when its entry is not in
// the cache any more; not when the cache cannot be read.
func TestRestEndsWhenEvicted(t *testing.T) {
	r := newRig(t, mib)
	d := &retires{}
	r.owner = d
	r.want(r.Keep(t.Context(), false))
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
