package testbed

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// needs is how much a scenario's files may take, in bytes.
func (s *Scenario) needs() int64 {
	const state = 64 << 20 // of one process, whose small files take a large page each
	var contents int64
	for i := range s.Steps {
		switch st := &s.Steps[i]; st.Verb {
		case "publish":
			contents += 2 * st.Size * int64(max(1, st.Times))
		case "get":
			contents += 64 << 20 // of an issue that is made for its metadata alone
		}
	}
	return s.written() + contents + state*int64(len(s.devices())+len(s.hosts())+2)
}

// spacious is what a file system in memory says its size is beyond what is needed: a device
// shares only what lies on a large disk, and keeps only a part of it for its cache. It takes no
// memory.
const spacious = 32 << 30

// mountMemory puts a file system in memory at dir, unless need bytes are more than half of what is
// free: sixteen devices that get 128 MiB each take a sixth less processor time there than on ext4.
// In large pages, room for 128 MiB is reserved at once; in small ones all sixteen do it for 0.3 s in
// the moment in which they elect who fetches. (Large pages of memory that was not touched before,
// see warm, take as much time as ext4.)
func mountMemory(dir string, need int64) (bool, error) {
	free, err := available()
	if err != nil || need > free/2 {
		return false, err
	}
	err = unix.Mount("freshet-bed", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0700,huge=always,size=%d", spacious+need))
	if err != nil {
		return false, fmt.Errorf("testbed: a file system in memory at %q: %w", dir, err)
	}
	return true, nil
}

// unmountMemory undoes mountMemory, where it was done.
func unmountMemory(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // nothing is mounted there
		return nil
	}
	return fmt.Errorf("testbed: unmounting %q: %w", dir, err)
}

var availableForm = regexp.MustCompile(`(?m)^MemAvailable: +(\d+) kB$`)

// available is how much memory can be had without swapping, and within what this control group
// may have, in bytes.
func available() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	m := availableForm.FindSubmatch(text)
	if m == nil {
		return 0, errors.New("testbed: /proc/meminfo tells no MemAvailable")
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if limit, ok := groupNumber("memory.max"); ok {
		if used, ok := groupNumber("memory.current"); ok {
			n = min(n, (limit-used)>>10)
		}
	}
	return n << 10, err
}

// groupNumber reads a number of this control group; false where it has none.
func groupNumber(name string) (int64, bool) {
	text, err := os.ReadFile("/sys/fs/cgroup/" + name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
