// Package geo is the service that devices ask first: which address they are seen at, which
// site that is, and where to go on (design section 5).
//
// # Sites
//
// A device's address is its connection's source; headers are not believed. The site is that
// of the longest prefix in the fleet's table that holds the address, else, for IPv4, the
// address itself, and for IPv6 its /48: those behind one NAT, or in one delegated prefix, are
// behind one WAN link.
package geo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/web"
)

// Unlisted is the label of all addresses that no site's prefix holds, where labels must be
// few.
const Unlisted = "unlisted"

// homePrefix is how much of an IPv6 address names a site.
const homePrefix = 48

// table answers look-ups. It is immutable.
type table struct {
	byPrefix map[netip.Prefix]string
	bits4    []int // prefix lengths that occur, longest first
	bits6    []int
	version  string // 16 hex digits of what is in it
}

func newTable(sites []catalog.Site) *table {
	t := &table{byPrefix: map[netip.Prefix]string{}}
	sum := sha256.New()
	for _, s := range sites {
		for _, p := range s.CIDRs {
			t.byPrefix[p] = s.Name
			bits := &t.bits6
			if p.Addr().Is4() {
				bits = &t.bits4
			}
			if !slices.Contains(*bits, p.Bits()) {
				*bits = append(*bits, p.Bits())
			}
			fmt.Fprintf(sum, "%s %s\n", s.Name, p)
		}
	}
	for _, bits := range [][]int{t.bits4, t.bits6} {
		slices.Sort(bits)
		slices.Reverse(bits)
	}
	t.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return t
}

// find returns the site of the longest prefix that holds a.
func (t *table) find(a netip.Addr) (site string, ok bool) {
	bits := t.bits6
	if a.Is4() {
		bits = t.bits4
	}
	for _, n := range bits {
		p, err := a.Prefix(n)
		if err != nil {
			return "", false // the zero address
		}
		if site, ok = t.byPrefix[p]; ok {
			return site, true
		}
	}
	return "", false
}

// Locator finds sites. It is safe for concurrent use.
type Locator struct {
	sites catalog.Sites
	table atomic.Pointer[table]
}

// NewLocator reads the fleet's table.
func NewLocator(ctx context.Context, sites catalog.Sites) (*Locator, error) {
	l := &Locator{sites: sites}
	return l, l.Reload(ctx)
}

// Reload reads the table again.
func (l *Locator) Reload(ctx context.Context) error {
	sites, err := l.sites.Sites(ctx)
	if err != nil {
		return fmt.Errorf("geo: read the table of sites: %w", err)
	}
	l.table.Store(newTable(sites))
	return nil
}

// Site returns the site of an address; it is never empty.
func (l *Locator) Site(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if site, ok := l.table.Load().find(a); ok {
		return site
	}
	if a.Is6() {
		if p, err := a.Prefix(homePrefix); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// Label returns the site of an address where the table has one, else [Unlisted].
func (l *Locator) Label(a netip.Addr) string {
	if site, ok := l.table.Load().find(a.Unmap().WithZone("")); ok {
		return site
	}
	return Unlisted
}

// Reachable returns where to reach a device that is connected from source and reports
// another address of its own: that one when it is private or loopback and inside the same
// site, else the source. A site that no prefix tells of is what lies behind one external
// address: any private address is inside.
func (l *Locator) Reachable(source, reported netip.Addr) netip.Addr {
	source, reported = source.Unmap().WithZone(""), reported.Unmap().WithZone("")
	if reported == source || !reported.IsPrivate() && !reported.IsLoopback() {
		return source
	}
	t := l.table.Load()
	here, listed := t.find(source)
	there, inside := t.find(reported)
	switch {
	case inside && listed && here == there:
		return reported
	case !inside && !listed && reported.IsPrivate() && !source.IsPrivate() && !source.IsLoopback():
		return reported
	}
	return source
}

// Service answers GET /geo.
type Service struct {
	Locator  *Locator
	KeyValue string // the endpoint's URL
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := authz.Source(r)
	web.WriteJSON(w, api.Geo{
		ExternalIpAddress:        from.String(),
		Site:                     s.Locator.Site(from),
		KeyValue_EndpointFullUri: s.KeyValue,
		Version:                  s.Locator.table.Load().version,
	})
}
