package lan

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// space is a network namespace with a LAN in it. Whatever needs the namespace runs on its one
// thread, which ends with the test, and the namespace with it.
type space struct {
	*real
	t    *testing.T
	path string // of the namespace
	do   chan func()
}

func newSpace(t *testing.T, n int) *space {
	t.Helper()
	s := &space{t: t, do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range s.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	s.in(func() { s.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()) })
	s.real = newReal(t, n, UDP{})
	t.Cleanup(func() {
		s.in(func() { s.rescan(nil) })
		close(s.do)
	})
	return s
}

// in runs f in the namespace.
func (s *space) in(f func()) {
	done := make(chan struct{})
	s.do <- func() { defer close(done); f() }
	<-done
}

func (s *space) sh(script string) {
	s.t.Helper()
	var out []byte
	var err error
	s.in(func() { out, err = exec.Command("sh", "-ec", script).CombinedOutput() })
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// poll looks at the interfaces until so many links are open.
func (s *space) poll(want int) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		s.in(s.LAN.poll)
		got := len(s.Links())
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d links are open, want %d: %v", got, want, s.Links())
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (s *space) send(message string) {
	s.t.Helper()
	var err error
	s.in(func() { err = s.Send(0, []byte(message)) })
	if err != nil {
		s.t.Fatal(err)
	}
}

// want waits for a message; others are not expected.
func (s *space) want(message string) Datagram {
	s.t.Helper()
	select {
	case d := <-s.LAN.in:
		if string(d.Message) != message {
			s.t.Fatalf("heard %q, want %q", d.Message, message)
		}
		return d
	case <-time.After(5 * time.Second):
		s.t.Fatalf("%q was not heard; counts %v", message, s.Drops())
	}
	return Datagram{}
}

func (s *space) socket(is4 bool) *udpSocket {
	s.t.Helper()
	for l, k := range s.links {
		if l.Local.Addr().Is4() == is4 {
			return k.(*udpSocket)
		}
	}
	s.t.Fatal("no such link")
	return nil
}

// TestTwoMachines connects two network namespaces by a veth pair.
func TestTwoMachines(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	a, b := newSpace(t, 1), newSpace(t, 2)
	b.sh("ip link set lo up")
	a.sh("ip link set lo up; ip link add fsa type veth peer name fsb; ip link set fsb netns " + b.path)
	up := func(s *space, name, addr string) {
		s.sh(fmt.Sprintf("[ ! -e /proc/sys/net/ipv6/conf/%[1]s/accept_dad ] || sysctl -qw net.ipv6.conf.%[1]s.accept_dad=0; ip addr add %[2]s/24 dev %[1]s; ip link set %[1]s up", name, addr))
	}
	up(a, "fsa", "10.9.0.1")
	up(b, "fsb", "10.9.0.2")
	protocols := 1
	if out, err := os.ReadFile("/proc/net/if_inet6"); err == nil && len(out) > 0 {
		protocols = 2
	}
	a.poll(protocols)
	b.poll(protocols)

	testMulticast(t, a, b)
	if protocols == 2 {
		testIPv6(t, a, b)
	}
	testBroadcast(t, a, b)
	testLonely(t, a, b)
	for _, s := range []*space{a, b} { // as before testBroadcast
		s.in(func() { s.rescan(nil) })
		s.poll(protocols)
	}
	a.sh("ip addr flush dev fsa scope global; ip addr add 10.9.0.7/24 dev fsa")
	a.poll(protocols)
	a.send("moved")
	d := b.want("moved")
	if from := d.From.Addr(); from.Is4() && from != netip.MustParseAddr("10.9.0.7") {
		t.Errorf("after an address change heard from %s, want the new address", from)
	}
	a.sh("ip link del fsa")
	a.poll(0)
	b.poll(0)
}

func testMulticast(t *testing.T, a, b *space) {
	a.send("question")
	d := b.want("question")
	if d.From.Port() != Port || d.Link.Name != "fsb" { // IPv4 or IPv6, whichever came first
		t.Errorf("heard %+v", d)
	}
	if !a.socket(true).joined || !b.socket(true).casts.alone.IsZero() {
		t.Error("it is not multicast that was heard")
	}
	b.answer(d)
	a.want("answer")
}

func testIPv6(t *testing.T, a, b *space) {
	from := b.socket(false)
	b.in(func() {
		datagram, err := b.sealer.Seal(nil, []byte("by IPv6"))
		if err == nil {
			err = from.SendAll(datagram)
		}
		if err != nil {
			t.Error(err)
		}
	})
	d := a.want("by IPv6")
	if !d.From.Addr().Is6() || d.From.Addr().Zone() != "fsa" || d.From.Port() != Port {
		t.Errorf("heard from %s", d.From)
	}
	a.answer(d)
	b.want("answer")
}

func (s *space) answer(d Datagram) {
	s.in(func() {
		if err := s.SendTo(d.Link.Index, d.From, []byte("answer")); err != nil {
			s.t.Error(err)
		}
	})
}

// testBroadcast has b hear no multicast, as where a switch drops it: b broadcasts, and so does
// whoever hears that.
func testBroadcast(t *testing.T, a, b *space) {
	for _, s := range []*space{a, b} { // IPv6 would carry it too
		s.in(func() {
			for _, l := range s.Links() {
				if l.Local.Addr().Is6() {
					if err := s.links[l].Close(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	b.leaveGroup()
	b.socket(true).joined = false
	b.send("by broadcast")
	a.want("by broadcast")
	a.noted()
	a.send("to all")
	b.want("to all")
	if drops := b.Drops(); strings.Contains(fmt.Sprint(drops), "unsealed") {
		t.Errorf("counts %v", drops)
	}
}

// testLonely has a switch drop multicast, which neither device knows: who heard nobody for a while
// broadcasts, and so does whoever hears that.
func testLonely(t *testing.T, a, b *space) {
	a.leaveGroup()
	b.socket(true).joined = true // as far as it knows
	for _, s := range []*space{a, b} {
		k := s.socket(true)
		k.mu.Lock()
		k.casts = newCasts(time.Now().Add(-lonelyAfter))
		k.mu.Unlock()
	}
	b.send("is anybody there")
	a.want("is anybody there")
	a.noted()
	for range 2 {
		a.send("here")
		b.want("here")
		b.noted()
		b.send("good")
		a.want("good")
	}
}

// noted waits until a broadcast is noted that was heard of a device that needs them.
func (s *space) noted() {
	s.t.Helper()
	k := s.socket(true)
	needed := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return !k.casts.alone.IsZero()
	}
	for deadline := time.Now().Add(5 * time.Second); !needed(); {
		if time.Now().After(deadline) {
			s.t.Fatal("no broadcast was heard")
		}
		<-time.After(time.Millisecond)
	}
}

// leaveGroup lets the IPv4 link hear no multicast any more.
func (s *space) leaveGroup() {
	k := s.socket(true)
	s.in(func() {
		for _, l := range k.listeners {
			if l.local() == k.broadcast {
				continue
			}
			if err := ipv4.NewPacketConn(l.UDPConn).LeaveGroup(interfaceOf(s.t, k.link.Name), addrOf(k)); err != nil {
				s.t.Error(err)
			}
		}
	})
}

func interfaceOf(t *testing.T, name string) *net.Interface {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return ifi
}

func addrOf(s *udpSocket) net.Addr {
	return net.UDPAddrFromAddrPort(s.group)
}
