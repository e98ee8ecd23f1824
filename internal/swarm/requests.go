package swarm

import (
	"math"
	"time"

	"freshet/internal/content"
)

// request is one run asked of one peer and not yet received.
type request struct {
	run      int32
	peer     Peer
	at       time.Duration
	deadline time.Duration // then it is late
	late     bool          // its deadline passed once: hedged where there is another holder
}

const (
	minTimeout   = 250 * time.Millisecond
	firstTimeout = 2 * time.Second // of a peer whose rate nobody knows yet
	timeoutFold  = 4               // a request is late after this many times the time it should take
	minWindow    = 2 << 20         // bytes of a peer's request window: two full runs
	maxWindow    = 16 << 20
	endGame      = 8 // missing runs at which late is judged more strictly
	choices      = 4 // candidates tried in one choice
)

// fill asks peers for runs until the windows are full or nothing is to be had.
func (s *Swarm) fill(now time.Duration, acts []Action) []Action {
	for len(s.open) < s.cfg.MaxOpen && s.pick.Left() > 0 && s.willing > 0 {
		run, p := s.choose(now)
		if p == nil {
			break
		}
		acts = s.ask(now, p, run, acts)
	}
	return acts
}

// choose returns the rarest run that a peer with room in its window holds, and that peer;
// where the rarest ones' holders have none, the rarest run of any peer that has.
func (s *Swarm) choose(now time.Duration) (int32, *peer) {
	s.scratch = s.pick.Rarest(s.scratch[:0], choices, nil)
	if len(s.scratch) == 0 {
		return 0, nil
	}
	for _, run := range s.scratch {
		if p := s.holder(run, nil); p != nil {
			return run, p
		}
	}
	n := s.willing
	off := s.rng.IntN(n)
	for i := range n {
		p := s.live[(i+off)%n]
		if !s.hasRoom(p, content.PieceSize) {
			continue
		}
		if s.scratch = s.pick.Rarest(s.scratch[:0], 1, p.holds); len(s.scratch) > 0 {
			return s.scratch[0], p
		}
	}
	return 0, nil
}

// hasRoom reports whether p may be asked for n bytes more.
func (s *Swarm) hasRoom(p *peer, n int64) bool {
	return !p.choked && !p.stuck && (p.owed == 0 || p.owed+n <= s.window(p))
}

// holder returns the peer other than not that holds run, has room in its window and will
// probably be done with it soonest; nil when there is none.
func (s *Swarm) holder(run int32, not *peer) *peer {
	n := s.willing
	if n == 0 {
		return nil
	}
	var best *peer
	bestCost, size := math.Inf(1), s.runLen(run)
	off := s.rng.IntN(n)
	for i := range n {
		p := s.live[(i+off)%n]
		if p == not || !p.holds.Has(int(run)) || !s.hasRoom(p, size) {
			continue
		}
		if c := s.cost(p, run); c < bestCost {
			best, bestCost = p, c
		}
	}
	return best
}

// cost is the time in seconds that p should take for run, with what it owes already.
func (s *Swarm) cost(p *peer, run int32) float64 {
	rate := p.rate
	if rate == 0 {
		rate = s.meanRate()
	}
	c := float64(p.owed+s.runLen(run)) / rate
	if !p.near {
		c += 1e6
	}
	return c
}

// meanRate is what a peer of unknown rate is taken to deliver, in bytes a second.
func (s *Swarm) meanRate() float64 {
	if s.rate > 0 {
		return s.rate
	}
	return 8 << 20
}

// window returns how many bytes may be asked of p at once: twice its rate times its
// latency, at least two full runs.
func (s *Swarm) window(p *peer) int64 {
	w := int64(2 * p.rate * p.latency.Seconds())
	return min(max(w, minWindow), maxWindow)
}

func (s *Swarm) ask(now time.Duration, p *peer, run int32, acts []Action) []Action {
	if p.owed == 0 {
		p.busy = now
	}
	p.owed += s.runLen(run)
	p.open++
	s.pick.Ask(int(run))
	s.open = append(s.open, request{run: run, peer: p.id, at: now, deadline: now + s.timeout(p)})
	return append(acts, Action{Kind: Request, Peer: p.id, Run: run})
}

// timeout returns how long p may take for all that it owes before it is late.
func (s *Swarm) timeout(p *peer) time.Duration {
	if p.rate == 0 {
		return max(firstTimeout, timeoutFold*s.latency)
	}
	d := time.Duration(float64(p.owed)/p.rate*float64(time.Second)) + p.latency
	return max(minTimeout, timeoutFold*max(d, s.latency))
}

