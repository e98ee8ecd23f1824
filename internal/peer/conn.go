package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

const (
	maxControl   = 2 << 20          // bytes of small messages that wait for a slow peer, besides as many that are being written
	keepControl  = 16 << 10         // bytes of room for them that an idle connection keeps
	keepAlive    = 60 * time.Second // a message at least this often
	idleTimeout  = 3 * time.Minute  // without a message the connection is dead
	writeTimeout = 30 * time.Second // for joinSize bytes to leave
	finishTime   = 5 * time.Second  // for a run that was cancelled in the midst of arriving
	maxBlocks    = 1024             // of requests that wait to be served, on one connection
	maxTimes     = 4                // bytes of one run asked for while it waits or is sent, in runs: it was cancelled in between
)

// Handler is told what arrives. Its methods are called by the connection's reader, one at
// a time; what they take long for, the peer waits for.
type Handler interface {
	// Layout returns the content's layout once it is known, else nil: pieces and
	// bitfields need it.
	Layout() *content.Layout
	// Message takes any message but a piece. m.Body is valid during the call.
	Message(c *Conn, m wire.Message)
	// Run takes a whole run that was asked for, in a buffer of the receive pool, which
	// is the handler's from then on. It is not verified.
	Run(c *Conn, run int, b []byte)
}

// Reader reads runs that are to be sent.
type Reader interface {
	Read(run, off, n int, b []byte) error
}

// Conn is an open connection to a peer.
type Conn struct {
	Device wire.DeviceID

	e    *Endpoint
	raw  net.Conn
	join *joined
	app  net.Conn // raw, joined, and TLS unless plain

	mu      sync.Mutex // guards the following
	asked   map[int]*arrival
	unasked int64          // bytes of cancelled runs that may still arrive
	wanted  map[int]*order // requests of the peer, by run
	blocks  int            // in wanted
	out     []byte         // small messages to write, up to maxControl
	sends   []send         // as many as the caller has upload slots
	closed  bool
	wake    chan struct{} // capacity 1
}

// arrival is a run that was asked for. While the reader has it, it is the reader's alone but
// for cancelled.
type arrival struct {
	got       int    // bytes in buf
	buf       []byte // from the receive pool, or nil
	reading   bool   // the reader has it
	cancelled bool   // while the reader had it: it is not in asked any more
}

// order is what the peer asks for of a run. It has blocks, or the writer is sending the run
// and will look for more of them.
type order struct {
	blocks  []block
	sending bool
	asked   int // bytes of blocks so far, cancelled ones included
}

// block is a part of a run that the peer asked for, as it named it.
type block struct {
	piece, begin uint32
	off, n       int // in the run
}

// send is a run to be sent: all blocks of it that are wanted.
type send struct {
	run  int
	from Reader
	done func(sent int, err error)
}

func newConn(e *Endpoint, raw net.Conn, j *joined, app net.Conn, device wire.DeviceID) *Conn {
	if t, ok := raw.(*net.TCPConn); ok {
		t.SetKeepAlivePeriod(30 * time.Second)
	}
	return &Conn{
		Device: device, e: e, raw: raw, join: j, app: app,
		asked: map[int]*arrival{}, wanted: map[int]*order{},
		wake: make(chan struct{}, 1),
	}
}

// Remote returns the other end's address.
func (c *Conn) Remote() net.Addr { return c.raw.RemoteAddr() }

// Close ends the connection; Run returns soon after.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (c *Conn) closeLocked() {
	c.closed = true
	c.raw.Close()
	c.kick()
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Conn) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run moves messages until the connection ends, and says why it ended. The done function of
// every send is called before it returns.
func (c *Conn) Run(ctx context.Context, h Handler) error {
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	wrote := make(chan error, 1)
	go func() { wrote <- c.writeLoop(ctx) }()
	err := c.readLoop(ctx, h)
	c.Close()
	werr := <-wrote
	c.dropAll()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, net.ErrClosed) && werr != nil {
		err = werr
	}
	return err
}

// dropAll gives back what the connection owned.
func (c *Conn) dropAll() {
	c.mu.Lock()
	sends := c.sends
	c.sends = nil
	for _, a := range c.asked {
		if a.buf != nil {
			c.e.Receive.Put(a.buf)
		}
	}
	clear(c.asked)
	c.mu.Unlock()
	for _, s := range sends {
		s.done(0, net.ErrClosed)
	}
}

