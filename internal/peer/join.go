package peer

import (
	"bufio"
	"net"
	"sync"
)

// joinSize is how many bytes of raw writes are joined, and read ahead: TLS makes one raw
// write a record of 16 KiB, and a system call each costs a quarter of TLS's CPU (design
// section 10).
const joinSize = 256 << 10

// joined is a raw connection whose writes wait until Flush or until joinSize bytes have
// gathered, once joining was called: the handshake goes out at once.
type joined struct {
	net.Conn
	r *bufio.Reader

	mu   sync.Mutex // guards the following
	join bool
	out  []byte
}

func newJoined(c net.Conn) *joined {
	return &joined{Conn: c, r: bufio.NewReaderSize(c, joinSize)}
}

// Read reads ahead.
func (j *joined) Read(b []byte) (int, error) { return j.r.Read(b) }

// Write keeps b until there is enough to send.
func (j *joined) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.join {
		return j.Conn.Write(b)
	}
	if len(j.out)+len(b) > joinSize {
		if err := j.flushLocked(); err != nil {
			return 0, err
		}
	}
	if len(b) >= joinSize {
		return j.Conn.Write(b)
	}
	j.out = append(j.out, b...)
	return len(b), nil
}

// joining begins to join writes.
func (j *joined) joining() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.join = true
}

// Flush sends what was kept.
func (j *joined) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.flushLocked()
}

func (j *joined) flushLocked() error {
	if len(j.out) == 0 {
		return nil
	}
	_, err := j.Conn.Write(j.out)
	j.out = j.out[:0]
	return err
}
