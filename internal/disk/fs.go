// Package disk is what a cache's bytes lie on: the file operations that the store needs
// ([Disk]), their order of becoming durable, the operating system's directory ([Dir]), which
// is a cache's alone, and the files of one that stay open ([Handles]).
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// ErrTooLarge says that a file is larger than what [ReadFile] was to read.
var ErrTooLarge = errors.New("larger than its format allows")

// VersionError says that a newer freshet made this. Nothing is changed then.
type VersionError struct {
	What    string // cache, journal or index
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has version %d, made by a newer freshet; upgrade, or use another cache directory", e.What, e.Version)
}

// Disk is a directory. Names are /-separated and relative to it; none may lead out of it and
// no link is followed. What a power cut leaves is only what was synced: bytes by
// [File.Datasync], names by SyncDir of the directory that holds them.
//
// The operating system's is [Dir]; that of package memdisk forgets what was not synced.
type Disk interface {
	Mkdir(name string) error // mode 0700
	Open(name string, flag int, perm fs.FileMode) (File, error)
	Stat(name string) (fs.FileInfo, error)   // of the name itself
	List(name string) ([]fs.FileInfo, error) // in any order
	Rename(from, to string) error            // replaces a file
	Link(from, to string) error
	RemoveAll(name string) error
	SyncDir(name string) error
	Free() (int64, error) // bytes that may still be written
	Close() error
}

// File is an open file of a disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Allocate(size int64) error // sets the size and reserves its blocks
	Datasync() error           // bytes and size, not times
}

// OSFile is a file of the operating system: what a [Dir] opens.
type OSFile struct{ *os.File }

func (f OSFile) Allocate(size int64) error { return allocate(f.File, size) }
func (f OSFile) Datasync() error           { return datasync(f.File) }

// ReadFile reads the whole file, at most limit bytes.
func ReadFile(d Disk, name string, limit int64) ([]byte, error) {
	f, err := d.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrTooLarge}
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// WriteFile makes a new file of these bytes; it does not sync.
func WriteFile(d Disk, name string, b []byte) error {
	f, err := d.Open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ReplaceFile puts b durably in the place of a file: after a crash it is the old one or the new.
func ReplaceFile(d Disk, name string, b []byte) error {
	temp := name + ".new"
	if err := d.RemoveAll(temp); err != nil {
		return err
	}
	if err := WriteFile(d, temp, b); err != nil {
		return err
	}
	if err := SyncFile(d, temp); err != nil {
		return err
	}
	if err := d.Rename(temp, name); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(name))
}

// SyncFile makes the bytes of a closed file durable.
func SyncFile(d Disk, name string) error {
	f, err := d.Open(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
