package localapi

import (
	"net"

	"golang.org/x/sys/unix"

	"freshet/internal/deliver"
)

// callerOf returns the local user at the other end.
func callerOf(c *net.UnixConn) (deliver.Owner, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return deliver.Owner{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return deliver.Owner{}, err
	}
	if credErr != nil {
		return deliver.Owner{}, credErr
	}
	return deliver.Owner{UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
