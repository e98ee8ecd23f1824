package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/memnet"
	"freshet/internal/wire"
)

// sample is a content of three runs: a full piece, another, and a last one of 5 bytes.
type sample struct {
	layout *content.Layout
	bytes  []byte
	hoh    content.Digest
}

func newSample() *sample {
	b := make([]byte, 2*content.PieceSize+5)
	rand.NewChaCha8([32]byte{1}).Read(b)
	l := content.NewLayout([]content.File{{Name: "f", Size: int64(len(b))}})
	return &sample{layout: l, bytes: b, hoh: content.DigestOf(b)}
}

func (s *sample) run(run int) []byte {
	r := s.layout.Run(run)
	return s.bytes[r.Offset : r.Offset+int64(r.Len)]
}

// Read implements Reader.
func (s *sample) Read(run, off, n int, b []byte) error {
	if copy(b[:n], s.run(run)[off:off+n]) != n {
		return errors.New("short read")
	}
	return nil
}

func deviceID(n byte) wire.DeviceID { return wire.DeviceID{0: 0xd0, 15: n} }

// newCA makes a CA by the time that is now, in a bubble too.
func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "fleet")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newEndpoint returns the endpoint of device n, plain without a CA. It admits everybody.
func newEndpoint(t *testing.T, ca *identity.CA, n byte, pool int) *Endpoint {
	t.Helper()
	e := &Endpoint{Self: deviceID(n), Receive: buffers.New(pool), Send: buffers.New(pool)}
	if ca != nil {
		var err error
		if e.Credentials, err = ca.IssueCredentials(identity.Name{Role: identity.RoleDevice, Device: e.Self, Group: "lab"}); err != nil {
			t.Fatal(err)
		}
	}
	e.Admit = func(_ identity.Name, theirs Hello) (Hello, error) {
		return hello(e, theirs.HashOfHashes), nil
	}
	return e
}

func hello(e *Endpoint, hoh content.Digest) Hello {
	return Hello{HashOfHashes: hoh, Device: e.Self, Grant: []byte("grant of " + e.Self.String())}
}

// wanted is a request that a peer made.
type wanted struct {
	c   *Conn
	run int
}

// side is one end of a test: its handler serves all requests from the sample unless told
// otherwise, and keeps what arrives.
type side struct {
	t      *testing.T
	e      *Endpoint
	s      *sample
	conn   *Conn
	from   Reader        // nil: the sample
	manual bool          // requests are not served
	runs   chan int      // that arrived and were right
	wants  chan wanted   // requests, with manual
	other  chan string   // other messages
	ended  chan struct{} // closed when Run returned
	err    error         // of Run, after ended
	hook   func(wire.Message)

	mu    sync.Mutex // guards the following
	sent  int        // runs of which the done function was called
	bytes int        // that these functions were told
	errs  []error    // likewise
}

func newSide(t *testing.T, e *Endpoint, s *sample) *side {
	return &side{t: t, e: e, s: s, runs: make(chan int, 100), wants: make(chan wanted, 100), other: make(chan string, 100), ended: make(chan struct{})}
}

func (x *side) Layout() *content.Layout { return x.s.layout }

func (x *side) Run(_ *Conn, run int, b []byte) {
	if !bytes.Equal(b, x.s.run(run)) {
		x.t.Errorf("run %d has other bytes", run)
	}
	x.e.Receive.Put(b)
	x.runs <- run
}

func (x *side) Message(c *Conn, m wire.Message) {
	if x.hook != nil {
		x.hook(m)
	}
	switch m.Kind {
	case wire.Request:
		run, first, err := c.Wants(x.s.layout, m)
		switch {
		case err != nil:
			x.other <- err.Error()
			c.Close()
		case x.manual:
			x.wants <- wanted{c, run}
		case first:
			x.send(c, run)
		}
	case wire.Cancel:
		c.Unwants(x.s.layout.RunOf(int(m.Piece)))
		x.other <- "cancel"
	default:
		x.other <- fmt.Sprint(m.Kind)
	}
}

func (x *side) send(c *Conn, run int) {
	from := x.from
	if from == nil {
		from = x.s
	}
	c.Send(run, from, func(n int, err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.sent++
		x.bytes += n
		if err != nil {
			x.errs = append(x.errs, err)
		}
	})
}

// failed returns the errors of sends.
func (x *side) failed() []error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.errs
}

// did returns how many sends ended, and the bytes that they sent.
func (x *side) did() (sends, bytes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.sent, x.bytes
}

