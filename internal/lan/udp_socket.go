package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	// oneSocket: Windows binds no socket to a group or broadcast address, and gives a socket that
	// is bound to an interface's address what comes for both.
	oneSocket   = runtime.GOOS == "windows"
	maxFailures = 16 // reads in a row; Windows reports what became of datagrams sent before
)

// conn is a UDP socket of either protocol.
type conn struct {
	*net.UDPConn
	v4 *ipv4.PacketConn // nil for IPv6
	v6 *ipv6.PacketConn // nil for IPv4
}

func newConn(c *net.UDPConn, is4 bool) *conn {
	if is4 {
		return &conn{UDPConn: c, v4: ipv4.NewPacketConn(c)}
	}
	return &conn{UDPConn: c, v6: ipv6.NewPacketConn(c)}
}

// limit sees to it that no router passes on what is sent, and that other agents of this
// machine hear it.
func (c *conn) limit(ifi *net.Interface) error {
	if c.v4 != nil {
		return errors.Join(c.v4.SetTTL(1), c.v4.SetMulticastTTL(1), c.v4.SetMulticastInterface(ifi), c.v4.SetMulticastLoopback(true))
	}
	return errors.Join(c.v6.SetHopLimit(1), c.v6.SetMulticastHopLimit(1), c.v6.SetMulticastInterface(ifi), c.v6.SetMulticastLoopback(true))
}

func (c *conn) join(ifi *net.Interface, group netip.Addr) error {
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, 0))
	if c.v4 != nil {
		return c.v4.JoinGroup(ifi, at)
	}
	return c.v6.JoinGroup(ifi, at)
}

// tellInterface has read say where a datagram came in, as far as the system does.
func (c *conn) tellInterface() {
	if c.v4 != nil {
		_ = c.v4.SetControlMessage(ipv4.FlagInterface, true) // read returns 0 then
	} else {
		_ = c.v6.SetControlMessage(ipv6.FlagInterface, true)
	}
}

// read returns a datagram and the interface that it came in by; 0: not known.
func (c *conn) read(b []byte) (n, index int, from netip.AddrPort, err error) {
	var at net.Addr
	if c.v4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, at, err = c.v4.ReadFrom(b); cm != nil {
			index = cm.IfIndex
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, at, err = c.v6.ReadFrom(b); cm != nil {
			index = cm.IfIndex
		}
	}
	return n, index, addrPort(at), err
}

