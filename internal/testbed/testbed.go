// Package testbed runs scenarios: the real binary in every role, in network namespaces of its
// own, with subnets behind routers and thin WAN links, and faults on purpose. It needs Linux,
// root, iproute2 and nftables, and says so where one is missing.
//
//	            far                     isp                 router of a site      a device
//	server 192.0.2.10 ┐                            rate                bridge of subnet k
//	origin 192.0.2.20 ┴─ eth0 ─── far0  <site> ────────── wan0  b<k> ─────────── eth0
//	                          192.0.2.1  198.18.<s>.1   .2   10.<s>.<k>.254   10.<s>.<k>.<n>
//
// Both ends of the WAN link hold their direction to the link's rate (tbf), behind a queue of
// 50 ms. Where a delay or loss is wanted, the link is a pair of TUN devices with a relay of this
// process between them. The router counts what crosses the link, in both directions.
//
// # Scenarios
//
// A scenario is a text of one line for each thing, blanks between words, # before a comment.
// First comes what there is:
//
//	site NAME wan RATE [rtt TIME] [loss PERCENT]    a place behind one WAN link
//	subnet SITE.NAME devices N                      N devices SITE.NAME.1 … in a broadcast domain
//	tcp cubic|reno|bbr                              congestion control of all ends; cubic
//	set NAME=VALUE [on NODES]                       a setting of agents; of all
//
// then what happens, line by line:
//
//	publish CONTENT SIZE [files N]   fresh bytes under CONTENT, version 1
//	get CONTENT on NODES             the devices begin to get it; the next line follows at once
//	until CONTENT PERCENT on NODES   wait until each of them holds that much
//	kill NODES                       end them at once
//	stop NODES                       ask them to end, and wait for it
//	start NODES                      start again what ended, with its old state
//	freeze NODES, thaw NODES         stop them from running, and let them run again
//	cut NODES from NODES             no packet passes between the two
//	heal NODES                       undo every cut and hush of these
//	hush NODES                       they neither send nor get broadcasts and multicasts
//	pause TIME                       let time pass
//	wait TIME                        until every get is done; an error when it takes longer
//	expect hashes                    all files are what was published, everywhere
//	expect wan <= X size [+ SIZE]    bytes over each site's WAN link, since the first get
//	expect slowest <= X bound        the slowest get; the bound is size ÷ rate of its site's link
//
// NODES is names with commas between: a device, a subnet or a site for all its devices, all,
// server, origin, leader (of all devices that run, the one that fetches from outside and is not
// done; leader:SITE and leader:SUBNET are of fewer), killed (what kill ended and start has not
// started again). The size is that of all contents that a device of the site began to get.
//
// # What is counted, what decides
//
// Bytes over the WAN are the payload of TCP and UDP in both directions, as the site's router
// sees them: lengths of packets less their headers, options included. What else crosses is an
// error, except for ICMP. Bytes, outcomes and hashes decide; a time is told, and fails a
// scenario only above twice its figure, since the machine may be busy.
package testbed

import (
	"strings"
	"time"
)

// Scenario is a text, parsed.
type Scenario struct {
	Name     string // of its file, without the extension
	Sites    []Site
	TCP      string // congestion control
	Settings []Setting
	Steps    []Step
}

// Site is a place behind one WAN link.
type Site struct {
	Name    string
	Rate    int64 // bytes a second, headers included
	RTT     time.Duration
	Loss    float64 // share of packets in each direction
	Subnets []Subnet
}

// Subnet is a broadcast domain with its devices.
type Subnet struct {
	Name    string // SITE.NAME
	Devices int
}

// Setting is one of agents.
type Setting struct {
	Assign string // NAME=VALUE
	On     Nodes
}

// Nodes are names of devices and of others, as a scenario has them.
type Nodes []string

// all is every device.
var all = Nodes{"all"}

func (n Nodes) String() string { return strings.Join(n, ",") }

// Step is one line of what happens. Which fields are set, its verb says.
type Step struct {
	Line int    // from 1
	Text string // without its comment
	Verb string // with expect: what is expected

	On      Nodes
	From    Nodes // of cut
	Content string
	Size    int64 // of publish; of expect wan: what may come on top
	Files   int   // of publish
	Percent float64
	Time    time.Duration
	Limit   float64 // times the size or the bound
}

// place is where a device stands: numbers from 1, as its address has them.
type place struct{ site, subnet, device int }

// device is one of a scenario's.
type device struct {
	name string // SITE.SUBNET.N
	at   place
}

// devices lists all devices, in the order of the text.
func (s *Scenario) devices() []device {
	var list []device
	for i, site := range s.Sites {
		for k, sub := range site.Subnets {
			for n := range sub.Devices {
				list = append(list, device{deviceName(sub.Name, n+1), place{i + 1, k + 1, n + 1}})
			}
		}
	}
	return list
}

// written is about how many bytes a scenario's devices will write.
func (s *Scenario) written() int64 {
	var n int64
	for i := range s.Steps {
		if s.Steps[i].Verb == "publish" {
			n += s.Steps[i].Size
		}
	}
	return n * int64(len(s.devices()))
}

// within reports whether a device, a subnet or a site called name is inside of scope.
func within(name, scope string) bool {
	return scope == "all" || name == scope || strings.HasPrefix(name, scope+".")
}
