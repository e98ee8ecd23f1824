package fetch

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// unread returns how many bytes a connection has received that nobody read.
func unread(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return n
}

// pour connects to a sender without end.
func pour(t *testing.T) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for b := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(b)
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// read reads n bytes, and returns how many the kernel then keeps when nothing more comes.
func read(t *testing.T, c, plain net.Conn, n int) int {
	t.Helper()
	b := make([]byte, 64<<10)
	for n > 0 {
		k, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		n -= k
	}
	kept := unread(t, plain)
	for full := 0; full < 5; full++ {
		<-time.After(20 * time.Millisecond)
		if now := unread(t, plain); now > kept {
			kept, full = now, 0
		}
	}
	return kept
}

// TestLittleIsKept: whoever reads fast and then not at all has little in the kernel; more where
// the link asks for it.
func TestLittleIsKept(t *testing.T) {
	plain := pour(t)
	c, ok := bound(plain).(*boundConn)
	if !ok {
		t.Skip("this kernel lets a buffer neither exceed net.core.rmem_max nor grow again")
	}
	n := read(t, c, plain, 64<<20)
	t.Logf("%d bytes are kept, of %d allowed", n, minKept)
	if n > minKept || n < minKept/4 || c.kept.size != minKept {
		t.Errorf("%d bytes are kept, of %d allowed, want %d to %d", n, c.kept.size, minKept/4, minKept)
	}
	const more = 8 * minKept
	if !c.keep(more) {
		t.Skipf("net.core.rmem_max is less than %d", more/2)
	}
	c.kept.size = more
	for range 10 { // the kernel lets a window grow by and by
		if n = read(t, c, plain, 64<<20); n > minKept {
			break
		}
	}
	t.Logf("%d bytes are kept, of %d allowed", n, more)
	if n > more || n <= minKept {
		t.Errorf("%d bytes are kept, want more than %d, up to %d", n, minKept, more)
	}
}

// TestUnboundWhereItMayNotGrow: what the kernel caps is given back to it.
func TestUnboundWhereItMayNotGrow(t *testing.T) {
	c := pour(t)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tooMuch = 1 << 30
	err = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20) == nil {
			return // whoever may exceed the limit is not capped
		}
		locked := func() int {
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BUF_LOCK)
			if err != nil {
				t.Skipf("SO_BUF_LOCK: %v", err)
			}
			return n
		}
		if !keep(int(fd), minKept) || locked() == 0 {
			t.Errorf("a buffer of %d bytes is not kept to, lock %d", minKept, locked())
		}
		if keep(int(fd), tooMuch) || locked() != 0 {
			t.Errorf("a buffer of %d bytes is kept to, lock %d", tooMuch, locked())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKeptFollowsTheLink: a sender that fills what it is let have lets it grow until the link
// is full, and not further.
func TestKeptFollowsTheLink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(1e5, 1e9).Draw(t, "rate")
		rtt := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "round trip"))
		share := rapid.Float64Range(0.5, 0.9).Draw(t, "of the kernel's memory")
		now := time.Unix(0, 0)
		k := kept{size: minKept, since: now}
		for range 100 {
			took := max(measureTime, 4*rtt)
			got := rate
			if rtt > 0 {
				got = min(rate, share*float64(k.size)/rtt.Seconds())
			}
			now = now.Add(took)
			k.due(int(got * took.Seconds()))
			k.measure(now, rtt)
		}
		under := rate * rtt.Seconds()
		want := min(max(keptFold*under, minKept), maxKept)
		if got := float64(k.size); got < 0.99*want || got > 1.01*want {
			t.Fatalf("%d bytes are kept where %.0f are under way, want %.0f", k.size, under, want)
		}
		if k.due(1); k.size > minKept { // a pause says nothing
			if _, changed := k.measure(now.Add(time.Hour), rtt); changed {
				t.Fatalf("a pause changed what is kept to %d", k.size)
			}
		}
	})
}

func isBound(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	if !ok {
		return false
	}
	_, ok = t.NetConn().(*boundConn)
	return ok
}
