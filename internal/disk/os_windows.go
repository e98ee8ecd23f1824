package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// checkOwner leaves ownership to the access list that the directory inherits.
func checkOwner(fs.FileInfo, bool) error { return nil }

// lockFile takes the lock for as long as f is open.
func lockFile(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
}

// syncDirectory has nothing to do: NTFS journals names by itself.
func syncDirectory(*os.File) error { return nil }

// allocate sets the size, for which NTFS reserves the clusters of a file that is not sparse.
func allocate(f *os.File, size int64) error { return f.Truncate(size) }

func datasync(f *os.File) error { return f.Sync() }

func freeBytes(root *os.Root) (int64, error) {
	name, err := windows.UTF16PtrFromString(root.Name())
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil
}

// linkOut makes name in the directory dir another name of the file from of root.
func linkOut(root *os.Root, from string, dir *os.Root, name string) error {
	return os.Link(filepath.Join(root.Name(), filepath.FromSlash(from)), filepath.Join(dir.Name(), name))
}

// IsFull reports whether an error of the operating system is for want of room.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func isTooManyFiles(err error) bool { return errors.Is(err, windows.ERROR_TOO_MANY_OPEN_FILES) }

func isReadOnly(err error) bool {
	return errors.Is(err, windows.ERROR_WRITE_PROTECT) || errors.Is(err, fs.ErrPermission)
}