func (c *Conn) readLoop(ctx context.Context, h Handler) error {
	var head [wire.HeaderSize]byte
	short := make([]byte, smallSize)
	for {
		if c.isClosed() { // what was read ahead is not for the handler
			return net.ErrClosed
		}
		c.raw.SetReadDeadline(time.Now().Add(idleTimeout))
		if _, err := io.ReadFull(c.app, head[:4]); err != nil {
			return err
		}
		hd, err := wire.ParseHeader(head[:4])
		if errors.Is(err, wire.ErrShort) {
			if _, err := io.ReadFull(c.app, head[4:]); err != nil {
				return err
			}
			hd, err = wire.ParseHeader(head[:])
		}
		if err != nil {
			return err
		}
		switch {
		case hd.Kind == wire.KeepAlive:
		case hd.Kind == wire.Piece:
			if err := c.readPiece(ctx, h, hd.Data()); err != nil {
				return err
			}
		case hd.Skip():
			if _, err := io.CopyN(io.Discard, c.app, int64(hd.Body)); err != nil {
				return err
			}
		default:
			body, err := c.readBody(short, hd.Body)
			if err != nil {
				return err
			}
			m, err := wire.ParseMessage(hd.ID, body)
			if err != nil {
				return err
			}
			h.Message(c, m)
		}
	}
}

// readBody reads n bytes, into short where they fit. Longer ones take memory as they arrive,
// not as they were announced.
func (c *Conn) readBody(short []byte, n int) ([]byte, error) {
	if n <= len(short) {
		_, err := io.ReadFull(c.app, short[:n])
		return short[:n], err
	}
	long := bytes.NewBuffer(nil)
	_, err := io.CopyN(long, c.app, int64(n))
	return long.Bytes(), err
}

// readPiece reads n bytes of a run that was asked for, straight into its buffer. What was
// cancelled may still arrive; it is passed over, within bounds.
func (c *Conn) readPiece(ctx context.Context, h Handler, n int) error {
	var pb [wire.PieceHeaderSize - wire.HeaderSize]byte
	if _, err := io.ReadFull(c.app, pb[:]); err != nil {
		return err
	}
	piece, begin := wire.ParsePiece(pb)
	l := h.Layout()
	if l == nil || int64(piece) >= int64(l.Pieces()) {
		return fmt.Errorf("piece %d was not asked for", piece)
	}
	run := l.RunOf(int(piece))
	r := l.Run(run)
	a := c.startReading(run, int(piece) == r.First, int(begin))
	if a == nil {
		return c.passOver(n)
	}
	err := c.readBlock(ctx, a, r.Len, n)
	whole := err == nil && a.got == r.Len
	kept := c.stopReading(run, a, whole || err != nil)
	switch {
	case whole && kept:
		h.Run(c, run, a.buf[:r.Len])
	case a.buf != nil && (err != nil || !kept):
		c.e.Receive.Put(a.buf)
	}
	return err
}

// readBlock reads the next n bytes of a run of size bytes.
func (c *Conn) readBlock(ctx context.Context, a *arrival, size, n int) (err error) {
	if a.got+n > size {
		return fmt.Errorf("%d bytes from byte %d reach over a run of %d", n, a.got, size)
	}
	if a.buf == nil {
		if a.buf, err = c.e.Receive.Get(ctx); err != nil {
			return err
		}
		c.waited(a)
	}
	if _, err := io.ReadFull(c.app, a.buf[a.got:a.got+n]); err != nil {
		return err
	}
	a.got += n
	return nil
}

// waited gives the peer its time anew: it was this end that had no buffer.
func (c *Conn) waited(a *arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := idleTimeout
	if a.cancelled {
		limit = finishTime
	}
	c.raw.SetReadDeadline(time.Now().Add(limit))
}

// passOver reads away n bytes that nobody waits for.
func (c *Conn) passOver(n int) error {
	c.mu.Lock()
	c.unasked -= int64(n)
	tooMuch := c.unasked < 0
	c.mu.Unlock()
	if tooMuch {
		return errors.New("more pieces arrived than were asked for")
	}
	_, err := io.CopyN(io.Discard, c.app, int64(n))
	return err
}

// startReading returns the arrival of a run, which is the reader's until stopReading; nil
// when what comes is not the next block of a run that is asked for: after a Cancel, blocks
// still come, even when the run was asked for again.
func (c *Conn) startReading(run int, first bool, begin int) *arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asked[run]
	if a == nil || !first || begin != a.got {
		return nil
	}
	a.reading = true
	return a
}

