package swarm

import (
	"slices"
	"time"

	"freshet/internal/content"
)

// circle is those who pass on to each other what one of them has: the peers of the site, or
// with [Config].Led those of this subnet and those of the site's other subnets, a circle each.
//
// A run that came from outside of a circle is secret there until all of it are told:
// backlog (told to nobody) → pending (told to one) → confirmed (that one has it) → public.
// Each secret run is in exactly one of the three lists.
type circle struct {
	zones uint8 // bit z: peers of zone z belong to it

	secret    content.Bits
	left      content.Bits // secret runs that left this device at least once for the circle
	backlog   []int32
	pending   []revealed
	confirmed []int32
}

// revealed is a secret run that was told to one peer, which has not said yet that it has it.
type revealed struct {
	run   int32
	peer  Peer
	at    time.Duration // when the peer was told; when the run was sent, if it was
	asked bool          // the peer's request waits or is being served: it is this device that takes its time
	sent  bool
	tries int // peers that were told before and did nothing
}

const (
	maxPending   = 4                // secret runs told to one peer at once
	maxTries     = 2                // confidants passed over; then all are told
	promiseTime  = 0.25             // seconds of the uplink's time that secret runs told and not yet sent may take
	promiseSlots = 2                // runs, besides those in the slots, that may be promised however long they take
	revealPeriod = time.Second      // a confidant that does nothing for this long is passed over for another
	aloofPeriod  = revealPeriod / 4 // the same for one of another subnet, which has a leader that asks at once
	slowReveal   = 5 * time.Second  // so is one that asked and takes longer than this to receive
)

func (u *upload) init(cfg *Config) {
	u.circles = []circle{{zones: 1<<SameSubnet | 1<<SameSite}}
	if cfg.Led {
		u.circles = []circle{{zones: 1 << SameSubnet}, {zones: 1 << SameSite}}
	}
	for i := range u.circles {
		u.circles[i].secret = content.NewBits(cfg.Runs)
		u.circles[i].left = content.NewBits(cfg.Runs)
	}
}

func (c *circle) has(z Zone) bool { return c.zones>>z&1 != 0 }

// keeps reports whether the circle has runs that not all of it were told of.
func (c *circle) keeps() bool { return len(c.backlog)+len(c.pending)+len(c.confirmed) > 0 }

func (c *circle) pendingAt(run int32) int {
	return slices.IndexFunc(c.pending, func(r revealed) bool { return r.run == run })
}

// setAsked notes whether the request of run's confidant, if that is id, waits.
func (c *circle) setAsked(id Peer, run int32, asked bool) {
	if i := c.pendingAt(run); i >= 0 && c.pending[i].peer == id {
		c.pending[i].asked = asked
	}
}

// sent notes that run was sent to one of the circle; ok: it arrived.
func (c *circle) sent(now time.Duration, run int32, ok bool) {
	if !ok {
		c.left.Remove(int(run))
	}
	if i := c.pendingAt(run); i >= 0 {
		c.pending[i].asked, c.pending[i].sent, c.pending[i].at = false, true, now
	}
}

// circleOf returns the circle of peers of a zone; nil: other sites have none.
func (u *upload) circleOf(z Zone) *circle {
	for i := range u.circles {
		if u.circles[i].has(z) {
			return &u.circles[i]
		}
	}
	return nil
}

// Public returns the runs that a new peer of a zone may be told of: those held and not secret.
func (s *Swarm) Public(z Zone) content.Bits {
	b := s.pick.Held()
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		if !c.has(z) && z != Elsewhere {
			continue
		}
		for i, w := range c.secret {
			b[i] &^= w
		}
	}
	return b
}

// tellAll tells every peer of a run.
func (s *Swarm) tellAll(run int32, acts []Action) []Action {
	if len(s.live) == 0 {
		return acts
	}
	return append(acts, Action{Kind: TellAll, Peer: None, Run: run})
}

// tellZones tells the peers of zones of a run.
func (s *Swarm) tellZones(zones uint8, run int32, acts []Action) []Action {
	for _, p := range s.live {
		if zones>>p.zone&1 != 0 {
			acts = append(acts, Action{Kind: Tell, Peer: p.id, Run: run})
		}
	}
	return acts
}

// reveal begins to tell of a run that came from zone from: it is secret in every circle that
// is nearer. A circle that it came from knows it.
func (s *Swarm) reveal(now time.Duration, run int32, from Zone, acts []Action) []Action {
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		if c.has(from) {
			acts = s.tellZones(c.zones, run, acts)
			break
		}
		c.secret.Add(int(run))
		c.backlog = append(c.backlog, run)
	}
	return s.revealMore(now, acts)
}

