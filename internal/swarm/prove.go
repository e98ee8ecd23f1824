package swarm

import (
	"math"
	"slices"
	"time"
)

// proofTime is how long the answer to a proof is waited for, at least, once it is late: it may
// wait in its peer's queue.
const proofTime = 10 * time.Second

// OnProve asks a peer for one run that it told that it holds, held here or not, though it be
// choked: bytes alone prove a claim. A request that is open already will do. The shell sees
// the answer as it sees every run.
func (s *Swarm) OnProve(now time.Duration, id Peer, acts []Action) []Action {
	p := s.peer(id)
	if p == nil || !s.reaches(p.zone) {
		return acts
	}
	i := slices.IndexFunc(s.open, func(q request) bool { return q.peer == id })
	if i < 0 {
		run, ok := s.evidence(id)
		if !ok {
			return acts
		}
		acts = s.ask(now, p, run, acts)
		i = len(s.open) - 1
	}
	s.open[i].proof = true
	return acts
}

// evidence returns the run that a peer is asked for to prove that it gives: one that is wanted
// anyway, else the shortest.
func (s *Swarm) evidence(id Peer) (run int32, ok bool) {
	least := int64(math.MaxInt64)
	for r := range int32(s.cfg.Runs) {
		if !s.pick.Has(int(r), int(id)) {
			continue
		}
		if s.pick.Candidate(int(r)) {
			return r, true
		}
		if n := s.runLen(r); n < least {
			run, least = r, n
		}
	}
	return run, least < math.MaxInt64
}
