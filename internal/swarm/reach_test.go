package swarm

import "slices"

// mayAsk says by the rules whether a peer may be asked.
func (sh *shell) mayAsk(p Peer) bool {
	switch {
	case sh.zone[p] == SameSubnet || sh.reach == ReachAll || sh.s.wan.alone && !sh.led:
		return true
	case sh.zone[p] == SameSite:
		return sh.reach == ReachSite || sh.reach == ReachUnknown && !sh.led
	}
	return false
}

// goAsFar changes the reach. Who goes out no more has at most the runs under way to bring.
func (sh *shell) goAsFar(reach Reach) []Action {
	s := sh.s
	if reach != ReachUnknown || sh.reach != ReachAll {
		sh.reach = reach
	}
	before := slices.Clone(s.wan.open)
	acts := s.OnReach(sh.now, reach, nil)
	if s.GoingOut() {
		return acts
	}
	stopped := map[int32]bool{}
	for _, a := range acts {
		stopped[a.ID] = stopped[a.ID] || a.Kind == Stop
	}
	for _, f := range before {
		i := s.findFetch(f.id)
		if open := i >= 0; open == stopped[f.id] {
			sh.t.Fatalf("%+v: open %v, stopped %v", f, open, stopped[f.id])
		}
		if i >= 0 && s.wan.open[i].end > s.wan.open[i].next+1 {
			sh.t.Fatalf("%+v has more than one run to bring after the reach became %d", s.wan.open[i], reach)
		}
	}
	return acts
}

// prove has peer p prove what it claims: one request of it is open then, if it claims anything
// and may be asked.
func (sh *shell) prove(p Peer) []Action {
	s := sh.s
	sh.proving = true
	acts := s.OnProve(sh.now, p, nil)
	open := slices.ContainsFunc(s.open, func(q request) bool { return q.peer == p && q.proof })
	if want := sh.up[p] && s.reaches(s.peers[p].zone) && s.told[p] > 0; want && !open || len(acts) > 1 {
		sh.t.Fatalf("peer %d is to prove what it claims: %+v, open %+v", p, acts, s.open)
	}
	return acts
}
