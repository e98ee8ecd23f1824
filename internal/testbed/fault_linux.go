package testbed

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// faultTable is where the rules of faults are, in the namespaces of devices and of the far side.
const faultTable = `table inet fault {
	chain in { type filter hook prerouting priority -300; }
	chain out { type filter hook output priority -300; }
}
`

// end is what a cut has at each of its ends: a device, or a process of the far side.
type end struct {
	name string
	at   place      // zero on the far side
	addr netip.Addr // where it is reached
}

func (e end) far() bool { return e.at == place{} }

// faults is what is wrong with the network on purpose.
type faults struct {
	cuts     [][2]end
	rejected [][2]end // what the first sends to the second
	hushed   []end
}

// rules are those of one end's namespace. Whoever receives drops, so that a cut lets nothing
// pass whoever sends it. Devices of one subnet also drop by hardware address: not all that
// they send bears the address of an IPv4 host.
func (f *faults) rules(e end) string {
	var b strings.Builder
	b.WriteString("flush chain inet fault in\nflush chain inet fault out\n")
	add := func(chain, verdict, format string, args ...any) {
		fmt.Fprintf(&b, "add rule inet fault %s %s %s\n", chain, fmt.Sprintf(format, args...), verdict)
	}
	rule := func(chain, format string, args ...any) { add(chain, "drop", format, args...) }
	for _, r := range f.rejected {
		if r[0] == e {
			add("out", "reject with tcp reset", "ip daddr %s meta l4proto tcp", r[1].addr)
			add("out", "reject", "ip daddr %s", r[1].addr)
		}
	}
	for _, c := range f.cuts {
		for i, to := range c {
			from := c[1-i]
			switch {
			case to.far() != e.far() || !e.far() && to.name != e.name:
			case to.far():
				rule("in", "ip saddr %s ip daddr %s", from.addr, to.addr)
			default:
				rule("in", "ip saddr %s", from.addr)
				if from.at.site == to.at.site && from.at.subnet == to.at.subnet {
					rule("in", "ether saddr %s", from.at.mac())
				}
			}
		}
	}
	if slices.Contains(f.hushed, e) {
		rule("in", "meta pkttype { broadcast, multicast } meta l4proto udp")
		subnet := place{e.at.site, e.at.subnet, 255}.addr()
		rule("out", "ip daddr { 224.0.0.0/4, 255.255.255.255, %s } meta l4proto udp", subnet)
		rule("out", "ip6 daddr ff00::/8 meta l4proto udp")
	}
	return b.String()
}

// heal takes all faults from ends away.
func (f *faults) heal(ends []end) {
	touched := func(c [2]end) bool { return slices.Contains(ends, c[0]) || slices.Contains(ends, c[1]) }
	f.cuts, f.rejected = slices.DeleteFunc(f.cuts, touched), slices.DeleteFunc(f.rejected, touched)
	f.hushed = slices.DeleteFunc(f.hushed, func(e end) bool { return slices.Contains(ends, e) })
}

// apply makes the faults of an end true.
func (f *faults) apply(ctx context.Context, n *network, e end) error {
	ns := e.name
	if e.far() {
		ns = "far"
	}
	return n.nft(ctx, ns, f.rules(e))
}
