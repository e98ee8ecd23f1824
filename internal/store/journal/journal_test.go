package journal

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/content"
	"freshet/internal/disk"
)

const mib = 1 << 20

func sampleJournal(pieces int) []byte {
	d := content.DigestOf([]byte("x"))
	return AppendRecords(AppendHeader(nil, d), d, []Record{{Held, 0, 3}, {Dropped, 1, 1}, {Held, uint32(pieces) - 1, 1}})
}

func TestJournalTail(t *testing.T) {
	d := content.DigestOf([]byte("x"))
	whole := sampleJournal(9)
	for cut := range len(whole) + 1 {
		recs, valid, err := Parse(whole[:cut], d, 9)
		if cut < headerSize {
			if err == nil {
				t.Errorf("cut at %d: a torn header is taken", cut)
			}
			continue
		}
		want := (cut - headerSize) / recordSize
		if err != nil || len(recs) != want || valid != headerSize+want*recordSize {
			t.Errorf("cut at %d: %d records in %d bytes, %v", cut, len(recs), valid, err)
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		recs, _, err := Parse(b, d, 9)
		if i < headerSize && err == nil {
			t.Errorf("byte %d of the header is wrong and it is taken", i)
		}
		if i >= headerSize && len(recs) != (i-headerSize)/recordSize {
			t.Errorf("byte %d is wrong and %d records are taken", i, len(recs))
		}
	}
	if recs, _, _ := Parse(whole, d, 8); len(recs) != 2 {
		t.Errorf("a record beyond the last piece is taken")
	}
	if _, _, err := Parse(whole, content.Digest{}, 9); err == nil {
		t.Error("another entry's journal is taken")
	}
	newer := bytes.Clone(whole)
	newer[9] = 2
	var version *disk.VersionError
	if _, _, err := Parse(newer, d, 9); !errors.As(err, &version) || version.Version != 2 {
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
		b := AppendHeader(nil, d)
		want := map[int]bool{}
		for range rapid.IntRange(0, 10).Draw(t, "batches") {
			runs := rapid.SliceOfDistinct(rapid.IntRange(0, l.Runs()-1), rapid.ID[int]).Draw(t, "runs")
			slices.Sort(runs)
			kind := Held
			if rapid.Bool().Draw(t, "drop") {
				kind = Dropped
			}
			b = AppendRecords(b, d, Records(kind, l, runs))
			for _, run := range runs {
				want[run] = kind == Held
			}
		}
		recs, valid, err := Parse(b, d, l.Pieces())
		if err != nil || valid != len(b) {
			t.Fatalf("%d of %d bytes, %v", valid, len(b), err)
		}
		held := Replay(l, recs)
		for run := range l.Runs() {
			if held.Has(run) != want[run] {
				t.Errorf("run %d held %t, want %t", run, held.Has(run), want[run])
			}
		}
	})
}

func FuzzParseJournal(f *testing.F) {
	f.Add(sampleJournal(9), uint16(9))
	f.Add([]byte(magic), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, pieces uint16) {
		d := content.DigestOf([]byte("x"))
		recs, valid, err := Parse(b, d, int(pieces))
		if err != nil {
			return
		}
		out := AppendRecords(AppendHeader(nil, d), d, recs)
		for _, r := range recs {
			if uint64(r.First)+uint64(r.Count) > uint64(pieces) {
				t.Fatalf("record %+v is beyond %d pieces", r, pieces)
			}
		}
		if !bytes.Equal(out, b[:valid]) {
			t.Error("what was read is not what is written of it")
		}
	})
}
