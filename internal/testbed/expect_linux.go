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

// expectations are the steps that look at what has happened.
func (b *bed) expectations() map[string]func(context.Context, *Step) error {
	return map[string]func(context.Context, *Step) error{
		"hashes": b.expectHashes, "wan": b.expectWAN, "subnets": b.expectSubnets,
		"slowest": b.expectSlowest, "stall": b.expectStall,
		"held": b.expectHeld, "forgotten": b.expectForgotten,
		"leaders": b.expectLeadersKept, "leads": b.expectLeads, "spread": b.expectSpread,
		"lines": b.expectLines, "memory": b.expectMemory,
		"given": b.expectTaste, "withheld": b.expectTaste,
	}
}

// found adds a figure of the scenario.
func (b *bed) found(f Figure) {
	f.Scenario = b.s.Name
	b.figures = append(b.figures, f)
}

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

// size is that of all contents that devices of a site or subnet began to get since the mark.
func (b *bed) size(scope string) int64 {
	var n int64
	seen := map[*issue]bool{}
	for _, g := range b.since() {
		if within(g.device.name, scope) && !seen[g.want] {
			seen[g.want] = true
			n += g.want.size
		}
	}
	return n
}

// moved is what crossed each site's link since the mark.
func (b *bed) moved(ctx context.Context) ([]Counts, error) {
	if !b.mark.set {
		return nil, errNoMark
	}
	now, err := b.counts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range now {
		now[i] = now[i].Minus(b.mark.counts[i])
	}
	return now, nil
}

// expectHashes compares what every get left with what it was to bring.
func (b *bed) expectHashes(ctx context.Context, _ *Step) error {
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
			if err := g.want.same(ctx, g.dir); err != nil {
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

// copies is the figure of bytes that are to be a number of copies, and some more.
func copies(what string, s *Step, moved, size int64) Figure {
	return Figure{
		What: what, Limit: s.Limit + float64(s.Size)/float64(size), Got: float64(moved) / float64(size), Note: mib(moved),
	}
}

// expectWAN adds a figure for each site.
func (b *bed) expectWAN(ctx context.Context, s *Step) error {
	moved, err := b.moved(ctx)
	if err != nil {
		return err
	}
	for i := range b.s.Sites {
		site := &b.s.Sites[i]
		size := b.size(site.Name)
		if size == 0 {
			continue
		}
		b.found(copies(fmt.Sprintf("WAN of %s ÷ size", site.Name), s, moved[i].Total(), size))
		for _, f := range flows {
			if sum := moved[i][f]; sum.Packets > 0 {
				b.say("    %-4s %-6s  %14d B in %8d packets", f.Dir, f.Far, sum.Payload, sum.Packets)
			}
		}
	}
	return b.sayWaste(ctx)
}

// expectSubnets adds a figure for each subnet.
func (b *bed) expectSubnets(ctx context.Context, s *Step) error {
	moved, err := b.moved(ctx)
	if err != nil {
		return err
	}
	for i := range b.s.Sites {
		for k, sub := range b.s.Sites[i].Subnets {
			if size := b.size(sub.Name); size > 0 {
				b.found(copies(fmt.Sprintf("into %s ÷ size", sub.Name), s, moved[i].Into(k+1), size))
			}
		}
	}
	return nil
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
				b.say("    %s: %s: %s from origin, %s wasted, %d wrong", d.name, st.Ref, mib(st.FromOrigin), mib(st.Wasted), st.Wrong)
			}
		}
	}
	return err
}

// flows are all that are counted on a WAN link, in the order in which they are told.
var flows = []Flow{{"down", "origin"}, {"up", "origin"}, {"down", "server"}, {"up", "server"}, {"down", "other"}, {"up", "other"}}

// expectSlowest adds the figure of the get that took the longest, in bounds of its site.
func (b *bed) expectSlowest(_ context.Context, s *Step) error {
	worst := Figure{What: "slowest ÷ bound", Limit: s.Limit, IsTime: true}
	for _, g := range b.since() {
		if g.dropped {
			continue
		}
		if !g.finished() {
			return fmt.Errorf("%s is not done", g.device.name)
		}
		i := slices.IndexFunc(b.s.Sites, func(site Site) bool { return within(g.device.name, site.Name) })
		site := &b.s.Sites[i]
		bound := float64(b.size(site.Name)) / float64(site.Rate)
		if p := g.progress(); p != nil {
			b.say("    %-10s %6.2f s  %10s from peers %10s from origin", g.device.name, g.took.Seconds(), mib(p.FromPeers), mib(p.FromOrigin))
		}
		if got := g.took.Seconds() / bound; got > worst.Got {
			worst.Got, worst.Note = got, fmt.Sprintf("%.2f s; %s", g.took.Seconds(), b.busy)
		}
	}
	if worst.Got == 0 {
		return errors.New("no get was done")
	}
	b.found(worst)
	return nil
}

// expectStall adds the figure of the get that stood still for the longest.
func (b *bed) expectStall(ctx context.Context, s *Step) error {
	on := s.On
	if on == nil {
		on = all
	}
	nodes, err := b.resolve(ctx, on)
	if err != nil {
		return err
	}
	worst := Figure{What: "stall, s", Limit: s.Time.Seconds(), IsTime: true}
	n := 0
	for _, g := range b.gets {
		if g.dropped || !slices.ContainsFunc(nodes, func(e end) bool { return e.name == g.device.name }) {
			continue
		}
		n++
		if got := g.stall().Seconds(); got >= worst.Got {
			worst.Got, worst.Note = got, g.device.name
		}
	}
	if n == 0 {
		return errors.New("no get began")
	}
	b.found(worst)
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
