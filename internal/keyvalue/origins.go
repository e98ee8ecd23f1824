package keyvalue

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"freshet/internal/catalog"
)

const (
	maxOrigins = 32               // that a device is told
	originsAge = 30 * time.Second // that the catalog's answer counts, if it names some: all devices ask each minute
)

// Origins tells devices where the distribution points are, so that they find contents while no
// service answers.
type Origins struct {
	Store catalog.Origins
	Now   func() time.Time

	mu  sync.Mutex // guards the following; held while the catalog is asked
	all []catalog.Origin
	at  time.Time // when the catalog said so; zero: never
}

// For returns base URLs: those whose address lies in the site, then the others.
func (o *Origins) For(ctx context.Context, site string, siteOf func(netip.Addr) string) ([]string, error) {
	all, err := o.known(ctx)
	if err != nil {
		return nil, err
	}
	var near, far []string
	for _, origin := range all {
		if a, ok := addressOf(origin.URL); ok && siteOf(a) == site {
			near = append(near, origin.URL)
		} else {
			far = append(far, origin.URL)
		}
	}
	return slices.Concat(near, far), nil
}

func (o *Origins) known(ctx context.Context) ([]catalog.Origin, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.Now(); len(o.all) == 0 || now.Sub(o.at) >= originsAge {
		all, err := o.Store.Origins(ctx, maxOrigins)
		if err != nil {
			return nil, err
		}
		o.all, o.at = all, now
	}
	return o.all, nil
}

// addressOf returns the address of a URL that names one, and no host.
func addressOf(base string) (netip.Addr, bool) {
	u, err := url.Parse(base)
	if err != nil {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return a, err == nil
}
