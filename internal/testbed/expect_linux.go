package testbed

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// counts reads what crossed each site's link so far.
func (b *bed) counts(ctx context.Context) ([]Counts, error) {
	var list []Counts
	for i := range b.s.Sites {
		c, err := b.net.counts(ctx, &b.s.Sites[i])
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// size is that of all contents that devices of a site began to get.
func (b *bed) size(site *Site) int64 {
	var n int64
	seen := map[string]bool{}
	for _, g := range b.gets {
		if within(g.device.name, site.Name) && !seen[g.content] {
			seen[g.content] = true
			n += b.contents[g.content].size
		}
	}
	return n
}

// expectHashes compares what every get left with what was published.
func (b *bed) expectHashes(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	n := 0
	for _, g := range b.gets {
		if g.dropped {
			continue
		}
		if !g.finished() {
			return fmt.Errorf("%s is not done", g.device.name)
		}
		n++
		work.Go(func() error {
			if err := b.contents[g.content].same(ctx, g.dir); err != nil {
				return fmt.Errorf("%s: what it got of %s: %w", g.device.name, g.content, err)
			}
			return nil
		})
	}
	if n == 0 {
		return errors.New("no get was done")
	}
	return work.Wait()
}

// expectWAN adds a figure for each site.
func (b *bed) expectWAN(ctx context.Context, s *Step) error {
	if b.before == nil {
		return errors.New("no get has begun")
	}
	now, err := b.counts(ctx)
	if err != nil {
		return err
	}
	for i := range b.s.Sites {
		site := &b.s.Sites[i]
		size, moved := b.size(site), now[i].Minus(b.before[i])
		if size == 0 {
			continue
		}
		b.figures = append(b.figures, Figure{
			Scenario: b.s.Name, What: fmt.Sprintf("WAN of %s ÷ size", site.Name),
			Limit: s.Limit + float64(s.Size)/float64(size), Got: float64(moved.Total()) / float64(size),
			Note: mib(moved.Total()),
		})
		for _, f := range flows {
			if sum := moved[f]; sum.Packets > 0 {
				b.say("    %-4s %-6s  %14d B in %8d packets", f.Dir, f.Far, sum.Payload, sum.Packets)
			}
		}
	}
	return b.sayWaste(ctx)
}

// sayWaste tells where bytes may have gone that crossed a link and did not help.
func (b *bed) sayWaste(ctx context.Context) error {
	n, err := b.resent(ctx)
	if err != nil {
		return err
	}
	b.say("    the far side sent %d segments again since it began", n)
	all, err := b.statuses(ctx)
	for _, d := range b.devices {
		for _, st := range all[d.name] {
			if st.FromOrigin > 0 || st.Wasted > 0 || st.Wrong > 0 {
				b.say("    %s: %s from origin, %s wasted, %d wrong", d.name, mib(st.FromOrigin), mib(st.Wasted), st.Wrong)
			}
		}
	}
	return err
}

// flows are all that are counted, in the order in which they are told.
var flows = []Flow{{"down", "origin"}, {"up", "origin"}, {"down", "server"}, {"up", "server"}, {"down", "other"}, {"up", "other"}}

// expectSlowest adds the figure of the get that took the longest, in bounds of its site.
func (b *bed) expectSlowest(s *Step) error {
	worst := Figure{Scenario: b.s.Name, What: "slowest ÷ bound", Limit: s.Limit, IsTime: true}
	for _, g := range b.gets {
		if g.dropped {
			continue
		}
		if !g.finished() {
			return fmt.Errorf("%s is not done", g.device.name)
		}
		i := slices.IndexFunc(b.s.Sites, func(site Site) bool { return within(g.device.name, site.Name) })
		bound := float64(b.size(&b.s.Sites[i])) / float64(b.s.Sites[i].Rate)
		if p := g.last.Load(); p != nil {
			b.say("    %-10s %6.2f s  %10s from peers %10s from origin", g.device.name, g.took.Seconds(), mib(p.FromPeers), mib(p.FromOrigin))
		}
		if got := g.took.Seconds() / bound; got > worst.Got {
			worst.Got, worst.Note = got, fmt.Sprintf("%.2f s; %s", g.took.Seconds(), b.busy)
		}
	}
	if worst.Got == 0 {
		return errors.New("no get was done")
	}
	b.figures = append(b.figures, worst)
	return nil
}

// resent is how many segments the far side has sent again so far, over all links: they cross
// a link twice where they were not lost before it.
func (b *bed) resent(ctx context.Context) (int64, error) {
	text, err := output(b.net.command(ctx, "far", "cat", "/proc/net/snmp"), "")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Tcp:":
		case names == nil:
			names = fields
		default:
			if i := slices.Index(names, "RetransSegs"); i > 0 && i < len(fields) {
				return strconv.ParseInt(fields[i], 10, 64)
			}
		}
	}
	return 0, errors.New("testbed: /proc/net/snmp tells no RetransSegs")
}
