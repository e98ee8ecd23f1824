package swarm

import (
	"slices"
	"time"
)

// sendJob is a run that a peer asked for and that is not yet being sent.
type sendJob struct {
	peer Peer
	run  int32
}

// upload is the part of the brain that serves peers. Which runs they are told of, and when, is
// the affair of its circles.
type upload struct {
	circles []circle
	turn    int // the circle that a run is told of next

	first   []sendJob // first copies of secret runs for a circle, served before the others
	served  *circle   // the one that had a first copy last
	queue   []sendJob
	sending int
	busy    time.Duration // since when the uplink is busy with the run that is sent next
	rate    float64       // bytes a second of the uplink while busy, smoothed; 0: not known
	choking bool          // peers were told to ask others
}

const (
	maxQueued = 64 // requests of one peer that wait to be served; more are dropped
	chokeAt   = 4  // waiting requests at which peers are choked
	unchokeAt = 1  // waiting requests at which they are welcome again
)

// tickUpload tells others of runs whose first confidant did not take them, and all of
// confirmed runs when the uplink is free.
func (s *Swarm) tickUpload(now time.Duration, acts []Action) []Action {
	for i := range s.upload.circles {
		acts = s.passOver(now, &s.upload.circles[i], acts)
	}
	acts = s.flushConfirmed(acts)
	acts = s.revealMore(now, acts)
	if s.pick.Left() == 0 {
		acts = s.endSecrecy(acts)
	}
	return acts
}

// uplinkBusy reports whether a request waits for a slot.
func (s *Swarm) uplinkBusy() bool {
	return slices.ContainsFunc(s.upload.first, s.hasSlot) || slices.ContainsFunc(s.upload.queue, s.hasSlot)
}

// dropJobs takes jobs out of the queues and returns how many there were.
func (s *Swarm) dropJobs(which func(sendJob) bool) int {
	u := &s.upload
	n := len(u.first) + len(u.queue)
	drop := func(j sendJob) bool {
		if !which(j) {
			return false
		}
		if p := s.peer(j.peer); p != nil {
			p.queued--
		}
		return true
	}
	u.first = slices.DeleteFunc(u.first, drop)
	u.queue = slices.DeleteFunc(u.queue, drop)
	return n - len(u.first) - len(u.queue)
}

// OnRequest notes that a peer asks for run.
func (s *Swarm) OnRequest(now time.Duration, id Peer, run int32, acts []Action) []Action {
	p := s.peer(id)
	if p == nil || run < 0 || int(run) >= s.cfg.Runs || s.pick.Missing(int(run)) || p.queued >= maxQueued {
		return acts
	}
	p.queued++
	p.aloof = false
	u := &s.upload
	j := sendJob{peer: id, run: run}
	if c := u.circleOf(p.zone); c != nil && c.secret.Has(int(run)) && !c.left.Has(int(run)) {
		u.first = append(u.first, j)
		c.setAsked(id, run, true)
	} else {
		u.queue = append(u.queue, j)
	}
	return s.serve(now, acts)
}

// Choking reports whether a new peer is to be told to ask others.
func (s *Swarm) Choking() bool { return s.upload.choking }

// throttle chokes or unchokes peers by how many requests wait.
func (s *Swarm) throttle(acts []Action) []Action {
	u := &s.upload
	switch waiting := s.waiting(u.queue); {
	case !u.choking && waiting >= chokeAt:
		u.choking = true
		return append(acts, Action{Kind: Choke, Peer: None})
	case u.choking && waiting <= unchokeAt:
		u.choking = false
		return append(acts, Action{Kind: Unchoke, Peer: None})
	}
	return acts
}

// serve starts to send while slots are free.
func (s *Swarm) serve(now time.Duration, acts []Action) []Action {
	u := &s.upload
	for u.sending < s.cfg.Slots {
		j, ok := s.nextJob()
		if !ok {
			break
		}
		p := s.peers[j.peer]
		p.queued--
		p.sending++
		if u.sending == 0 {
			u.busy = now
		}
		u.sending++
		acts = append(acts, Action{Kind: Send, Peer: j.peer, Run: j.run})
	}
	return s.throttle(acts)
}

