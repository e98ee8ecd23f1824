package testbed

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// warmth is memory that has been written once. A virtual machine's host gives memory with the
// first write to it, which may cost more than all that agents do with a piece; on a machine
// of its own each device would have the memory of what it removed before. So as much as all
// devices will write is touched ahead, in large pages as files get them (see mountMemory), and
// given back when the first get begins.
type warmth struct{ memory []byte }

// warm touches size bytes, unless that is more than half of what is free.
func warm(size int64) (w warmth, err error) {
	free, err := available()
	if err != nil || size == 0 || size > free/2 {
		return w, err
	}
	w.memory, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		_ = unix.Madvise(w.memory, unix.MADV_HUGEPAGE) // where the kernel has them
		err = unix.Madvise(w.memory, unix.MADV_POPULATE_WRITE)
	}
	if err != nil {
		return w, fmt.Errorf("testbed: touching %d bytes of memory: %w", size, err)
	}
	return w, nil
}

// release gives the memory back.
func (w *warmth) release() error {
	if w.memory == nil {
		return nil
	}
	err := unix.Munmap(w.memory)
	w.memory = nil
	return err
}
