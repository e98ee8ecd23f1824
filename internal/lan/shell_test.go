package lan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// segment is a subnet in memory. Everyone on it hears what is sent to all, the sender too, as
// with multicast loopback.
type segment struct {
	mu   sync.Mutex // guards the following
	open map[*memSocket]bool
}

func newSegment() *segment { return &segment{open: map[*memSocket]bool{}} }

func (g *segment) sockets() []*memSocket {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*memSocket
	for s := range g.open {
		all = append(all, s)
	}
	return all
}

type memSocket struct {
	segment *segment
	at      netip.AddrPort
	heard   func(netip.AddrPort, []byte) Reason
	ended   chan struct{}
}

func (s *memSocket) SendAll(b []byte) error {
	for _, to := range s.segment.sockets() {
		to.heard(s.at, b)
	}
	return nil
}

func (s *memSocket) SendTo(b []byte, to netip.AddrPort) error {
	for _, o := range s.segment.sockets() {
		if o.at == to {
			o.heard(s.at, b)
			return nil
		}
	}
	return errors.New("nobody is there")
}

func (s *memSocket) Ended() <-chan struct{} { return s.ended }

func (s *memSocket) Close() error {
	s.segment.mu.Lock()
	defer s.segment.mu.Unlock()
	delete(s.segment.open, s)
	return nil
}

// host is a machine's interfaces: each link is on a segment.
type host struct {
	mu       sync.Mutex // guards the following
	segments map[Link]*segment
	broken   error // of Open
	opened   int
	last     *memSocket
}

func (h *host) Links() ([]Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Link
	for l := range h.segments {
		all = append(all, l)
	}
	return all, nil
}

func (h *host) Open(l Link, heard func(netip.AddrPort, []byte) Reason) (Socket, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		return nil, h.broken
	}
	g := h.segments[l]
	s := &memSocket{segment: g, at: netip.AddrPortFrom(l.Local.Addr(), Port), heard: heard, ended: make(chan struct{})}
	g.mu.Lock()
	g.open[s] = true
	g.mu.Unlock()
	h.opened++
	h.last = s
	return s, nil
}

func (h *host) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func link(index int, local string) Link {
	return Link{Index: index, Name: fmt.Sprint("eth", index), Local: netip.MustParsePrefix(local)}
}

// agent is a LAN on a host, and what it heard.
type agent struct {
	*LAN
	*host
	mu    sync.Mutex // guards heard
	heard []Datagram
}

func (a *agent) take() []Datagram {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.heard
	a.heard = nil
	return all
}

// messages names what was heard since the last call.
func (a *agent) messages() string {
	synctest.Wait()
	var all []string
	for _, d := range a.take() {
		all = append(all, string(d.Message))
	}
	return strings.Join(all, " ")
}

// start runs device n of group lab on a host until the test ends.
func start(t *testing.T, n int, h *host, change func(*Options)) *agent {
	t.Helper()
	c := newClock()
	a := &agent{host: h}
	opt := Options{Trust: Trust{Self: device(n), Now: c.now}, Network: h}
	opt.Handle = func(d Datagram) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.heard = append(a.heard, d)
	}
	if change != nil {
		change(&opt)
	}
	a.LAN = New(opt)
	a.SetKeys(labKeys(t), signers())
	a.SetSpeaker(speaker(t, n, "lab"), uint16(7000+n))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(a.LAN.Links()) != 0 {
			t.Error("links are open after the end")
		}
	})
	synctest.Wait()
	return a
}

func on(g *segment, links ...Link) *host {
	h := &host{segments: map[Link]*segment{}}
	for _, l := range links {
		h.segments[l] = g
	}
	return h
}

func wantSent(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func wantMessages(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s heard %q, want %q", what, got, want)
	}
}

func TestSendToAllAndToOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newSegment()
		a := start(t, 1, on(g, link(2, "10.0.0.1/24")), nil)
		b := start(t, 2, on(g, link(2, "10.0.0.2/24")), nil)
		c := start(t, 3, on(g, link(2, "10.0.0.3/24")), nil)
		wantSent(t, a.Send(0, []byte("question")))
		synctest.Wait()
		heard := b.take()
		if len(heard) != 1 {
			t.Fatalf("heard %d datagrams, want 1", len(heard))
		}
		d := heard[0]
		swarm, ok := d.Swarm()
		if d.Sender != (Sender{device(1), "lab", 7001}) || d.From.String() != "10.0.0.1:7680" || d.Link != link(2, "10.0.0.2/24") ||
			!ok || swarm.String() != "10.0.0.1:7001" || string(d.Message) != "question" {
			t.Errorf("heard %+v", d)
		}
		wantMessages(t, "the third", c.messages(), "question")
		wantMessages(t, "the sender", a.messages(), "")
		if got := a.Drops()["own"]; got != 1 {
			t.Errorf("own datagrams counted %d times, want once", got)
		}
		wantSent(t, b.SendTo(d.Link.Index, d.From, []byte("answer")))
		wantMessages(t, "the asker", a.messages(), "answer")
		wantMessages(t, "the third", c.messages(), "")
		if err := b.SendTo(2, netip.MustParseAddrPort("10.0.1.1:7680"), []byte("m")); !errors.Is(err, ErrOff) {
			t.Errorf("to an address of another subnet: %v", err)
		}
		if err := b.SendTo(2, netip.MustParseAddrPort("10.0.0.9:7680"), []byte("m")); err == nil || errors.Is(err, ErrOff) {
			t.Errorf("to nobody: %v", err)
		}
	})
}

// TestBothProtocolsAreOne: what comes by IPv4 and IPv6 is handled once.
func TestBothProtocolsAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g4, g6 := newSegment(), newSegment()
		both := func(n int) *host {
			h := on(g4, link(2, fmt.Sprintf("10.0.0.%d/24", n)))
			h.segments[link(2, fmt.Sprintf("fe80::%d/64", n))] = g6
			return h
		}
		a, b := start(t, 1, both(1), nil), start(t, 2, both(2), nil)
		wantSent(t, a.Send(2, []byte("m")))
		wantMessages(t, "the other", b.messages(), "m")
		if d := b.Drops(); d["taken"] != 1 || d["replay"] != 1 {
			t.Errorf("counts %v, want one taken and one that came before", d)
		}
	})
}

// TestSubnetsAreApart: a message goes out of the interface that it is for.
func TestSubnetsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g1, g2 := newSegment(), newSegment()
		h := on(g1, link(1, "10.1.0.1/24"))
		h.segments[link(2, "10.2.0.1/24")] = g2
		a := start(t, 1, h, nil)
		b, c := start(t, 2, on(g1, link(5, "10.1.0.2/24")), nil), start(t, 3, on(g2, link(5, "10.2.0.2/24")), nil)
		wantSent(t, a.Send(1, []byte("first")))
		wantSent(t, a.Send(2, []byte("second")))
		wantSent(t, a.Send(0, []byte("all")))
		wantMessages(t, "subnet 1", b.messages(), "first all")
		wantMessages(t, "subnet 2", c.messages(), "second all")
		if err := a.Send(3, []byte("m")); !errors.Is(err, ErrOff) {
			t.Errorf("an interface that is not there: %v", err)
		}
	})
}

func TestInterfacesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newSegment()
		one, two := link(1, "10.0.0.1/24"), link(1, "10.0.0.7/24")
		var linked []string
		tell := func(o *Options) { o.Linked = func(now []Link) { linked = append(linked, fmt.Sprint(now)) } }
		a, b := start(t, 1, on(g), tell), start(t, 2, on(g, link(1, "10.0.0.2/24")), nil)
		if err := a.Send(0, []byte("m")); !errors.Is(err, ErrOff) {
			t.Errorf("no interface: %v", err)
		}
		set := func(links ...Link) {
			a.set(func() {
				clear(a.segments)
				for _, l := range links {
					a.segments[l] = g
				}
			})
			<-time.After(DefaultPoll)
			synctest.Wait()
		}
		set(one)
		wantSent(t, a.Send(0, []byte("came")))
		set(two)
		if got := a.LAN.Links(); !slices.Equal(got, []Link{two}) {
			t.Errorf("links %v, want the one with the new address alone", got)
		}
		wantSent(t, a.Send(0, []byte("moved")))
		set(two)
		if a.opened != 2 {
			t.Errorf("%d links were opened, want 2: what stays is left alone", a.opened)
		}
		close(a.last.ended)
		set(two)
		if a.opened != 3 {
			t.Errorf("%d links were opened, want 3: one ended and is there", a.opened)
		}
		wantSent(t, a.Send(0, []byte("again")))
		set()
		if err := a.Send(0, []byte("m")); !errors.Is(err, ErrOff) {
			t.Errorf("no interface any more: %v", err)
		}
		wantMessages(t, "the other", b.messages(), "came moved again")
		if got, want := strings.Join(linked, " "), fmt.Sprint([]Link{}, []Link{one}, []Link{two}, []Link{}); got != want {
			t.Errorf("told of the links %s, want %s: at first and when they change", got, want)
		}
	})
}

