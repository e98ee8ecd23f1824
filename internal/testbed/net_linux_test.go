package testbed

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// buildTest makes a site with two devices behind a link.
func buildTest(ctx context.Context, t *testing.T, link string) (*network, *Scenario) {
	t.Helper()
	s, err := Parse("test", strings.NewReader("site a wan "+link+"\nsubnet a.1 devices 2\npause 0s\n"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.remove(); err != nil {
			t.Error(err)
		}
	})
	return n, s
}

// dial opens a connection, or a socket of UDP, from one namespace to an address.
func dial(t *testing.T, n *network, ns, kind, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	err := inNamespace(n.ns(ns), func() (err error) {
		c, err = net.DialTimeout(kind, addr, 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatalf("from %s: %v", ns, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// listen returns a listener in a namespace.
func listen(t *testing.T, n *network, ns, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	err := inNamespace(n.ns(ns), func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatalf("in %s: %v", ns, err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// swap moves bytes both ways over one connection of a device and the far side. Both ends
// have read all, and have seen the other's end, when it returns.
func swap(t *testing.T, n *network, addr string, up, down int64) {
	t.Helper()
	ln := listen(t, n, "far", addr)
	device := dial(t, n, "a.1.1", "tcp", addr)
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	var work errgroup.Group
	for _, way := range []struct {
		from, to net.Conn
		n        int64
	}{{device, far, up}, {far, device, down}} {
		work.Go(func() error {
			_, err := io.CopyN(way.from, zeros{}, way.n)
			return errors.Join(err, way.from.(*net.TCPConn).CloseWrite())
		})
		work.Go(func() error {
			got, err := io.Copy(io.Discard, way.to)
			if err == nil && got != way.n {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestCountsKnownAmounts: what is sent is counted, to the byte, and at the rate of the link.
// Nothing is lost at this rate: the sender's window stays below the queue.
func TestCountsKnownAmounts(t *testing.T) {
	ctx := onBed(t)
	n, s := buildTest(ctx, t, "200Mbit")
	before, err := n.counts(ctx, &s.Sites[0])
	if err != nil {
		t.Fatal(err)
	}
	const up, down, small = 300_001, 800_003, 777
	swap(t, n, originAddr.String()+":7000", up, down)
	swap(t, n, serverAddr.String()+":7000", small, 1)
	for _, size := range []int{0, 1, 1472} {
		if _, err := dial(t, n, "a.1.2", "udp", "192.0.2.1:9").Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	swap(t, n, serverAddr.String()+":7001", 0, 0) // after the datagrams, on the same way
	after, err := n.counts(ctx, &s.Sites[0])
	if err != nil {
		t.Fatal(err)
	}
	got := after.Minus(before)
	for f, want := range map[Flow]int64{
		{"up", "origin"}: up, {"down", "origin"}: down, {"up", "server"}: small, {"down", "server"}: 1,
		{"up", "other"}: 1 + 1472, {"down", "other"}: 0,
	} {
		if got[f].Payload != want {
			t.Errorf("%s %s: %+v, sent %d bytes", f.Dir, f.Far, got[f], want)
		}
	}
	const segment = 1448 // of payload, with timestamps, at an MTU of 1500
	if p := got[Flow{"down", "origin"}].Packets; p < down/segment+1 {
		t.Errorf("%d bytes came in %d packets: larger than the wire takes", down, p)
	}
}

// TestCongestionControl: both ends use the scenario's, whatever this machine's default is and what it
// allows, on the way out of a subnet and inside of it.
func TestCongestionControl(t *testing.T) {
	ctx := onBed(t)
	for _, tcp := range tcpForm {
		n, _ := buildTest(ctx, t, "100Mbit\ntcp "+tcp)
		for _, ns := range []string{"far", "a.1.2"} {
			at := originAddr
			if ns != "far" {
				at = place{1, 1, 2}.addr()
			}
			ln := listen(t, n, ns, at.String()+":7000")
			near := dial(t, n, "a.1.1", "tcp", ln.Addr().String())
			far, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { far.Close() })
			for _, c := range []net.Conn{near, far} {
				if got := congestionControl(t, c); got != tcp {
					t.Errorf("%s at %s to %s, want %s", got, c.LocalAddr(), c.RemoteAddr(), tcp)
				}
			}
		}
		if err := n.remove(); err != nil {
			t.Error(err)
		}
	}
}

func congestionControl(t *testing.T, c net.Conn) string {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var got error
	if err := raw.Control(func(fd uintptr) {
		name, got = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); err != nil || got != nil {
		t.Fatal(err, got)
	}
	return strings.TrimRight(name, "\x00")
}

// TestCountsRefuseFragments: what cannot be counted is an error.
func TestCountsRefuseFragments(t *testing.T) {
	ctx := onBed(t)
	n, s := buildTest(ctx, t, "100Mbit")
	if _, err := dial(t, n, "a.1.1", "udp", "192.0.2.1:9").Write(make([]byte, 4000)); err != nil {
		t.Fatal(err)
	}
	swap(t, n, serverAddr.String()+":7001", 0, 0)
	if _, err := n.counts(ctx, &s.Sites[0]); err == nil || !strings.Contains(err.Error(), "not to be counted") {
		t.Errorf("a datagram in fragments: %v", err)
	}
}

// TestRate: the link holds its rate in both directions, with and without a relay. Only too
// fast fails: the machine may be busy.
func TestRate(t *testing.T) {
	ctx := onBed(t)
	for _, link := range []string{"16Mbit", "16Mbit rtt 10ms"} {
		n, _ := buildTest(ctx, t, link)
		const size = 1 << 20 // half a second
		began := time.Now()
		swap(t, n, originAddr.String()+":7000", size, size)
		if took := time.Since(began); took < 490*time.Millisecond {
			t.Errorf("%s: a MiB each way in %v", link, took)
		}
		if err := n.remove(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRelay: a round trip takes as long as it should, and packets are lost.
func TestRelay(t *testing.T) {
	ctx := onBed(t)
	n, _ := buildTest(ctx, t, "100Mbit rtt 40ms loss 2%")
	began := time.Now()
	swap(t, n, serverAddr.String()+":7000", 0, 0) // two round trips
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("an empty connection took %v", took)
	}
	swap(t, n, serverAddr.String()+":7001", 1<<20, 1<<20)
	lost := 0
	for i := range uint64(10_000) {
		if chance(i) < 0.02 {
			lost++
		}
	}
	if lost < 150 || lost > 250 {
		t.Errorf("%d of 10000 lost, want about 200", lost)
	}
}

// TestFaults: a cut lets nothing pass until it is healed.
func TestFaults(t *testing.T) {
	ctx := onBed(t)
	n, s := buildTest(ctx, t, "100Mbit")
	d := s.devices()
	one, two := end{d[0].name, d[0].at, d[0].at.addr()}, end{d[1].name, d[1].at, d[1].at.addr()}
	server := end{name: "server", addr: serverAddr}
	listen(t, n, "far", serverAddr.String()+":7000")
	listen(t, n, "far", originAddr.String()+":7000")
	listen(t, n, "a.1.2", two.addr.String()+":7000")
	reaches := func(addr string) bool {
		var c net.Conn
		err := inNamespace(n.ns("a.1.1"), func() (err error) {
			c, err = net.DialTimeout("tcp", addr+":7000", 500*time.Millisecond)
			return err
		})
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	var f faults
	for _, c := range []struct {
		what                   string
		cuts, rejected         [][2]end
		hushed                 []end
		server, origin, nearby bool
	}{
		{"nothing cut", nil, nil, nil, true, true, true},
		{"from the server", [][2]end{{one, server}}, nil, nil, false, true, true},
		{"from each other", [][2]end{{one, two}}, nil, nil, true, true, false},
		{"rejected", nil, [][2]end{{one, server}, {two, one}}, nil, false, true, false},
		{"hushed", nil, nil, []end{one}, true, true, true},
		{"healed", nil, nil, nil, true, true, true},
	} {
		f.cuts, f.rejected, f.hushed = c.cuts, c.rejected, c.hushed
		for _, e := range []end{one, two, server} {
			if err := f.apply(ctx, n, e); err != nil {
				t.Fatal(err)
			}
		}
		got := [3]bool{reaches(serverAddr.String()), reaches(originAddr.String()), reaches(two.addr.String())}
		if got != [3]bool{c.server, c.origin, c.nearby} {
			t.Errorf("%s: server, origin, neighbour reached: %v", c.what, got)
		}
	}
}

// TestBroadcasts: a subnet hears a device's broadcasts unless it or the hearer is hushed.
func TestBroadcasts(t *testing.T) {
	ctx := onBed(t)
	n, s := buildTest(ctx, t, "100Mbit")
	d := s.devices()
	one, two := end{d[0].name, d[0].at, d[0].at.addr()}, end{d[1].name, d[1].at, d[1].at.addr()}
	var ear net.PacketConn
	err := inNamespace(n.ns(two.name), func() (err error) {
		ear, err = net.ListenPacket("udp4", ":7000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	heard := func(wait time.Duration) bool {
		if _, err := dial(t, n, one.name, "udp4", "10.1.1.255:7000").Write([]byte("x")); err != nil && !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
		ear.SetReadDeadline(time.Now().Add(wait))
		_, _, err := ear.ReadFrom(make([]byte, 9))
		return err == nil
	}
	for _, c := range []struct {
		hushed []end
		want   bool
	}{{nil, true}, {[]end{one}, false}, {[]end{two}, false}, {nil, true}} {
		f := faults{hushed: c.hushed}
		if err := errors.Join(f.apply(ctx, n, one), f.apply(ctx, n, two)); err != nil {
			t.Fatal(err)
		}
		wait := 5 * time.Second
		if !c.want {
			wait = 200 * time.Millisecond
		}
		if got := heard(wait); got != c.want {
			t.Errorf("hushed %v: heard %v", c.hushed, got)
		}
	}
}

// TestNothingLeft: a scenario that fails, and one that is interrupted, leave no namespace, no
// process and no file.
func TestNothingLeft(t *testing.T) {
	ctx := onBed(t)
	s, err := Parse("test", strings.NewReader("site a wan 100Mbit\nsubnet a.1 devices 1\npause 1h\n"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(ctx)
	opt := Options{Binary: "/bin/false", Dir: dir, Log: io.Discard}
	if _, err := Run(ctx, s, opt); err == nil || !strings.Contains(err.Error(), "server ended by itself") {
		t.Errorf("a binary that does nothing: %v", err)
	}
	opt.Binary = filepath.Join(dir, "idle")
	if err := os.WriteFile(opt.Binary, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	interrupted := time.AfterFunc(time.Second, cancel)
	defer interrupted.Stop()
	if _, err := Run(ctx, s, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, nsPrefix+"*")); len(left) > 0 {
		t.Errorf("directories are left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(nsFolder, nsPrefix+strconv.Itoa(os.Getpid())+"-*")); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
}
