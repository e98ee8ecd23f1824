package blob

import (
	"container/list"
	"sync"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/content"
)

const (
	zstdWindow = 8 << 20  // bytes; the most that RFC 9659 allows a content coding
	coderHolds = 64 << 20 // bytes of compressed forms kept in memory
	codingName = "zstd"
)

// Coder compresses bytes that are named by a digest, once for as long as it has room to keep
// the result. Its methods may be called from many goroutines.
type Coder struct {
	enc *zstd.Encoder

	mu   sync.Mutex // guards the following
	by   map[content.Digest]*list.Element
	used *list.List // of *coded, the most recently used first
	size int        // bytes of all that is kept
}

// coded is one compressed form; ready is closed when b is set.
type coded struct {
	name  content.Digest
	ready chan struct{}
	b     []byte
}

// NewCoder returns an empty Coder.
func NewCoder() (*Coder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return &Coder{enc: enc, by: map[content.Digest]*list.Element{}, used: list.New()}, nil
}

// Zstd returns the compressed form of plain, whose digest is name, or nil where that would
// spare less than a twentieth. The caller does not change it.
func (c *Coder) Zstd(name content.Digest, plain []byte) []byte {
	e, mine := c.entry(name)
	if mine {
		b := c.enc.EncodeAll(plain, nil)
		if len(b) > len(plain)-len(plain)/20 {
			b = nil
		}
		e.b = b
		close(e.ready)
		c.keep(len(b))
	}
	<-e.ready
	return e.b
}

// entry returns the form of name; mine: the caller makes it.
func (c *Coder) entry(name content.Digest) (e *coded, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.by[name]; ok {
		c.used.MoveToFront(at)
		return at.Value.(*coded), false
	}
	e = &coded{name: name, ready: make(chan struct{})}
	c.by[name] = c.used.PushFront(e)
	return e, true
}

// keep counts n new bytes and forgets what was not used for longest.
func (c *Coder) keep(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size += n
	for c.size > coderHolds && c.used.Len() > 1 {
		last := c.used.Back()
		e := last.Value.(*coded)
		select {
		case <-e.ready:
		default:
			return // it is being made; whoever makes it comes here next
		}
		c.used.Remove(last)
		delete(c.by, e.name)
		c.size -= len(e.b)
	}
}
