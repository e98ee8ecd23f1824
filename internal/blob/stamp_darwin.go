package blob

import (
	"io/fs"
	"syscall"
)

// openFlags keeps an open from waiting for the other end of a pipe.
const openFlags = syscall.O_NONBLOCK

func ctimeOf(info fs.FileInfo) int64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ctimespec.Nano()
}