// closeRequest takes request i out of the books.
func (s *Swarm) closeRequest(i int) request {
	q := s.open[i]
	last := len(s.open) - 1
	s.open[i] = s.open[last]
	s.open = s.open[:last]
	s.pick.Unask(int(q.run))
	if p := s.peer(q.peer); p != nil {
		p.open--
		p.owed -= s.runLen(q.run)
		if p.stuck && p.open == 0 {
			p.stuck = false
			s.sort(p)
		}
	}
	return q
}

func (s *Swarm) find(id Peer, run int32) int {
	for i := range s.open {
		if s.open[i].peer == id && s.open[i].run == run {
			return i
		}
	}
	return -1
}

// dropRequests cancels what else was asked for run.
func (s *Swarm) dropRequests(run int32, acts []Action) []Action {
	for i := len(s.open) - 1; i >= 0; i-- {
		if s.open[i].run == run {
			q := s.closeRequest(i)
			acts = append(acts, Action{Kind: Cancel, Peer: q.peer, Run: run})
		}
	}
	return acts
}

// OnRun notes that a peer delivered a whole run. ok says that it verified and is written.
func (s *Swarm) OnRun(now time.Duration, id Peer, run int32, ok bool, acts []Action) []Action {
	p := s.peer(id)
	if i := s.find(id, run); i >= 0 {
		q := s.closeRequest(i)
		s.measure(now, p, q)
	}
	if !ok {
		s.stats.Wrong += s.runLen(run)
		if p != nil {
			acts = s.blame(now, p, run, acts)
		}
		return s.fill(now, s.fillWAN(now, acts))
	}
	acts, fresh := s.accept(now, run, &s.stats.FromPeers, acts)
	if fresh {
		acts = s.tellAll(run, acts)
	}
	return s.fill(now, acts)
}

// measure learns from a request that was answered.
func (s *Swarm) measure(now time.Duration, p *peer, q request) {
	n := float64(s.runLen(q.run))
	took := max(now-q.at, time.Microsecond)
	since := max(now-max(p.busy, q.at), time.Microsecond) // the time that was this run's alone
	p.busy = now
	if p.stuck {
		p.stuck = false
		s.sort(p)
	}
	p.rate = smooth(p.rate, n/since.Seconds(), 0.25)
	s.rate = smooth(s.rate, p.rate, 0.1)
	s.latency = time.Duration(smooth(float64(s.latency), float64(took), 0.1))
	if p.latency == 0 || took < p.latency {
		p.latency = took
	} else {
		p.latency += (took - p.latency) / 64
	}
}

func smooth(old, sample, gain float64) float64 {
	if old == 0 {
		return sample
	}
	return old + gain*(sample-old)
}

// OnRefused notes that a peer will not send a run it was asked for: it does not hold it
// any more.
func (s *Swarm) OnRefused(now time.Duration, id Peer, run int32, acts []Action) []Action {
	if i := s.find(id, run); i >= 0 {
		s.closeRequest(i)
	}
	if p := s.peer(id); p != nil {
		s.unclaim(p, run)
	}
	return s.fill(now, s.fillWAN(now, acts))
}

// expire deals with requests that are late.
func (s *Swarm) expire(now time.Duration, acts []Action) []Action {
	for i := len(s.open) - 1; i >= 0; i-- {
		if i >= len(s.open) || !s.due(now, &s.open[i]) {
			continue
		}
		q := s.open[i]
		p := s.peer(q.peer)
		if q.late {
			s.closeRequest(i)
			s.unclaim(p, q.run)
			acts = append(acts, Action{Kind: Cancel, Peer: q.peer, Run: q.run})
			continue
		}
		s.open[i].late = true
		s.open[i].deadline = now + 2*(now-q.at)
		if now >= q.deadline {
			p.stuck = true
			s.sort(p)
		}
		if other := s.holder(q.run, p); other != nil && s.pick.Asked(int(q.run)) < 2 {
			s.stats.Hedges++
			acts = s.ask(now, other, q.run, acts)
		}
	}
	return acts
}

// due reports whether q is late. In the end game, when nothing else is left to ask for, it
// is late once it took twice as long as requests do.
func (s *Swarm) due(now time.Duration, q *request) bool {
	if now >= q.deadline {
		return true
	}
	return !q.late && s.pick.Left() <= endGame && s.latency > 0 && now-q.at > 2*s.latency
}
