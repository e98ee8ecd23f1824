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
		spare = small
		if closed {
			if has {
				s.done(context.Canceled)
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
	c.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
	if len(small) > 0 {
		if _, err := c.app.Write(small); err != nil {
			if has {
				s.done(err)
			}
			return err
		}
	}
	if !has {
		return nil
	}
	refused, err := c.writeRun(ctx, s)
	if err == nil {
		s.done(refused)
	} else {
		s.done(err)
	}
	return err
}

// writeRun writes the wanted blocks of a run, each with its header in one buffer. refused is
// why the run could not be read; the connection goes on then.
func (c *Conn) writeRun(ctx context.Context, s send) (refused, err error) {
	blocks := c.takeWanted(s.run)
	if len(blocks) == 0 {
		return nil, nil
	}
	if plain, ok := c.sendfile(s, blocks); ok {
		return nil, plain
	}
	buf, err := c.e.Send.Get(ctx)
	if err != nil {
		return nil, err
	}
	defer c.e.Send.Put(buf)
	buf = buf[:cap(buf)]
	for _, b := range blocks {
		head := wire.AppendPieceHeader(buf[:0], b.piece, b.begin, b.n)
		if err := s.from.Read(s.run, b.off, b.n, buf[len(head):len(head)+b.n]); err != nil {
			return err, nil
		}
		if _, err := c.app.Write(buf[:len(head)+b.n]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
