package peer

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"freshet/internal/wire"
)

// spans is what a Reader has that can lend a run as one span of a file.
type spans interface {
	Span(run int) (f *os.File, off int64, release func(), ok bool)
}

// sendfile sends the blocks of a run from its file without copying, at an explicit offset;
// ok is false where that cannot be done: over TLS, or where the run is not one span.
func (c *Conn) sendfile(s send, blocks []block) (err error, ok bool) { //nolint:revive // ok belongs to err
	tcp, isTCP := c.raw.(*net.TCPConn)
	from, lends := s.from.(spans)
	if c.e.Credentials != nil || !isTCP || !lends {
		return nil, false
	}
	f, base, release, ok := from.Span(s.run)
	if !ok {
		return nil, false
	}
	defer release()
	sock, err := tcp.SyscallConn()
	if err != nil {
		return err, true
	}
	for _, b := range blocks {
		head := wire.AppendPieceHeader(nil, b.piece, b.begin, b.n)
		if _, err := c.app.Write(head); err != nil {
			return err, true
		}
		if err := c.join.Flush(); err != nil {
			return err, true
		}
		if err := copyFile(sock, f, base+int64(b.off), b.n); err != nil {
			return err, true
		}
	}
	return nil, true
}

// copyFile sends n bytes of f from off on.
func copyFile(sock interface {
	Write(func(fd uintptr) bool) error
}, f *os.File, off int64, n int) error {
	var failed error
	err := sock.Write(func(fd uintptr) bool {
		for n > 0 {
			m, err := unix.Sendfile(int(fd), int(f.Fd()), &off, n)
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
				continue
			case err != nil:
				failed = os.NewSyscallError("sendfile", err)
				return true
			case m == 0:
				failed = os.NewSyscallError("sendfile", unix.EIO) // the file is shorter than its layout
				return true
			}
			n -= m
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
