//go:build !linux

package agent

import (
	"errors"
	"os"
)

// syncTree makes the files of a flat directory durable.
func syncTree(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		g, err := dir.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(g.Sync(), g.Close()); err != nil {
			return err
		}
	}
	return nil
}