// start runs the connection until ctx ends.
func (x *side) start(ctx context.Context, c *Conn) {
	x.conn = c
	go func() {
		defer close(x.ended)
		x.err = c.Run(ctx, x)
	}()
}

// open connects asker and answerer over memory, by a raw connection with this buffer.
func open(t *testing.T, asker, answerer *Endpoint, hoh content.Digest, buffer int) (a, b *Conn) {
	t.Helper()
	ra, rb := memnet.Pipe(buffer)
	return openOver(t, asker, answerer, hoh, [2]net.Conn{ra, rb})
}

// openOver is open over the two ends of a raw connection.
func openOver(t *testing.T, asker, answerer *Endpoint, hoh content.Digest, ends [2]net.Conn) (a, b *Conn) {
	t.Helper()
	ra, rb := ends[0], ends[1]
	type opened struct {
		c   *Conn
		h   Hello
		err error
	}
	answered := make(chan opened, 1)
	go func() {
		c, h, err := answerer.Answer(t.Context(), rb)
		answered <- opened{c, h, err}
	}()
	a, theirs, err := asker.dialed(t.Context(), ra, hello(asker, hoh))
	if err != nil {
		t.Fatal(err)
	}
	at := <-answered
	if at.err != nil {
		t.Fatal(at.err)
	}
	if want := hello(answerer, hoh); theirs.Device != want.Device || string(theirs.Grant) != string(want.Grant) || a.Device != answerer.Self {
		t.Errorf("asker saw %v, want %v", theirs, want)
	}
	if want := hello(asker, hoh); at.h.Device != want.Device || string(at.h.Grant) != string(want.Grant) || at.c.Device != asker.Self {
		t.Errorf("answerer saw %v, want %v", at.h, want)
	}
	return a, at.c
}

// pair opens and runs a connection between two sides that have pools of these many buffers.
func pair(t *testing.T, ca *identity.CA, pool int) (a, b *side) {
	t.Helper()
	return pairOver(t, ca, pool, 64<<10)
}

// pairOver is pair over a connection that takes buffer bytes at once.
func pairOver(t *testing.T, ca *identity.CA, pool, buffer int) (a, b *side) {
	t.Helper()
	s := newSample()
	a, b = newSide(t, newEndpoint(t, ca, 1, pool), s), newSide(t, newEndpoint(t, ca, 2, pool), s)
	ca1, cb := open(t, a.e, b.e, s.hoh, buffer)
	a.start(t.Context(), ca1)
	b.start(t.Context(), cb)
	return a, b
}

// stop ends both sides and checks that no buffer is lost.
func stop(t *testing.T, sides ...*side) {
	t.Helper()
	for _, x := range sides {
		x.conn.Close()
	}
	for _, x := range sides {
		<-x.ended
		if n, m := x.e.Receive.Lent(), x.e.Send.Lent(); n != 0 || m != 0 {
			t.Errorf("device %s: %d receive and %d send buffers are lost", x.e.Self, n, m)
		}
	}
}

// raw is a connection on which a test writes the protocol by itself.
type raw struct {
	t *testing.T
	net.Conn
}

func (r raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Error(err)
	}
}

// piece writes a part of a run of s.
func (r raw) piece(s *sample, run, off, n int) {
	b := wire.AppendPieceHeader(nil, uint32(s.layout.Run(run).First), uint32(off), n)
	r.write(append(b, s.run(run)[off:off+n]...))
}

// rawPair connects a side by a plain connection with a peer that the test plays.
func rawPair(t *testing.T, pool int) (*side, raw) {
	t.Helper()
	return rawPairOver(t, pool, 4<<20)
}

// rawPairOver is rawPair over a connection that takes buffer bytes at once. What the side
// shows first has been read.
func rawPairOver(t *testing.T, pool, buffer int) (*side, raw) {
	t.Helper()
	s := newSample()
	x := newSide(t, newEndpoint(t, nil, 1, pool), s)
	ra, rb := memnet.Pipe(buffer)
	r := raw{t, rb}
	r.write(appendHello(nil, Hello{HashOfHashes: s.hoh, Device: deviceID(2), Grant: []byte("grant")}))
	c, _, err := x.e.dialed(t.Context(), ra, hello(x.e, s.hoh))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readHello(rb); err != nil {
		t.Fatal(err)
	}
	x.start(t.Context(), c)
	return x, r
}
