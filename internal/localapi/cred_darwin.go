package localapi

import (
	"golang.org/x/sys/unix"

	"freshet/internal/deliver"
)

// ownerOf returns the user at the other end of a unix socket.
func ownerOf(fd int) (deliver.Owner, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return deliver.Owner{}, err
	}
	return deliver.Owner{UID: int(cred.Uid), GID: int(cred.Groups[0])}, nil
}
