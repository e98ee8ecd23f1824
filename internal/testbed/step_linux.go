package testbed

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"freshet/internal/agent"
)

const (
	statusTime = 2 * time.Second  // for an agent to answer what it holds
	leaderTime = 30 * time.Second // for somebody to lead
	untilTime  = 5 * time.Minute  // for an "until"
)

// do carries out a step.
func (b *bed) do(ctx context.Context, s *Step) error {
	switch s.Verb {
	case "publish":
		return b.stepPublish(ctx, s)
	case "get":
		return b.stepGet(ctx, s)
	case "until":
		return b.stepUntil(ctx, s)
	case "pause":
		select {
		case <-time.After(s.Time):
			return b.dead()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case "wait":
		return b.stepWait(ctx, s)
	case "hashes":
		return b.expectHashes(ctx)
	case "wan":
		return b.expectWAN(ctx, s)
	case "slowest":
		return b.expectSlowest(s)
	default:
		return b.onEach(ctx, s)
	}
}

// stepPublish makes files in the distribution point's directory and publishes them.
func (b *bed) stepPublish(ctx context.Context, s *Step) error {
	dir := filepath.Join(b.root(), s.Content, strconv.Itoa(version))
	p, err := write(ctx, dir, *s)
	if err != nil {
		return err
	}
	b.contents[s.Content] = &p
	return b.admin(ctx, "publish", dir, "--id", s.Content, "--version", strconv.Itoa(version), "--in-place",
		"--token", b.token("publish"), "--to", "https://"+originAddr.String()+":7444/")
}

// stepUntil waits until nodes hold a share of a content. Who leads is asked again and again.
func (b *bed) stepUntil(ctx context.Context, s *Step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, untilTime, fmt.Errorf("not so after %v", untilTime))
	defer cancel()
	return b.poll(ctx, func() (bool, error) {
		all, err := b.statuses(ctx)
		if err != nil {
			return false, err
		}
		list := b.named(s.On, all)
		for _, e := range list {
			i := slices.IndexFunc(all[e.name], func(st agent.Status) bool { return st.Ref == ref(s.Content) })
			if i < 0 || float64(all[e.name][i].Held) < s.Percent*float64(all[e.name][i].Size) {
				return false, nil
			}
		}
		if len(list) == 0 && !slices.ContainsFunc(b.gets, func(g *get) bool { return !g.finished() }) {
			return false, fmt.Errorf("every get is done, and nobody is %s", s.On)
		}
		return len(list) > 0, nil
	})
}

// onEach carries out a step that does the same to each of its nodes.
func (b *bed) onEach(ctx context.Context, s *Step) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range nodes {
		names = append(names, e.name)
	}
	if got := strings.Join(names, ","); got != s.On.String() {
		b.say("    %s: %s", s.On, got)
	}
	switch s.Verb {
	case "cut", "heal", "hush":
		return b.fault(ctx, s, nodes)
	}
	for _, e := range nodes {
		if p := b.process(e.name); s.Verb != "start" && !p.live() {
			return fmt.Errorf("%s does not run", p.name)
		}
		b.sayHeld(e.name)
		if err := b.signal(ctx, s.Verb, b.process(e.name)); err != nil {
			return err
		}
	}
	return nil
}

// sayHeld tells what a device has got so far.
func (b *bed) sayHeld(name string) {
	for _, g := range b.gets {
		if p := g.last.Load(); g.device.name == name && p != nil && !g.dropped {
			b.say("    %s holds %s of %s: %s from peers, %s from origin", name, mib(p.Held), g.content, mib(p.FromPeers), mib(p.FromOrigin))
		}
	}
}

// signal does to a process what a verb says.
func (b *bed) signal(ctx context.Context, verb string, p *process) error {
	switch verb {
	case "kill":
		b.drop(p.name)
		delete(b.frozen, p.name)
		return b.end(p, syscall.SIGKILL)
	case "stop":
		b.drop(p.name)
		return b.end(p, syscall.SIGTERM)
	case "start":
		return b.launch(ctx, p)
	case "freeze":
		b.frozen[p.name] = true
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case "thaw":
		delete(b.frozen, p.name)
		return p.cmd.Process.Signal(syscall.SIGCONT)
	default:
		return fmt.Errorf("no step %q", verb)
	}
}

// fault changes the network's faults.
func (b *bed) fault(ctx context.Context, s *Step, nodes []end) error {
	changed := slices.Clone(nodes)
	switch s.Verb {
	case "cut":
		from, err := b.resolve(ctx, s.From)
		if err != nil {
			return err
		}
		for _, x := range nodes {
			for _, y := range from {
				if x != y {
					b.faults.cuts = append(b.faults.cuts, [2]end{x, y})
				}
			}
		}
		changed = append(changed, from...)
	case "hush":
		for _, e := range nodes {
			if e.far() {
				return fmt.Errorf("%s sends no broadcasts", e.name)
			}
		}
		b.faults.hushed = append(b.faults.hushed, nodes...)
	default:
		for _, c := range b.faults.cuts {
			if slices.Contains(nodes, c[0]) || slices.Contains(nodes, c[1]) {
				changed = append(changed, c[0], c[1])
			}
		}
		b.faults.heal(nodes)
	}
	for _, e := range changed {
		if err := b.faults.apply(ctx, b.net, e); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns whom names stand for now; for a leader it waits. Each comes once.
func (b *bed) resolve(ctx context.Context, names Nodes) (list []end, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, leaderTime, fmt.Errorf("nobody is %s for %v", names, leaderTime))
	defer cancel()
	err = b.poll(ctx, func() (bool, error) {
		var all map[string][]agent.Status
		if slices.ContainsFunc(names, isLeader) {
			if all, err = b.statuses(ctx); err != nil {
				return false, err
			}
		}
		list = b.named(names, all)
		return len(list) > 0, nil
	})
	return list, err
}

func isLeader(name string) bool { return name == "leader" || strings.HasPrefix(name, "leader:") }

// named returns whom names stand for, given what the agents say.
func (b *bed) named(names Nodes, all map[string][]agent.Status) []end {
	var list []end
	add := func(e end) {
		if !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	for _, name := range names {
		switch name {
		case "server":
			add(end{name: name, addr: serverAddr})
			continue
		case "origin":
			add(end{name: name, addr: originAddr})
			continue
		}
		for _, d := range b.devices {
			if b.is(d, name, all[d.name]) {
				add(end{d.name, d.at, d.at.addr()})
			}
		}
		for _, p := range b.procs[:2] {
			if name == "killed" && p.killed {
				list = append(list, b.named(Nodes{p.name}, nil)...)
			}
		}
	}
	return list
}

// is reports whether a name is one of a device's.
func (b *bed) is(d device, name string, says []agent.Status) bool {
	switch {
	case name == "killed":
		return b.process(d.name).killed
	case isLeader(name):
		_, scope, ok := strings.Cut(name, ":")
		if !ok {
			scope = "all"
		}
		return within(d.name, scope) && slices.ContainsFunc(says, func(st agent.Status) bool { return st.Lease && st.Held < st.Size })
	default:
		return within(d.name, name)
	}
}

// statuses asks every device that runs what it holds.
func (b *bed) statuses(ctx context.Context) (map[string][]agent.Status, error) {
	all := map[string][]agent.Status{}
	for _, d := range b.devices {
		if !b.process(d.name).live() || b.frozen[d.name] {
			continue
		}
		sctx, cancel := context.WithTimeout(ctx, statusTime)
		st, err := b.agent(d.name).Status(sctx)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("what %s holds: %w", d.name, err)
		}
		all[d.name] = st
	}
	return all, nil
}
