package content

import "sort"

// Run is a span of adjoining pieces that travels as one: one full piece, or several small
// ones of together at most PieceSize bytes.
type Run struct {
	First, Count int   // pieces
	Offset       int64 // of the first piece in the concatenation, bytes
	Len          int   // bytes, 1 to PieceSize
}

// Layout says where pieces and runs lie. It is immutable.
type Layout struct {
	fileOffset []int64 // of each file in the concatenation, and the total size last
	filePiece  []int32 // first piece of each file, and the number of pieces last
	pieceOff   []int64 // of each piece in the concatenation, and the total size last
	runPiece   []int32 // first piece of each run, and the number of pieces last
}

// NewLayout lays out files of these sizes, in manifest order.
func NewLayout(files []File) *Layout {
	l := &Layout{
		fileOffset: make([]int64, 0, len(files)+1),
		filePiece:  make([]int32, 0, len(files)+1),
	}
	var off int64
	for _, f := range files {
		l.fileOffset = append(l.fileOffset, off)
		l.filePiece = append(l.filePiece, int32(len(l.pieceOff)))
		for at := int64(0); at < f.Size; at += PieceSize {
			l.pieceOff = append(l.pieceOff, off+at)
		}
		off += f.Size
	}
	l.fileOffset = append(l.fileOffset, off)
	l.filePiece = append(l.filePiece, int32(len(l.pieceOff)))
	l.pieceOff = append(l.pieceOff, off)
	l.layRuns()
	return l
}

// layRuns cuts greedily: a piece joins the run before it when both fit into PieceSize.
func (l *Layout) layRuns() {
	n := l.Pieces()
	start := int64(0)
	for p := range n {
		if p == 0 || l.pieceOff[p+1]-start > PieceSize {
			l.runPiece = append(l.runPiece, int32(p))
			start = l.pieceOff[p]
		}
	}
	l.runPiece = append(l.runPiece, int32(n))
}

// Size returns the bytes of the concatenation.
func (l *Layout) Size() int64 { return l.fileOffset[len(l.fileOffset)-1] }

// Files returns the number of files.
func (l *Layout) Files() int { return len(l.fileOffset) - 1 }

// FileOffset returns where file f begins in the concatenation.
func (l *Layout) FileOffset(f int) int64 { return l.fileOffset[f] }

// FileSize returns the bytes of file f.
func (l *Layout) FileSize(f int) int64 { return l.fileOffset[f+1] - l.fileOffset[f] }

// FilePieces returns the pieces of file f as first and count.
func (l *Layout) FilePieces(f int) (first, count int) {
	return int(l.filePiece[f]), int(l.filePiece[f+1] - l.filePiece[f])
}

// FileAt returns the file that holds the byte at off of the concatenation, never an empty one.
func (l *Layout) FileAt(off int64) int {
	return sort.Search(l.Files(), func(i int) bool { return l.fileOffset[i+1] > off })
}

// Pieces returns the number of pieces.
func (l *Layout) Pieces() int { return len(l.pieceOff) - 1 }

// PieceOffset returns where piece p begins in the concatenation.
func (l *Layout) PieceOffset(p int) int64 { return l.pieceOff[p] }

// PieceLen returns the bytes of piece p.
func (l *Layout) PieceLen(p int) int { return int(l.pieceOff[p+1] - l.pieceOff[p]) }

// PieceFile returns the file that piece p belongs to.
func (l *Layout) PieceFile(p int) int { return l.FileAt(l.pieceOff[p]) }

// Runs returns the number of runs.
func (l *Layout) Runs() int { return len(l.runPiece) - 1 }

// Run returns run r.
func (l *Layout) Run(r int) Run {
	first, next := int(l.runPiece[r]), int(l.runPiece[r+1])
	return Run{
		First: first, Count: next - first,
		Offset: l.pieceOff[first], Len: int(l.pieceOff[next] - l.pieceOff[first]),
	}
}

// RunOf returns the run that piece p is in.
func (l *Layout) RunOf(p int) int {
	return sort.Search(l.Runs(), func(i int) bool { return int(l.runPiece[i+1]) > p })
}
