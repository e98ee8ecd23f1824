//go:build unix

package lan

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// shareOption lets several sockets have one address, and gives each what comes to a group or
// broadcast address. The BSDs, macOS among them, want SO_REUSEPORT for that, which on Linux would
// have only one socket hear it.
func shareOption() int {
	if runtime.GOOS == "linux" {
		return unix.SO_REUSEADDR
	}
	return unix.SO_REUSEPORT
}

// shareAddress is a net.ListenConfig's Control.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, shareOption(), 1) }); e != nil {
		return e
	}
	return err
}

// bindShared binds a socket to a group or broadcast address, together with other agents of
// this machine. Package net would bind it to all addresses instead, where it would stand in the
// way of the sockets that are bound to one.
func bindShared(at netip.AddrPort, index int) (*net.UDPConn, error) {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port())})
	if at.Addr().Is4() {
		to.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), ZoneId: uint32(index), Addr: at.Addr().As16()}
	}
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("lan: socket for %s: %w", at, err)
	}
	f := os.NewFile(uintptr(fd), at.String())
	defer f.Close() // net has its own copy
	if err := prepare(fd, family); err != nil {
		return nil, fmt.Errorf("lan: socket for %s: %w", at, err)
	}
	if err := unix.Bind(fd, to); err != nil {
		return nil, fmt.Errorf("lan: bind %s: %w", at, err)
	}
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("lan: bind %s: %w", at, err)
	}
	return pc.(*net.UDPConn), nil
}

func prepare(fd, family int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, shareOption(), 1)
}