// local returns the address that the socket is bound to.
func (c *conn) local() netip.AddrPort { return addrPort(c.LocalAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// udpSocket is an open link of this machine.
type udpSocket struct {
	link      Link
	group     netip.AddrPort
	broadcast netip.AddrPort // invalid: none
	heard     func(netip.AddrPort, []byte) Reason
	sender    *conn
	listeners []*conn // besides sender
	joined    bool

	mu    sync.Mutex // guards the following
	casts casts

	readers sync.WaitGroup
	ended   chan struct{}
	end     sync.Once
}

// Open implements Network.
func (u UDP) Open(l Link, heard func(from netip.AddrPort, b []byte) Reason) (Socket, error) {
	ifi, err := net.InterfaceByIndex(l.Index)
	if err != nil {
		return nil, fmt.Errorf("lan: interface %s: %w", l.Name, err)
	}
	s := &udpSocket{link: l, group: netip.AddrPortFrom(groupOf(&l), u.port()), heard: heard, casts: newCasts(time.Now()), ended: make(chan struct{})}
	if b := broadcastOf(l.Local); b.IsValid() {
		s.broadcast = netip.AddrPortFrom(b, u.port())
	}
	if err := s.open(ifi, u.port()); err != nil {
		return nil, errors.Join(fmt.Errorf("lan: open %s on %s: %w", l.Local.Addr(), l.Name, err), s.Close())
	}
	return s, nil
}

func (s *udpSocket) open(ifi *net.Interface, port uint16) error {
	is4 := s.link.Local.Addr().Is4()
	c, err := bindOwn(s.own(port), oneSocket)
	if err != nil && !oneSocket {
		c, err = bindOwn(s.own(0), false)
	}
	if err != nil {
		return err
	}
	s.sender = newConn(c, is4)
	if err := s.sender.limit(ifi); err != nil {
		return err
	}
	if err := s.listen(ifi); err != nil && !s.broadcast.IsValid() {
		return err // IPv6: there is no other way
	}
	s.read(s.sender, 0)
	for _, l := range s.listeners {
		l.tellInterface()
		s.read(l, s.link.Index)
	}
	return nil
}

// own returns the link's own address with a port.
func (s *udpSocket) own(port uint16) netip.AddrPort {
	a := s.link.Local.Addr()
	if a.Is6() {
		a = a.WithZone(s.link.Name)
	}
	return netip.AddrPortFrom(a, port)
}

// bindOwn binds a socket to an address of this machine.
func bindOwn(at netip.AddrPort, shared bool) (*net.UDPConn, error) {
	var lc net.ListenConfig
	if shared {
		lc.Control = shareAddress
	}
	pc, err := lc.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// listen opens what hears the group and broadcasts. The error says why the group is not heard.
func (s *udpSocket) listen(ifi *net.Interface) error {
	if oneSocket {
		err := s.sender.join(ifi, s.group.Addr())
		s.joined = err == nil
		return err
	}
	if s.broadcast.IsValid() {
		if c, err := bindShared(s.broadcast, ifi.Index); err == nil { // else nobody is heard that way
			s.listeners = append(s.listeners, newConn(c, true))
		}
	}
	c, err := bindShared(s.group, ifi.Index)
	if err != nil {
		return err
	}
	l := newConn(c, s.link.Local.Addr().Is4())
	if err := l.join(ifi, s.group.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	s.listeners = append(s.listeners, l)
	s.joined = true
	return nil
}

// read hands on what c hears, by the interface index only, 0 for any, until c is closed.
func (s *udpSocket) read(c *conn, index int) {
	how := s.castOf(c.local())
	s.readers.Go(func() {
		defer s.end.Do(func() { close(s.ended) })
		b := make([]byte, MaxDatagram+1)
		for failures := 0; failures < maxFailures; {
			n, in, from, err := c.read(b)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				failures++
				continue
			}
			failures = 0
			if in != 0 && index != 0 && in != index {
				continue
			}
			if from.Addr().Is6() { // by the name that the link has, however the system calls it
				from = netip.AddrPortFrom(from.Addr().WithZone(s.link.Name), from.Port())
			}
			s.note(from, how, s.heard(from, b[:n]))
		}
	})
}

// castOf returns how datagrams come to a socket, by the address that it is bound to.
func (s *udpSocket) castOf(local netip.AddrPort) cast {
	switch {
	case local.Addr() == s.group.Addr():
		return toGroup
	case s.broadcast.IsValid() && local == s.broadcast:
		return toAll
	}
	return toOne
}

// note remembers how a datagram came, and what became of it.
func (s *udpSocket) note(from netip.AddrPort, how cast, why Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.casts.onHeard(time.Now(), from, how, why)
}

// broadcasts reports whether what is sent to all is broadcast, too.
func (s *udpSocket) broadcasts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.casts.broadcasts(time.Now())
}

// SendAll implements Socket. One that hears no multicast sends none, by which others know it.
func (s *udpSocket) SendAll(b []byte) error {
	var err error
	if s.joined || !s.broadcast.IsValid() {
		_, err = s.sender.WriteToUDPAddrPort(b, s.group)
	}
	if !s.broadcast.IsValid() || err == nil && s.joined && !s.broadcasts() {
		return err
	}
	if _, second := s.sender.WriteToUDPAddrPort(b, s.broadcast); err != nil && second != nil {
		return errors.Join(err, second)
	}
	return nil
}

// SendTo implements Socket.
func (s *udpSocket) SendTo(b []byte, to netip.AddrPort) error {
	_, err := s.sender.WriteToUDPAddrPort(b, to)
	return err
}

// Ended implements Socket.
func (s *udpSocket) Ended() <-chan struct{} { return s.ended }

// Close implements Socket.
func (s *udpSocket) Close() error {
	var errs []error
	if s.sender != nil {
		errs = append(errs, s.sender.Close())
	}
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.readers.Wait()
	return errors.Join(errs...)
}
