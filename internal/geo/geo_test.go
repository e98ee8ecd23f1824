package geo

import (
	"context"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/catalog"
)

// fixed is a table of sites that does not change.
type fixed []catalog.Site

func (f fixed) Sites(context.Context) ([]catalog.Site, error) { return f, nil }
func (f fixed) AddSite(context.Context, catalog.Site) error   { return nil }
func (f fixed) RemoveSite(context.Context, string) error      { return nil }
func addr(s string) netip.Addr                                { return netip.MustParseAddr(s) }
func site(name string, prefixes ...string) (s catalog.Site) {
	s.Name = name
	for _, p := range prefixes {
		s.CIDRs = append(s.CIDRs, netip.MustParsePrefix(p))
	}
	return s
}

func locator(t *testing.T, sites ...catalog.Site) *Locator {
	t.Helper()
	l, err := NewLocator(t.Context(), fixed(sites))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSite(t *testing.T) {
	l := locator(t, site("norway", "10.0.0.0/8", "2001:db8::/32"), site("oslo", "10.1.0.0/16", "2001:db8:1::/48"), site("desk", "10.1.2.3/32"), site("empty"))
	for a, want := range map[string]string{
		"10.9.9.9": "norway", "10.1.9.9": "oslo", "10.1.2.3": "desk", "::ffff:10.1.2.3": "desk",
		"2001:db8:1::5": "oslo", "2001:db8:2::5": "norway",
		"203.0.113.7": "203.0.113.7", "2001:db9:aa:bb::1": "2001:db9:aa::/48", "fe80::1%eth0": "fe80::/48",
	} {
		if got := l.Site(addr(a)); got != want {
			t.Errorf("site of %s is %q, want %q", a, got, want)
		}
	}
	if got := l.Label(addr("203.0.113.7")); got != Unlisted {
		t.Errorf("label %q, want %q", got, Unlisted)
	}
	if l.Site(netip.Addr{}) == "" {
		t.Error("the zero address has no site")
	}
}

// TestLongestPrefix compares with a search of all prefixes.
func TestLongestPrefix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(what string) netip.Addr {
			b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, what)
			return netip.AddrFrom4([4]byte{10, b[1] & 3, b[2] & 3, b[3] & 3})
		}
		taken := map[netip.Prefix]string{}
		var sites fixed
		for i := range rapid.IntRange(0, 12).Draw(rt, "sites") {
			p := netip.PrefixFrom(draw("prefix"), rapid.IntRange(0, 32).Draw(rt, "bits")).Masked()
			if _, ok := taken[p]; !ok {
				name := string(rune('a' + i))
				taken[p] = name
				sites = append(sites, catalog.Site{Name: name, CIDRs: []netip.Prefix{p}})
			}
		}
		a := draw("address")
		want, best := a.String(), -1
		for p, name := range taken {
			if p.Contains(a) && p.Bits() > best {
				want, best = name, p.Bits()
			}
		}
		l, err := NewLocator(t.Context(), sites)
		if err != nil {
			rt.Fatal(err)
		}
		if got := l.Site(a); got != want {
			rt.Errorf("site of %s is %q, want %q", a, got, want)
		}
	})
}

func TestReachable(t *testing.T) {
	l := locator(t, site("oslo", "10.1.0.0/16", "127.1.0.0/16", "203.0.113.0/24"), site("bergen", "10.2.0.0/16"))
	for _, c := range []struct{ source, reported, want string }{
		{"10.1.0.5", "10.1.7.7", "10.1.7.7"},
		{"10.1.0.5", "10.2.7.7", "10.1.0.5"},           // another site's
		{"10.1.0.5", "10.3.7.7", "10.1.0.5"},           // no site's
		{"10.1.0.5", "198.51.100.1", "10.1.0.5"},       // public
		{"10.1.0.5", "203.0.113.9", "10.1.0.5"},        // public, although inside
		{"203.0.113.7", "10.1.7.7", "10.1.7.7"},        // behind the site's NAT
		{"127.1.0.1", "127.1.0.2", "127.1.0.2"},        // one machine
		{"10.1.0.5", "127.0.0.1", "10.1.0.5"},          // loopback of elsewhere
		{"198.51.100.1", "192.168.1.8", "192.168.1.8"}, // unlisted, behind one NAT
		{"198.51.100.1", "10.1.0.5", "198.51.100.1"},   // unlisted, claims a site's
		{"198.51.100.1", "127.0.0.1", "198.51.100.1"},
		{"192.168.1.7", "192.168.1.8", "192.168.1.7"}, // unlisted, no NAT in between
		{"10.1.0.5", "::ffff:10.1.7.7", "10.1.7.7"},
	} {
		if got := l.Reachable(addr(c.source), addr(c.reported)); got != addr(c.want) {
			t.Errorf("connected from %s, reports %s: %s, want %s", c.source, c.reported, got, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	a, b := locator(t, site("oslo", "10.1.0.0/16")), locator(t, site("oslo", "10.2.0.0/16"))
	if v := a.table.Load().version; len(v) != 16 || v == b.table.Load().version {
		t.Errorf("versions %q and %q", v, b.table.Load().version)
	}
}
