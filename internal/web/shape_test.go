package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeListener hands out the server ends of pipes.
type fakeListener struct {
	conns chan net.Conn
	once  sync.Once
}

func newFakeListener(c net.Conn) *fakeListener {
	l := &fakeListener{conns: make(chan net.Conn, 1)}
	l.conns <- addrConn{c, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 1}}
	return l
}

func (l *fakeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.conns) })
	return nil
}

func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{} }

// addrConn is a pipe's end with an address.
type addrConn struct {
	net.Conn
	remote net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.remote }

// link returns both ends of a pipe, the server's as a listener wrapped by wrap gives it.
func link(t *testing.T, wrap func(net.Listener) net.Listener) (server, client net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	server, err := wrap(newFakeListener(a)).Accept()
	if err != nil {
		t.Fatal(err)
	}
	return server, b
}

func shaped(b *Bucket) func(net.Listener) net.Listener {
	return func(ln net.Listener) net.Listener { return Shape(ln, func(netip.Addr) *Bucket { return b }) }
}

func mustBucket(t *testing.T, rate, burst int64) *Bucket {
	t.Helper()
	b, err := NewBucket(rate, burst)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// arrivals records what arrives, and when.
type arrivals struct {
	mu    sync.Mutex // guards the following
	at    []time.Duration
	bytes []int
	from  []int
}

// drain reads c until it ends.
func (a *arrivals) drain(c net.Conn, from int, start time.Time) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		a.mu.Lock()
		a.at, a.bytes, a.from = append(a.at, time.Since(start)), append(a.bytes, n), append(a.from, from)
		a.mu.Unlock()
	}
}

// Over every span of time the bucket passes at most rate × t + burst, shared evenly, and no
// less than the rate while there is something to send.
func TestBucketIsFairAndExact(t *testing.T) {
	const rate, burst, conns, each = 1_000_000, 64 << 10, 5, 1 << 20
	synctest.Test(t, func(t *testing.T) {
		b, start, got := mustBucket(t, rate, burst), time.Now(), &arrivals{}
		var done sync.WaitGroup
		for i := range conns {
			server, client := link(t, shaped(b))
			done.Go(func() { got.drain(client, i, start) })
			done.Go(func() {
				if n, err := server.Write(make([]byte, each)); n != each || err != nil {
					t.Errorf("Write = %d, %v", n, err)
				}
				server.Close()
			})
		}
		done.Wait()
		var total int
		share := make([]int, conns)
		for i, n := range got.bytes {
			if n > shapeChunk {
				t.Fatalf("a chunk of %d bytes", n)
			}
			total += n
			if got.at[i] > 0 && total < conns*(each-burst) { // all have asked, and none is done
				share[got.from[i]] += n
			}
			if lo, hi := slices.Min(share), slices.Max(share); hi-lo > shapeChunk {
				t.Fatalf("after %v: shares %v are more than a chunk apart", got.at[i], share)
			}
		}
		checkSpans(t, got, rate, burst)
		want := time.Duration(float64(total-burst) / rate * float64(time.Second))
		if took := time.Since(start); took < want || took > want+want/1000 {
			t.Errorf("%d bytes took %v, want %v", total, took, want)
		}
	})
}

// checkSpans checks rate × t + burst between any two arrivals.
func checkSpans(t *testing.T, got *arrivals, rate, burst float64) {
	t.Helper()
	for i := range got.at {
		var sum float64
		for j := i; j < len(got.at); j++ {
			sum += float64(got.bytes[j])
			if allowed := rate*(got.at[j]-got.at[i]).Seconds() + burst; sum > allowed+1 {
				t.Fatalf("between %v and %v passed %.0f bytes, allowed are %.0f", got.at[i], got.at[j], sum, allowed)
			}
		}
	}
}

// An idle bucket fills up to its burst and no further.
func TestBucketFillsToBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst = 100_000, 20_000
		server, client := link(t, shaped(mustBucket(t, rate, burst)))
		start, got := time.Now(), &arrivals{}
		go got.drain(client, 0, start)
		for range 3 {
			if _, err := server.Write(make([]byte, 50_000)); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Hour)
		}
		server.Close()
		synctest.Wait()
		checkSpans(t, got, rate, burst)
	})
}

