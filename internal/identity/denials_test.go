package identity

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"freshet/internal/wire"
)

// TestDenials: the highest version counts, over a restart too, and no other key's.
func TestDenials(t *testing.T) {
	key, keys := testKey(t)
	dir := filepath.Join(t.TempDir(), "identity")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, deniedFile)
	signed := func(version int64, ids ...byte) []byte {
		l := DenyList{Version: version}
		for _, id := range ids {
			l.Devices = append(l.Devices, device(id))
		}
		return SignDenyList(key, l)
	}
	var c Credentials
	denies := func(when string, want ...byte) {
		t.Helper()
		got := map[byte]bool{}
		for _, id := range want {
			got[id] = true
		}
		for id := range byte(5) {
			if c.Denied(device(id)) != got[id] {
				t.Errorf("%s: device %d is denied: %v, want %v", when, id, !got[id], got[id])
			}
		}
	}
	d, err := NewDenials(&c, dir)
	if err != nil {
		t.Fatal(err)
	}
	denies("at first")
	for _, step := range []struct {
		when    string
		version int64
		ids     []byte
		taken   bool
		want    []byte
	}{
		{"the first list", 2, []byte{1, 2}, true, []byte{1, 2}},
		{"an old list", 1, []byte{1}, false, []byte{1, 2}},
		{"the same version", 2, []byte{1, 3}, true, []byte{1, 3}},
		{"a new list", 3, []byte{1, 2, 4}, true, []byte{1, 2, 4}},
	} {
		if err := d.Take(keys, signed(step.version, step.ids...), step.when); (err == nil) != step.taken {
			t.Errorf("%s: %v", step.when, err)
		}
		denies(step.when, step.want...)
		if d.Tag() != step.when {
			t.Errorf("tag %q, want %q", d.Tag(), step.when)
		}
	}
	if err := d.Take(nil, signed(4), "of no key"); err == nil || d.Tag() == "of no key" {
		t.Errorf("a list of no key: %v, tag %q", err, d.Tag())
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v", info.Mode(), err)
	}

	c = Credentials{}
	if d, err = NewDenials(&c, dir); err != nil || d.Tag() != "" {
		t.Errorf("again: %v, tag %q", err, d.Tag())
	}
	denies("after a restart", 1, 2, 4)
	if err := d.Take(keys, signed(2, 1), "old"); err == nil {
		t.Error("an old list was taken after a restart")
	}

	for name, b := range map[string][]byte{"cut": signed(3, 1)[:20], "damaged": make([]byte, 200)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c = Credentials{}
		if d, err = NewDenials(&c, dir); err == nil {
			t.Errorf("%s: the file was taken", name)
		}
		if err := d.Take(keys, signed(1, 2), ""); err != nil || !c.Denied(wire.DeviceID(device(2))) {
			t.Errorf("%s: a list after it: %v", name, err)
		}
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c = Credentials{}
	if _, err = NewDenials(&c, dir); err != nil {
		t.Error(err)
	}
	denies("without the identity")
}
