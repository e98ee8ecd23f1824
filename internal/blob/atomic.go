package blob

import (
	"crypto/rand"
	"errors"
	"os"
	"path"
	"runtime"
)

// writeAtomic makes name hold b, whole or not at all, durable when it returns: temporary
// file, sync, rename, directory sync.
func writeAtomic(root *os.Root, name string, b []byte) error {
	temp := path.Join(path.Dir(name), tempPrefix+rand.Text())
	if err := writeSynced(root, temp, b); err != nil {
		return errors.Join(err, removeTemp(root, temp))
	}
	if err := root.Rename(temp, name); err != nil {
		return errors.Join(err, removeTemp(root, temp))
	}
	return syncDir(root, path.Dir(name))
}

func removeTemp(root *os.Root, temp string) error {
	err := root.Remove(temp)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func writeSynced(root *os.Root, name string, b []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes renames in a directory durable. Windows has no such call and needs none.
func syncDir(root *os.Root, dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
