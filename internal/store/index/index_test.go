package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
)

func open(tb testing.TB, name string) (x *Index, sound bool) {
	tb.Helper()
	x, sound, err := Open(context.Background(), name, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return x, sound
}

func closed(tb testing.TB, x *Index, sound bool) {
	tb.Helper()
	if err := x.Close(sound); err != nil {
		tb.Fatal(err)
	}
}

func digest(s string) content.Digest { return content.DigestOf([]byte(s)) }

// put notes an entry of 100 bytes.
func put(tb testing.TB, x *Index, name string, created int64, pieces ...content.Digest) (grown int64) {
	tb.Helper()
	grown, err := x.Put(context.Background(), Entry{
		Ref: content.Ref{ID: content.ID(name), Version: 1}, Digest: digest(name), HashOfHashes: digest("bytes"),
		Size: 100, Held: 40, Groups: []string{"lab", "office"}, Created: time.Unix(created, 0),
	}, AppendKeys(nil, pieces))
	if err != nil {
		tb.Fatal(err)
	}
	return grown
}

// names returns which of the entries a to d a list holds.
func names(list []content.Digest) string {
	out := ""
	for _, d := range list {
		for _, name := range []string{"a", "b", "c", "d"} {
			if digest(name) == d {
				out += name
			}
		}
	}
	return out
}

func TestSoundOnlyWhenClosedSo(t *testing.T) {
	name := filepath.Join(t.TempDir(), "index")
	for _, step := range []struct{ want, closes bool }{{false, true}, {true, false}, {false, true}, {true, true}, {true, true}} {
		x, sound := open(t, name)
		if sound != step.want {
			t.Errorf("sound %t, want %t", sound, step.want)
		}
		closed(t, x, step.closes)
	}
}

func TestEntries(t *testing.T) {
	ctx := t.Context()
	name := filepath.Join(t.TempDir(), "index")
	x, _ := open(t, name)
	if grown := put(t, x, "a", 10); grown != 100 {
		t.Errorf("grew by %d, want 100", grown)
	}
	if grown := put(t, x, "a", 99); grown != 0 {
		t.Errorf("a known entry grew it by %d", grown)
	}
	put(t, x, "b", 20, digest("one"))
	put(t, x, "c", 30)
	x.Touch(digest("a"), time.Unix(40, 0))
	for _, err := range []error{
		x.SetHeld(ctx, digest("b"), 100, true), x.SetGroups(ctx, digest("b"), []string{"x"}),
		x.SetExpiry(ctx, digest("b"), time.Unix(50, 0)), x.Remove(ctx, digest("c")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	closed(t, x, true) // writes the uses
	x, _ = open(t, name)
	defer closed(t, x, true)
	list, err := x.List(ctx)
	if err != nil || len(list) != 2 || list[0].Digest != digest("a") || list[1].Digest != digest("b") {
		t.Fatalf("%+v, %v", list, err)
	}
	if e := list[0]; e.Created.Unix() != 10 || e.LastUse.Unix() != 40 || e.Complete || e.Held != 40 || fmt.Sprint(e.Groups) != "[lab office]" || !e.Expires.IsZero() {
		t.Errorf("a is %+v", e)
	}
	if e := list[1]; !e.Complete || e.Held != 100 || fmt.Sprint(e.Groups) != "[x]" || e.Expires.Unix() != 50 {
		t.Errorf("b is %+v", e)
	}
	if n, err := x.TotalSize(ctx); err != nil || n != 200 {
		t.Errorf("%d bytes in all, %v", n, err)
	}
	if n, err := x.Size(ctx, digest("c")); err != nil || n != 0 {
		t.Errorf("a removed entry has %d bytes, %v", n, err)
	}
	if known, err := x.Known(ctx); err != nil || len(known) != 2 || known[digest("a")] || !known[digest("b")] {
		t.Errorf("known: %v, %v", known, err)
	}
	if list, err := x.ByHashOfHashes(ctx, digest("bytes")); err != nil || names(list) != "ba" {
		t.Errorf("of the same bytes %q, %v", names(list), err)
	}
	if err := x.Pin(ctx, digest("c"), true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pin of no entry: %v", err)
	}
}

func TestWhatMayGo(t *testing.T) {
	ctx := t.Context()
	x, _ := open(t, filepath.Join(t.TempDir(), "index"))
	defer closed(t, x, true)
	for i, name := range []string{"a", "b", "c", "d"} {
		put(t, x, name, int64(10+10*i)) // a is used at 10, d at 40
	}
	if err := errors.Join(x.SetExpiry(ctx, digest("c"), time.Unix(50, 0)), x.Pin(ctx, digest("b"), true)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		now, before time.Time
		want        string
	}{
		{time.Unix(49, 0), time.Time{}, ""},
		{time.Unix(50, 0), time.Time{}, "c"},
		{time.Unix(49, 0), time.Unix(10, 0), ""},
		{time.Unix(49, 0), time.Unix(21, 0), "a"}, // b is pinned
	} {
		if list, err := x.Expired(ctx, tt.now, tt.before); err != nil || names(list) != tt.want {
			t.Errorf("expired at %d or unused since %d: %q, %v, want %q", tt.now.Unix(), tt.before.Unix(), names(list), err, tt.want)
		}
	}
	if list, err := x.Evictable(ctx); err != nil || names(list) != "acd" {
		t.Errorf("evictable %q, %v", names(list), err)
	}
}

// holders returns which of the entries have a piece, the one noted last first.
func holders(tb testing.TB, x *Index, piece content.Digest) string {
	tb.Helper()
	var list []content.Digest
	err := x.EachPieces(tb.Context(), func(d content.Digest, keys []byte) bool {
		for key := range Keys(keys) {
			if key == KeyOf(piece) {
				list = append(list, d)
			}
		}
		return true
	})
	if err != nil {
		tb.Fatal(err)
	}
	return names(list)
}

func TestPieces(t *testing.T) {
	ctx := t.Context()
	x, _ := open(t, filepath.Join(t.TempDir(), "index"))
	defer func() { closed(t, x, true) }()
	put(t, x, "a", 10, digest("one"), digest("two"))
	put(t, x, "b", 10, digest("three"), digest("one"))
	put(t, x, "b", 10, digest("two")) // known: changes nothing
	for piece, want := range map[string]string{"one": "ba", "two": "a", "three": "b", "four": ""} {
		if got := holders(t, x, digest(piece)); got != want {
			t.Errorf("holders of %s: %q, want %q", piece, got, want)
		}
	}
	seen := 0
	if err := x.EachPieces(ctx, func(content.Digest, []byte) bool { seen++; return false }); err != nil || seen != 1 {
		t.Errorf("%d entries after the first was enough, %v", seen, err)
	}
	h, err := x.Holder(ctx, digest("b"))
	if err != nil || h.Complete || fmt.Sprint(h.Groups) != "[lab office]" ||
		!slices.Equal(slices.Collect(Keys(h.Keys)), []Key{KeyOf(digest("three")), KeyOf(digest("one"))}) {
		t.Errorf("b is %+v, %v", h, err)
	}
	if err := x.Remove(ctx, digest("b")); err != nil {
		t.Fatal(err)
	}
	if got := holders(t, x, digest("one")); got != "a" {
		t.Errorf("holders without b: %q", got)
	}
	if _, err := x.Holder(ctx, digest("b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed entry: %v", err)
	}
}

// TestUnknownPieces: an index of a freshet that noted no pieces keeps what is nowhere else, and is
// not sound until they are noted.
func TestUnknownPieces(t *testing.T) {
	ctx := t.Context()
	name := filepath.Join(t.TempDir(), "index")
	x, _ := open(t, name)
	put(t, x, "a", 10, digest("one"))
	put(t, x, "b", 10, digest("two"))
	if err := errors.Join(x.SetHeld(ctx, digest("a"), 100, true), x.PutJob(ctx, Job{"j", []byte("1")})); err != nil {
		t.Fatal(err)
	}
	if _, err := x.write.Exec("DROP TABLE pieces; CREATE TABLE files (sha256 BLOB); DROP TRIGGER entry_gone; DELETE FROM entries WHERE id = 'b'"); err != nil {
		t.Fatal(err)
	}
	closed(t, x, true)
	x, sound := open(t, name)
	if sound {
		t.Error("an index without pieces is sound")
	}
	if j, err := x.Job(ctx, "j"); err != nil || string(j.JSON) != "1" {
		t.Errorf("the job is %s, %v", j.JSON, err)
	}
	for _, want := range []bool{false, true} {
		if known, err := x.Known(ctx); err != nil || len(known) != 1 || known[digest("a")] != want {
			t.Errorf("known: %v, %v; want a to be settled: %t", known, err, want)
		}
		put(t, x, "a", 10, digest("one"))
	}
	if got := holders(t, x, digest("one")); got != "a" {
		t.Errorf("holders %q", got)
	}
	for _, want := range []string{"", "a"} { // one that cannot be read, and that is mended
		if _, err := x.write.Exec("DELETE FROM pieces WHERE ? = ''", want); err != nil {
			t.Fatal(err)
		}
		if want != "" {
			put(t, x, "a", 10, digest("one"))
		}
		if err := errors.Join(x.PutUnread(ctx, digest("a")), x.PutUnread(ctx, digest("nobody"))); err != nil {
			t.Fatal(err)
		}
		if known, err := x.Known(ctx); err != nil || len(known) != 1 || known[digest("a")] != (want != "") {
			t.Errorf("known: %v, %v", known, err)
		}
		if got := holders(t, x, digest("one")); got != want {
			t.Errorf("holders %q, want %q", got, want)
		}
		closed(t, x, true)
		if x, sound = open(t, name); !sound {
			t.Errorf("an index that knows what cannot be read is not sound (holders %q)", want)
		}
	}
	closed(t, x, true)
	x, sound = open(t, name)
	if !sound {
		t.Error("an index that knows all pieces is not sound")
	}
	closed(t, x, true)
}

func TestJobsAndBans(t *testing.T) {
	now := time.Unix(5000, 0)
	name := filepath.Join(t.TempDir(), "index")
	x, _ := open(t, name)
	ctx := t.Context()
	d := digest("m")
	for _, err := range []error{
		x.PutJob(ctx, Job{"b", []byte("1")}), x.PutJob(ctx, Job{"a", []byte("2")}), x.PutJob(ctx, Job{"b", []byte("3")}),
		x.PutJob(ctx, Job{"c", []byte("4")}), x.DeleteJob(ctx, "c"), x.DeleteJob(ctx, "nobody"),
		x.Ban(ctx, Ban{"dev1", d, now.Add(time.Hour)}), x.Ban(ctx, Ban{"dev1", d, now.Add(time.Minute)}),
		x.Ban(ctx, Ban{"dev2", d, now.Add(time.Minute)}), x.Ban(ctx, Ban{"dev1", content.Digest{}, now.Add(time.Hour)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	closed(t, x, true)
	x, _ = open(t, name)
	defer func() { closed(t, x, true) }()
	jobs, err := x.Jobs(ctx)
	if err != nil || fmt.Sprintf("%s", jobs) != "[{a 2} {b 3}]" {
		t.Errorf("jobs %s, %v", jobs, err)
	}
	if j, err := x.Job(ctx, "a"); err != nil || string(j.JSON) != "2" {
		t.Errorf("job a %s, %v", j.JSON, err)
	}
	if _, err := x.Job(ctx, "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted job: %v", err)
	}
	if bans, err := x.Bans(ctx, d, now); err != nil || len(bans) != 2 || !bans[0].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("bans %v, %v", bans, err)
	}
	now = now.Add(time.Minute)
	if bans, err := x.Bans(ctx, d, now); err != nil || len(bans) != 1 || bans[0].Device != "dev1" {
		t.Errorf("bans a minute later %v, %v", bans, err)
	}
}

func TestNewerIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "index")
	x, _ := open(t, name)
	if _, err := x.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	closed(t, x, true)
	_, _, err := Open(t.Context(), name, slog.New(slog.DiscardHandler))
	var newer *disk.VersionError
	if !errors.As(err, &newer) || newer.Version != 99 || newer.What != "index" {
		t.Errorf("%v", err)
	}
}
