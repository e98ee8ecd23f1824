package swarm

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"freshet/internal/content"
)

// request is one run asked of one peer and not yet received. It is counted in the picker's
// asked unless it is late, and in its sure when it is neither late nor of a doubted peer. Its
// run is missing unless it is a proof.
type request struct {
	run      int32
	peer     Peer
	at       time.Duration
	deadline time.Duration // then it is late; of a late one: then it is given up
	late     bool          // its first deadline passed
	sure     bool
	proof    bool // its peer shall show that it gives: the request stands though the run be held
}

const (
	minTimeout   = 250 * time.Millisecond
	firstTimeout = 2 * time.Second // of a peer that delivered nothing yet
	blindTimeout = 5 * time.Second // the same while no peer did
	timeoutFold  = 4               // a request is late after this many times the time it should take
	maxTimeout   = 2 * time.Minute
	likelyRate   = 8 << 20  // bytes a second, of a peer of which nothing is known
	minSample    = 64 << 10 // bytes of a run that tells something of a rate
	maxDoublings = 4        // of the time-out of a peer that was late before
	maxProbe     = 30 * time.Second
	minWindow    = 2 * content.PieceSize // bytes of a peer's request window: two full runs
	maxWindow    = 16 * content.PieceSize
	endGame      = 8   // missing runs at which late is judged more strictly, at most
	endShare     = 32  // of a content's runs, the last of so many are the end game
	siteCost     = 1e5 // seconds: more than any estimate
	farCost      = 1e6
	missCost     = 1e9
)

// asking returns how many requests are open that will probably be answered.
func (s *Swarm) asking() int { return len(s.open) - s.late }

// fill asks peers for runs until the windows are full or nothing is to be had: the rarest
// run that a peer with room in its window holds, of the one who will be done soonest.
func (s *Swarm) fill(now time.Duration, acts []Action) []Action {
	for s.asking() < s.cfg.MaxOpen && s.pick.Left() > 0 {
		run, ok := s.next()
		if !ok {
			break
		}
		acts = s.ask(now, s.holder(int32(run), None), int32(run), acts)
	}
	return acts
}

