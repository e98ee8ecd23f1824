package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// queueTime is how long a packet may wait before a WAN link: longer queues drop it.
const queueTime = "50ms"

// burst is what a WAN link lets through at once, in bytes. At 1 Gbit/s it is a quarter of a
// millisecond.
const burst = 32 << 10

// network is the namespaces of a scenario, and the relays of its links.
type network struct {
	prefix string // of the names of namespaces
	made   []string
	relays []*relay
}

// nsPrefix begins the name of each namespace of a testbed; the process id follows.
const nsPrefix = "freshet-bed-"

// nsFolder is where ip keeps namespaces.
const nsFolder = "/run/netns"

var nsForm = regexp.MustCompile(`^` + nsPrefix + `(\d+)-`)

// removeStale removes the namespaces of testbeds whose process was killed.
func removeStale(ctx context.Context) error {
	list, err := os.ReadDir(nsFolder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("testbed: namespaces of earlier runs: %w", err)
	}
	for _, e := range list {
		m := nsForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			if err := run(ctx, "", "ip", "netns", "del", e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// ns is the full name of a namespace.
func (n *network) ns(name string) string { return n.prefix + name }

// build makes what a scenario says there is.
func build(ctx context.Context, s *Scenario) (n *network, err error) {
	n = &network{prefix: fmt.Sprintf("%s%d-", nsPrefix, os.Getpid())}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.remove())
		}
	}()
	if err := n.buildFar(ctx, s.TCP); err != nil {
		return n, err
	}
	for i := range s.Sites {
		if err := n.buildSite(ctx, i+1, &s.Sites[i], s.TCP); err != nil {
			return n, err
		}
	}
	for _, d := range slices.Concat(s.devices(), s.hosts()) {
		if err := n.buildDevice(ctx, routerName(&s.Sites[d.at.site-1]), d, s.TCP); err != nil {
			return n, err
		}
	}
	return n, n.tune(ctx, "isp", "net/ipv4/ip_forward=1")
}

func (n *network) buildFar(ctx context.Context, tcp string) error {
	for _, name := range []string{"far", "isp"} {
		if err := n.add(ctx, name); err != nil {
			return err
		}
	}
	err := n.ip(ctx, "isp",
		"link add name far0 type veth peer name eth0 netns "+n.ns("far"),
		fmt.Sprintf("addr add %s/24 dev far0", farGateway), "link set dev far0 up")
	if err != nil {
		return err
	}
	err = n.ip(ctx, "far",
		fmt.Sprintf("addr add %s/24 dev eth0 noprefixroute", serverAddr), fmt.Sprintf("addr add %s/24 dev eth0 noprefixroute", originAddr),
		"link set dev eth0 up")
	if err != nil {
		return err
	}
	return errors.Join(n.routes(ctx, "far", farGateway, tcp), n.host(ctx, "far"))
}

// routes lets a host reach its subnet, of 24 bits, and all else through the subnet's gateway. They
// name the congestion control: the default of a namespace can be none but those that this machine
// allows everybody.
func (n *network) routes(ctx context.Context, ns string, gateway netip.Addr, tcp string) error {
	near, err := gateway.Prefix(24)
	if err != nil {
		return err
	}
	return n.ip(ctx, ns,
		fmt.Sprintf("route add %s dev eth0 congctl %s", near, tcp),
		fmt.Sprintf("route add default via %s congctl %s", gateway, tcp))
}

// wanAddr is the address of an end of a site's link: 1 is the provider's, 2 the router's.
func wanAddr(site, end int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(site), byte(end)})
}

func routerName(site *Site) string { return "router-" + site.Name }

// buildSite makes a router with its link, subnets and devices.
func (n *network) buildSite(ctx context.Context, i int, site *Site, tcp string) error {
	router := routerName(site)
	if err := n.add(ctx, router); err != nil {
		return err
	}
	if err := n.link(ctx, site, router); err != nil {
		return err
	}
	err := n.ip(ctx, "isp",
		fmt.Sprintf("addr add %s/24 dev %s", wanAddr(i, 1), site.Name), "link set dev "+site.Name+" up",
		fmt.Sprintf("route add 10.%d.0.0/16 via %s", i, wanAddr(i, 2)))
	if err != nil {
		return err
	}
	err = n.ip(ctx, router,
		fmt.Sprintf("addr add %s/24 dev wan0", wanAddr(i, 2)), "link set dev wan0 up",
		fmt.Sprintf("route add default via %s", wanAddr(i, 1)))
	if err != nil {
		return err
	}
	if err := errors.Join(n.shape(ctx, "isp", site.Name, site.Rate), n.shape(ctx, router, "wan0", site.Rate)); err != nil {
		return err
	}
	for k, sub := range site.Subnets {
		if err := n.buildSubnet(ctx, router, place{i, k + 1, 0}, sub); err != nil {
			return err
		}
	}
	return errors.Join(n.tune(ctx, router, "net/ipv4/ip_forward=1"), n.unfiltered(ctx, router), n.nft(ctx, router, countRules(len(site.Subnets))))
}

// unfiltered keeps what stays inside of a subnet away from the router's rules, where this machine
// has bridges filter: it would be counted, and cost time for each packet.
func (n *network) unfiltered(ctx context.Context, router string) error {
	const dir = "net/bridge/"
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		if !exists(filepath.Join("/proc/sys", dir, name)) {
			continue
		}
		if err := n.tune(ctx, router, dir+name+"=0"); err != nil {
			return err
		}
	}
	return nil
}

