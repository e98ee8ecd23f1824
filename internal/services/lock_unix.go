//go:build unix

package services

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockState locks the state directory for this process.
func lockState(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w; is a server running on this directory?", path, err)
	}
	return f, nil
}
