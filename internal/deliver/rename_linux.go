package deliver

import (
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// renameNew renames from to to, both below root, unless to exists: then the error is
// fs.ErrExist.
func renameNew(root *os.Root, from, to string) error {
	src, err := root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer dst.Close()
	err = unix.Renameat2(int(src.Fd()), path.Base(from), int(dst.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if err == unix.EINVAL { // the file system cannot do it in one step
		return renameVacant(root, from, to)
	}
	return os.NewSyscallError("rename", err)
}

// syncNames makes the names in directories durable, by one call for all.
func syncNames(root *os.Root, _ map[string]bool) error { return syncTree(root, nil) }
