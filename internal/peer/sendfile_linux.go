package peer

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"freshet/internal/wire"
)

// spans is what a Reader has that can lend a run as one span of a file.
type spans interface {
	Span(run int) (f *os.File, off int64, release func(), ok bool)
}

// sendfile returns what sends the blocks of a run from its file without copying, at an
// explicit offset; ok is false where that cannot be done: over TLS, or where the run is not
// one span.
func (c *Conn) sendfile(s send) (write blockWriter, release func(), ok bool) {
	tcp, isTCP := c.raw.(*net.TCPConn)
	from, lends := s.from.(spans)
	if c.e.Credentials != nil || !isTCP || !lends {
		return nil, nil, false
	}
	sock, err := tcp.SyscallConn()
	if err != nil {
		return nil, nil, false
	}
	f, base, release, ok := from.Span(s.run)
	if !ok {
		return nil, nil, false
	}
	write = func(b block) (refused, err error) {
		var head [wire.PieceHeaderSize]byte
		if _, err := c.app.Write(wire.AppendPieceHeader(head[:0], b.piece, b.begin, b.n)); err != nil {
			return nil, err
		}
		if err := c.join.Flush(); err != nil {
			return nil, err
		}
		for at := 0; at < b.n; at += joinSize { // each has writeTimeout, as in joined
			tcp.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err := copyFile(sock, f, base+int64(b.off+at), min(joinSize, b.n-at)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	return write, release, true
}

// copyFile sends n bytes of f from off on.
func copyFile(sock syscall.RawConn, f *os.File, off int64, n int) error {
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
