// Package place says in which of an entry's files the bytes of a content lie: a file of a piece
// or more has a store file of its own, all smaller ones lie back to back in one. It reads and
// writes nothing.
package place

import (
	"fmt"
	"io/fs"

	"freshet/internal/content"
)

// Small is the name of the store file of all files below a piece.
const Small = "small"

// Place is where the bytes of a content lie.
type Place struct {
	Files []File // large ones in manifest order, then small; by their slot

	layout *content.Layout
	where  []int64 // of file i: its offset in small, or -1-slot of its own store file
	small  int     // slot of small; -1 when there is none
}

// File is a store file.
type File struct {
	Name string // below the entry's directory
	Size int64  // bytes
	Mode fs.FileMode
}

// Segment is a part of a run in one store file.
type Segment struct {
	Slot int
	Off  int64 // in the store file
	Len  int   // bytes
}

// Of lays out the store files of a content.
func Of(m *content.Manifest, l *content.Layout) Place {
	large := 0
	for i := range l.Files() {
		if IsLarge(l, i) {
			large++
		}
	}
	p := Place{Files: make([]File, 0, large+1), layout: l, where: make([]int64, l.Files()), small: -1}
	var packed int64
	for i := range l.Files() {
		if !IsLarge(l, i) {
			p.where[i] = packed
			packed += l.FileSize(i)
			continue
		}
		p.where[i] = -1 - int64(len(p.Files))
		p.Files = append(p.Files, File{Name: Large(i), Size: l.FileSize(i), Mode: modeOf(m.Files[i])})
	}
	if packed > 0 {
		p.small = len(p.Files)
		p.Files = append(p.Files, File{Name: Small, Size: packed, Mode: 0o600})
	}
	return p
}

// IsLarge reports whether file i has a store file of its own.
func IsLarge(l *content.Layout, i int) bool { return l.FileSize(i) >= content.PieceSize }

// Large is the name of file i's own store file.
func Large(i int) string { return fmt.Sprintf("f/%06d", i) }

func modeOf(f content.File) fs.FileMode {
	if f.Executable {
		return 0o755
	}
	return 0o644
}

// Slot returns the store file of file i and where in it the file begins. The slot is -1 for
// an empty file.
func (p *Place) Slot(i int) (slot int, off int64) {
	if w := p.where[i]; w < 0 {
		return int(-1 - w), 0
	}
	return p.small, p.where[i]
}

// Segments returns where a run lies. It is one place, or two when the run begins with the
// tail of a large file and goes on with small ones: no large file begins inside a run, since
// its first piece is a run of its own.
func (p *Place) Segments(r content.Run) (segs [2]Segment, n int) {
	i := p.layout.FileAt(r.Offset)
	slot, base := p.Slot(i)
	into := r.Offset - p.layout.FileOffset(i)
	first := r.Len
	if slot != p.small {
		first = int(min(int64(r.Len), p.layout.FileSize(i)-into))
	}
	segs[0] = Segment{Slot: slot, Off: base + into, Len: first}
	if first == r.Len {
		return segs, 1
	}
	_, base = p.Slot(p.layout.FileAt(r.Offset + int64(first)))
	segs[1] = Segment{Slot: p.small, Off: base, Len: r.Len - first}
	return segs, 2
}
