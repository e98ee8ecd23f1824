package store

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

func sampleJournal(pieces int) []byte {
	b := appendJournalHeader(nil, content.DigestOf([]byte("x")))
	seed := headerCRC(b)
	b = appendRecord(b, seed, record{recordHeld, 0, 3})
	b = appendRecord(b, seed, record{recordDropped, 1, 1})
	return appendRecord(b, seed, record{recordHeld, uint32(pieces) - 1, 1})
}

func TestJournalTail(t *testing.T) {
	d := content.DigestOf([]byte("x"))
	whole := sampleJournal(9)
	for cut := range len(whole) + 1 {
		recs, valid, err := parseJournal(whole[:cut], d, 9)
		if cut < journalHeader {
			if err == nil {
				t.Errorf("cut at %d: a torn header is taken", cut)
			}
			continue
		}
		want := (cut - journalHeader) / journalRecord
		if err != nil || len(recs) != want || valid != journalHeader+want*journalRecord {
			t.Errorf("cut at %d: %d records in %d bytes, %v", cut, len(recs), valid, err)
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		recs, _, err := parseJournal(b, d, 9)
		if i < journalHeader && err == nil {
			t.Errorf("byte %d of the header is wrong and it is taken", i)
		}
		if i >= journalHeader && len(recs) != (i-journalHeader)/journalRecord {
			t.Errorf("byte %d is wrong and %d records are taken", i, len(recs))
		}
	}
	if recs, _, _ := parseJournal(whole, d, 8); len(recs) != 2 {
		t.Errorf("a record beyond the last piece is taken")
	}
	if _, _, err := parseJournal(whole, content.Digest{}, 9); err == nil {
		t.Error("another entry's journal is taken")
	}
	newer := bytes.Clone(whole)
	newer[9] = 2
	var version *VersionError
	if _, _, err := parseJournal(newer, d, 9); !errors.As(err, &version) || version.Version != 2 {
		t.Errorf("a newer journal: %v", err)
	}
}

// TestReplay compares journals of random batches with a plain set of runs.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "files")
		var files []content.File
		for range n {
			files = append(files, content.File{Size: rapid.Int64Range(0, 3*mib).Draw(t, "size")})
		}
		l := content.NewLayout(files)
		if l.Runs() == 0 {
			return
		}
		d := content.DigestOf([]byte("x"))
		b := appendJournalHeader(nil, d)
		seed := headerCRC(b)
		want := map[int]bool{}
		for range rapid.IntRange(0, 10).Draw(t, "batches") {
			runs := rapid.SliceOfDistinct(rapid.IntRange(0, l.Runs()-1), rapid.ID[int]).Draw(t, "runs")
			slices.Sort(runs)
			kind := byte(recordHeld)
			if rapid.Bool().Draw(t, "drop") {
				kind = recordDropped
			}
			for _, r := range recordsOf(kind, l, runs) {
				b = appendRecord(b, seed, r)
			}
			for _, run := range runs {
				want[run] = kind == recordHeld
			}
		}
		recs, valid, err := parseJournal(b, d, l.Pieces())
		if err != nil || valid != len(b) {
			t.Fatalf("%d of %d bytes, %v", valid, len(b), err)
		}
		held := replay(l, recs)
		for run := range l.Runs() {
			if held.Has(run) != want[run] {
				t.Errorf("run %d held %t, want %t", run, held.Has(run), want[run])
			}
		}
	})
}

func FuzzParseJournal(f *testing.F) {
	f.Add(sampleJournal(9), uint16(9))
	f.Add([]byte(journalMagic), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, pieces uint16) {
		d := content.DigestOf([]byte("x"))
		recs, valid, err := parseJournal(b, d, int(pieces))
		if err != nil {
			return
		}
		out := appendJournalHeader(nil, d)
		seed := headerCRC(out)
		for _, r := range recs {
			if uint64(r.first)+uint64(r.count) > uint64(pieces) {
				t.Fatalf("record %+v is beyond %d pieces", r, pieces)
			}
			out = appendRecord(out, seed, r)
		}
		if !bytes.Equal(out, b[:valid]) {
			t.Error("what was read is not what is written of it")
		}
	})
}

func FuzzParseMarker(f *testing.F) {
	f.Add(appendMarker(nil))
	f.Add([]byte(markerText + "2\n"))
	f.Add([]byte(markerText + "01\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := parseMarker(b); err == nil && !bytes.Equal(b, appendMarker(nil)) {
			t.Errorf("marker %q is taken", b)
		}
	})
}

// FuzzOpenEntry opens an entry whose small files are anything.
func FuzzOpenEntry(f *testing.F) {
	fx := newFixture(f, "a", sizes(70000, 5))
	journal := appendRecord(appendJournalHeader(nil, fx.digest), headerCRC(appendJournalHeader(nil, fx.digest)), record{recordHeld, 0, 2})
	f.Add(fx.manifest, fx.hashes, journal, []byte("lab\n"))
	f.Fuzz(func(t *testing.T, manifest, hashes, journal, groups []byte) {
		d := newMemDisk()
		s := &Store{disk: d, handles: newHandles(d, 1)}
		s.defaults()
		dir := fx.digest.String()
		for _, name := range []string{dir, dir + "/f"} {
			if err := d.mkdir(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range []headFile{{"manifest", manifest}, {"hashes", hashes}, {"journal", journal}, {"groups", groups}} {
			if err := writeFile(d, dir+"/"+h.name, h.bytes); err != nil {
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
