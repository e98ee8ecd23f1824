// Package buffers holds the piece buffers of an agent: a fixed number of them, each with
// one owner at a time. A buffer travels connection reader → hash worker → positioned write
// → pool; whoever holds it last gives it back.
package buffers

import (
	"context"
	"sync"

	"freshet/internal/content"
)

const (
	// HeadRoom is how many bytes of a buffer lie beyond a piece, so that a message's
	// header and a whole piece fit into one buffer.
	HeadRoom = 16
	// Size is the capacity of a buffer in bytes.
	Size = content.PieceSize + HeadRoom
	// DefaultCount makes about 24 MiB.
	DefaultCount = 24
)

// Pool lends buffers. It allocates a buffer when it is first needed and keeps it.
type Pool struct {
	tokens chan struct{} // one for each buffer that may still be lent

	mu   sync.Mutex
	free [][]byte // guarded by mu; the one used last is lent first, while it is in the caches
}

// New returns a pool of count buffers; zero or less stands for [DefaultCount].
func New(count int) *Pool {
	if count <= 0 {
		count = DefaultCount
	}
	p := &Pool{tokens: make(chan struct{}, count)}
	for range count {
		p.tokens <- struct{}{}
	}
	return p
}

// Get lends a buffer of length [content.PieceSize] and capacity [Size]; its bytes are what
// the last owner left. It waits while all are lent, until ctx ends.
func (p *Pool) Get(ctx context.Context) ([]byte, error) {
	select {
	case <-p.tokens:
	default:
		select {
		case <-p.tokens:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return p.take(), nil
}

// TryGet lends a buffer when one is free at once.
func (p *Pool) TryGet() ([]byte, bool) {
	select {
	case <-p.tokens:
		return p.take(), true
	default:
		return nil, false
	}
}

func (p *Pool) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if n == 0 {
		return make([]byte, content.PieceSize, Size)
	}
	b := p.free[n-1]
	p.free = p.free[:n-1]
	return b
}

// Put gives b back: the slice that Get lent, of any length but from its first byte. It
// panics when b is something else or is given back twice and is noticed.
func (p *Pool) Put(b []byte) {
	if cap(b) != Size {
		panic("buffers: Put of a slice that is not a whole buffer")
	}
	p.mu.Lock()
	for _, f := range p.free {
		if &f[0] == &b[:1][0] {
			p.mu.Unlock()
			panic("buffers: Put of a buffer that is free already")
		}
	}
	p.free = append(p.free, b[:content.PieceSize])
	p.mu.Unlock()
	p.tokens <- struct{}{}
}

// Lent returns how many buffers have an owner now.
func (p *Pool) Lent() int { return cap(p.tokens) - len(p.tokens) }
