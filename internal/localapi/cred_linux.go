package localapi

import (
	"net"

	"golang.org/x/sys/unix"

	"freshet/internal/agent"
)

// callerOf returns the local user at the other end.
func callerOf(c *net.UnixConn) (agent.Owner, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return agent.Owner{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return agent.Owner{}, err
	}
	if credErr != nil {
		return agent.Owner{}, credErr
	}
	return agent.Owner{UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
