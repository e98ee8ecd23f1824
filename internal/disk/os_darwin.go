package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate reserves the blocks of a file. Where the file system cannot, it only sets the size.
func allocate(f *os.File, size int64) error {
	store := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: size}
	err := unix.FcntlFstore(f.Fd(), unix.F_PREALLOCATE, &store)
	if IsFull(err) && !errors.Is(err, unix.ENOTSUP) {
		return os.NewSyscallError("fcntl", err)
	}
	return f.Truncate(size)
}

// datasync is a full sync: darwin's fsync alone leaves bytes in the drive's cache.
func datasync(f *os.File) error { return f.Sync() }
