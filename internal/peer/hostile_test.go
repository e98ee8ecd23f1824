package peer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/memnet"
	"freshet/internal/wire"
)

// from is a connection that comes from an address.
type from struct {
	net.Conn
	addr netip.AddrPort
}

func (c from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.addr) }

// knocking is a connection that was accepted and whose other end is the test's.
type knocking struct {
	net.Conn
	err chan error // of Answer
}

func knock(t *testing.T, e *Endpoint, addr string) knocking {
	here, there := memnet.Pipe(64 << 10)
	k := knocking{there, make(chan error, 1)}
	go func() {
		_, _, err := e.Answer(t.Context(), from{here, netip.MustParseAddrPort(addr)})
		k.err <- err
	}()
	synctest.Wait()
	return k
}

// waits reports whether the connection is still being opened.
func (k knocking) waits() bool { return len(k.err) == 0 }

// TestOpeningLimits: connections that show nothing take a bounded number of places, in total
// and by address. More are closed at once, without a byte, and counted.
func TestOpeningLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, newCA(t), 1, 1)
		e.MaxOpening, e.MaxOpeningPerAddress = 5, 2
		begun := time.Now()
		var in []knocking
		for i, try := range []struct {
			addr string
			ok   bool
		}{
			{"10.0.0.1:1", true}, {"10.0.0.1:2", true}, {"10.0.0.1:3", false}, {"[::ffff:10.0.0.1]:4", false},
			{"[fe80::1]:1", true}, {"[fe80::2]:1", true}, {"10.0.0.2:1", true}, {"10.0.0.3:1", false},
		} {
			k := knock(t, e, try.addr)
			if k.waits() != try.ok {
				t.Errorf("connection %d, of %s: waits %t, want %t", i, try.addr, k.waits(), try.ok)
			}
			if try.ok {
				in = append(in, k)
			} else if b, err := io.ReadAll(k); len(b) != 0 || err != nil || !strings.Contains((<-k.err).Error(), "closed at once") {
				t.Errorf("connection %d: %d bytes and %v, want the end", i, len(b), err)
			}
		}
		if n := e.Excess(); n != 3 || time.Since(begun) != 0 {
			t.Errorf("%d were closed at once after %s, want 3", n, time.Since(begun))
		}
		in[0].Close()
		synctest.Wait()
		if k := knock(t, e, "10.0.0.1:5"); !k.waits() {
			t.Error("the place of one that left is not free")
		}
		<-time.After(2 * openTimeout)
		synctest.Wait()
		if e.opening.total != 0 || len(e.opening.from) != 0 {
			t.Errorf("%d places are taken by nobody", e.opening.total)
		}
	})
}

// TestOpeningPlaceEnds: a connection that is open has no place among those being opened.
func TestOpeningPlaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, nil, 1, 1)
		for i := range 3 * defaultOpening {
			k := knock(t, e, "10.0.0.1:1")
			if _, err := k.Write(appendHello(nil, Hello{Device: deviceID(2), Grant: []byte("g")})); err != nil {
				t.Fatal(err)
			}
			if err := <-k.err; err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
		if n := e.Excess(); n != 0 {
			t.Errorf("%d were closed at once", n)
		}
		for i := range defaultOpeningPerAddress + 1 {
			if k := knock(t, e, "10.0.0.1:1"); k.waits() != (i < defaultOpeningPerAddress) {
				t.Errorf("connection %d of one address: waits %t", i, k.waits())
			}
		}
		<-time.After(openTimeout)
	})
}

// allocated returns the bytes that f allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestOpeningMemory: who has shown nothing costs little memory.
func TestOpeningMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		const n, each = 64, 32 << 10
		e := newEndpoint(t, ca, 1, 1)
		e.MaxOpeningPerAddress = n
		got := allocated(func() {
			for range n {
				if k := knock(t, e, "10.0.0.1:1"); !k.waits() {
					t.Fatal(<-k.err)
				}
			}
		})
		if got > n*each {
			t.Errorf("%d bytes for each connection that showed nothing, want at most %d", got/n, each)
		}
		<-time.After(openTimeout)
	})
}

