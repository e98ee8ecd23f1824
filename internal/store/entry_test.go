package store

import (
	"bytes"
	"testing"

	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
	"freshet/internal/store/journal"
)

// FuzzOpenEntry opens an entry whose small files are anything.
func FuzzOpenEntry(f *testing.F) {
	fx := newFixture(f, "a", sizes(70000, 5))
	records := []journal.Record{{Kind: journal.Held, First: 0, Count: 2}}
	held := journal.AppendRecords(journal.AppendHeader(nil, fx.digest), fx.digest, records)
	f.Add(fx.manifest, fx.hashes, held, []byte("lab\n"))
	f.Fuzz(func(t *testing.T, manifest, hashes, journal, groups []byte) {
		d := memdisk.New()
		s := &Store{disk: d}
		s.defaults()
		dir := fx.digest.String()
		for _, name := range []string{dir, dir + "/f"} {
			if err := d.Mkdir(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range []headFile{{"manifest", manifest}, {"hashes", hashes}, {"journal", journal}, {"groups", groups}} {
			if err := disk.WriteFile(d, dir+"/"+h.name, h.bytes); err != nil {
				t.Fatal(err)
			}
		}
		e, err := s.load(fx.digest)
		if err == nil && (!bytes.Equal(manifest, fx.manifest) || !bytes.Equal(hashes, fx.hashes)) {
			t.Error("a damaged entry is opened")
		}
		if err == nil && e.HeldBytes() != 0 {
			t.Error("bytes are held that are not there")
		}
	})
}
