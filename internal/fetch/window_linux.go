package fetch

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel may keep of a connection, in bytes of its memory. Between a half and nine
// tenths of that are bytes received; three times what is under way is enough for the link.
const (
	minKept  = 512 << 10
	maxKept  = 64 << 20
	keptFold = 3
)

// measureTime is over how long a rate is taken, at least.
const measureTime = 100 * time.Millisecond

// bound keeps what c may have received and not been read small. Where that could not be made
// larger again when the link asks for it, c is as it was.
func bound(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	b := &boundConn{Conn: c, raw: raw, kept: kept{size: minKept, since: time.Now()}}
	if !b.keep(minKept) {
		return c
	}
	return b
}

// boundConn is a connection of which the kernel keeps little. Its fields are the reader's.
type boundConn struct {
	net.Conn
	raw  syscall.RawConn
	kept kept
	free bool // the kernel does as it likes
}

// Read implements net.Conn.
func (c *boundConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.free || !c.kept.due(n) {
		return n, err
	}
	if now := time.Now(); now.Sub(c.kept.since) >= measureTime {
		if size, changed := c.kept.measure(now, c.roundTrip()); changed {
			c.free = !c.keep(size)
		}
	}
	return n, err
}

// kept follows a connection's rate and says how much the kernel may keep.
//
// Invariant: minKept ≤ size ≤ maxKept.
type kept struct {
	size  int
	since time.Time // of the measurement under way
	bytes int       // read in it
	fresh int       // of bytes, since the clock was looked at
}

// due notes that n bytes were read, and reports whether it is worth to look at the clock.
func (k *kept) due(n int) bool {
	k.bytes += n
	k.fresh += n
	if k.fresh < k.size/16 {
		return false
	}
	k.fresh = 0
	return true
}

// measure ends a measurement over a path of this round trip (0: not known), and reports
// whether size changed. It falls by half at most: a sender may pause.
func (k *kept) measure(now time.Time, rtt time.Duration) (size int, changed bool) {
	took := now.Sub(k.since)
	if took < 4*rtt {
		return k.size, false
	}
	old := k.size
	if took < 10*max(measureTime, 4*rtt) { // else nothing was asked for meanwhile
		under := float64(k.bytes) * rtt.Seconds() / took.Seconds()
		k.size = min(max(int(keptFold*under), k.size/2, minKept), maxKept)
	}
	k.since, k.bytes = now, 0
	return k.size, k.size != old
}

// keep lets the kernel keep size bytes. It reports false, and takes all bounds away, where the
// kernel does not let it be so many.
func (c *boundConn) keep(size int) bool {
	ok := false
	err := c.raw.Control(func(fd uintptr) { ok = keep(int(fd), size) })
	return ok && err == nil
}

func keep(fd, size int) bool {
	const half = 2 // the kernel doubles what it is asked for
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size/half) != nil {
		// Without the right to exceed net.core.rmem_max, only where it can be undone (Linux 5.15).
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0) != nil {
			return false
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/half) != nil {
			return false
		}
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n < size && size > minKept {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0) // it was let a moment ago
			return false
		}
	}
	// A buffer of a fixed size does not lift the window's limit, which was set for the first one.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, size)
	return true
}

// roundTrip returns the path's round trip as bytes come in, at most twice the shortest one:
// who fills the queues on the way shall not be let fill them more. 0: not known.
func (c *boundConn) roundTrip() time.Duration {
	var info *unix.TCPInfo
	var err error
	if e := c.raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		return 0
	}
	shortest := time.Duration(info.Min_rtt) * time.Microsecond
	if info.Rcv_rtt == 0 {
		return shortest
	}
	return min(time.Duration(info.Rcv_rtt)*time.Microsecond, 2*shortest)
}