// TestDrip: who sends its opening byte by byte has no more time for it than others.
func TestDrip(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		opening := appendHello(nil, Hello{Device: deviceID(2), Grant: []byte("g")})
		if ca != nil {
			opening = append([]byte{0x16, 3, 1, 2, 0}, make([]byte, 512)...) // the head of a TLS record
		}
		k := knock(t, newEndpoint(t, ca, 1, 1), "10.0.0.1:1")
		begun := time.Now()
		for i := 0; k.waits() && i < len(opening); i++ {
			k.Write(opening[i : i+1])
			<-time.After(time.Second)
		}
		if took := time.Since(begun); took > openTimeout+time.Second {
			t.Errorf("ended after %s", took)
		}
		if err := <-k.err; err == nil {
			t.Error("was let in")
		}
	})
	synctest.Test(t, func(t *testing.T) { // and a message no more than idleTimeout
		x, r := rawPair(t, 1)
		begun := time.Now()
		r.write([]byte{0, 0, 0x10, 0, 99})
		for ended := false; !ended; {
			r.Write([]byte{0})
			select {
			case <-x.ended:
				ended = true
			case <-time.After(time.Minute):
			}
		}
		if took := time.Since(begun); took > idleTimeout || !errors.Is(x.err, os.ErrDeadlineExceeded) {
			t.Errorf("ended after %s with %v", took, x.err)
		}
		stop(t, x)
	})
}

// TestAnnounced: what a message announces takes no memory before it comes.
func TestAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPair(t, 1)
		whole := wire.AppendBitfield(nil, make([]byte, wire.MaxBitfield))
		got := allocated(func() {
			r.write(whole[:wire.HeaderSize+1])
			synctest.Wait()
		})
		if got > wire.MaxBitfield/4 {
			t.Errorf("a message of %d bytes took %d before they came", wire.MaxBitfield, got)
		}
		r.write(whole[wire.HeaderSize+1:])
		if m := <-x.other; m != wire.Bitfield.String() {
			t.Errorf("got %s", m)
		}
		stop(t, x)
	})
}

// tally counts the reads and writes of a connection.
type tally struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *tally) Read(b []byte) (int, error)  { c.reads.Add(1); return c.Conn.Read(b) }
func (c *tally) Write(b []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(b) }

// TestJoined: runs move in large reads and writes, also under TLS, and a connection that has
// become idle holds no large buffer.
func TestJoined(t *testing.T) {
	inBubble(t, func(t *testing.T, ca *identity.CA) {
		s := newSample()
		a, b := newSide(t, newEndpoint(t, ca, 1, 4), s), newSide(t, newEndpoint(t, ca, 2, 4), s)
		ra, rb := memnet.Pipe(4 << 20)
		ta, tb := &tally{Conn: ra}, &tally{Conn: rb}
		conn, other := openOver(t, a.e, b.e, s.hoh, [2]net.Conn{ta, tb})
		a.start(t.Context(), conn)
		b.start(t.Context(), other)
		synctest.Wait()
		ta.reads.Store(0)
		tb.writes.Store(0)
		for run := range s.layout.Runs() {
			a.conn.Ask(s.layout, run, block64)
		}
		for range s.layout.Runs() {
			<-a.runs
		}
		const most = 4 * 2 * content.PieceSize / joinSize
		if n := tb.writes.Load(); n > most {
			t.Errorf("%d raw writes, want at most %d", n, most)
		}
		if n := ta.reads.Load(); n > most {
			t.Errorf("%d raw reads, want at most %d", n, most)
		}
		a.conn.Post(func(m []byte) []byte { return wire.AppendBitfield(m, make([]byte, 2*keepControl)) })
		<-b.other
		<-time.After(2 * keepAlive)
		for _, x := range []*side{a, b, a, b} { // two buffers for messages take turns
			<-time.After(keepAlive / 2)
			synctest.Wait()
			j := x.conn.join
			x.conn.mu.Lock()
			messages := cap(x.conn.out)
			x.conn.mu.Unlock()
			j.mu.Lock()
			out := j.outLarge != nil
			j.mu.Unlock()
			if ahead := j.aheadLarge != nil; ahead || out || messages > keepControl {
				t.Errorf("device %s keeps large buffers while idle: ahead %t, out %t, messages %d", x.e.Self, ahead, out, messages)
			}
		}
		stop(t, a, b)
	})
}

