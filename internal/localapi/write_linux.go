package localapi

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"freshet/internal/deliver"
)

// mayWrite asks the kernel, as the caller, whether it may make files in dir: owners, groups,
// access lists and read-only mounts all count then. An agent that is not root cannot become
// the caller, and could not give it the files either.
func mayWrite(dir *os.File, owner deliver.Owner) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with what it became
		result <- asUser(owner, func() error {
			return unix.Faccessat2(int(dir.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		})
	}()
	return <-result
}

// asUser calls f with the file rights of owner, on this thread alone. Groups other than the
// caller's own do not count.
func asUser(owner deliver.Owner, f func() error) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	if err := unix.Setfsgid(owner.GID); err != nil {
		return os.NewSyscallError("setfsgid", err)
	}
	if err := unix.Setfsuid(owner.UID); err != nil {
		return os.NewSyscallError("setfsuid", err)
	}
	return f()
}
