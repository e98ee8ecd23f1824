package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"freshet/internal/agent"
	"freshet/internal/content"
)

// This file has the expectations of how devices stand: what they hold, who leads, what they say.

// expectHeld fails unless the caches of devices have all of what is published.
func (b *bed) expectHeld(ctx context.Context, s *Step) error {
	return b.eachCache(ctx, s, func(p *published, has []agent.Status) error {
		want := p.current().digest
		if !slices.ContainsFunc(has, func(st agent.Status) bool { return st.Manifest == want.String() && st.State == "complete" }) {
			return fmt.Errorf("not all of %s is there: %s", want.Short(), describe(has))
		}
		return nil
	})
}

// expectForgotten fails when the cache of a device names an issue of before.
func (b *bed) expectForgotten(ctx context.Context, s *Step) error {
	return b.eachCache(ctx, s, func(p *published, has []agent.Status) error {
		want := p.current().digest
		if slices.ContainsFunc(has, func(st agent.Status) bool { return st.Manifest != want.String() }) {
			return fmt.Errorf("what is published is %s: %s", want.Short(), describe(has))
		}
		return nil
	})
}

// eachCache calls check for each device and content with what the device says of it.
func (b *bed) eachCache(ctx context.Context, s *Step, check func(p *published, has []agent.Status) error) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	all, err := b.statuses(ctx)
	if err != nil {
		return err
	}
	for _, e := range nodes {
		for _, name := range b.s.names(s.Content) {
			has := slices.DeleteFunc(slices.Clone(all[e.name]), func(st agent.Status) bool { return st.Ref != ref(name) })
			if err := check(b.contents[name], has); err != nil {
				return fmt.Errorf("%s: cache: %s: %w", e.name, name, err)
			}
		}
	}
	return nil
}

// describe writes what a cache has, for people.
func describe(has []agent.Status) string {
	if len(has) == 0 {
		return "it has nothing of it"
	}
	var list []string
	for _, st := range has {
		digest, _ := content.ParseDigest(st.Manifest)
		list = append(list, fmt.Sprintf("%s, %s of %s, %s", digest.Short(), mib(st.Held), mib(st.Size), st.State))
	}
	return "it has " + strings.Join(list, "; ")
}

// expectLeadersKept fails unless all that led at the mark lead in the same epoch.
func (b *bed) expectLeadersKept(ctx context.Context, _ *Step) error {
	if !b.mark.set || len(b.mark.leads) == 0 {
		return errors.New("nobody led at the mark")
	}
	now, err := b.leads(ctx)
	if err != nil {
		return err
	}
	changed := 0
	for l, epoch := range b.mark.leads {
		if now[l] != epoch {
			changed++
			b.say("    no more: %s", l.describe(epoch))
		}
	}
	for l, epoch := range now {
		if b.mark.leads[l] != epoch {
			b.say("    now: %s", l.describe(epoch))
		}
	}
	b.found(Figure{What: "leaders changed", Got: float64(changed), Whole: true, Note: fmt.Sprintf("of %d", len(b.mark.leads))})
	return nil
}

// leaderships counts what each device leads.
func (b *bed) leaderships(ctx context.Context) (by map[string]int, total int, err error) {
	now, err := b.leads(ctx)
	by = map[string]int{}
	for l := range now {
		by[l.device]++
	}
	return by, len(now), err
}

// expectLeads adds the figure of the device that leads the most of those named.
func (b *bed) expectLeads(ctx context.Context, s *Step) error {
	by, total, err := b.leaderships(ctx)
	if err != nil {
		return err
	}
	return b.worst(ctx, s, Figure{What: "leads", Note: fmt.Sprintf("of %d", total)}, func(name string) (float64, error) {
		return float64(by[name]), nil
	})
}

// expectSpread adds the figure of the device that leads the most, over its share.
func (b *bed) expectSpread(ctx context.Context, s *Step) error {
	by, total, err := b.leaderships(ctx)
	if err != nil {
		return err
	}
	contents := map[string]bool{}
	for _, g := range b.since() {
		contents[g.content] = true
	}
	if total < len(contents)*9/10 { // a leadership may have ended with the last get
		return fmt.Errorf("only %d of %d contents have a leader", total, len(contents))
	}
	f := Figure{What: "most led ÷ share", Limit: s.Limit}
	for _, d := range b.devices {
		name, n := d.name, by[d.name]
		b.say("    %s leads %d", name, n)
		if got := float64(n*len(b.devices)) / float64(total); got > f.Got {
			f.Got, f.Note = got, fmt.Sprintf("%s leads %d of %d", name, n, total)
		}
	}
	b.found(f)
	return nil
}

// worst adds the figure of the node whose number is the worst. f has what it is called.
func (b *bed) worst(ctx context.Context, s *Step, f Figure, number func(name string) (float64, error)) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	f.Limit, f.AtLeast, f.Whole = s.Limit, s.AtLeast, f.Whole || s.Size == 0
	note := f.Note
	for i, e := range nodes {
		got, err := number(e.name)
		if err != nil {
			return err
		}
		if i == 0 || (got > f.Got) != s.AtLeast && got != f.Got {
			f.Got, f.Note = got, strings.TrimSpace(e.name+" "+note)
		}
	}
	b.found(f)
	return nil
}

// expectLines adds the figure of how many lines a log has with a text in them, since the mark.
func (b *bed) expectLines(ctx context.Context, s *Step) error {
	if !b.mark.set {
		return errNoMark
	}
	return b.worst(ctx, s, Figure{What: fmt.Sprintf("lines %q", s.Words)}, func(name string) (float64, error) {
		lines, err := b.logged(name)
		n := 0
		for _, line := range lines {
			if strings.Contains(line, s.Words) {
				n++
			}
		}
		return float64(n), err
	})
}

// logged returns what a process logged since the mark.
func (b *bed) logged(name string) ([]string, error) {
	p := b.process(name)
	if p == nil {
		return nil, fmt.Errorf("%s has run nothing", name)
	}
	return b.loggedFrom(p, b.mark.logs[name])
}

// loggedFrom returns what a process logged from a byte of its log on.
func (b *bed) loggedFrom(p *process, at int64) ([]string, error) {
	f, err := os.Open(p.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	var lines []string
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, scanner.Err()
}

// expectMemory adds the figure of the process that has grown the most.
func (b *bed) expectMemory(ctx context.Context, s *Step) error {
	if !b.mark.set {
		return errNoMark
	}
	limit := *s
	limit.Limit = float64(s.Size) / (1 << 20)
	return b.worst(ctx, &limit, Figure{What: "memory grown, MiB"}, func(name string) (float64, error) {
		p := b.process(name)
		before, ok := b.mark.memory[name]
		if p == nil || !p.live() || !ok {
			return 0, fmt.Errorf("%s did not run at the mark, or does not now", name)
		}
		return float64(resident(p.cmd.Process.Pid)-before) / (1 << 20), nil
	})
}
