package peer

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// clientTLS shakes hands as a device that asks.
func clientTLS(t *testing.T, cred *identity.Credentials, c net.Conn) (*tls.Conn, error) {
	app := tls.Client(c, cred.ClientConfig(identity.RoleDevice))
	return app, app.HandshakeContext(t.Context())
}

const block64 = 64 << 10

func TestExchange(t *testing.T) {
	for name, block := range map[string]int{"whole runs": content.PieceSize, "blocks": block64, "odd blocks": 100_001} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ca *identity.CA) {
				a, b := pair(t, ca, 4)
				for run := range a.s.layout.Runs() {
					a.conn.Ask(a.s.layout, run, block)
					b.conn.Ask(b.s.layout, run, block)
				}
				for _, x := range []*side{a, b} {
					got := []int{<-x.runs, <-x.runs, <-x.runs}
					slices.Sort(got)
					if !slices.Equal(got, []int{0, 1, 2}) {
						t.Errorf("device %s got runs %d", x.e.Self, got)
					}
				}
				stop(t, a, b)
			})
		})
	}
}

// TestFewBuffers: two devices whose pools hold a buffer or two give each other everything.
func TestFewBuffers(t *testing.T) {
	for _, pool := range []int{1, 2} {
		for _, block := range []int{block64, content.PieceSize} {
			inBubble(t, func(t *testing.T, ca *identity.CA) {
				a, b := pairOver(t, ca, pool, 400) // requests arrive a few at a time
				const rounds = 2
				begun := time.Now()
				for range rounds {
					for run := range a.s.layout.Runs() {
						a.conn.Ask(a.s.layout, run, block)
						b.conn.Ask(b.s.layout, run, block)
					}
					for range a.s.layout.Runs() {
						<-a.runs
						<-b.runs
					}
				}
				if took := time.Since(begun); took > 0 {
					t.Errorf("pools of %d: nothing moved for %s", pool, took)
				}
				stop(t, a, b)
			})
		}
	}
}

// TestWrongPieces: what was not asked for ends the connection.
func TestWrongPieces(t *testing.T) {
	for name, test := range map[string]struct {
		ask  bool
		send func(r raw, s *sample)
		want string
	}{
		"not asked for":     {false, func(r raw, s *sample) { r.piece(s, 0, 0, 100) }, "more pieces arrived than were asked for"},
		"another run":       {true, func(r raw, s *sample) { r.piece(s, 1, 0, 100) }, "more pieces arrived than were asked for"},
		"not the next byte": {true, func(r raw, s *sample) { r.piece(s, 0, 7, 100) }, "more pieces arrived than were asked for"},
		"no such piece":     {true, func(r raw, s *sample) { r.write(append(wire.AppendPieceHeader(nil, 3, 0, 1), 1)) }, "piece 3 was not asked for"},
		"over the end": {true, func(r raw, s *sample) {
			r.write(append(wire.AppendPieceHeader(nil, 0, 0, content.PieceSize+1), make([]byte, content.PieceSize+1)...))
		}, "reach over a run"},
		"unknown message too long": {false, func(r raw, _ *sample) { r.write([]byte{0x7f, 0xff, 0xff, 0xff, 99}) }, "wire"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, r := rawPair(t, 2)
				if test.ask {
					x.conn.Ask(x.s.layout, 0, block64)
				}
				test.send(r, x.s)
				<-x.ended
				if x.err == nil || !strings.Contains(x.err.Error(), test.want) {
					t.Errorf("ended with %v, want %q", x.err, test.want)
				}
				stop(t, x)
			})
		})
	}
}

