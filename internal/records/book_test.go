package records

import (
	"encoding/json"
	"path/filepath"
	"reflect"
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
	b := NewBook(st)
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
	want(b.Forget(ctx, old))
	if all, err := b.All(ctx); err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
}
