package swarm

import (
	"math"
	"math/bits"
	"time"

	"freshet/internal/content"
)

// request is one run asked of one peer and not yet received.
type request struct {
	run      int32
	peer     Peer
	at       time.Duration
	deadline time.Duration // then it is late; of a late one: then it is given up
	late     bool          // its first deadline passed
	hedged   bool          // the run was asked of a second holder
}

const (
	minTimeout   = 250 * time.Millisecond
	firstTimeout = 2 * time.Second // of a peer whose rate nobody knows yet
	timeoutFold  = 4               // a request is late after this many times the time it should take
	maxProbe     = 30 * time.Second
	minWindow    = 2 * content.PieceSize // bytes of a peer's request window: two full runs
	maxWindow    = 16 * content.PieceSize
	endGame      = 8 // missing runs at which late is judged more strictly
)

// asking returns how many requests are open that will probably be answered.
func (s *Swarm) asking() int { return len(s.open) - s.late }

// fill asks peers for runs until the windows are full or nothing is to be had: the rarest
// run that a peer with room in its window holds, of the one who will be done soonest.
func (s *Swarm) fill(now time.Duration, acts []Action) []Action {
	for s.asking() < s.cfg.MaxOpen && s.pick.Left() > 0 {
		run, ok := s.pick.Choose(s.room)
		if !ok {
			break
		}
		acts = s.ask(now, s.holder(int32(run), None), int32(run), acts)
	}
	return acts
}

// holder returns the peer other than not that holds run, has room in its window and will
// probably be done with it soonest; nil when there is none. It begins at a random one, so
// that equal ones share the load.
func (s *Swarm) holder(run int32, not Peer) *peer {
	var best *peer
	bestCost := math.Inf(1)
	row := s.pick.Row(int(run))
	n := min(len(row), len(s.room))
	first, turn := 0, 0
	if n > 0 {
		first, turn = s.rng.IntN(n), s.rng.IntN(64)
	}
	for i := range n {
		i = (i + first) % n
		for w := bits.RotateLeft64(row[i]&s.room[i], -turn); w != 0; w &= w - 1 {
			p := s.peers[i*64+(bits.TrailingZeros64(w)+turn)%64]
			if p.id == not {
				continue
			}
			if c := s.cost(p, run); c < bestCost {
				best, bestCost = p, c
			}
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
	s.review(p)
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
	if q.late {
		s.late--
	}
	p := s.peers[q.peer]
	p.open--
	p.owed -= s.runLen(q.run)
	s.review(p)
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
	for i := len(s.open) - 1; i >= 0 && s.pick.Asked(int(run)) > 0; i-- {
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
		s.measure(now, p, s.closeRequest(i))
	}
	if !ok {
		s.stats.Wrong += s.runLen(run)
		if p != nil {
			acts = s.blame(now, p, run, acts)
		}
		return s.fill(now, s.fillWAN(now, acts))
	}
	if p != nil {
		s.trust(p)
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
	p.rate = smooth(p.rate, n/since.Seconds(), 0.25)
	s.rate = smooth(s.rate, p.rate, 0.1)
	s.latency = time.Duration(smooth(float64(s.latency), float64(took), 0.1))
	if p.latency == 0 || took < p.latency {
		p.latency = took
	} else {
		p.latency += (took - p.latency) / 64
	}
	s.review(p)
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

// expire deals with requests that are late and with peers that were.
func (s *Swarm) expire(now time.Duration, acts []Action) []Action {
	for i := len(s.open) - 1; i >= 0; i-- {
		q := &s.open[i]
		switch {
		case now < q.deadline:
		case q.late:
			acts = s.giveUp(i, acts)
			continue
		default:
			q.late = true
			s.late++
			q.deadline = now + 2*(now-q.at)
			s.setStuck(now, now-q.at, s.peers[q.peer])
		}
		if !q.hedged && (q.late || s.endsLate(now, q)) {
			acts = s.hedge(now, i, acts)
		}
	}
	return s.probe(now, acts)
}

// endsLate reports whether q holds up the end: nothing else is left to ask for, and it took
// twice as long as requests do.
func (s *Swarm) endsLate(now time.Duration, q *request) bool {
	return s.pick.Left() <= endGame && s.latency > 0 && now-q.at > 2*s.latency
}

// hedge asks a second holder for the run of request i, when there is one that can be asked.
func (s *Swarm) hedge(now time.Duration, i int, acts []Action) []Action {
	q := s.open[i]
	if s.pick.Asked(int(q.run)) > 1 {
		return acts
	}
	other := s.holder(q.run, q.peer)
	if other == nil {
		return acts
	}
	s.open[i].hedged = true
	s.stats.Hedges++
	return s.ask(now, other, q.run, acts)
}

// giveUp ends request i, whose second deadline passed.
func (s *Swarm) giveUp(i int, acts []Action) []Action {
	q := s.closeRequest(i)
	s.doubt(s.peers[q.peer])
	return append(acts, Action{Kind: Cancel, Peer: q.peer, Run: q.run})
}

// probe lets stuck peers that owe nothing be asked again when their time has come. Until
// they deliver, one request is all they get.
func (s *Swarm) probe(now time.Duration, acts []Action) []Action {
	if s.stuck == 0 {
		return acts
	}
	for _, p := range s.live {
		if p.stuck && p.open == 0 && now >= p.probe {
			s.unstick(p)
		}
	}
	return acts
}
