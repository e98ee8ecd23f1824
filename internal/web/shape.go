package web

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Limits of shaping.
const (
	MaxBurst   = 64 << 10  // bytes
	shapeChunk = 16 << 10  // bytes written at once
	sendBuffer = 128 << 10 // bytes asked of the kernel, which doubles it
)

// Bucket is a token bucket in bytes, shared by all connections of one site: in any span of
// time t at most Rate × t + Burst bytes pass. Those who wait are served in the order in which
// they came, a chunk each, so that connections share it evenly.
type Bucket struct {
	rate, burst float64 // bytes a second, bytes

	mu   sync.Mutex // guards the following
	full time.Time  // when the bucket is full again if nothing more is taken
}

// NewBucket returns a full bucket of rate bytes a second, at least 1, and burst bytes, 1 to
// [MaxBurst].
func NewBucket(rate, burst int64) (*Bucket, error) {
	if rate < 1 {
		return nil, fmt.Errorf("web: a bucket's rate of %d bytes a second is less than 1", rate)
	}
	if burst < 1 || burst > MaxBurst {
		return nil, fmt.Errorf("web: a bucket's burst of %d bytes is not in 1 to %d", burst, MaxBurst)
	}
	return &Bucket{rate: float64(rate), burst: float64(burst)}, nil
}

// chunk returns the most bytes that one turn takes.
func (b *Bucket) chunk() int { return min(shapeChunk, int(b.burst)) }

// take takes n bytes, at most chunk(), and returns when they may pass. Turns are numbered by
// the bucket's lock: who has taken is before all who take later.
func (b *Bucket) take(n int, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.span(float64(n)) + 1) // rounded up
	return b.full.Add(-b.span(b.burst))
}

// span returns how long the bucket needs for n bytes, rounded down.
func (b *Bucket) span(n float64) time.Duration {
	return time.Duration(n / b.rate * float64(time.Second))
}

// Shape returns ln with what its connections write held to the bucket of their other end's
// address; nil holds nothing. bucketOf is asked once for each connection, concurrently.
func Shape(ln net.Listener, bucketOf func(netip.Addr) *Bucket) net.Listener {
	return &shapeListener{ln, bucketOf}
}

type shapeListener struct {
	net.Listener
	bucketOf func(netip.Addr) *Bucket
}

func (l *shapeListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b := l.bucketOf(remoteAddr(c))
	if b == nil {
		return c, nil
	}
	setSendBuffer(c)
	return &shapeConn{Conn: c, bucket: b, deadline: makeDeadline(), closed: make(chan struct{})}, nil
}

// setSendBuffer keeps the kernel from holding more than is sent in a moment; below wrappers
// that have a NetConn.
func setSendBuffer(c net.Conn) {
	for {
		switch conn := c.(type) {
		case interface{ SetWriteBuffer(int) error }:
			_ = conn.SetWriteBuffer(sendBuffer) // an aid: the bucket holds the rate without it
			return
		case interface{ NetConn() net.Conn }:
			c = conn.NetConn()
		default:
			return
		}
	}
}

// shapeConn is a connection whose writes wait for the bucket.
type shapeConn struct {
	net.Conn
	bucket    *Bucket
	deadline  deadline // of writes
	closeOnce sync.Once
	closed    chan struct{}

	writeMu sync.Mutex // held by the one who writes: one chunk waits at a time
}

func (c *shapeConn) Write(b []byte) (n int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for {
		part := b[n:min(len(b), n+c.bucket.chunk())]
		if err := c.await(c.bucket.take(len(part), time.Now())); err != nil {
			return n, err
		}
		k, err := c.Conn.Write(part)
		n += k
		if err != nil || n == len(b) {
			return n, err
		}
	}
}

// await waits until at, the write deadline or the close.
func (c *shapeConn) await(at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.deadline.passed():
		return os.ErrDeadlineExceeded
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *shapeConn) SetDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.Conn.SetDeadline(t)
}

func (c *shapeConn) SetWriteDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *shapeConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// NetConn returns the connection below.
func (c *shapeConn) NetConn() net.Conn { return c.Conn }

// deadline is a point in time that may be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex // guards the following
	timer *time.Timer
	done  chan struct{} // closed once the deadline has passed; replaced when it is moved after that
}

func makeDeadline() deadline { return deadline{done: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // the timer's function is at work; it ends with the close
	}
	d.timer = nil
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(done) })
		return
	}
	close(done)
}
