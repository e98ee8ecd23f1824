package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"freshet/internal/content"
	"freshet/internal/store"
)

// TestBook: what was kept is found again, by reference the newest and by the URLs that it was
// asked for, and who asked before stays known; what only travels is not kept.
func TestBook(t *testing.T) {
	want := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	st, err := store.Open(ctx, store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	want(err)
	defer st.Close()
	b := NewBook(st, slog.New(slog.DiscardHandler))
	record := func(version uint64, generation int64, digest byte, a Askers) Record {
		return Record{Ref: content.Ref{ID: "app", Version: version}, Generation: generation, Manifest: content.Digest{digest}, Askers: a}
	}
	old := record(1, 3, 1, Askers{Users: []int{7}, URLs: []string{toolURL}})
	old.Inline = []byte("a manifest")
	want(b.Keep(ctx, old))
	want(b.Keep(ctx, record(1, 3, 1, Askers{Users: []int{8}})))
	want(b.Keep(ctx, record(2, 1, 2, Askers{})))
	want(b.Keep(ctx, record(2, 2, 3, Askers{})))
	want(st.PutJob(ctx, store.Job{ID: "other/1", JSON: json.RawMessage(`{}`)}))
	for _, c := range []struct {
		ref    content.Ref
		url    string
		digest byte
	}{{content.Ref{ID: "app"}, "", 3}, {content.Ref{ID: "app", Version: 1}, "", 1}, {content.Ref{}, toolURL, 1}, {content.Ref{ID: "nothing"}, "", 0}, {content.Ref{ID: "app"}, toolURL + "s", 0}} {
		r, ok := b.Find(ctx, c.ref, c.url)
		if ok != (c.digest != 0) || r.Manifest[0] != c.digest {
			t.Errorf("%v %q: found %v, %v; want the one of digest %d", c.ref, c.url, r, ok, c.digest)
		}
		if r.Manifest[0] == 1 && (!reflect.DeepEqual(r.Askers, Askers{Users: []int{7, 8}, URLs: []string{toolURL}}) || r.Inline != nil) {
			t.Errorf("record %+v", r)
		}
	}
	want(b.Forget(ctx, old.Manifest))
	if all, err := b.All(ctx); err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
}

// TestDamagedRecord: a record that cannot be read hides no other; it counts as none, and a new one
// takes its place.
func TestDamagedRecord(t *testing.T) {
	ctx := t.Context()
	st, err := store.Open(ctx, store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var log bytes.Buffer
	b := NewBook(st, slog.New(slog.NewTextHandler(&log, nil)))
	bad, good := Record{Ref: content.Ref{ID: "bad"}, Manifest: content.Digest{1}}, Record{Ref: content.Ref{ID: "good"}, Manifest: content.Digest{2}}
	if err := errors.Join(b.Keep(ctx, good), st.PutJob(ctx, store.Job{ID: idOf(bad.Manifest), JSON: json.RawMessage(`{"Ref":7}`)})); err != nil {
		t.Fatal(err)
	}
	if all, err := b.All(ctx); err != nil || len(all) != 1 || all[0].Ref != good.Ref {
		t.Errorf("all beside a damaged one: %v, %v", all, err)
	}
	if !strings.Contains(log.String(), idOf(bad.Manifest)) {
		t.Errorf("the log does not name the damaged record: %q", log.String())
	}
	if _, ok := b.Find(ctx, good.Ref, ""); !ok {
		t.Error("a good record is not found beside a damaged one")
	}
	if _, err := b.Get(ctx, bad.Manifest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged record: %v, want fs.ErrNotExist", err)
	}
	if err := b.Keep(ctx, bad); err != nil {
		t.Errorf("keeping a record in the place of a damaged one: %v", err)
	}
	if got, err := b.Get(ctx, bad.Manifest); err != nil || got.Ref != bad.Ref {
		t.Errorf("kept in the place of a damaged one: %v, %v", got, err)
	}
	log.Reset()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Find(ctx, good.Ref, ""); ok || log.Len() == 0 {
		t.Errorf("found in a cache that is closed: %v, the log says %q", ok, log.String())
	}
}

// TestChange: changes of one record do not undo each other, and what is not kept is not brought back
// by one that does not say so.
func TestChange(t *testing.T) {
	ctx := t.Context()
	st, err := store.Open(ctx, store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	b := NewBook(st, slog.New(slog.DiscardHandler))
	rec := Record{Ref: content.Ref{ID: "app", Version: 1}, Manifest: content.Digest{1}}
	const writers, each = 4, 10
	more := func(r *Record) bool {
		generation := r.Generation + 1
		*r = rec
		r.Generation = generation
		return true
	}
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if err := b.Change(ctx, rec.Manifest, more); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if r, err := b.Get(ctx, rec.Manifest); err != nil || r.Generation != writers*each {
		t.Errorf("after %d changes the record is %+v, %v", writers*each, r, err)
	}
	if err := b.Forget(ctx, rec.Manifest); err != nil {
		t.Fatal(err)
	}
	known := false
	err = b.Change(ctx, rec.Manifest, func(r *Record) bool { known = !r.Manifest.IsZero(); return known })
	if _, gone := b.Get(ctx, rec.Manifest); err != nil || known || !errors.Is(gone, fs.ErrNotExist) {
		t.Errorf("a record that was forgotten: known %v, %v, then %v", known, err, gone)
	}
}
