//go:build linux || darwin

package localapi

import (
	"net"

	"freshet/internal/deliver"
)

// callerOf returns the local user at the other end.
func callerOf(c *net.UnixConn) (deliver.Owner, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return deliver.Owner{}, err
	}
	var owner deliver.Owner
	var credErr error
	if err := raw.Control(func(fd uintptr) { owner, credErr = ownerOf(int(fd)) }); err != nil {
		return deliver.Owner{}, err
	}
	return owner, credErr
}
