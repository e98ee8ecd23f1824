package testbed

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The far side's addresses.
var (
	serverAddr = netip.MustParseAddr("192.0.2.10")
	originAddr = netip.MustParseAddr("192.0.2.20")
	farGateway = netip.MustParseAddr("192.0.2.1")
)

// Flow is traffic over a WAN link: its direction, seen from the site, and whom with. What comes
// into a subnet from beyond its port has a flow besides, whose Far is the port.
type Flow struct {
	Dir string // down, up; in
	Far string // server, origin, other; a bridge
}

// Sum is what was counted of a flow.
type Sum struct {
	Payload int64 // bytes of TCP and UDP
	Packets int64 // with and without payload
}

// Counts are the flows of one WAN link. What a router counted besides TCP, UDP, ICMP and IGMP is
// not in them: it is an error.
type Counts map[Flow]Sum

// Total is the payload of all flows over the WAN link.
func (c Counts) Total() int64 {
	var n int64
	for f, s := range c {
		if f.Dir != inward {
			n += s.Payload
		}
	}
	return n
}

// Into is the payload that came into a subnet, by its number.
func (c Counts) Into(subnet int) int64 { return c[Flow{inward, bridge(subnet)}].Payload }

// inward is the direction of what comes into a subnet.
const inward = "in"

// bridge is the port of a router that a subnet is behind.
func bridge(subnet int) string { return "b" + strconv.Itoa(subnet) }

// Minus is what was counted since before.
func (c Counts) Minus(before Counts) Counts {
	d := Counts{}
	for f, s := range c {
		d[f] = Sum{s.Payload - before[f].Payload, s.Packets - before[f].Packets}
	}
	return d
}

// Header lengths. The length of a TCP header is told in words of four bytes, from 5 to 15.
const (
	ipHeader  = 20
	udpHeader = 8
	minWords  = 5
	maxWords  = 15
)

// oddCounter counts packets whose payload is not known: with IP options, of fragments, of other
// protocols.
const oddCounter = "odd"

// countRules are nftables rules for a router whose WAN link is at wan0, and whose subnets are
// behind b1, b2 and so on. There is one counter for each flow and length of header, since a counter
// tells packets and the sum of their lengths.
func countRules(subnets int) string {
	r := rules{}
	r.counter(oddCounter)
	for _, dir := range []struct{ name, hook, wan, far string }{
		{"down", "prerouting", "iifname", "saddr"},
		{"up", "postrouting", "oifname", "daddr"},
	} {
		for _, far := range []string{"server", "origin", "other"} {
			r.flow(Flow{dir.name, far})
		}
		fmt.Fprintf(&r.chains, "chain %s {\ntype filter hook %s priority 300\n%s != wan0 return\n", dir.name, dir.hook, dir.wan)
		fmt.Fprintf(&r.chains, "ip %s %s goto %s_server\nip %s %s goto %s_origin\ngoto %s_other\n}\n",
			dir.far, serverAddr, dir.name, dir.far, originAddr, dir.name, dir.name)
	}
	for n := range subnets {
		r.flow(Flow{inward, bridge(n + 1)})
	}
	fmt.Fprintf(&r.chains, "chain %s {\ntype filter hook forward priority 300\n", inward)
	for n := range subnets {
		fmt.Fprintf(&r.chains, "oifname %s goto %s_%s\n", bridge(n+1), inward, bridge(n+1))
	}
	return "table inet freshet {\n" + r.counters.String() + r.chains.String() + "}\n}\n"
}

// rules are what a table of nftables is made of.
type rules struct{ counters, chains strings.Builder }

func (r *rules) counter(name string) { fmt.Fprintf(&r.counters, "counter %s {}\n", name) }

// flow adds the chain that counts a flow.
func (r *rules) flow(f Flow) {
	chain := f.Dir + "_" + f.Far
	r.counter(chain + "_udp")
	fmt.Fprintf(&r.chains, "chain %s {\nmeta l4proto { icmp, icmpv6, igmp } return\n", chain)
	fmt.Fprintf(&r.chains, "meta nfproto != ipv4 counter name odd return\n")
	fmt.Fprintf(&r.chains, "ip hdrlength != 5 counter name odd return\nip frag-off & 0x3fff != 0 counter name odd return\n")
	fmt.Fprintf(&r.chains, "meta l4proto udp counter name %s_udp return\nmeta l4proto != tcp counter name odd return\n", chain)
	for words := minWords; words <= maxWords; words++ {
		name := chain + "_" + strconv.Itoa(words)
		r.counter(name)
		fmt.Fprintf(&r.chains, "tcp doff %d counter name %s return\n", words, name)
	}
	r.chains.WriteString("}\n")
}

// parseCounts reads what "nft -j list counters" prints.
func parseCounts(listing []byte) (Counts, error) {
	var list struct {
		Objects []struct {
			Counter *struct {
				Name           string
				Packets, Bytes int64
			}
		} `json:"nftables"`
	}
	if err := json.Unmarshal(listing, &list); err != nil {
		return nil, fmt.Errorf("testbed: counters of nftables: %w", err)
	}
	counts, counters := Counts{}, 0
	for _, o := range list.Objects {
		if o.Counter == nil {
			continue
		}
		counters++
		if o.Counter.Name == oddCounter {
			if o.Counter.Packets > 0 {
				return nil, fmt.Errorf("testbed: %d packets over the WAN link are not to be counted: not IPv4, fragments, with IP options, or neither TCP nor UDP", o.Counter.Packets)
			}
			continue
		}
		dir, rest, _ := strings.Cut(o.Counter.Name, "_")
		far, kind, _ := strings.Cut(rest, "_")
		header := int64(ipHeader + udpHeader)
		if kind != "udp" {
			words, err := strconv.Atoi(kind)
			if err != nil {
				return nil, fmt.Errorf("testbed: counter %q of nftables is none of ours", o.Counter.Name)
			}
			header = ipHeader + 4*int64(words)
		}
		f := Flow{dir, far}
		s := counts[f]
		s.Payload += o.Counter.Bytes - o.Counter.Packets*header
		s.Packets += o.Counter.Packets
		counts[f] = s
	}
	if counters == 0 {
		return nil, fmt.Errorf("testbed: nftables lists no counters: %.100q", listing)
	}
	return counts, nil
}
