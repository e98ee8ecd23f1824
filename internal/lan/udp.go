package lan

import (
	"fmt"
	"net"
	"net/netip"
)

// UDP is the network of this machine's interfaces.
//
// A link has one socket that sends, and that hears what is sent to this device alone: bound to
// the interface's address and the port, or, where another agent of this machine has them, to any
// port, since answers go where questions come from. Others hear what goes to the multicast group
// and to the subnet's broadcast address; several agents of one machine hear the same there. On
// Windows one socket hears all of it.
//
// Broadcasts, in IPv4, are for where multicast does not work: they are sent when the group
// could not be joined, and then alone; when a multicast could not be sent; each five seconds at
// most while no other device is heard; and for a minute after a device was heard whose broadcasts
// come and whose multicasts do not.
type UDP struct {
	Port  uint16     // 0: [Port]
	Local netip.Addr // speak only where this address is; zero or unspecified: on every interface
}

// port returns the UDP port.
func (u UDP) port() uint16 {
	if u.Port == 0 {
		return Port
	}
	return u.Port
}

// Links implements Network: every interface that is up, reaches more than one other machine
// (VPNs mostly do not) and has an address; loopback only for a Local there.
func (u UDP) Links() ([]Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("lan: list interfaces: %w", err)
	}
	var links []Link
	for i := range all {
		if all[i].Flags&net.FlagUp == 0 || all[i].Flags&net.FlagPointToPoint != 0 {
			continue
		}
		addrs, err := all[i].Addrs()
		if err != nil { // it has just gone
			continue
		}
		links = append(links, u.linksOf(&all[i], prefixes(addrs))...)
	}
	return links, nil
}

func prefixes(addrs []net.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, ok := netip.AddrFromSlice(n.IP)
			bits, _ := n.Mask.Size()
			if ok {
				if ip = ip.Unmap(); ip.Is4() && len(n.Mask) == net.IPv6len {
					bits -= 96
				}
				out = append(out, netip.PrefixFrom(ip, bits))
			}
		}
	}
	return out
}

// linksOf returns an interface's links: its first IPv4 address, and its first IPv6 link-local
// one, which every interface with IPv6 has.
func (u UDP) linksOf(ifi *net.Interface, own []netip.Prefix) []Link {
	loopback := ifi.Flags&net.FlagLoopback != 0
	all := !u.Local.IsValid() || u.Local.IsUnspecified()
	if all && loopback {
		return nil
	}
	var v4, v6 netip.Prefix
	here := all
	for _, p := range own {
		mine := all || p.Addr() == u.Local.WithZone("")
		if loopback && p.Contains(u.Local) { // all of 127.0.0.0/8 is this machine
			p, mine = netip.PrefixFrom(u.Local, p.Bits()), true
		}
		here = here || mine
		switch {
		case p.Addr().Is4() && mine && !v4.IsValid() && p.Bits() < 31:
			v4 = p
		case p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() && !v6.IsValid():
			v6 = p
		}
	}
	var links []Link
	if v4.IsValid() {
		links = append(links, Link{Index: ifi.Index, Name: ifi.Name, Local: v4})
	}
	if v6.IsValid() && here && (all || u.Local.Is6()) {
		links = append(links, Link{Index: ifi.Index, Name: ifi.Name, Local: v6})
	}
	return links
}

var _ Network = UDP{}

// groupOf returns the multicast group for a link's protocol.
func groupOf(l *Link) netip.Addr {
	if l.Local.Addr().Is4() {
		return netip.MustParseAddr(GroupV4)
	}
	return netip.MustParseAddr(GroupV6).WithZone(l.Name)
}
