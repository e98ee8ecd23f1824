package origin

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"freshet/internal/content"
)

// rateUnits are decimal: 1Mbit is a million bits a second. The first suffix that fits counts.
var rateUnits = []struct {
	suffix string
	bytes  float64
}{
	{"Gbit", 125e6}, {"Mbit", 125e3}, {"kbit", 125}, {"bit", 0.125},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// ParseRate reads a rate such as 100Mbit, 1Gbit, 2.5Gbit, 12MB or 64kB and returns bytes a
// second. Units are decimal, bit and B (byte) with the prefixes k, M and G; "/s" may follow.
func ParseRate(s string) (int64, error) {
	text := strings.TrimSuffix(s, "/s")
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(v*u.bytes >= 1 && v*u.bytes <= 1e15) {
			break
		}
		return int64(v * u.bytes), nil
	}
	return 0, fmt.Errorf("origin: rate %q is not a number with a unit, such as 100Mbit, 1Gbit or 12MB", s)
}

// OtherSite is the site of addresses that no CIDR covers.
const OtherSite = "other"

// Sites says which site an address belongs to.
type Sites struct {
	names    []string // in order of first mention
	prefixes []sitePrefix
}

type sitePrefix struct {
	prefix netip.Prefix
	name   string
}

// ParseSites reads entries NAME=CIDR; a name may come several times. Of prefixes that cover
// an address, the longest decides.
func ParseSites(entries []string) (*Sites, error) {
	s := &Sites{}
	for _, e := range entries {
		name, cidr, ok := strings.Cut(e, "=")
		prefix, err := netip.ParsePrefix(cidr)
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("origin: site %q is not NAME=CIDR, such as office=10.1.0.0/16", e)
		}
		s.prefixes = append(s.prefixes, sitePrefix{prefix.Masked(), name})
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
	}
	return s, nil
}

// Names returns the sites, OtherSite not among them unless it was named.
func (s *Sites) Names() []string { return s.names }

// Of returns the site of an address.
func (s *Sites) Of(a netip.Addr) string {
	best, site := -1, OtherSite
	for _, p := range s.prefixes {
		if p.prefix.Bits() > best && p.prefix.Contains(a.Unmap()) {
			best, site = p.prefix.Bits(), p.name
		}
	}
	return site
}

// ParseMapped reads entries ID@VERSION=DIR.
func ParseMapped(entries []string) (map[content.Ref]string, error) {
	mapped := map[content.Ref]string{}
	for _, e := range entries {
		name, dir, ok := strings.Cut(e, "=") // an id may hold "=": the version stands between
		if at := strings.Index(e, "@"); at >= 0 {
			version, rest, found := strings.Cut(e[at:], "=")
			name, dir, ok = e[:at]+version, rest, found
		}
		ref, err := content.ParseRef(name)
		switch {
		case !ok || dir == "" || err == nil && ref.Version == 0:
			return nil, fmt.Errorf("origin: content %q is not ID@VERSION=DIR", e)
		case err != nil:
			return nil, fmt.Errorf("origin: content %q: %w", e, err)
		case mapped[ref] != "":
			return nil, fmt.Errorf("origin: content %q is mapped twice", ref)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("origin: content %q: %w", e, err)
		}
		mapped[ref] = abs
	}
	return mapped, nil
}
