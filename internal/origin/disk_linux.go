package origin

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncEach: whether each uploaded file is synced by itself; here syncAll does them at once.
const syncEach = false

// syncAll makes all files and names on the file system of root durable.
func syncAll(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
