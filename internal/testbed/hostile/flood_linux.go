package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"freshet/internal/content"
	"freshet/internal/lan"
)

const (
	maxFlood = 2_000_000 // datagrams
	listenAt = 200 * time.Millisecond
	interest = 1024 // datagrams between two looks at what others sent
	devices  = 20   // of a subnet, in whose names it sends
)

// flood sends what must not be taken, from everybody's addresses, as fast as it can.
func flood(ctx context.Context, opt options) error {
	m, err := enlist(ctx, opt)
	if err != nil {
		return err
	}
	f, err := newForger(m.voice, content.DigestOf([]byte("flood")))
	if err != nil {
		return err
	}
	w, err := openWire()
	if err != nil {
		return err
	}
	defer w.close()
	ctx, cancel, err := opt.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	sent := map[string]int{}
	for n := 0; n < maxFlood && ctx.Err() == nil; n++ {
		if n%interest == 0 {
			w.overhear(f)
		}
		kind := kinds[n%len(kinds)]
		b := f.make(kind)
		if b == nil {
			continue
		}
		if err := w.send(w.neighbour(n), b); err != nil {
			return err
		}
		sent[kind]++
	}
	m.log.Info(doneMessage, "datagrams", fmt.Sprint(sent))
	return nil
}

// rawWire is a host's subnet, on which it sends from any address and hears what is sent to all.
type rawWire struct {
	own    netip.Prefix
	ear    *net.UDPConn
	fd     int
	packet []byte // to build in
}

func openWire() (*rawWire, error) {
	w := &rawWire{}
	var err error
	if w.own, w.ear, err = listen(); err != nil {
		return nil, err
	}
	if w.fd, err = openRaw(); err != nil {
		w.ear.Close()
		return nil, err
	}
	return w, nil
}

func (w *rawWire) close() {
	w.ear.Close()
	unix.Close(w.fd)
}

// send sends a datagram to all devices of the subnet, from an address. One that the system has no
// room for is lost.
func (w *rawWire) send(from netip.Addr, data []byte) error {
	w.packet = appendUDP(w.packet[:0], from, data)
	err := unix.Sendto(w.fd, w.packet, 0, &unix.SockaddrInet4{Addr: group()})
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("hostile: send %d bytes: %w", len(data), err)
	}
	return nil
}

// overhear takes what has come meanwhile; at first it waits a little.
func (w *rawWire) overhear(f *forger) {
	wait := time.Millisecond
	if len(f.heard) == 0 {
		wait = listenAt
	}
	w.ear.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, lan.MaxDatagram)
	for range 4 {
		n, _, err := w.ear.ReadFromUDP(b)
		if err != nil {
			return
		}
		f.hear(b[:n])
	}
}

// neighbour is the n-th address of those of the subnet's devices.
func (w *rawWire) neighbour(n int) netip.Addr {
	a := w.own.Addr().As4()
	a[3] = byte(1 + n/len(kinds)%devices)
	return netip.AddrFrom4(a)
}

func group() [4]byte { return netip.MustParseAddr(lan.GroupV4).As4() }

// listen returns this host's address and subnet, and a socket that hears what its devices send to
// all.
func listen() (netip.Prefix, *net.UDPConn, error) {
	links, err := lan.UDP{}.Links()
	if err != nil {
		return netip.Prefix{}, nil, err
	}
	for _, l := range links {
		if !l.Local.Addr().Is4() {
			continue
		}
		ifi, err := net.InterfaceByIndex(l.Index)
		if err != nil {
			return netip.Prefix{}, nil, err
		}
		g := group()
		c, err := net.ListenMulticastUDP("udp4", ifi, &net.UDPAddr{IP: g[:], Port: lan.Port})
		return l.Local, c, err
	}
	return netip.Prefix{}, nil, errors.New("hostile: no interface has an IPv4 address")
}

// openRaw opens a socket that sends packets with headers of one's own.
func openRaw() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("hostile: raw socket: %w", err)
	}
	return fd, nil
}

// appendUDP appends an IPv4 packet with a datagram from port 7680 of an address to the group.
func appendUDP(b []byte, from netip.Addr, data []byte) []byte {
	src, dst := from.As4(), group()
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(data)))
	b = append(b, 0, 0, 0, 0, 1, unix.IPPROTO_UDP, 0, 0) // the system adds the checksum
	b = append(append(b, src[:]...), dst[:]...)
	b = binary.BigEndian.AppendUint16(b, lan.Port)
	b = binary.BigEndian.AppendUint16(b, lan.Port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...) // no checksum of the datagram
}
