package content

import (
	"testing"

	"pgregory.net/rapid"
)

// drawFiles draws files whose sizes lie around the bounds that matter.
func drawFiles(t *rapid.T) []File {
	size := rapid.OneOf(
		rapid.Int64Range(0, 3),
		rapid.Int64Range(0, PieceSize/2),
		rapid.Int64Range(PieceSize-2, PieceSize+2),
		rapid.Int64Range(0, 5*PieceSize),
	)
	files := make([]File, rapid.IntRange(0, 40).Draw(t, "files"))
	for i := range files {
		files[i].Size = size.Draw(t, "size")
	}
	return files
}

func TestLayoutPiecesCoverFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := drawFiles(t)
		l := NewLayout(files)
		if l.Files() != len(files) {
			t.Fatalf("Files() = %d, want %d", l.Files(), len(files))
		}
		var off int64
		piece := 0
		for i, f := range files {
			first, count := l.FilePieces(i)
			if l.FileOffset(i) != off || l.FileSize(i) != f.Size || first != piece || int64(count) != pieceCount(f.Size) {
				t.Fatalf("file %d: offset %d, size %d, pieces %d+%d; want %d, %d, %d+%d", i, l.FileOffset(i), l.FileSize(i), first, count, off, f.Size, piece, pieceCount(f.Size))
			}
			for left := f.Size; left > 0; piece++ {
				want := min(left, PieceSize)
				if l.PieceOffset(piece) != off || int64(l.PieceLen(piece)) != want || l.PieceFile(piece) != i {
					t.Fatalf("piece %d: offset %d, length %d, file %d; want %d, %d, %d", piece, l.PieceOffset(piece), l.PieceLen(piece), l.PieceFile(piece), off, want, i)
				}
				off, left = off+want, left-want
			}
		}
		if l.Pieces() != piece || l.Size() != off {
			t.Fatalf("%d pieces, %d bytes; want %d, %d", l.Pieces(), l.Size(), piece, off)
		}
		if m := (&Manifest{Files: files}); m.Pieces() != piece {
			t.Fatalf("Manifest.Pieces() = %d, want %d", m.Pieces(), piece)
		}
	})
}

func TestLayoutRunsCoverPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLayout(drawFiles(t))
		piece, off := 0, int64(0)
		for r := range l.Runs() {
			run := l.Run(r)
			if run.First != piece || run.Offset != off || run.Count < 1 || run.Len < 1 || run.Len > PieceSize {
				t.Fatalf("run %d = %+v, want it at piece %d, offset %d, 1 to %d bytes", r, run, piece, off, PieceSize)
			}
			for range run.Count {
				if l.RunOf(piece) != r {
					t.Fatalf("RunOf(%d) = %d, want %d", piece, l.RunOf(piece), r)
				}
				off += int64(l.PieceLen(piece))
				piece++
			}
			if off != run.Offset+int64(run.Len) {
				t.Fatalf("run %d = %+v, its pieces end at %d", r, run, off)
			}
			if piece < l.Pieces() && run.Len+l.PieceLen(piece) <= PieceSize {
				t.Fatalf("run %d = %+v has room for the %d bytes of the next piece", r, run, l.PieceLen(piece))
			}
		}
		if piece != l.Pieces() || off != l.Size() {
			t.Fatalf("runs cover %d pieces, %d bytes; want %d, %d", piece, off, l.Pieces(), l.Size())
		}
	})
}

func TestLayoutFileAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLayout(drawFiles(t))
		if l.Size() == 0 {
			return
		}
		off := rapid.Int64Range(0, l.Size()-1).Draw(t, "offset")
		f := l.FileAt(off)
		if start := l.FileOffset(f); off < start || off >= start+l.FileSize(f) {
			t.Fatalf("FileAt(%d) = %d, which is %d+%d", off, f, start, l.FileSize(f))
		}
	})
}

func TestLayoutOfNothing(t *testing.T) {
	for _, files := range [][]File{nil, make([]File, 3)} {
		l := NewLayout(files)
		if l.Size() != 0 || l.Pieces() != 0 || l.Runs() != 0 || l.Files() != len(files) {
			t.Errorf("layout of %d empty files: %d bytes, %d pieces, %d runs", len(files), l.Size(), l.Pieces(), l.Runs())
		}
	}
}
