package testbed

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"freshet/internal/agent"
)

// resolve returns whom names stand for now; for a leader it waits. Each comes once.
func (b *bed) resolve(ctx context.Context, names Nodes) (list []end, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, leaderTime, fmt.Errorf("nobody is %s for %v", names, leaderTime))
	defer cancel()
	err = b.poll(ctx, askEvery, func() (bool, error) {
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
	for _, name := range names {
		bare, away := strings.CutPrefix(name, "-")
		for _, e := range b.whom(bare, all) {
			switch i := slices.Index(list, e); {
			case away && i >= 0:
				list = slices.Delete(list, i, i+1)
			case !away && i < 0:
				list = append(list, e)
			}
		}
	}
	return list
}

// whom returns whom one name stands for.
func (b *bed) whom(name string, all map[string][]agent.Status) []end {
	switch name {
	case "server":
		return []end{{name: name, addr: serverAddr}}
	case "origin":
		return []end{{name: name, addr: originAddr}}
	}
	if nodes, ok := b.aliases[name]; ok {
		return nodes
	}
	var list []end
	for _, d := range b.devices {
		if b.is(d, name, all[d.name]) {
			list = append(list, end{d.name, d.at, d.at.addr()})
		}
	}
	for _, h := range b.hosts {
		if h.name == name {
			list = append(list, end{h.name, h.at, h.at.addr()})
		}
	}
	for _, p := range b.procs[:2] {
		if name == "killed" && p.killed {
			list = append(list, b.whom(p.name, nil)...)
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
		_, scope, _ := strings.Cut(name, ":")
		ofSubnet := strings.Contains(scope, ".")
		return within(d.name, cmp.Or(scope, "all")) && slices.ContainsFunc(says, func(st agent.Status) bool {
			leads := st.Lease
			if ofSubnet {
				leads = st.Role == roleLeader
			}
			return leads && st.Held < st.Size
		})
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
