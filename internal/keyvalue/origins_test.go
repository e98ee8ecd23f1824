package keyvalue

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"freshet/internal/catalog"
)

// points are distribution points, and how often they were asked for.
type points struct {
	urls  []string
	asked int
	err   error
}

func (p *points) Origins(_ context.Context, most int) ([]catalog.Origin, error) {
	p.asked++
	var all []catalog.Origin
	for _, u := range p.urls[:min(most, len(p.urls))] {
		all = append(all, catalog.Origin{URL: u})
	}
	return all, p.err
}

func TestOrigins(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &points{urls: []string{"https://dp.example:7444", "https://10.1.0.1:7444", "https://10.2.0.1", "https://[fd00::1]:7444"}, err: errors.New("disk")}
	o := &Origins{Store: p, Now: func() time.Time { return now }}
	siteOf := func(a netip.Addr) string {
		if netip.MustParsePrefix("10.2.0.0/16").Contains(a) || a.Is6() {
			return "bergen"
		}
		return "oslo"
	}
	if _, err := o.For(t.Context(), "oslo", siteOf); !errors.Is(err, p.err) {
		t.Errorf("a broken catalog: %v", err)
	}
	p.err = nil
	for site, want := range map[string][]int{"oslo": {1, 0, 2, 3}, "bergen": {2, 3, 0, 1}, "elsewhere": {0, 1, 2, 3}} {
		got, err := o.For(t.Context(), site, siteOf)
		var order []int
		for _, u := range got {
			order = append(order, slices.Index(p.urls, u))
		}
		if err != nil || !slices.Equal(order, want) {
			t.Errorf("%s: %v, %v; want the order %v", site, got, err, want)
		}
	}
	p.urls = p.urls[:1]
	now = now.Add(originsAge - 1)
	if got, _ := o.For(t.Context(), "oslo", siteOf); len(got) != 4 || p.asked != 2 {
		t.Errorf("%v after %d questions, want the four remembered", got, p.asked)
	}
	now = now.Add(1)
	if got, _ := o.For(t.Context(), "oslo", siteOf); len(got) != 1 || p.asked != 3 {
		t.Errorf("%v after %d questions, want them asked anew", got, p.asked)
	}
	p.urls = nil
	now = now.Add(originsAge)
	for range 2 {
		if got, _ := o.For(t.Context(), "oslo", siteOf); len(got) != 0 {
			t.Errorf("%v, want none", got)
		}
	}
	if p.asked != 5 {
		t.Errorf("%d questions: that there is none yet counts for no time", p.asked)
	}
}