// withdraw forgets a run that turned out not to be held: it is no secret any more, and not
// sent to those who wait for it.
func (s *Swarm) withdraw(run int32) {
	s.dropJobs(func(j sendJob) bool { return j.run == run })
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		c.left.Remove(int(run))
		c.secret.Remove(int(run))
		same := func(r int32) bool { return r == run }
		c.backlog = slices.DeleteFunc(c.backlog, same)
		c.confirmed = slices.DeleteFunc(c.confirmed, same)
		if i := c.pendingAt(run); i >= 0 {
			s.unconfide(c, i)
		}
	}
}

// revealMore tells runs of the backlogs to one peer each, as long as peers have room: a run of
// each circle in turn.
func (s *Swarm) revealMore(now time.Duration, acts []Action) []Action {
	u := &s.upload
	if len(s.live) == 0 {
		return acts
	}
	for idle := 0; idle < len(u.circles); {
		c := &u.circles[u.turn]
		u.turn = (u.turn + 1) % len(u.circles)
		var done bool
		if acts, done = s.revealNext(now, c, acts); done {
			idle = 0
		} else {
			idle++
		}
	}
	return acts
}

// revealNext tells one peer of the oldest run of c's backlog, or all when all have it. done is
// false when there is none, or it has to wait.
func (s *Swarm) revealNext(now time.Duration, c *circle, acts []Action) (_ []Action, done bool) {
	if len(c.backlog) == 0 {
		return acts, false
	}
	run := c.backlog[0]
	p, anyLacks := s.confidant(c, run, None)
	if anyLacks && (p == nil || s.promised(c) >= s.mayPromise()) {
		return acts, false
	}
	c.backlog = c.backlog[1:]
	if p == nil {
		return s.publish(c, run, acts), true
	}
	return s.confide(c, revealed{run: run, peer: p.id, at: now}, acts), true
}

// confide tells one peer of a run.
func (s *Swarm) confide(c *circle, r revealed, acts []Action) []Action {
	s.peers[r.peer].confides++
	c.pending = append(c.pending, r)
	return append(acts, Action{Kind: Tell, Peer: r.peer, Run: r.run})
}

// promised returns the bytes of secret runs that were told to one peer of c and not yet sent.
func (s *Swarm) promised(c *circle) int64 {
	var n int64
	for i := range c.pending {
		if r := &c.pending[i]; !r.sent {
			n += s.runLen(r.run)
		}
	}
	return n
}

// mayPromise returns how many there may be: more would only wait for the uplink, and those
// who wait could not ask others, who have the run before. Circles share the uplink.
func (s *Swarm) mayPromise() int64 {
	n := int64(s.cfg.Slots+promiseSlots) * content.PieceSize
	if rate := s.upload.rate; rate > 0 {
		n = min(n, int64(s.cfg.Slots+promiseSlots)*s.runLen(0))
		n = max(n, int64(rate*promiseTime))
	}
	return n / s.audiences()
}

// audiences returns how many circles have peers, 1 at least.
func (s *Swarm) audiences() int64 {
	if len(s.upload.circles) == 1 {
		return 1
	}
	var zones uint8
	for _, p := range s.live {
		zones |= 1 << p.zone
	}
	n := int64(0)
	for i := range s.upload.circles {
		if s.upload.circles[i].zones&zones != 0 {
			n++
		}
	}
	return max(n, 1)
}

// confidant returns the peer of c other than not that is told of run first: one that lacks it,
// with the fewest runs to confirm; nil when all who lack it have enough. anyLacks is false
// when everyone of the circle has it, or would not ask for it.
func (s *Swarm) confidant(c *circle, run int32, not Peer) (best *peer, anyLacks bool) {
	n := len(s.live)
	if n == 0 {
		return nil, false
	}
	least, off := maxPending, s.rng.IntN(n)
	for i := range n {
		p := s.live[(i+off)%n]
		if p.id == not || p.aloof || !c.has(p.zone) || s.pick.Has(int(run), int(p.id)) {
			continue
		}
		anyLacks = true
		if c := p.confides; c < least {
			best, least = p, c
		}
	}
	return best, anyLacks
}

// confirm notes that a peer of zone z has run: if the run was secret there, all may know now,
// once no first copy waits for the uplink.
func (s *Swarm) confirm(now time.Duration, z Zone, run int32, acts []Action) []Action {
	c := s.upload.circleOf(z)
	if c == nil || len(c.pending) == 0 || !c.secret.Has(int(run)) {
		return acts
	}
	i := c.pendingAt(run)
	if i < 0 {
		return acts
	}
	s.unconfide(c, i)
	if s.uplinkBusy() {
		c.confirmed = append(c.confirmed, run)
	} else {
		acts = s.publish(c, run, acts)
	}
	return s.revealMore(now, acts)
}