// TestWrongRequests: a request that the content has no bytes for is an error.
func TestWrongRequests(t *testing.T) {
	for name, m := range map[string][]byte{
		"no such piece": wire.AppendRequest(nil, 3, 0, 1),
		"over the end":  wire.AppendRequest(nil, 2, 1, 5),
		"far over":      wire.AppendRequest(nil, 0, 1<<32-1, 1),
	} {
		synctest.Test(t, func(t *testing.T) {
			x, r := rawPair(t, 2)
			x.manual = true
			r.write(m)
			if got := <-x.other; !strings.Contains(got, "request for") {
				t.Errorf("%s: %s", name, got)
			}
			<-x.ended
			stop(t, x)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 2)
		x.manual = true
		x.wants = make(chan wanted, maxBlocks+1)
		for range maxBlocks + 1 {
			r.write(wire.AppendRequest(nil, 0, 0, 1))
		}
		if got := <-x.other; !strings.Contains(got, "too many requests") {
			t.Errorf("flood: %s", got)
		}
		stop(t, x)
	})
}

// TestCancel: what was cancelled in mid-piece is not delivered, its buffer is free when the
// block that was arriving has come, and the connection goes on, also when the same run is
// asked for again.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		l := x.s.layout
		x.conn.Ask(l, 0, block64)
		r.piece(x.s, 0, 0, block64)
		head := wire.AppendPieceHeader(nil, 0, block64, block64)
		r.write(append(head, x.s.run(0)[block64:block64+10]...)) // in the midst of the second block
		synctest.Wait()
		x.conn.Cancel(l, 0)
		x.conn.Ask(l, 0, block64)
		r.write(x.s.run(0)[block64+10 : 2*block64])
		synctest.Wait()
		if n := x.e.Receive.Lent(); n != 0 {
			t.Errorf("%d buffers are kept after a Cancel", n)
		}
		r.piece(x.s, 0, 2*block64, block64) // was on its way
		for off := 0; off < content.PieceSize; off += block64 {
			r.piece(x.s, 0, off, block64)
		}
		if run := <-x.runs; run != 0 {
			t.Errorf("run %d, want 0", run)
		}
		x.conn.Ask(l, 2, block64)
		x.conn.Cancel(l, 2)
		r.piece(x.s, 2, 0, 5)
		x.conn.Ask(l, 1, content.PieceSize)
		r.piece(x.s, 1, 0, content.PieceSize)
		if run := <-x.runs; run != 1 {
			t.Errorf("run %d, want 1: run 2 was cancelled", run)
		}
		stop(t, x)
	})
}

// TestCancelStops: the holder of a cancelled run sends no further block of it.
func TestCancelStops(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := pair(t, ca, 2)
		b.manual = true
		a.conn.Ask(a.s.layout, 0, block64)
		synctest.Wait()
		a.conn.Cancel(a.s.layout, 0)
		if got := <-b.other; got != "cancel" {
			t.Fatalf("got %s", got)
		}
		w := <-b.wants
		b.send(w.c, w.run)
		synctest.Wait()
		select {
		case run := <-a.runs:
			t.Errorf("run %d came after it was cancelled", run)
		default:
		}
		if n := a.e.Receive.Lent(); n != 0 || b.sent != 1 {
			t.Errorf("%d buffers lent, %d sends done", n, b.sent)
		}
		stop(t, a, b)
	})
}

// TestStalledPeer: a peer that stops in mid-piece keeps a buffer for finishTime after the
// Cancel at most, and then loses the connection.
func TestStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		x.conn.Ask(x.s.layout, 0, content.PieceSize)
		r.write(append(wire.AppendPieceHeader(nil, 0, 0, content.PieceSize), x.s.run(0)[:1000]...))
		synctest.Wait()
		if n := x.e.Receive.Lent(); n != 1 {
			t.Fatalf("%d buffers lent, want 1", n)
		}
		begun := time.Now()
		x.conn.Cancel(x.s.layout, 0)
		<-x.ended
		if took := time.Since(begun); took > finishTime || !errors.Is(x.err, os.ErrDeadlineExceeded) {
			t.Errorf("ended after %s with %v", took, x.err)
		}
		stop(t, x)
	})
	synctest.Test(t, func(t *testing.T) { // between two blocks: at once, and the connection stays
		x, r := rawPair(t, 1)
		x.conn.Ask(x.s.layout, 0, block64)
		r.piece(x.s, 0, 0, block64)
		synctest.Wait()
		x.conn.Cancel(x.s.layout, 0)
		if n := x.e.Receive.Lent(); n != 0 {
			t.Errorf("%d buffers lent after the Cancel", n)
		}
		stop(t, x)
	})
}

