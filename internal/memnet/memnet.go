// Package memnet makes network connections that live in memory, for tests: buffered in both
// directions like those of a kernel, with deadlines, and made of nothing but channels, locks
// and timers, so that they work in bubbles of testing/synctest. [Host] and [Segment] do the same
// for the datagrams of package lan.
package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Addr is the address of an end.
type Addr string

// Network implements net.Addr.
func (Addr) Network() string { return "memory" }

// String implements net.Addr.
func (a Addr) String() string { return string(a) }

// Pipe returns the two ends of a connection. A write waits while buffer bytes have not been
// read. What was written before a Close can still be read after it.
func Pipe(buffer int) (a, b net.Conn) {
	there, back := newStream(buffer), newStream(buffer)
	a = &conn{in: back, out: there, local: "a", remote: "b", read: newLimit(), write: newLimit()}
	b = &conn{in: there, out: back, local: "b", remote: "a", read: newLimit(), write: newLimit()}
	return a, b
}

// stream is one direction.
type stream struct {
	max int

	mu      sync.Mutex // guards the following
	buf     []byte
	ended   bool          // the writing end is closed
	broken  bool          // the reading end is closed
	changed chan struct{} // closed by the next change
}

func newStream(buffer int) *stream {
	return &stream{max: buffer, changed: make(chan struct{})}
}

// do calls f under the lock until it is done. Between two calls it waits for a change, or
// fails when the limit passes.
func (s *stream) do(l *limit, f func() (done bool, err error)) error {
	for {
		s.mu.Lock()
		done, err := f()
		if done || err != nil {
			close(s.changed)
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-l.passed():
			return os.ErrDeadlineExceeded
		}
	}
}

type conn struct {
	in, out       *stream
	local, remote Addr
	read, write   *limit
}

func (c *conn) Read(b []byte) (n int, err error) {
	if c.read.isPassed() {
		return 0, os.ErrDeadlineExceeded
	}
	err = c.in.do(c.read, func() (bool, error) {
		switch s := c.in; {
		case s.broken:
			return false, net.ErrClosed
		case len(s.buf) > 0 || len(b) == 0:
			n = copy(b, s.buf)
			s.buf = s.buf[n:]
			return true, nil
		case s.ended:
			return false, io.EOF
		}
		return false, nil
	})
	return n, err
}

func (c *conn) Write(b []byte) (n int, err error) {
	if c.write.isPassed() {
		return 0, os.ErrDeadlineExceeded
	}
	for err == nil && n < len(b) {
		err = c.out.do(c.write, func() (bool, error) {
			switch s := c.out; {
			case s.ended:
				return false, net.ErrClosed
			case s.broken:
				return false, io.ErrClosedPipe
			case len(s.buf) < s.max:
				m := min(s.max-len(s.buf), len(b)-n)
				s.buf = append(s.buf, b[n:n+m]...)
				n += m
				return true, nil
			}
			return false, nil
		})
	}
	return n, err
}

func (c *conn) Close() error {
	c.in.do(c.read, func() (bool, error) { c.in.broken = true; return true, nil })
	c.out.do(c.write, func() (bool, error) { c.out.ended = true; return true, nil })
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// limit is a deadline.
type limit struct {
	mu    sync.Mutex // guards the following
	timer *time.Timer
	over  chan struct{} // closed when it has passed
}

func newLimit() *limit { return &limit{over: make(chan struct{})} }

// set moves the limit; who waits for it already hears of the new one.
func (l *limit) set(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil && !l.timer.Stop() {
		<-l.over // the timer's function runs: it closes over
	}
	l.timer = nil
	select {
	case <-l.over:
		l.over = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	over := l.over
	if d := time.Until(t); d > 0 {
		l.timer = time.AfterFunc(d, func() { close(over) })
	} else {
		close(over)
	}
}

func (l *limit) passed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

func (l *limit) isPassed() bool {
	select {
	case <-l.passed():
		return true
	default:
		return false
	}
}