// unconfide takes entry i out of c's pending.
func (s *Swarm) unconfide(c *circle, i int) {
	if p := s.peer(c.pending[i].peer); p != nil {
		p.confides--
	}
	c.pending = slices.Delete(c.pending, i, i+1)
}

// publish tells all of c of a secret run. Other sites hear of it when it is secret nowhere.
func (s *Swarm) publish(c *circle, run int32, acts []Action) []Action {
	c.secret.Remove(int(run))
	if len(s.upload.circles) == 1 {
		return s.tellAll(run, acts)
	}
	zones := c.zones
	if !slices.ContainsFunc(s.upload.circles, func(c circle) bool { return c.secret.Has(int(run)) }) {
		zones |= 1 << Elsewhere
	}
	return s.tellZones(zones, run, acts)
}

// passOver tells others of runs of c whose confidants did nothing, or take too long.
func (s *Swarm) passOver(now time.Duration, c *circle, acts []Action) []Action {
	period := revealPeriod
	beyond := c != &s.upload.circles[0]
	if beyond {
		period = aloofPeriod
	}
	for i := len(c.pending) - 1; i >= 0; i-- {
		if r := c.pending[i]; now-r.at >= period && !r.asked || now-r.at >= s.patience() {
			if p := s.peer(r.peer); p != nil && beyond && !r.asked && !r.sent {
				p.aloof = true
			}
			s.unconfide(c, i)
			acts = s.confideAgain(now, c, r, acts)
		}
	}
	return acts
}

// patience is how long a confidant may take to receive a run that it asked for: several
// times what the uplink needs for all that is on its way.
func (s *Swarm) patience() time.Duration {
	if s.upload.rate == 0 {
		return 4 * slowReveal
	}
	need := float64(s.mayPromise()*s.audiences()) / s.upload.rate
	return max(slowReveal, time.Duration(4*need*float64(time.Second)))
}

// confideAgain tells another peer of the run of r; when there is none, or others did nothing
// either, all.
func (s *Swarm) confideAgain(now time.Duration, c *circle, r revealed, acts []Action) []Action {
	p, _ := s.confidant(c, r.run, r.peer)
	if p == nil || r.tries == maxTries {
		return s.publish(c, r.run, acts)
	}
	return s.confide(c, revealed{run: r.run, peer: p.id, at: now, tries: r.tries + 1}, acts)
}

// endSecrecy tells all of what is secret still when nothing more comes from outside and no
// first copy waits; with no peer there, of the backlogs too.
func (s *Swarm) endSecrecy(acts []Action) []Action {
	waits := slices.ContainsFunc(s.upload.first, s.hasSlot)
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		for len(s.live) == 0 && len(c.backlog) > 0 {
			run := c.backlog[0]
			c.backlog = c.backlog[1:]
			acts = s.publish(c, run, acts)
		}
		for !waits && len(c.backlog) == 0 && len(c.pending) > 0 {
			run := c.pending[0].run
			s.unconfide(c, 0)
			acts = s.publish(c, run, acts)
		}
	}
	return acts
}

// flushConfirmed tells all of the confirmed runs when the uplink is free.
func (s *Swarm) flushConfirmed(acts []Action) []Action {
	if s.uplinkBusy() {
		return acts
	}
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		for _, run := range c.confirmed {
			acts = s.publish(c, run, acts)
		}
		c.confirmed = c.confirmed[:0]
	}
	return acts
}

// takeBack puts the secret runs that a peer was told of into the backlogs again: it is gone,
// or belongs to another circle.
func (s *Swarm) takeBack(id Peer) {
	for i := range s.upload.circles {
		c := &s.upload.circles[i]
		for i := len(c.pending) - 1; i >= 0; i-- {
			if r := c.pending[i]; r.peer == id {
				s.unconfide(c, i)
				c.backlog = append(c.backlog, r.run)
			}
		}
	}
}

// moveCircle notes that p, of zone from before, belongs to another circle now: it is told what
// is public there and was secret where it was taken to be.
func (s *Swarm) moveCircle(p *peer, from Zone, acts []Action) []Action {
	if s.upload.circleOf(from) == s.upload.circleOf(p.zone) {
		return acts
	}
	p.aloof = false
	s.takeBack(p.id)
	news, known := s.Public(p.zone), s.Public(from)
	for i, w := range known {
		news[i] &^= w
	}
	for r := range news.All {
		acts = append(acts, Action{Kind: Tell, Peer: p.id, Run: int32(r)})
	}
	return acts
}
