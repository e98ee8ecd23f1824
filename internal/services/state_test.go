package services

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestAdvertised(t *testing.T) {
	bound := func(ip string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 7443} }
	for _, c := range []struct{ ip, advertise, want string }{
		{"127.0.0.1", "", "127.0.0.1:7443"},
		{"::1", "", "[::1]:7443"},
		{"0.0.0.0", "server.example", "server.example:7443"},
		{"0.0.0.0", "server.example:0", "server.example:7443"},
		{"0.0.0.0", "server.example:443", "server.example:443"},
		{"0.0.0.0", "2001:db8::1", "[2001:db8::1]:7443"},
	} {
		if got, err := advertised(bound(c.ip), c.advertise); err != nil || got != c.want {
			t.Errorf("bound to %s, advertise %q: %q, %v; want %q", c.ip, c.advertise, got, err, c.want)
		}
	}
	if got, err := advertised(bound("0.0.0.0"), ""); err != nil || strings.HasPrefix(got, "0.0.0.0") {
		t.Errorf("bound to all: %q, %v; want one address", got, err)
	}
}

func TestOwnAddress(t *testing.T) {
	prefix := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	lo, v6, v4 := prefix("127.0.0.1/8"), prefix("2001:db8::1/64"), prefix("192.0.2.7/24")
	for _, c := range []struct {
		addrs []net.Addr
		want  string
	}{{[]net.Addr{lo}, "127.0.0.1"}, {[]net.Addr{lo, v6}, "2001:db8::1"}, {[]net.Addr{lo, v6, v4}, "192.0.2.7"}, {nil, "127.0.0.1"}} {
		if got := ownAddress(c.addrs); got.String() != c.want {
			t.Errorf("of %v: %s, want %s", c.addrs, got, c.want)
		}
	}
}

// TestHalfAState refuses to make a new authority beside an old catalog.
func TestHalfAState(t *testing.T) {
	f := startFleet(t)
	f.stop()
	f.want(os.RemoveAll(f.s.path(caDir)))
	if _, err := Open(t.Context(), Options{State: f.state, Listen: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("error %v, want the remedy", err)
	}
	if _, err := Open(t.Context(), Options{State: t.TempDir(), Listen: "256.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("error %v, want the remedy", err)
	}
}
