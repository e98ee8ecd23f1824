package store

import (
	"fmt"
	"io/fs"
	"os"
	"sync"

	"freshet/internal/content"
)

// smallName is the file of all files below a piece.
const smallName = "small"

// dataFile is one file of an entry's directory that holds content.
type dataFile struct {
	name string // below the cache directory
	size int64  // bytes
	mode fs.FileMode

	h *handle // guarded by handles.mu

	mu    sync.Mutex  // held while a piece is written
	stamp fs.FileInfo // after our last write or look; nil before the first; guarded by mu
}

// create makes the file with all its bytes reserved, below another directory than its own
// while the entry is being made.
func (df *dataFile) create(d disk, name string) error {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, df.mode)
	if err != nil {
		return err
	}
	if err := f.allocate(df.size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// changedLocked looks whether somebody else wrote the file since the last look and remembers
// what it saw. The caller holds df.mu.
func (df *dataFile) changedLocked(f file) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	was := df.stamp
	df.stamp = st
	if was == nil {
		return false, nil // nothing counts as checked before the first look
	}
	same := was.Size() == st.Size() && was.ModTime().Equal(st.ModTime())
	if st.Sys() != nil {
		same = same && os.SameFile(was, st)
	}
	return !same, nil
}

// isLarge reports whether file i has a store file of its own.
func isLarge(l *content.Layout, i int) bool { return l.FileSize(i) >= content.PieceSize }

// placement says where the bytes of each file of a content lie.
type placement struct {
	where []int64 // of file i: its offset in small, or -1-slot of its own store file
	small int     // slot of small; -1 when there is none
}

// place lays out the store files of an entry: large files in manifest order, then small.
func place(dir string, m *content.Manifest, l *content.Layout) (placement, []dataFile) {
	p := placement{where: make([]int64, l.Files()), small: -1}
	large := 0
	for i := range l.Files() {
		if isLarge(l, i) {
			large++
		}
	}
	files := make([]dataFile, 0, large+1)
	var packed int64
	for i := range l.Files() {
		if !isLarge(l, i) {
			p.where[i] = packed
			packed += l.FileSize(i)
			continue
		}
		p.where[i] = -1 - int64(len(files))
		files = append(files, dataFile{name: dir + "/" + largeName(i), size: l.FileSize(i), mode: modeOf(m.Files[i])})
	}
	if packed > 0 {
		p.small = len(files)
		files = append(files, dataFile{name: dir + "/" + smallName, size: packed, mode: 0o600})
	}
	return p, files
}

// largeName is the name of file i's own store file in its entry.
func largeName(i int) string { return fmt.Sprintf("f/%06d", i) }

func modeOf(f content.File) fs.FileMode {
	if f.Executable {
		return 0o755
	}
	return 0o644
}

// slot returns the store file of file i and where in it the file begins. The slot is -1 for
// an empty file.
func (p *placement) slot(i int) (slot int, off int64) {
	if w := p.where[i]; w < 0 {
		return int(-1 - w), 0
	}
	return p.small, p.where[i]
}

// segment is a part of a run in one store file.
type segment struct {
	slot int
	off  int64 // in the store file
	n    int   // bytes
}

// segments returns where a run lies. It is one place, or two when the run begins with the
// tail of a large file and goes on with small ones: no large file begins inside a run, since
// its first piece is a run of its own.
func (e *Entry) segments(r content.Run) (segs [2]segment, n int) {
	i := e.layout.FileAt(r.Offset)
	slot, base := e.place.slot(i)
	into := r.Offset - e.layout.FileOffset(i)
	first := r.Len
	if slot != e.place.small {
		first = int(min(int64(r.Len), e.layout.FileSize(i)-into))
	}
	segs[0] = segment{slot: slot, off: base + into, n: first}
	if first == r.Len {
		return segs, 1
	}
	_, base = e.place.slot(e.layout.FileAt(r.Offset + int64(first)))
	segs[1] = segment{slot: e.place.small, off: base, n: r.Len - first}
	return segs, 2
}

// runsOf returns the runs that lie, wholly or in part, in file i as first and one past the last.
func (e *Entry) runsOf(i int) (first, end int) {
	p, n := e.layout.FilePieces(i)
	if n == 0 {
		return 0, 0
	}
	return e.layout.RunOf(p), e.layout.RunOf(p+n-1) + 1
}