// TestNoBufferIsNotThePeersFault: a peer is not dropped because this end had no buffer when
// the run was cancelled.
func TestNoBufferIsNotThePeersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		taken, err := x.e.Receive.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		x.conn.Ask(x.s.layout, 0, content.PieceSize)
		r.piece(x.s, 0, 0, content.PieceSize)
		synctest.Wait()
		x.conn.Cancel(x.s.layout, 0)
		<-time.After(2 * finishTime)
		x.e.Receive.Put(taken)
		x.conn.Ask(x.s.layout, 2, block64)
		r.piece(x.s, 2, 0, 5)
		if run := <-x.runs; run != 2 {
			t.Errorf("run %d, want 2", run)
		}
		stop(t, x)
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a silent peer is dropped
		x, _ := rawPair(t, 1)
		begun := time.Now()
		<-x.ended
		if took := time.Since(begun); took != idleTimeout || !errors.Is(x.err, os.ErrDeadlineExceeded) {
			t.Errorf("ended after %s with %v", took, x.err)
		}
		stop(t, x)
	})
	inBubble(t, func(t *testing.T, ca *identity.CA) { // two that say nothing keep each other alive
		a, b := pair(t, ca, 1)
		<-time.After(10 * idleTimeout)
		a.conn.Ask(a.s.layout, 2, block64)
		if run := <-a.runs; run != 2 {
			t.Errorf("run %d, want 2", run)
		}
		stop(t, a, b)
	})
}

// TestSlowReader: a peer that reads nothing is dropped when a message cannot leave, and when
// too many small ones wait. Who sends to it has its buffer back and hears of the end.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		x.manual = true
		for i := range 6 { // 6 MiB into 4
			r.write(wire.AppendRequest(nil, uint32(i%2), 0, content.PieceSize))
			x.send(x.conn, (<-x.wants).run)
		}
		begun := time.Now()
		<-x.ended
		if took := time.Since(begun); took > writeTimeout {
			t.Errorf("ended after %s", took)
		}
		stop(t, x)
		if x.sent != 6 {
			t.Errorf("%d of 6 sends heard of the end", x.sent)
		}
		x.send(x.conn, 0)
		if x.sent != 7 {
			t.Error("a send after the end is not told")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		x, _ := rawPair(t, 1)
		many := make([]byte, 1<<20)
		for range 10 {
			x.conn.Post(func(b []byte) []byte { return append(b, wire.AppendBitfield(nil, many)...) })
		}
		<-x.ended
		stop(t, x)
	})
}

// TestUnreadableRun: a run that cannot be read is not sent; the connection goes on.
func TestUnreadableRun(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		a, b := pair(t, ca, 1)
		b.manual = true
		a.conn.Ask(a.s.layout, 0, content.PieceSize)
		w := <-b.wants
		failed := make(chan error, 1)
		w.c.Send(w.run, unreadable{}, func(_ int, err error) { failed <- err })
		if err := <-failed; !errors.Is(err, errUnreadable) {
			t.Errorf("done with %v", err)
		}
		a.conn.Ask(a.s.layout, 2, content.PieceSize)
		w = <-b.wants
		b.send(w.c, w.run)
		if run := <-a.runs; run != 2 {
			t.Errorf("run %d, want 2", run)
		}
		stop(t, a, b)
	})
}

var errUnreadable = errors.New("unreadable")

type unreadable struct{}

func (unreadable) Read(int, int, int, []byte) error { return errUnreadable }

// TestUnknownMessages: what a newer peer says is passed over.
func TestUnknownMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		r.write([]byte{0, 0, 0, 3, 99, 1, 2}) // length, id, body
		r.write(wire.AppendKeepAlive(nil))
		r.write(wire.AppendHave(nil, 1))
		for {
			if got := <-x.other; got == "have" || got == wire.Have.String() {
				break
			}
		}
		stop(t, x)
	})
}
