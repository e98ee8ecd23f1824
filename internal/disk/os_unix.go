//go:build linux || darwin

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkOwner refuses a directory of another user and a cache that others may write to. A
// directory that is not a cache yet is only made private.
func checkOwner(st fs.FileInfo, marked bool) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, not to %d who runs this; change its owner or choose another directory", sys.Uid, os.Geteuid())
	}
	if marked && st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o), so what it holds cannot be relied on; remove it, or check it and chmod 0700", st.Mode().Perm())
	}
	return nil
}

// lockFile takes the lock for as long as f is open.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func syncDirectory(f *os.File) error { return f.Sync() }

func freeBytes(root *os.Root) (int64, error) {
	f, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// linkOut makes name in the directory dir another name of the file from of root.
func linkOut(root *os.Root, from string, dir *os.Root, name string) error {
	src, err := root.Open(".")
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer dst.Close()
	return unix.Linkat(int(src.Fd()), from, int(dst.Fd()), name, 0)
}

// IsFull reports whether an error of the operating system is for want of room.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func isTooManyFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

func isReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}