// nextJob takes the next job out of the queues, first copies before others.
func (s *Swarm) nextJob() (j sendJob, ok bool) {
	u := &s.upload
	for i := s.nextFirst(); i >= 0; i = s.nextFirst() {
		j = u.first[i]
		u.first = slices.Delete(u.first, i, i+1)
		c := u.circleOf(s.peers[j.peer].zone)
		if c != nil && !c.left.Has(int(j.run)) {
			c.left.Add(int(j.run))
			u.served = c
			return j, true
		}
		u.queue = append(u.queue, j) // another one asked for it, too, and was first
	}
	i := s.neediest(u.queue)
	if i < 0 {
		return j, false
	}
	j = u.queue[i]
	u.queue = slices.Delete(u.queue, i, i+1)
	return j, true
}

// nextFirst returns the index of the first copy to send next: the oldest for another circle
// than had one last, so that none waits for all that others want; else the oldest. -1: there
// is none.
func (s *Swarm) nextFirst() int {
	u := &s.upload
	if len(u.circles) > 1 {
		i := slices.IndexFunc(u.first, func(j sendJob) bool {
			return s.hasSlot(j) && u.circleOf(s.peers[j.peer].zone) != u.served
		})
		if i >= 0 {
			return i
		}
	}
	return slices.IndexFunc(u.first, s.hasSlot)
}

// hasSlot reports whether the peer of a job may have one more slot: one that takes long to
// receive must not have all of them.
func (s *Swarm) hasSlot(j sendJob) bool { return s.peers[j.peer].sending < max(s.cfg.Slots/2, 1) }

// neediest returns the index of the job whose peer holds the fewest runs, of those that may
// have a slot: who lags behind is served first, so that all end together. -1: there is none.
func (s *Swarm) neediest(queue []sendJob) int {
	best := -1
	for i, j := range queue {
		if s.hasSlot(j) && (best < 0 || s.told[j.peer] < s.told[queue[best].peer]) {
			best = i
		}
	}
	return best
}

// waiting returns how many jobs wait for a slot, and not for their own peer.
func (s *Swarm) waiting(queue []sendJob) int {
	n := 0
	for _, j := range queue {
		if s.hasSlot(j) {
			n++
		}
	}
	return n
}

// OnCancel notes that a peer does not want run any more.
func (s *Swarm) OnCancel(id Peer, run int32) {
	if s.dropJobs(func(j sendJob) bool { return j.peer == id && j.run == run }) == 0 {
		return
	}
	if c := s.upload.circleOf(s.peers[id].zone); c != nil {
		c.setAsked(id, run, false)
	}
}

// OnSent notes the end of a Send action to peer id, None if that connection is gone; ok is
// false when the run did not reach the peer.
func (s *Swarm) OnSent(now time.Duration, id Peer, run int32, ok bool, acts []Action) []Action {
	u := &s.upload
	u.sending--
	p := s.peer(id)
	if p != nil {
		p.sending--
	}
	if ok {
		u.rate = smooth(u.rate, float64(s.runLen(run))/max(now-u.busy, time.Microsecond).Seconds(), 0.25)
		s.stats.Sent += s.runLen(run)
	}
	u.busy = now
	for i := range u.circles {
		if c := &u.circles[i]; p == nil || c.has(p.zone) {
			c.sent(now, run, ok)
		}
	}
	acts = s.serve(now, acts)
	return s.flushConfirmed(acts)
}

// leaveUpload forgets a peer that is gone: secret runs it was told of go to others.
func (s *Swarm) leaveUpload(now time.Duration, id Peer, acts []Action) []Action {
	s.takeBack(id)
	s.dropJobs(func(j sendJob) bool { return j.peer == id })
	return s.revealMore(now, s.throttle(acts))
}
