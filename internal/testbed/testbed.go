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
//	subnet SITE.NAME devices N [hosts N]            devices SITE.NAME.1 … in a broadcast domain, and
//	                                                hosts SITE.NAME.h1 …, which run no agent
//	tcp cubic|reno|bbr                              congestion control of all ends; cubic
//	set NAME=VALUE [on NODES]                       a setting of agents; of all
//
// then what happens, line by line:
//
//	publish CONTENT SIZE [OPTIONS]   fresh bytes under CONTENT, version 1. The options: files N; times N,
//	                                 contents CONTENT-1 …, which CONTENT then stands for; signed, by a
//	                                 publisher whose key all agents pin; found, by the distribution point,
//	                                 which then registers what it becomes too; sha256-only, found and as a
//	                                 distribution point of before SHA-1 made it
//	republish CONTENT changed PERCENT   other bytes at the start of each file, as much as is named, under
//	                                 the same id and version
//	overwrite CONTENT changed PERCENT   the same, in the distribution point's directory alone
//	get CONTENT on NODES [OPTIONS]   the devices begin to get it; the next line follows at once. The
//	                                 options: foreground; expecting ISSUE, with the metadata of the issue
//	                                 that is published (new), of the one before (old), of one that never
//	                                 will be (next), or of half of the files, of which there may be more
//	                                 (part); by N, of several contents so many at a time, and the next
//	                                 line when all are done
//	abandon CONTENT on NODES         those who wait for it on these devices go away
//	until CONTENT PERCENT on NODES   wait until each of them holds that much
//	until CONTENT waits TEXT on NODES   wait until each of them says that it waits, with that text in it
//	kill NODES                       end them at once
//	stop NODES                       ask them to end, and wait for it
//	start NODES                      start again what ended, with its old state
//	freeze NODES, thaw NODES         stop them from running, and let them run again
//	cut NODES from NODES             no packet passes between the two
//	reject NODES from NODES          what the first, devices, send to the second is refused at once
//	hush NODES                       they neither send nor get broadcasts and multicasts
//	heal NODES                       undo what cut, reject and hush did to these
//	run PROGRAM on HOSTS [with CONTENT] [for TIME]   a program of package hostile; the next line follows
//	                                 when it is ready, or with a time when it has ended
//	tasted N                         wait until N holders have given the program taste something
//	name NAME NODES                  who is meant now, by that name from then on
//	mark                             figures count from here, and not from the first get
//	pause TIME                       let time pass
//	wait TIME                        until every get is done; an error when it takes longer
//	expect hashes                    all files are what was published, everywhere
//	expect wan <= X size [+ SIZE]    bytes over each site's WAN link
//	expect subnets <= X size [+ SIZE]   bytes into each subnet, from beyond its router's port
//	expect slowest <= X bound        the slowest get; the bound is size ÷ rate of its site's link
//	expect stall <= TIME [on NODES]  the longest time in which a get moved on by nothing
//	expect held CONTENT on NODES     their caches have all of the issue that is published
//	expect forgotten CONTENT on NODES   their caches name no issue of before
//	expect leaders kept              who led at the mark leads, in the same epoch
//	expect leads <= N on NODES       contents that each of them leads
//	expect spread <= X share         contents that a device leads, over what it would be if all led as many
//	expect lines TEXT <= N on NODES  lines of each one's log with that text in it; also >= N
//	expect memory <= SIZE on NODES   by how much the memory of each of them has grown
//	expect given <= TIME             how long holders went on giving to the program taste
//	expect withheld <= TIME          the longest time in which a holder gave the program taste nothing
//
// NODES is names with commas between: a device, a subnet or a site for all its devices, SUBNET.3-7,
// all, server, origin, leader (of all devices that run, the one that fetches from outside and is
// not done; leader:SITE is of fewer, leader:SUBNET is who leads there), killed (what kill ended and
// start has not started again). A name behind - is taken away from those before it. TEXT of
// several words stands in double quotes. The size is that of all contents that a device of the
// site, or subnet, began to get.
//
// # What is counted, what decides
//
// Bytes over the WAN are the payload of TCP and UDP in both directions, as the site's router
// sees them: lengths of packets less their headers, options included. What else crosses is an
// error, except for ICMP. Bytes, outcomes and hashes decide; a time is told, and fails a
// scenario only above twice its figure, since the machine may be busy.
package testbed

import (
	"fmt"
	"slices"
	"strconv"
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
	Hosts   int // without an agent
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
	From    Nodes // of cut and reject
	Content string
	Size    int64 // of publish; of expect: what may come on top, or the bound itself
	Files   int   // of publish
	Times   int   // of publish; 0: the content itself
	Signed  bool  // of publish
	Found   bool  // of publish: by the distribution point
	Old     bool  // of publish: sha256-only
	Issue   Issue // of get
	Hurry   bool  // of get: foreground
	Batch   int   // of get: contents at a time; 0: all
	Percent float64
	Time    time.Duration
	Limit   float64 // times the size, the bound or the share; a number
	AtLeast bool    // the limit is a lower one
	Words   string  // of until and expect lines: what is looked for
	Name    string  // of name
	Program string  // of run
}

// Issue is which metadata a get brings.
type Issue string

// Issues, as a scenario names them.
const (
	NoIssue   Issue = ""
	NewIssue  Issue = "new"
	OldIssue  Issue = "old"
	NextIssue Issue = "next"
	PartIssue Issue = "part"
)

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

// hosts lists all hosts without an agent. Their addresses follow those that devices may have.
func (s *Scenario) hosts() []device {
	var list []device
	for i, site := range s.Sites {
		for k, sub := range site.Subnets {
			for n := range sub.Hosts {
				list = append(list, device{fmt.Sprintf("%s.h%d", sub.Name, n+1), place{i + 1, k + 1, maxDevices + n + 1}})
			}
		}
	}
	return list
}

// names are the contents that one name of the scenario stands for.
func (s *Scenario) names(name string) []string {
	i := slices.IndexFunc(s.Steps, func(st Step) bool { return st.Verb == "publish" && st.Content == name })
	if s.Steps[i].Times == 0 {
		return []string{name}
	}
	var list []string
	for n := range s.Steps[i].Times {
		list = append(list, name+"-"+strconv.Itoa(n+1))
	}
	return list
}

// written is how many bytes a scenario's devices may write.
func (s *Scenario) written() int64 {
	var n int64
	size := map[string]int64{}
	for i := range s.Steps {
		switch st := &s.Steps[i]; st.Verb {
		case "publish":
			size[st.Content] = st.Size * int64(max(1, st.Times))
		case "get":
			n += size[st.Content]
		}
	}
	return n * int64(len(s.devices()))
}

// within reports whether a device, a subnet or a site called name is inside of scope.
func within(name, scope string) bool {
	return scope == "all" || name == scope || strings.HasPrefix(name, scope+".")
}