// next returns the run to ask for next. A lone peer is asked in index order: there is nobody
// to have other runs for, and whole-file hashes grow with what arrives in order.
func (s *Swarm) next() (run int, ok bool) {
	if len(s.live) == 1 {
		return s.pick.First(s.room)
	}
	return s.pick.Choose(s.room)
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

// cost is the time in seconds that p should take for run, with what it owes already. Near
// peers come before far ones, and those that were late last of all.
func (s *Swarm) cost(p *peer, run int32) float64 {
	c := float64(p.owed+s.runLen(run)) / s.rateOf(p)
	switch {
	case p.zone == Elsewhere:
		c += farCost
	case p.zone == SameSite && s.cfg.Led:
		c += siteCost
	}
	return c + float64(p.misses)*missCost
}

// rateOf returns what p is taken to deliver, in bytes a second.
func (s *Swarm) rateOf(p *peer) float64 {
	switch {
	case p.rate > 0:
		return p.rate
	case s.rate > 0:
		return s.rate
	}
	return likelyRate
}

// window returns how many bytes may be asked of p at once: twice its rate times its
// latency, at least two full runs.
func (s *Swarm) window(p *peer) int64 {
	w := int64(2 * p.rate * p.latency.Seconds())
	return min(max(w, minWindow), maxWindow)
}

func (s *Swarm) ask(now time.Duration, p *peer, run int32, acts []Action) []Action {
	if s.pick.Asked(int(run)) > 0 || s.late > 0 && slices.ContainsFunc(s.open, func(q request) bool { return q.run == run }) {
		s.stats.Hedges++
	}
	if p.owed == 0 {
		p.busy = now
	}
	p.owed += s.runLen(run)
	p.open++
	sure := s.trusted.Has(int(p.id))
	s.pick.Ask(int(run), sure)
	deadline := now + s.timeout(p)<<min(p.misses, maxDoublings)
	s.open = append(s.open, request{run: run, peer: p.id, at: now, deadline: deadline, sure: sure})
	s.review(p)
	return append(acts, Action{Kind: Request, Peer: p.id, Run: run})
}

// timeout returns how long p may take for all that it owes before it is late, by what is
// known now.
func (s *Swarm) timeout(p *peer) time.Duration {
	d := firstTimeout
	switch {
	case s.latency == 0:
		d = blindTimeout
	case p.delivered():
		d = timeoutFold * (time.Duration(float64(p.owed)/s.rateOf(p)*float64(time.Second)) + p.latency)
	}
	return min(max(minTimeout, d, timeoutFold*s.latency), maxTimeout)
}

// closeRequest takes request i out of the books.
func (s *Swarm) closeRequest(i int) request {
	q := s.open[i]
	last := len(s.open) - 1
	s.open[i] = s.open[last]
	s.open = s.open[:last]
	if q.late {
		s.late--
	} else {
		s.pick.Unask(int(q.run), q.sure)
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
	for i := len(s.open) - 1; i >= 0; i-- {
		if s.open[i].run == run && !s.open[i].proof {
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
		if ok { // who sends rubbish shall not say how fast others are
			s.measure(now, p, q)
		}
	}
	if !ok {
		s.stats.Wrong += s.runLen(run)
		if p != nil {
			acts = s.blame(now, p, run, acts)
		}
		return s.fill(now, s.fillWAN(now, acts))
	}
	if p != nil {
		s.trust(now, p)
	}
	acts, fresh := s.accept(now, run, &s.stats.FromPeers, acts)
	switch {
	case !fresh:
	case p != nil && s.upload.circleOf(p.zone) != &s.upload.circles[0]: // it came in by this device
		acts = s.reveal(now, run, p.zone, acts)
	default:
		acts = s.tellAll(run, acts)
		s.wan.budget = 0
	}
	return s.fill(now, acts)
}

// measure learns from a request that was answered.
func (s *Swarm) measure(now time.Duration, p *peer, q request) {
	n := float64(s.runLen(q.run))
	took := max(now-q.at, time.Microsecond)
	since := max(now-max(p.busy, q.at), time.Microsecond) // the time that was this run's alone
	p.busy = now
	if n >= minSample {
		p.rate = smooth(p.rate, n/since.Seconds(), 0.25)
		s.rate = smooth(s.rate, p.rate, 0.1)
	}
	s.learnLatency(took)
	if p.latency == 0 || took < p.latency {
		p.latency = took
	} else {
		p.latency += (took - p.latency) / 64
	}
	s.review(p)
}

// learnLatency takes in how long a request took, as TCP does for its retransmission time-out
// (RFC 6298).
func (s *Swarm) learnLatency(took time.Duration) {
	if s.latency == 0 {
		s.latency, s.spread = took, took/2
		return
	}
	off := took - s.latency
	s.latency += off / 8
	s.spread += (max(off, -off) - s.spread) / 4
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
		p := s.peers[q.peer]
		due := now >= q.deadline
		if due && !q.late && now < q.at+s.timeout(p) { // by what is known since it was asked
			q.deadline = q.at + s.timeout(p)
			due = false
		}
		switch {
		case !due && !s.endsLate(now, q):
		case q.late:
			acts = s.giveUp(i, acts)
		case p.choked && !q.proof && s.holder(q.run, q.peer) != nil:
			acts = s.move(now, i, acts)
		case due:
			acts = s.miss(now, i, acts)
		default:
			acts = s.hedge(now, *q, acts)
		}
	}
	return s.probe(now, acts)
}

// move takes request i, which waits at a peer that said that requests wait, to another one.
func (s *Swarm) move(now time.Duration, i int, acts []Action) []Action {
	q := s.closeRequest(i)
	acts = append(acts, Action{Kind: Cancel, Peer: q.peer, Run: q.run})
	if s.pick.Asked(int(q.run)) > 0 {
		return acts
	}
	return s.hedge(now, q, acts)
}

// miss deals with request i, which is late for no reason that its peer gave.
func (s *Swarm) miss(now time.Duration, i int, acts []Action) []Action {
	q := &s.open[i]
	p := s.peers[q.peer]
	s.setLate(now, q)
	s.setStuck(now, now-q.at, p)
	if !p.delivered() { // nothing speaks for its claims
		s.doubt(p)
	}
	if s.pick.Asked(int(q.run)) > 0 {
		return acts
	}
	return s.hedge(now, *q, acts)
}

// setLate expects no answer to q any more: its run may be asked of others. When as much time
// again has passed twice, it is given up.
func (s *Swarm) setLate(now time.Duration, q *request) {
	s.pick.Unask(int(q.run), q.sure)
	q.late, q.sure = true, false
	q.deadline = now + 2*(now-q.at)
	if q.proof {
		q.deadline = max(q.deadline, now+proofTime)
	}
	s.late++
}

// endsLate reports whether q holds up the end: nothing else is left to ask for, it took
// longer than nearly all requests do, and nobody else was asked.
func (s *Swarm) endsLate(now time.Duration, q *request) bool {
	end := min(endGame, 1+s.cfg.Runs/endShare)
	return s.pick.Left() <= end && !q.late && s.latency > 0 && now-q.at > s.latency+4*s.spread && s.pick.Asked(int(q.run)) == 1
}

// hedge asks another holder for the run of q, when it is missing and there is one that can be
// asked. The caller knows that nobody but q's peer was asked and may answer.
func (s *Swarm) hedge(now time.Duration, q request, acts []Action) []Action {
	if !s.pick.Missing(int(q.run)) { // q is a proof
		return acts
	}
	if other := s.holder(q.run, q.peer); other != nil {
		acts = s.ask(now, other, q.run, acts)
	}
	return acts
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