// next reads a message that the other end sent: its header, and its body.
func (r raw) next() (h wire.Header, body []byte) {
	r.t.Helper()
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		r.t.Fatal(err)
	}
	h, err := wire.ParseHeader(head[:])
	if err != nil {
		r.t.Fatal(err)
	}
	body = make([]byte, h.Body)
	if _, err := io.ReadFull(r, body); err != nil {
		r.t.Fatal(err)
	}
	return h, body
}

// block reads a block of run 0 of s that must begin there.
func (r raw) block(s *sample, begin, n int) {
	r.t.Helper()
	h, body := r.next()
	if want := wire.AppendPieceHeader(nil, 0, uint32(begin), n)[wire.HeaderSize:]; h.Kind != wire.Piece || h.Data() != n || !bytes.Equal(body[:8], want) {
		r.t.Fatalf("%v, %d bytes, % x; want %d bytes from %d", h.Kind, h.Body, body[:min(8, len(body))], n, begin)
	}
	if !bytes.Equal(body[8:], s.run(0)[begin:begin+n]) {
		r.t.Errorf("block at %d has other bytes", begin)
	}
}

// quarter of a run: a block that is too long to wait for others, so that the writer is in the
// midst of it while the peer does not read.
const quarter = content.PieceSize / 4

// TestRunInParts: blocks of a run that are asked for while it is sent go with it: the run is
// sent once, and counted by its bytes.
func TestRunInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPairOver(t, 1, 1024)
		for begin := 0; begin < content.PieceSize; begin += quarter {
			r.write(wire.AppendRequest(nil, 0, uint32(begin), quarter))
			synctest.Wait() // the writer is in the midst of the first block
		}
		for begin := 0; begin < content.PieceSize; begin += quarter {
			r.block(x.s, begin, quarter)
		}
		synctest.Wait()
		if sends, n := x.did(); sends != 1 || n != content.PieceSize {
			t.Errorf("%d sends of together %d bytes, want 1 of %d", sends, n, content.PieceSize)
		}
		r.write(wire.AppendRequest(nil, 0, 5, 7)) // when it was sent, it begins anew
		r.block(x.s, 5, 7)
		synctest.Wait()
		if sends, n := x.did(); sends != 2 || n != content.PieceSize+7 {
			t.Errorf("%d sends of together %d bytes, want 2 of %d", sends, n, content.PieceSize+7)
		}
		stop(t, x)
	})
}

// TestCancelWhileSending: a Cancel takes effect after the block that is being written, what is
// asked for anew after it is sent, and nothing that was not sent is counted.
func TestCancelWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPairOver(t, 1, 1024)
		ask := func() {
			for begin := 0; begin < content.PieceSize; begin += quarter {
				r.write(wire.AppendRequest(nil, 0, uint32(begin), quarter))
			}
			synctest.Wait()
		}
		ask()
		r.write(wire.AppendCancel(nil, 0, 0, content.PieceSize))
		<-x.other
		r.block(x.s, 0, quarter)
		synctest.Wait()
		if sends, n := x.did(); sends != 1 || n != quarter {
			t.Errorf("%d sends of %d bytes, want 1 of %d", sends, n, quarter)
		}
		ask()
		r.write(wire.AppendCancel(nil, 0, 0, content.PieceSize))
		<-x.other
		ask()
		r.block(x.s, 0, quarter)
		for begin := 0; begin < content.PieceSize; begin += quarter {
			r.block(x.s, begin, quarter)
		}
		synctest.Wait()
		if sends, n := x.did(); sends != 2 || n != content.PieceSize+2*quarter {
			t.Errorf("%d sends of %d bytes, want 2 of %d", sends, n, content.PieceSize+2*quarter)
		}
		if x.conn.blocks != 0 || len(x.conn.wanted) != 0 {
			t.Errorf("%d blocks of %d runs are still wanted", x.conn.blocks, len(x.conn.wanted))
		}
		stop(t, x)
	})
}