// link makes the two ends of a site's link: a device called as the site in isp, wan0 in the
// router. Packets leave an end as the wire would have them, not as segments yet to be cut.
func (n *network) link(ctx context.Context, site *Site, router string) error {
	if site.RTT > 0 || site.Loss > 0 {
		r, err := newRelay(relayEnds{n.ns("isp"), site.Name, n.ns(router), "wan0"}, site.RTT/2, site.Loss)
		if err != nil {
			return err
		}
		n.relays = append(n.relays, r)
		return nil
	}
	if err := n.ip(ctx, "isp", "link add name "+site.Name+" type veth peer name wan0 netns "+n.ns(router)); err != nil {
		return err
	}
	return errors.Join(
		n.ip(ctx, "isp", "link set dev "+site.Name+" addrgenmode none gso_max_segs 1"),
		n.ip(ctx, router, "link set dev wan0 addrgenmode none gso_max_segs 1"))
}

// shape holds what leaves through a network device to a rate in bytes a second.
func (n *network) shape(ctx context.Context, ns, dev string, rate int64) error {
	return run(ctx, "", "tc", "-n", n.ns(ns), "qdisc", "add", "dev", dev, "root", "tbf",
		"rate", fmt.Sprintf("%dbit", rate*8), "burst", strconv.Itoa(burst), "latency", queueTime)
}

func (n *network) buildSubnet(ctx context.Context, router string, at place, sub Subnet) error {
	br := bridge(at.subnet)
	return n.ip(ctx, router,
		"link add name "+br+" type bridge mcast_snooping 0 forward_delay 0",
		fmt.Sprintf("addr add %s/24 dev %s", gateway(at), br), "link set dev "+br+" up")
}

// gateway is the router's address in a subnet.
func gateway(at place) netip.Addr { return place{at.site, at.subnet, 254}.addr() }

// addr is a device's address.
func (p place) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(p.site), byte(p.subnet), byte(p.device)})
}

// mac is a device's address on its subnet.
func (p place) mac() string {
	return fmt.Sprintf("02:00:00:%02x:%02x:%02x", p.site, p.subnet, p.device)
}

func (n *network) buildDevice(ctx context.Context, router string, d device, tcp string) error {
	if err := n.add(ctx, d.name); err != nil {
		return err
	}
	port := fmt.Sprintf("p%d-%d", d.at.subnet, d.at.device)
	err := n.ip(ctx, router,
		"link add name "+port+" type veth peer name eth0 netns "+n.ns(d.name),
		"link set dev "+port+" master "+bridge(d.at.subnet)+" up")
	if err != nil {
		return err
	}
	err = n.ip(ctx, d.name,
		"link set dev eth0 address "+d.at.mac()+" up",
		fmt.Sprintf("addr add %s/24 broadcast + dev eth0 noprefixroute", d.at.addr()))
	if err != nil {
		return err
	}
	return errors.Join(n.routes(ctx, d.name, gateway(d.at), tcp), n.host(ctx, d.name))
}

// host prepares a namespace that connections end in: for faults, and with the kernel's own
// limits for buffers, whatever this machine has.
func (n *network) host(ctx context.Context, ns string) error {
	return errors.Join(
		n.tune(ctx, ns, "net/ipv4/tcp_rmem=4096 131072 6291456"),
		n.tune(ctx, ns, "net/ipv4/tcp_wmem=4096 16384 4194304"),
		n.nft(ctx, ns, faultTable))
}

// add makes a namespace.
func (n *network) add(ctx context.Context, name string) error {
	if err := run(ctx, "", "ip", "netns", "add", n.ns(name)); err != nil {
		return err
	}
	n.made = append(n.made, n.ns(name))
	return n.ip(ctx, name, "link set dev lo up")
}

// remove undoes all that was made.
func (n *network) remove() error {
	var errs []error
	for _, r := range n.relays {
		errs = append(errs, r.close())
	}
	for _, ns := range n.made { // also when the scenario was cancelled
		errs = append(errs, run(context.Background(), "", "ip", "netns", "del", ns))
	}
	n.made, n.relays = nil, nil
	return errors.Join(errs...)
}

// counts reads what a site's router has counted.
func (n *network) counts(ctx context.Context, site *Site) (Counts, error) {
	cmd := n.command(ctx, routerName(site), "nft", "-j", "list", "counters", "table", "inet", "freshet")
	out, err := output(cmd, "")
	if err != nil {
		return nil, err
	}
	return parseCounts(out)
}

// ip runs commands of iproute2 in a namespace.
func (n *network) ip(ctx context.Context, ns string, commands ...string) error {
	return run(ctx, strings.Join(commands, "\n")+"\n", "ip", "-n", n.ns(ns), "-batch", "-")
}

// nft loads rules in a namespace.
func (n *network) nft(ctx context.Context, ns, rules string) error {
	_, err := output(n.command(ctx, ns, "nft", "-f", "-"), rules)
	return err
}

// tune sets a kernel parameter, NAME=VALUE, in a namespace.
func (n *network) tune(ctx context.Context, ns, parameter string) error {
	name, value, _ := strings.Cut(parameter, "=")
	_, err := output(n.command(ctx, ns, "tee", filepath.Join("/proc/sys", name)), value)
	return err
}

// command is a program to be run in a namespace.
func (n *network) command(ctx context.Context, ns string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.ns(ns)}, args...)...)
}

// run runs a program that is given input.
func run(ctx context.Context, input string, args ...string) error {
	_, err := output(exec.CommandContext(ctx, args[0], args[1:]...), input)
	return err
}

// output runs a program and returns what it prints. An error tells what it complained about.
func output(cmd *exec.Cmd, input string) ([]byte, error) {
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
