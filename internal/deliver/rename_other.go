//go:build !linux

package deliver

import (
	"os"
	"runtime"
)

// renameNew renames from to to, both below root, unless to exists: then the error is
// fs.ErrExist.
func renameNew(root *os.Root, from, to string) error { return renameVacant(root, from, to) }

// syncNames makes the names in directories durable. Windows has no such call and needs none.
func syncNames(root *os.Root, dirs map[string]bool) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	for name := range dirs {
		d, err := root.Open(name)
		if err != nil {
			return err
		}
		err = d.Sync()
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
