package peer

import (
	"net"
	"sync"
	"time"
)

const (
	// joinSize is how many bytes of raw writes are joined, and read ahead, while there is
	// much to move: TLS makes one raw write a record of 16 KiB, and a system call each costs
	// a quarter of TLS's CPU (design section 10).
	joinSize = 256 << 10
	// smallSize is the same for a connection that moves little: 1,000 idle peers hold 8 MiB.
	smallSize = 4 << 10
)

type (
	smallBuffer [smallSize]byte
	largeBuffer [joinSize]byte
)

// joined is a raw connection. Until start it reads and writes at once and holds no buffer: who
// is at the other end has shown nothing yet. From then on it reads ahead, and its writes wait
// until Flush or until joinSize bytes have gathered. Each direction has a small buffer, and a
// large one of the pool while there is much to move.
type joined struct {
	net.Conn
	pool    *sync.Pool // of *largeBuffer
	started bool       // set before reader and writer begin

	// owned by the reader
	ahead      []byte // read and not yet taken
	aheadSmall *smallBuffer
	aheadLarge *largeBuffer // nil: ahead lies in aheadSmall
	last       int          // bytes of the last read into either

	mu       sync.Mutex // guards the following: TLS's reader writes too
	out      []byte
	outSmall *smallBuffer
	outLarge *largeBuffer // nil: out lies in outSmall
}

func newJoined(c net.Conn, pool *sync.Pool) *joined { return &joined{Conn: c, pool: pool} }

// start begins to read ahead and to join writes.
func (j *joined) start() {
	j.started = true
	j.aheadSmall, j.outSmall = new(smallBuffer), new(smallBuffer)
	j.out = j.outSmall[:0]
}

func (j *joined) lend() *largeBuffer {
	if b, ok := j.pool.Get().(*largeBuffer); ok {
		return b
	}
	return new(largeBuffer)
}

// Read reads ahead, but what b has room for comes without a copy.
func (j *joined) Read(b []byte) (int, error) {
	if !j.started || len(j.ahead) == 0 && len(b) >= joinSize {
		return j.Conn.Read(b)
	}
	if len(j.ahead) == 0 {
		if err := j.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, j.ahead)
	j.ahead = j.ahead[n:]
	return n, nil
}

// fill reads ahead. A read that fills the small buffer is followed by one into a large
// one; one that would have fitted into the small one gives the large one back.
func (j *joined) fill() error {
	switch {
	case j.aheadLarge == nil && j.last == smallSize:
		j.aheadLarge = j.lend()
	case j.aheadLarge != nil && j.last < smallSize:
		j.pool.Put(j.aheadLarge)
		j.aheadLarge = nil
	}
	buf := j.aheadSmall[:]
	if j.aheadLarge != nil {
		buf = j.aheadLarge[:]
	}
	n, err := j.Conn.Read(buf)
	if n == 0 {
		return err
	}
	j.ahead, j.last = buf[:n], n
	return nil // an error comes again
}

// Write keeps b until there is enough to send.
func (j *joined) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.started {
		return j.Conn.Write(b)
	}
	if len(j.out)+len(b) > joinSize {
		if err := j.sendLocked(); err != nil {
			return 0, err
		}
	}
	if len(b) >= joinSize {
		return j.writeThrough(b)
	}
	if len(j.out)+len(b) > cap(j.out) {
		j.outLarge = j.lend()
		j.out = append(j.outLarge[:0], j.out...)
	}
	j.out = append(j.out, b...)
	return len(b), nil
}

// Flush sends what was kept, and gives a large buffer back: there is no more for now.
func (j *joined) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.sendLocked(); err != nil {
		return err
	}
	if j.outLarge != nil {
		j.pool.Put(j.outLarge)
		j.out, j.outLarge = j.outSmall[:0], nil
	}
	return nil
}

func (j *joined) sendLocked() error {
	_, err := j.writeThrough(j.out)
	j.out = j.out[:0]
	return err
}

// writeThrough writes b, of which each joinSize bytes have writeTimeout to leave: a peer that
// takes nothing is known soon, one that is slow is not taken for it.
func (j *joined) writeThrough(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		j.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		var m int
		m, err = j.Conn.Write(b[n:min(n+joinSize, len(b))])
		n += m
	}
	return n, err
}
