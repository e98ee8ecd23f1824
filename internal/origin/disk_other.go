//go:build !linux

package origin

import (
	"errors"
	"os"
	"runtime"
	"syscall"
)

// syncEach: whether each uploaded file is synced by itself; no call does all at once here.
const syncEach = true

func syncAll(*os.Root) error { return nil }

func isDiskFull(err error) bool {
	const errorDiskFull, errorHandleDiskFull = syscall.Errno(112), syscall.Errno(39) // of Windows
	if runtime.GOOS == "windows" {
		return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