// TestAskedAgain: nobody keeps an upload slot by asking for the run that is being sent, for
// ever.
func TestAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPairOver(t, 1, 1024)
		var got string
		for n := 0; got == "" || got == "cancel"; n++ {
			if n > maxTimes {
				t.Fatalf("asked %d times", n)
			}
			r.write(wire.AppendRequest(nil, 0, 0, content.PieceSize))
			synctest.Wait()
			r.Write(wire.AppendCancel(nil, 0, 0, content.PieceSize)) // or the end has come
			got = <-x.other
		}
		if !strings.Contains(got, "again and again") {
			t.Error(got)
		}
		<-x.ended
		stop(t, x)
	})
}

// TestSteadyReader: a slow peer that takes bytes all the time is served to the end.
func TestSteadyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPairOver(t, 1, 1024)
		r.write(wire.AppendRequest(nil, 0, 0, content.PieceSize))
		begun := time.Now()
		var got bytes.Buffer
		for range content.PieceSize / block64 {
			<-time.After(writeTimeout / 5)
			if _, err := io.CopyN(&got, r, block64); err != nil {
				t.Fatalf("after %d bytes and %s: %v", got.Len(), time.Since(begun), err)
			}
		}
		if took := time.Since(begun); took < 2*writeTimeout {
			t.Errorf("was not slow: %s", took)
		}
		if !bytes.Equal(got.Bytes()[wire.PieceHeaderSize:], x.s.run(0)[:content.PieceSize-wire.PieceHeaderSize]) {
			t.Error("other bytes came")
		}
		go io.Copy(io.Discard, r)
		stop(t, x)
	})
}

// TestUnreadMessages: messages of every sort that wait for a peer which reads nothing are
// bounded, whoever causes them, and so is what is said after the end.
func TestUnreadMessages(t *testing.T) {
	for name, say := range map[string]func(x *side, r raw){
		"haves": func(x *side, _ raw) { x.conn.Post(func(b []byte) []byte { return wire.AppendHave(b, 1) }) },
		"requests": func(x *side, _ raw) {
			x.conn.Ask(x.s.layout, 0, 512)
			x.conn.Cancel(x.s.layout, 0)
		},
		"parts": func(_ *side, r raw) { r.Write(wire.AppendGet(nil, wire.GetManifest, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, r := rawPairOver(t, 1, 1024)
				x.other = make(chan string, 1<<20)
				part := make([]byte, wire.MaxPart)
				parts := 0
				x.hook = func(m wire.Message) {
					if m.Kind == wire.Envelope {
						parts++
						x.conn.Post(func(b []byte) []byte {
							return wire.AppendPart(b, wire.Part{Of: wire.GetManifest, Total: wire.MaxPart, Frame: part})
						})
					}
				}
				closed, most := false, 0
				for !closed {
					if most > 4*maxControl {
						t.Fatal("there is no bound")
					}
					say(x, r)
					x.conn.mu.Lock()
					closed, most = x.conn.closed, max(most, cap(x.conn.out))
					x.conn.mu.Unlock()
				}
				if most > 2*maxControl {
					t.Errorf("%d bytes waited", most)
				}
				<-x.ended
				if n := parts * wire.MaxPart; n > 3*maxControl {
					t.Errorf("%d bytes of parts were made for a peer that reads none", n)
				}
				say(x, r)
				if len(x.conn.out) != 0 {
					t.Error("a closed connection keeps messages")
				}
				stop(t, x)
			})
		})
	}
}

// TestSlowHandler: messages that the handler has no time for wait at the peer's end.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, r := rawPairOver(t, 1, 64<<10)
		x.other = make(chan string, 1<<20)
		busy := make(chan struct{})
		x.hook = func(wire.Message) { <-busy }
		var wrote atomic.Int64
		all := make(chan struct{})
		go func() {
			defer close(all)
			for range 1 << 10 {
				r.write(bytes.Repeat(wire.AppendHave(nil, 1), 100))
				wrote.Add(900)
			}
		}()
		synctest.Wait()
		if n := wrote.Load(); n > 64<<10+2*joinSize {
			t.Errorf("%d bytes of messages were taken for a handler that is busy", n)
		}
		close(busy)
		<-all
		stop(t, x)
	})
}