// stopReading ends startReading; over says that no more of the run is to come. kept is false
// when the run was cancelled meanwhile.
func (c *Conn) stopReading(run int, a *arrival, over bool) (kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.reading = false
	if over && !a.cancelled {
		delete(c.asked, run)
	}
	return !a.cancelled
}

// Ask asks for a run in blocks of at most block bytes.
func (c *Conn) Ask(l *content.Layout, run, block int) {
	r := l.Run(run)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked[run] != nil {
		return
	}
	c.asked[run] = &arrival{}
	c.postLocked(func(b []byte) []byte {
		for at := 0; at < r.Len; at += block {
			b = wire.AppendRequest(b, uint32(r.First), uint32(at), uint32(min(block, r.Len-at)))
		}
		return b
	})
}

// Cancel takes an Ask back. What is on its way still arrives, and is passed over.
func (c *Conn) Cancel(l *content.Layout, run int) {
	r := l.Run(run)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asked[run]
	if a == nil {
		return
	}
	c.unasked += int64(r.Len)
	delete(c.asked, run)
	if a.reading {
		a.cancelled = true
		c.raw.SetReadDeadline(time.Now().Add(finishTime))
	} else if a.buf != nil {
		c.e.Receive.Put(a.buf)
	}
	c.postLocked(func(b []byte) []byte { return wire.AppendCancel(b, uint32(r.First), 0, uint32(r.Len)) })
}

// Wants notes a request of the peer. It returns the run, and whether the caller has to see to
// a Send of it: none is being sent that will take the request along. An error ends the
// connection.
func (c *Conn) Wants(l *content.Layout, m wire.Message) (run int, first bool, err error) {
	if int64(m.Piece) >= int64(l.Pieces()) {
		return 0, false, fmt.Errorf("request for piece %d of %d", m.Piece, l.Pieces())
	}
	run = l.RunOf(int(m.Piece))
	r := l.Run(run)
	off := l.PieceOffset(int(m.Piece)) - r.Offset + int64(m.Begin)
	if off+int64(m.Length) > int64(r.Len) {
		return 0, false, fmt.Errorf("request for %d bytes from byte %d of piece %d reaches over its run", m.Length, m.Begin, m.Piece)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks >= maxBlocks {
		return 0, false, errors.New("too many requests at once")
	}
	w := c.wanted[run]
	if first = w == nil; first {
		w = &order{}
		c.wanted[run] = w
	}
	if w.asked += int(m.Length); w.asked > maxTimes*r.Len {
		return 0, false, fmt.Errorf("piece %d is asked for again and again", m.Piece)
	}
	c.blocks++
	w.blocks = append(w.blocks, block{piece: m.Piece, begin: m.Begin, off: int(off), n: int(m.Length)})
	return run, first, nil
}

// Unwants forgets the peer's requests for a run.
func (c *Conn) Unwants(run int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wanted[run]
	if w == nil {
		return
	}
	c.blocks -= len(w.blocks)
	if w.blocks = nil; !w.sending {
		delete(c.wanted, run)
	}
}

// nextWanted returns the next block of a run for the writer to send; without one, the run is
// no longer being sent.
func (c *Conn) nextWanted(run int) (b block, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wanted[run]
	if w == nil {
		return block{}, false
	}
	if len(w.blocks) == 0 {
		delete(c.wanted, run)
		return block{}, false
	}
	b, w.blocks, w.sending = w.blocks[0], w.blocks[1:], true
	c.blocks--
	return b, true
}

// dropWanted ends the sending of a run that cannot be sent.
func (c *Conn) dropWanted(run int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks -= len(c.wanted[run].blocks)
	delete(c.wanted, run)
}

// Post sends small messages, in the wire's bytes, as appendTo writes them. A peer that lets
// too many wait is dropped.
func (c *Conn) Post(appendTo func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.postLocked(appendTo)
}

func (c *Conn) postLocked(appendTo func([]byte) []byte) {
	if c.closed {
		return
	}
	if c.out = appendTo(c.out); len(c.out) > maxControl {
		c.out = nil
		c.closeLocked()
		return
	}
	c.kick()
}

// Send sends what the peer wants of a run, and calls done with the bytes that were sent, none
// when it wants it no more, and with what came of it: on the writer's goroutine, or on the
// caller's when the connection has ended.
func (c *Conn) Send(run int, from Reader, done func(sent int, err error)) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.sends = append(c.sends, send{run: run, from: from, done: done})
	}
	c.mu.Unlock()
	if closed {
		done(0, net.ErrClosed)
		return
	}
	c.kick()
}