func TestShapedWriteEndsEarly(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(net.Conn)
		want error
	}{
		"deadline before": {func(c net.Conn) { c.SetWriteDeadline(time.Now().Add(2 * time.Second)) }, os.ErrDeadlineExceeded},
		"deadline during": {func(c net.Conn) { time.AfterFunc(2*time.Second, func() { c.SetDeadline(time.Now()) }) }, os.ErrDeadlineExceeded},
		"moved deadline": {func(c net.Conn) {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			time.AfterFunc(time.Second/2, func() { c.SetWriteDeadline(time.Now().Add(1500 * time.Millisecond)) })
		}, os.ErrDeadlineExceeded},
		"close": {func(c net.Conn) { time.AfterFunc(2*time.Second, func() { c.Close() }) }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := link(t, shaped(mustBucket(t, 1000, 1000)))
				go io.Copy(io.Discard, client)
				start := time.Now()
				tt.end(server)
				n, err := server.Write(make([]byte, 100_000))
				if !errors.Is(err, tt.want) || time.Since(start) != 2*time.Second {
					t.Errorf("after %v: %d, %v; want %v after 2 s", time.Since(start), n, err, tt.want)
				}
				if n < 1000 || n > 3000 {
					t.Errorf("%d bytes were written, want what the bucket passes in 2 s", n)
				}
				server.SetWriteDeadline(time.Time{})
				if _, err := server.Write([]byte{1}); tt.want == os.ErrDeadlineExceeded && err != nil {
					t.Errorf("after the deadline was taken back: %v", err)
				}
				server.Close()
				client.Close()
			})
		})
	}
}

func TestNewBucketRefuses(t *testing.T) {
	for _, tt := range [][2]int64{{0, 1}, {-1, 1}, {1, 0}, {1, MaxBurst + 1}} {
		if _, err := NewBucket(tt[0], tt[1]); err == nil {
			t.Errorf("NewBucket(%d, %d) was made", tt[0], tt[1])
		}
	}
}

func TestShapeLeavesOthersAlone(t *testing.T) {
	server, _ := link(t, shaped(nil))
	if _, ok := server.(*shapeConn); ok {
		t.Error("a connection without a bucket is shaped")
	}
}

func TestMeter(t *testing.T) {
	m := NewMetrics()
	meter := NewMeter(m, func(a netip.Addr) string { return "site of " + a.String() })
	server, client := link(t, meter.Listener)
	go func() {
		client.Write(make([]byte, 300))
		io.ReadFull(client, make([]byte, 70))
		client.Close()
	}()
	if n, err := io.ReadFull(server, make([]byte, 300)); err != nil {
		t.Fatal(n, err)
	}
	if n, err := server.Write(make([]byte, 100)); n != 70 || err == nil {
		t.Errorf("Write to one who leaves = %d, %v; want 70 and an error", n, err)
	}
	const site = "site of 10.0.0.7"
	text := metricsText(t, m)
	checkContains(t, text, fmt.Sprintf("freshet_wan_received_bytes_total{site=%q} 300\n", site))
	checkContains(t, text, fmt.Sprintf("freshet_wan_sent_bytes_total{site=%q} 70\n", site))
}

// The bucket finds the socket below a meter, to shorten its send buffer.
func TestSendBufferBelowWrappers(t *testing.T) {
	c := &bufferConn{}
	setSendBuffer(&meterConn{Conn: &shapeConn{Conn: c}})
	if c.size != sendBuffer {
		t.Errorf("send buffer %d, want %d", c.size, sendBuffer)
	}
}

type bufferConn struct {
	net.Conn
	size int
}

func (c *bufferConn) SetWriteBuffer(n int) error {
	c.size = n
	return nil
}

func TestRemoteAddr(t *testing.T) {
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.ParseIP("::ffff:10.1.2.3"), Port: 1}, "10.1.2.3"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1"},
		{&net.UnixAddr{Name: "x"}, "invalid IP"},
		{nil, "invalid IP"},
	} {
		if got := remoteAddr(addrConn{nil, tt.addr}).String(); got != tt.want {
			t.Errorf("remoteAddr(%v) = %s, want %s", tt.addr, got, tt.want)
		}
	}
}
