package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// A range ends late when little of it is to come still and something came lately.
const (
	drainBytes = 256 << 10
	drainQuiet = 250 * time.Millisecond
	drainTime  = time.Second // and at most so much later
)

// reply reads the body of a good reply.
type reply struct {
	body  io.Reader
	begun []byte       // of the next run, what came before the body; after an error, what came of it
	left  atomic.Int64 // bytes of the range not read yet
	heard atomic.Int64 // when bytes came last, Unix nanoseconds
}

// outlive returns a context that ends with ctx, or later when the reply has nearly ended. end
// must be called.
func (p *reply) outlive(ctx context.Context) (_ context.Context, end func()) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if p.nearlyEnded() {
			grace := time.NewTimer(drainTime)
			defer grace.Stop()
			select {
			case <-grace.C:
			case <-longer.Done():
			}
		}
		cancel(context.Cause(ctx))
	})
	return longer, func() {
		stop()
		cancel(nil)
	}
}

func (p *reply) nearlyEnded() bool {
	return p.left.Load() <= drainBytes && time.Since(time.Unix(0, p.heard.Load())) < drainQuiet
}

// Read implements io.Reader.
func (p *reply) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	if n > 0 {
		p.left.Add(-int64(n))
		p.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// run reads the next n bytes straight into a buffer and hands it to sink.
func (p *reply) run(ctx context.Context, n int, pool Buffers, sink func([]byte) error) error {
	b, err := pool.Get(ctx)
	if err != nil {
		return err
	}
	at := copy(b[:n], p.begun)
	p.begun = nil
	if more, err := io.ReadFull(p, b[at:n]); err != nil {
		p.begun = bytes.Clone(b[:at+more])
		pool.Put(b)
		return p.broken(ctx, err)
	}
	return sink(b[:n])
}

// end takes the end of the body, so that the connection can be used again.
func (p *reply) end(ctx context.Context) error {
	var one [1]byte
	n, err := io.ReadFull(p.body, one[:])
	switch {
	case n > 0:
		return fmt.Errorf("%w: the body goes on behind the last byte asked for", ErrRange)
	case err == io.EOF:
		return nil
	default:
		return p.broken(ctx, err)
	}
}

// broken says why the body ended early: because the caller wanted it, or by itself.
func (p *reply) broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %d bytes are missing: %w", ErrShort, p.left.Load(), err)
}
