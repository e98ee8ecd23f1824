package lan

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestLinksOf(t *testing.T) {
	eth := &net.Interface{Index: 2, Name: "eth0", Flags: net.FlagUp | net.FlagBroadcast | net.FlagMulticast}
	lo := &net.Interface{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback}
	for name, tt := range map[string]struct {
		ifi   *net.Interface
		local string
		own   []string
		want  []string
	}{
		"both":                 {eth, "", []string{"10.0.0.5/24", "2001:db8::5/64", "fe80::5/64"}, []string{"10.0.0.5/24", "fe80::5/64"}},
		"the first of several": {eth, "0.0.0.0", []string{"10.0.0.5/24", "10.9.0.5/24"}, []string{"10.0.0.5/24"}},
		"no link-local":        {eth, "", []string{"2001:db8::5/64"}, nil},
		"no subnet":            {eth, "", []string{"10.0.0.5/32"}, nil},
		"nothing":              {eth, "", nil, nil},
		"own IPv4":             {eth, "10.9.0.5", []string{"10.0.0.5/24", "10.9.0.5/24", "fe80::5/64"}, []string{"10.9.0.5/24"}},
		"own IPv6":             {eth, "2001:db8::5", []string{"10.0.0.5/24", "2001:db8::5/64", "fe80::5/64"}, []string{"fe80::5/64"}},
		"elsewhere":            {eth, "10.7.0.5", []string{"10.0.0.5/24", "fe80::5/64"}, nil},
		"a neighbour's":        {eth, "10.0.0.6", []string{"10.0.0.5/24"}, nil},
		"loopback":             {lo, "", []string{"127.0.0.1/8", "::1/128"}, nil},
		"own loopback":         {lo, "127.1.2.3", []string{"127.0.0.1/8", "::1/128"}, []string{"127.1.2.3/8"}},
	} {
		u := UDP{}
		if tt.local != "" {
			u.Local = netip.MustParseAddr(tt.local)
		}
		var own []netip.Prefix
		for _, p := range tt.own {
			own = append(own, netip.MustParsePrefix(p))
		}
		var got []string
		for _, l := range u.linksOf(tt.ifi, own) {
			if l.Index != tt.ifi.Index || l.Name != tt.ifi.Name {
				t.Errorf("%s: link %+v", name, l)
			}
			got = append(got, l.Local.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	got := prefixes([]net.Addr{
		&net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(120, 128)}, &net.IPNet{IP: net.IPv4(10, 0, 0, 2), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}, &net.IPAddr{IP: net.IPv4(10, 0, 0, 3)},
	})
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fe80::1/64")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// real is a LAN on this machine's interfaces, whose datagrams come by a channel.
type real struct {
	*LAN
	heard chan Datagram
}

func newReal(t *testing.T, n int, u UDP) *real {
	t.Helper()
	r := &real{heard: make(chan Datagram, 16)}
	c := newClock()
	r.LAN = New(Options{Trust: Trust{Self: device(n), Now: c.now}, Network: u, Handle: func(d Datagram) { r.heard <- d }})
	r.SetKeys(labKeys(t), signers())
	r.SetSpeaker(speaker(t, n, "lab"), 7680)
	return r
}

// run runs r until the test ends, and returns when its links are open.
func (r *real) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); len(r.Links()) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no link opened")
		}
		<-time.After(time.Millisecond)
	}
}

func (r *real) want(t *testing.T, message string) Datagram {
	t.Helper()
	select {
	case d := <-r.heard:
		if string(d.Message) != message {
			t.Fatalf("heard %q, want %q", d.Message, message)
		}
		return d
	case <-time.After(5 * time.Second):
		t.Fatalf("%q was not heard; counts %v", message, r.Drops())
	}
	return Datagram{}
}

// freePort returns a UDP port that is free on all of these addresses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// TestUDPOnOneMachine: three agents of one machine, two of them at one address, hear each
// other, and answers reach the one that asked.
func TestUDPOnOneMachine(t *testing.T) {
	port := freePort(t)
	at := func(n int, addr string) *real {
		r := newReal(t, n, UDP{Port: port, Local: netip.MustParseAddr(addr)})
		r.run(t)
		return r
	}
	a, b, c := at(1, "127.0.0.1"), at(2, "127.0.0.1"), at(3, "127.0.3.3")
	if err := a.Send(0, []byte("question")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*real{b, c} {
		d := r.want(t, "question")
		if err := r.SendTo(d.Link.Index, d.From, []byte("answer")); err != nil {
			t.Fatal(err)
		}
		if d := a.want(t, "answer"); d.From.Addr() != r.Links()[0].Local.Addr() {
			t.Errorf("the answer is from %s, want %s", d.From, r.Links()[0].Local)
		}
	}
	if err := c.Send(0, []byte("from the third")); err != nil {
		t.Fatal(err)
	}
	d := a.want(t, "from the third")
	b.want(t, "from the third")
	if d.From != netip.AddrPortFrom(netip.MustParseAddr("127.0.3.3"), port) {
		t.Errorf("heard from %s, want the port that is agreed on", d.From)
	}
	if len(a.heard)+len(b.heard)+len(c.heard) != 0 {
		t.Error("something was heard twice, or by another one")
	}
}

func TestUDPOpenSaysWhy(t *testing.T) {
	for name, l := range map[string]Link{
		"no interface":   {Index: 1 << 20, Name: "eth77", Local: netip.MustParsePrefix("10.0.0.1/24")},
		"no own address": {Index: 1, Name: "lo", Local: netip.MustParsePrefix("192.0.2.77/24")},
	} {
		s, err := UDP{}.Open(l, func(netip.AddrPort, []byte) Reason { return Taken })
		if err == nil || s != nil {
			t.Errorf("%s: it opened", name)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v hides the cause", name, err)
		}
	}
}
