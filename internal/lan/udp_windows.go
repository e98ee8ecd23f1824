package lan

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/windows"
)

// shareAddress is a net.ListenConfig's Control: several agents of this machine may have one address.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

// bindShared is for systems that bind sockets to group addresses; see oneSocket.
func bindShared(netip.AddrPort, int) (*net.UDPConn, error) { return nil, errors.ErrUnsupported }
