package store

import (
	"io/fs"
	"os"
	"sync"

	"freshet/internal/disk"
)

// dataFile is one file of an entry's directory that holds content.
type dataFile struct {
	disk.Kept // by its name below the cache directory

	size int64 // bytes
	mode fs.FileMode

	mu    sync.Mutex  // held while a piece is written
	stamp fs.FileInfo // after our last write or look; nil before the first; guarded by mu
}

// create makes the file with all its bytes reserved, below another directory than its own
// while the entry is being made.
func (df *dataFile) create(d disk.Disk, name string) error {
	f, err := d.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, df.mode)
	if err != nil {
		return err
	}
	if err := f.Allocate(df.size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// changedLocked looks whether somebody else wrote the file since the last look and remembers
// what it saw. The caller holds df.mu.
func (df *dataFile) changedLocked(f disk.File) (bool, error) {
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

// closeFiles closes the entry's files, those in use with their last user.
func (e *Entry) closeFiles() {
	for i := range e.files {
		e.s.handles.Renew(&e.files[i].Kept)
	}
}

// runsOf returns the runs that lie, wholly or in part, in file i as first and one past the last.
func (e *Entry) runsOf(i int) (first, end int) {
	p, n := e.layout.FilePieces(i)
	if n == 0 {
		return 0, 0
	}
	return e.layout.RunOf(p), e.layout.RunOf(p+n-1) + 1
}
