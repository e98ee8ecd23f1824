package origin

import (
	"maps"
	"net/netip"
	"testing"

	"freshet/internal/content"
)

func TestParseRange(t *testing.T) {
	tests := []struct {
		in       string
		size     int64
		off, n   int64
		ok, fail bool
	}{
		{"bytes=0-0", 10, 0, 1, true, false},
		{"bytes=0-", 10, 0, 10, true, false},
		{"bytes=9-", 10, 9, 1, true, false},
		{"bytes=3-5", 10, 3, 3, true, false},
		{"bytes=3-99", 10, 3, 7, true, false},
		{"bytes=3-99999999999999999999999", 10, 3, 7, true, false},
		{"Bytes= 3-5 ", 10, 3, 3, true, false},
		{"bytes=-4", 10, 6, 4, true, false},
		{"bytes=-40", 10, 0, 10, true, false},
		{"items=0-1", 10, 0, 0, false, false},
		{"0-1", 10, 0, 0, false, false},
		{"bytes=10-", 10, 0, 0, false, true},
		{"bytes=99999999999999999999-", 10, 0, 0, false, true},
		{"bytes=5-3", 10, 0, 0, false, true},
		{"bytes=-0", 10, 0, 0, false, true},
		{"bytes=-", 10, 0, 0, false, true},
		{"bytes=", 10, 0, 0, false, true},
		{"bytes=+1-2", 10, 0, 0, false, true},
		{"bytes=1-+2", 10, 0, 0, false, true},
		{"bytes=1 -2", 10, 0, 0, false, true},
		{"bytes=0-1,2-3", 10, 0, 0, false, true},
		{"bytes=0-1,", 10, 0, 0, false, true},
		{"bytes=0x1-2", 10, 0, 0, false, true},
		{"bytes=0-", 0, 0, 0, false, true},
		{"bytes=-1", 0, 0, 0, false, true},
	}
	for _, test := range tests {
		off, n, ok, err := parseRange(test.in, test.size)
		if off != test.off || n != test.n || ok != test.ok || (err != nil) != test.fail {
			t.Errorf("%q of %d: got %d+%d %v %v, want %d+%d %v, failure %v", test.in, test.size, off, n, ok, err, test.off, test.n, test.ok, test.fail)
		}
	}
}

// FuzzParseRange checks that a range that is taken lies in the resource.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=7-", "bytes=1-2,3-4", "items=1-2", "bytes=18446744073709551615-1"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		off, n, ok, err := parseRange(s, size)
		if ok != (err == nil && n > 0) || ok && (off < 0 || n > size-off) {
			t.Errorf("%q of %d: got %d+%d %v %v", s, size, off, n, ok, err)
		}
	})
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{
		"100Mbit": 12_500_000, "1Gbit": 125_000_000, "2.5Gbit": 312_500_000, "12MB": 12_000_000, "64kB": 64_000,
		"8bit": 1, "1B": 1, "100Mbit/s": 12_500_000, "10 MB": 10_000_000,
		"": 0, "100": 0, "Mbit": 0, "-1MB": 0, "1MiB": 0, "7bit": 0, "NaNMB": 0, "InfMB": 0, "1e30GB": 0, "1mbit": 0,
	} {
		got, err := ParseRate(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
}

func TestSites(t *testing.T) {
	s, err := ParseSites([]string{"hq=10.0.0.0/8", "lab=10.7.0.0/16", "hq=2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"10.1.2.3": "hq", "10.7.1.1": "lab", "2001:db8::1": "hq", "::ffff:10.7.0.1": "lab", "192.0.2.1": OtherSite,
	} {
		if got := s.Of(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
	if len(s.Names()) != 2 || s.Of(netip.Addr{}) != OtherSite {
		t.Errorf("names %q, no address is of %q", s.Names(), s.Of(netip.Addr{}))
	}
	for _, bad := range []string{"", "hq", "=10.0.0.0/8", "hq=10.0.0.0", "hq=10.0.0.0/99"} {
		if _, err := ParseSites([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseMapped(t *testing.T) {
	got, err := ParseMapped([]string{"tools@3=/srv/a=b", "a=b@1=/srv/c"})
	want := map[content.Ref]string{{ID: "tools", Version: 3}: "/srv/a=b", {ID: "a=b", Version: 1}: "/srv/c"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range [][]string{{"tools=/x"}, {"tools@3"}, {"tools@3="}, {"tools@0=/x"}, {"-a@1=/x"}, {"a@1=/x", "a@1=/y"}, {""}} {
		if got, err := ParseMapped(bad); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}
