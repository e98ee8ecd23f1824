package store

import (
	"io"
	"io/fs"
	"os"
)

// disk is the cache directory. Names are /-separated and relative to it; none may lead out
// of it and no link is followed. What a power cut leaves is only what was synced: bytes by
// [file.datasync], names by syncDir of the directory that holds them.
//
// The operating system's is [osDisk]; tests have one that forgets what was not synced.
type disk interface {
	mkdir(name string) error // mode 0700
	open(name string, flag int, perm fs.FileMode) (file, error)
	stat(name string) (fs.FileInfo, error)   // of the name itself
	list(name string) ([]fs.FileInfo, error) // in any order
	rename(from, to string) error            // replaces a file
	link(from, to string) error
	removeAll(name string) error
	syncDir(name string) error
	free() (int64, error) // bytes that may still be written
	close() error
}

// file is an open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	allocate(size int64) error // sets the size and reserves its blocks
	datasync() error           // bytes and size, not times
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

func (f osFile) allocate(size int64) error { return allocate(f.File, size) }
func (f osFile) datasync() error           { return datasync(f.File) }

// readFile reads the whole file, at most limit bytes.
func readFile(d disk, name string, limit int64) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errTooLarge}
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// writeFile makes a new file of these bytes; it does not sync.
func writeFile(d disk, name string, b []byte) error {
	f, err := d.open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// syncFile makes the bytes of a closed file durable.
func syncFile(d disk, name string) error {
	f, err := d.open(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.datasync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
