package peer

import (
	"context"
	"time"

	"freshet/internal/wire"
)

// writeLoop writes small messages and runs until the connection ends.
func (c *Conn) writeLoop(ctx context.Context) error {
	beat := time.NewTicker(keepAlive)
	defer beat.Stop()
	var spare []byte
	for {
		c.mu.Lock()
		small := c.out
		c.out = spare[:0]
		var s send
		has := len(c.sends) > 0
		if has {
			s, c.sends = c.sends[0], c.sends[1:]
		}
		closed := c.closed
		c.mu.Unlock()
		if spare = small; cap(spare) > keepControl {
			spare = nil
		}
		if closed {
			if has {
				s.done(0, context.Canceled)
			}
			return nil
		}
		if err := c.write(ctx, small, s, has); err != nil {
			c.Close()
			return err
		}
		if len(small) > 0 || has {
			continue
		}
		if err := c.join.Flush(); err != nil {
			c.Close()
			return err
		}
		select {
		case <-c.wake:
		case <-beat.C:
			c.Post(wire.AppendKeepAlive)
		}
	}
}

// write writes the small messages that wait, then a run.
func (c *Conn) write(ctx context.Context, small []byte, s send, has bool) error {
	if len(small) > 0 {
		if _, err := c.app.Write(small); err != nil {
			if has {
				s.done(0, err)
			}
			return err
		}
	}
	if !has {
		return nil
	}
	sent, refused, err := c.writeRun(ctx, s)
	if err != nil {
		s.done(sent, err)
	} else {
		s.done(sent, refused)
	}
	return err
}

// blockWriter writes a block of one run with its header. refused is why the block could not
// be read; the connection goes on then.
type blockWriter func(b block) (refused, err error)

// writeRun writes the wanted blocks of a run, those too that are asked for meanwhile. sent
// counts their bytes.
func (c *Conn) writeRun(ctx context.Context, s send) (sent int, refused, err error) {
	b, more := c.nextWanted(s.run)
	if !more {
		return 0, nil, nil // cancelled, or sent already
	}
	write, release, err := c.blockWriter(ctx, s)
	if err != nil {
		return 0, nil, err
	}
	defer release()
	for ; more; b, more = c.nextWanted(s.run) {
		if refused, err = write(b); refused != nil || err != nil {
			c.dropWanted(s.run)
			return sent, refused, err
		}
		sent += b.n
	}
	return sent, nil, nil
}

// blockWriter returns what writes the blocks of s: from its file where that can be done, else
// by a buffer of the send pool. release is called after the last block.
func (c *Conn) blockWriter(ctx context.Context, s send) (write blockWriter, release func(), err error) {
	if write, release, ok := c.sendfile(s); ok {
		return write, release, nil
	}
	buf, err := c.e.Send.Get(ctx)
	if err != nil {
		return nil, nil, err
	}
	buf = buf[:cap(buf)]
	write = func(b block) (refused, err error) {
		head := wire.AppendPieceHeader(buf[:0], b.piece, b.begin, b.n)
		if err := s.from.Read(s.run, b.off, b.n, buf[len(head):len(head)+b.n]); err != nil {
			return err, nil
		}
		_, err = c.app.Write(buf[:len(head)+b.n])
		return nil, err
	}
	return write, func() { c.e.Send.Put(buf) }, nil
}
