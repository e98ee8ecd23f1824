package testbed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"freshet/internal/agent"
)

const (
	statusTime = 5 * time.Second  // for an agent to answer what it holds
	leaderTime = 30 * time.Second // for somebody to lead
	untilTime  = 2 * time.Minute  // for an "until"
)

// roleLeader is how an agent's status calls the device that leads.
const roleLeader = "leading"

// do carries out a step.
func (b *bed) do(ctx context.Context, s *Step) error {
	steps := map[string]func(context.Context, *Step) error{
		"publish": b.stepPublish, "republish": b.stepChange, "overwrite": b.stepChange,
		"get": b.stepGet, "abandon": b.stepAbandon, "until": b.stepUntil, "wait": b.stepWait,
		"cut": b.stepFault, "reject": b.stepFault, "hush": b.stepFault, "heal": b.stepFault,
		"run": b.stepRun, "tasted": b.stepTasted, "name": b.stepName,
		"mark":  func(ctx context.Context, _ *Step) error { return b.stepMark(ctx) },
		"pause": b.stepPause,
	}
	if f := steps[s.Verb]; f != nil {
		return f(ctx, s)
	}
	if f := b.expectations()[s.Verb]; f != nil {
		return f(ctx, s)
	}
	return b.onEach(ctx, s)
}

func (b *bed) stepPause(ctx context.Context, s *Step) error {
	select {
	case <-time.After(s.Time):
		return b.dead()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stepUntil waits until nodes hold a share of a content, or say that they wait for something. Who
// leads is asked again and again.
func (b *bed) stepUntil(ctx context.Context, s *Step) error {
	says := map[string]string{}
	ctx, cancel := context.WithTimeoutCause(ctx, untilTime, fmt.Errorf("not so after %v", untilTime))
	defer cancel()
	err := b.poll(ctx, askEvery, func() (bool, error) {
		all, err := b.statuses(ctx)
		if err != nil {
			return false, err
		}
		list := b.named(s.On, all)
		for _, e := range list {
			i := slices.IndexFunc(all[e.name], func(st agent.Status) bool { return st.Ref == ref(s.Content) })
			switch {
			case s.Words != "":
				says[e.name] = b.waits(e.name, s.Content)
				if !strings.Contains(says[e.name], s.Words) {
					return false, nil
				}
			case b.failed(e.name, s.Content) != nil:
				return false, b.failed(e.name, s.Content)
			case i < 0 || float64(all[e.name][i].Held) < s.Percent*float64(all[e.name][i].Size):
				return false, nil
			}
		}
		if len(list) == 0 && !slices.ContainsFunc(b.gets, func(g *get) bool { return !g.finished() }) {
			return false, fmt.Errorf("every get is done, and nobody is %s", s.On)
		}
		return len(list) > 0, nil
	})
	if err != nil && s.Words != "" {
		err = fmt.Errorf("%w; they say %q", err, says)
	}
	return err
}

// failed is why a device's get of a content ended, when it did not bring it.
func (b *bed) failed(device, content string) error {
	for _, g := range slices.Backward(b.gets) {
		if g.device.name != device || g.content != content {
			continue
		}
		if g.finished() && !g.dropped && g.err != nil {
			return fmt.Errorf("%s: %w", device, g.err)
		}
		break
	}
	return nil
}

// waits is why a device's get of a content waits, as its caller is told, or why it ended.
func (b *bed) waits(device, content string) string {
	for _, g := range slices.Backward(b.gets) {
		if g.device.name != device || g.content != content {
			continue
		}
		if g.finished() && g.err != nil {
			return g.err.Error()
		}
		if p := g.progress(); p != nil {
			return p.Waits
		}
	}
	return ""
}

// stepName gives those who are meant now a name of their own.
func (b *bed) stepName(ctx context.Context, s *Step) error {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return err
	}
	b.aliases[s.Name] = nodes
	b.say("    %s: %s", s.Name, join(nodes))
	return nil
}

func join(nodes []end) string {
	var names []string
	for _, e := range nodes {
		names = append(names, e.name)
	}
	return strings.Join(names, ",")
}

// nodesOf returns a step's nodes, and says which they are where it names them by what they do.
func (b *bed) nodesOf(ctx context.Context, s *Step) ([]end, error) {
	nodes, err := b.resolve(ctx, s.On)
	if err != nil {
		return nil, err
	}
	if got := join(nodes); got != s.On.String() {
		b.say("    %s: %s", s.On, got)
	}
	return nodes, nil
}

// onEach carries out a step that does the same to each of its nodes.
func (b *bed) onEach(ctx context.Context, s *Step) error {
	nodes, err := b.nodesOf(ctx, s)
	if err != nil {
		return err
	}
	for _, e := range nodes {
		p := b.process(e.name)
		if p == nil || s.Verb != "start" && !p.live() {
			return fmt.Errorf("%s does not run", e.name)
		}
		b.sayHeld(e.name)
		if err := b.signal(ctx, s.Verb, p); err != nil {
			return err
		}
	}
	return nil
}

// sayHeld tells what a device has got so far.
func (b *bed) sayHeld(name string) {
	for _, g := range b.gets {
		if p := g.progress(); g.device.name == name && p != nil && !g.dropped {
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

// stepFault changes the network's faults.
func (b *bed) stepFault(ctx context.Context, s *Step) error {
	nodes, err := b.nodesOf(ctx, s)
	if err != nil {
		return err
	}
	changed := slices.Clone(nodes)
	switch s.Verb {
	case "cut", "reject":
		from, err := b.resolve(ctx, s.From)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(nodes, end.far); i >= 0 && s.Verb == "reject" {
			return fmt.Errorf("%s is no device: what it sends cannot be refused", nodes[i].name)
		}
		list := &b.faults.cuts
		if s.Verb == "reject" {
			list = &b.faults.rejected
		}
		for _, x := range nodes {
			for _, y := range from {
				if x != y {
					*list = append(*list, [2]end{x, y})
				}
			}
		}
		changed = append(changed, from...)
	case "hush":
		if i := slices.IndexFunc(nodes, end.far); i >= 0 {
			return fmt.Errorf("%s sends no broadcasts", nodes[i].name)
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
	slices.SortFunc(changed, func(x, y end) int { return strings.Compare(x.name, y.name) })
	for _, e := range slices.Compact(changed) {
		if err := b.faults.apply(ctx, b.net, e); err != nil {
			return err
		}
	}
	return nil
}