// TestOff: the switch closes the sockets, and opens them again.
func TestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newSegment()
		var mu sync.Mutex
		is := false
		a := start(t, 1, on(g, link(1, "10.0.0.1/24")), func(o *Options) {
			o.On = func() bool { mu.Lock(); defer mu.Unlock(); return is }
		})
		for _, want := range []bool{false, true, false} {
			mu.Lock()
			is = want
			mu.Unlock()
			<-time.After(DefaultPoll)
			synctest.Wait()
			if got := len(g.sockets()) == 1; got != want {
				t.Errorf("switch %v: %d sockets are open", want, len(g.sockets()))
			}
			if err := a.Send(0, []byte("m")); errors.Is(err, ErrOff) == want {
				t.Errorf("switch %v: send: %v", want, err)
			}
		}
	})
}

// TestOpenIsTriedAgain: a link that does not open is told of once, and opened when it can be.
func TestOpenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := on(newSegment(), link(1, "10.0.0.1/24"))
		h.broken = errors.New("not ready yet")
		var log bytes.Buffer
		a := start(t, 1, h, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		h.set(func() { h.broken = errors.New("no such device") })
		<-time.After(10 * DefaultPoll)
		synctest.Wait()
		if strings.Contains(log.String(), "not ready yet") {
			t.Errorf("told of what was over at the next look:\n%s", &log)
		}
		if n := strings.Count(log.String(), "no such device"); n != 1 {
			t.Errorf("told %d times, want once:\n%s", n, &log)
		}
		h.set(func() { h.broken = nil })
		<-time.After(DefaultPoll)
		synctest.Wait()
		wantSent(t, a.Send(0, []byte("m")))
	})
}

func TestForeignAndBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newSegment()
		l := link(1, "10.0.0.1/24")
		hold := make(chan struct{})
		a := start(t, 1, on(g, l), func(o *Options) { o.Handle = func(Datagram) { <-hold } })
		s := sealer(t, newClock(), 2)
		for _, from := range []string{"10.0.1.2:7680", "10.0.0.255:7680", "10.0.0.2:0", "239.255.76.80:7680", "[fe80::1]:7680"} {
			a.LAN.heard(l, netip.MustParseAddrPort(from), mustSeal(t, s, "m"))
		}
		if d := a.Drops(); len(d) != 1 || d["foreign"] != 5 {
			t.Errorf("counts %v, want five foreign", d)
		}
		for range maxWaiting + 3 {
			a.LAN.heard(l, netip.MustParseAddrPort("10.0.0.2:7680"), mustSeal(t, s, "m"))
			synctest.Wait()
		}
		if d := a.Drops(); d["taken"] != maxWaiting+1 || d["busy"] != 2 {
			t.Errorf("counts %v, want %d taken and 2 while busy", d, maxWaiting+1)
		}
		close(hold)
	})
}

func TestSendWithoutKeys(t *testing.T) {
	l := New(Options{Trust: Trust{Now: time.Now}, Network: on(newSegment())})
	if err := l.Send(0, []byte("m")); !errors.Is(err, ErrNoKey) {
		t.Errorf("got %v, want %v", err, ErrNoKey)
	}
}

func TestHolds(t *testing.T) {
	v4, v6 := link(2, "10.0.0.1/24"), link(2, "fe80::1/64")
	for a, want := range map[string]struct{ v4, v6 bool }{
		"10.0.0.9": {true, false}, "::ffff:10.0.0.9": {true, false}, "10.0.1.9": {}, "10.0.0.255": {}, "239.255.76.80": {},
		"fe80::9": {false, true}, "fe80::9%" + v6.Name: {false, true}, "fe80::9%other": {}, "ff12::7680": {},
	} {
		at := netip.MustParseAddr(a)
		if got := v4.Holds(at); got != want.v4 {
			t.Errorf("%s on %s: %v, want %v", a, v4.Local, got, want.v4)
		}
		if got := v6.Holds(at); got != want.v6 {
			t.Errorf("%s on %s: %v, want %v", a, v6.Local, got, want.v6)
		}
	}
}

func TestBroadcastOf(t *testing.T) {
	for p, want := range map[string]string{
		"10.0.0.1/24": "10.0.0.255", "10.0.5.1/22": "10.0.7.255", "127.0.0.1/8": "127.255.255.255",
		"10.0.0.1/31": "invalid IP", "10.0.0.1/32": "invalid IP", "fe80::1/64": "invalid IP",
	} {
		if got := broadcastOf(netip.MustParsePrefix(p)); got.String() != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}
