package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
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
func put(tb testing.TB, x *Index, name string, created int64, large iter.Seq2[int, content.Digest]) (grown int64) {
	tb.Helper()
	grown, err := x.Put(context.Background(), Entry{
		Ref: content.Ref{ID: content.ID(name), Version: 1}, Digest: digest(name), HashOfHashes: digest("bytes"),
		Size: 100, Held: 40, Groups: []string{"lab", "office"}, Created: time.Unix(created, 0),
	}, large)
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
	none := maps.All(map[int]content.Digest{})
	if grown := put(t, x, "a", 10, none); grown != 100 {
		t.Errorf("grew by %d, want 100", grown)
	}
	if grown := put(t, x, "a", 99, none); grown != 0 {
		t.Errorf("a known entry grew it by %d", grown)
	}
	put(t, x, "b", 20, none)
	put(t, x, "c", 30, none)
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
	none := maps.All(map[int]content.Digest{})
	for i, name := range []string{"a", "b", "c", "d"} {
		put(t, x, name, int64(10+10*i), none) // a is used at 10, d at 40
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

func TestFilesOf(t *testing.T) {
	ctx := t.Context()
	x, _ := open(t, filepath.Join(t.TempDir(), "index"))
	defer closed(t, x, true)
	put(t, x, "a", 10, maps.All(map[int]content.Digest{3: digest("file"), 4: digest("other")}))
	put(t, x, "b", 10, maps.All(map[int]content.Digest{0: digest("file")}))
	if files, err := x.FilesOf(ctx, digest("file"), digest("b"), 8); err != nil || len(files) != 1 || files[0] != (File{digest("a"), 3}) {
		t.Errorf("%v, %v", files, err)
	}
	if files, err := x.FilesOf(ctx, digest("file"), digest("c"), 1); err != nil || len(files) != 1 {
		t.Errorf("%d files where one was asked for, %v", len(files), err)
	}
	if err := x.Remove(ctx, digest("a")); err != nil {
		t.Fatal(err)
	}
	if files, err := x.FilesOf(ctx, digest("other"), digest("c"), 8); err != nil || len(files) != 0 {
		t.Errorf("files of a removed entry: %v, %v", files, err)
	}
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
