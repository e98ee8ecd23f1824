package swarm

import (
	"slices"
	"time"

	"freshet/internal/content"
)

// sendJob is a run that a peer asked for and that is not yet being sent.
type sendJob struct {
	peer Peer
	run  int32
}

// revealed is a secret run that was told to one peer, which has not said yet that it has it.
type revealed struct {
	run  int32
	peer Peer
	at   time.Duration
}

// upload is the part of the brain that serves peers.
//
// A run that this device brought into the site is secret until it is told to all:
// backlog (told to nobody) → pending (told to one) → confirmed (that one has it) → public.
// Each secret run is in exactly one of the three lists.
type upload struct {
	secret    content.Bits
	left      content.Bits // secret runs that left this device at least once
	backlog   []int32
	pending   []revealed
	confirmed []int32

	first   []sendJob // first copies of secret runs, served before the others
	queue   []sendJob
	sending int
	choking bool // peers were told to ask others
}

const (
	maxQueued    = 64          // requests of one peer that wait to be served; more are dropped
	chokeAt      = 4           // waiting requests at which peers are choked
	unchokeAt    = 1           // waiting requests at which they are welcome again
	maxPending   = 4           // secret runs told to one peer at once
	revealPeriod = time.Second // then a secret run is told to another peer
)

func (u *upload) init(runs int) {
	u.secret = content.NewBits(runs)
	u.left = content.NewBits(runs)
}

// Public returns the runs that a new peer may be told of: those held and not secret.
func (s *Swarm) Public() content.Bits {
	b := s.pick.Held()
	for i, w := range s.upload.secret {
		b[i] &^= w
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

// reveal begins to tell of a run that came from outside.
func (s *Swarm) reveal(now time.Duration, run int32, acts []Action) []Action {
	s.upload.secret.Add(int(run))
	s.upload.backlog = append(s.upload.backlog, run)
	return s.revealMore(now, acts)
}

// revealMore tells runs of the backlog to one peer each, as long as peers have room.
func (s *Swarm) revealMore(now time.Duration, acts []Action) []Action {
	u := &s.upload
	kept := u.backlog[:0]
	for i, run := range u.backlog {
		p, anyLacks := s.confidant(run)
		switch {
		case p != nil:
			u.pending = append(u.pending, revealed{run: run, peer: p.id, at: now})
			acts = append(acts, Action{Kind: Tell, Peer: p.id, Run: run})
		case !anyLacks && len(s.live) > 0:
			acts = s.publish(run, acts)
		case anyLacks: // all who lack it are busy, and so for the rest
			kept = append(kept, u.backlog[i:]...)
			u.backlog = kept
			return acts
		default:
			kept = append(kept, run)
		}
	}
	u.backlog = kept
	return acts
}

// confidant returns the peer that is told of run first: one that lacks it, with the fewest
// runs to confirm. anyLacks is false when every peer has it.
func (s *Swarm) confidant(run int32) (best *peer, anyLacks bool) {
	n := len(s.live)
	if n == 0 {
		return nil, false
	}
	least, off := maxPending, s.rng.IntN(n)
	for i := range n {
		p := s.live[(i+off)%n]
		if p.holds.Has(int(run)) {
			continue
		}
		anyLacks = true
		if c := p.confides; c < least {
			best, least = p, c
		}
	}
	if best != nil {
		best.confides++
	}
	return best, anyLacks
}

// confirm notes that p has run: if the run was secret, all may know now, once no first copy
// waits for the uplink.
func (s *Swarm) confirm(now time.Duration, p *peer, run int32, acts []Action) []Action {
	u := &s.upload
	if !u.secret.Has(int(run)) {
		return acts
	}
	i := slices.IndexFunc(u.pending, func(r revealed) bool { return r.run == run })
	if i < 0 {
		return acts
	}
	s.unconfide(u.pending[i].peer)
	u.pending = slices.Delete(u.pending, i, i+1)
	if s.uplinkBusy() {
		u.confirmed = append(u.confirmed, run)
	} else {
		acts = s.publish(run, acts)
	}
	return s.revealMore(now, acts)
}

func (s *Swarm) unconfide(id Peer) {
	if p := s.peer(id); p != nil {
		p.confides--
	}
}

// publish tells all of a secret run.
func (s *Swarm) publish(run int32, acts []Action) []Action {
	s.upload.secret.Remove(int(run))
	return s.tellAll(run, acts)
}

// uplinkBusy reports whether a request waits for a slot.
func (s *Swarm) uplinkBusy() bool { return len(s.upload.first)+len(s.upload.queue) > 0 }

// tickUpload tells others of runs whose first confidant did not take them, and all of
// confirmed runs when the uplink is free.
func (s *Swarm) tickUpload(now time.Duration, acts []Action) []Action {
	u := &s.upload
	for i := len(u.pending) - 1; i >= 0; i-- {
		r := u.pending[i]
		if now-r.at < revealPeriod {
			continue
		}
		s.unconfide(r.peer)
		u.pending = slices.Delete(u.pending, i, i+1)
		u.backlog = append(u.backlog, r.run)
	}
	acts = s.flushConfirmed(acts)
	acts = s.revealMore(now, acts)
	if s.pick.Left() == 0 && len(u.backlog)+len(u.first) == 0 {
		acts = s.publishPending(acts)
	}
	return acts
}

// publishPending tells all of what is secret still: nothing more comes from outside, and no
// first copy waits.
func (s *Swarm) publishPending(acts []Action) []Action {
	u := &s.upload
	for _, r := range u.pending {
		s.unconfide(r.peer)
		acts = s.publish(r.run, acts)
	}
	u.pending = u.pending[:0]
	return acts
}

// flushConfirmed tells all of the confirmed runs when the uplink is free.
func (s *Swarm) flushConfirmed(acts []Action) []Action {
	u := &s.upload
	if s.uplinkBusy() || len(u.confirmed) == 0 {
		return acts
	}
	for _, run := range u.confirmed {
		acts = s.publish(run, acts)
	}
	u.confirmed = u.confirmed[:0]
	return acts
}

// OnRequest notes that a peer asks for run.
func (s *Swarm) OnRequest(now time.Duration, id Peer, run int32, acts []Action) []Action {
	p := s.peer(id)
	if p == nil || run < 0 || int(run) >= s.cfg.Runs || s.pick.Missing(int(run)) || p.queued >= maxQueued {
		return acts
	}
	p.queued++
	u := &s.upload
	j := sendJob{peer: id, run: run}
	if u.secret.Has(int(run)) && !u.left.Has(int(run)) {
		u.first = append(u.first, j)
	} else {
		u.queue = append(u.queue, j)
	}
	return s.serve(acts)
}

// Choking reports whether a new peer is to be told to ask others.
func (s *Swarm) Choking() bool { return s.upload.choking }

// throttle chokes or unchokes peers by how many requests wait.
func (s *Swarm) throttle(acts []Action) []Action {
	u := &s.upload
	switch waiting := len(u.queue); {
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
func (s *Swarm) serve(acts []Action) []Action {
	u := &s.upload
	for u.sending < s.cfg.Slots {
		var j sendJob
		switch {
		case len(u.first) > 0:
			j, u.first = u.first[0], u.first[1:]
			u.left.Add(int(j.run))
		case len(u.queue) > 0:
			j, u.queue = u.queue[0], u.queue[1:]
		default:
			return s.throttle(acts)
		}
		p := s.peer(j.peer)
		if p == nil {
			continue
		}
		p.queued--
		u.sending++
		acts = append(acts, Action{Kind: Send, Peer: j.peer, Run: j.run})
	}
	return s.throttle(acts)
}

// OnCancel notes that a peer does not want run any more.
func (s *Swarm) OnCancel(id Peer, run int32) {
	p := s.peer(id)
	if p == nil {
		return
	}
	same := func(j sendJob) bool { return j.peer == id && j.run == run }
	n := len(s.upload.first) + len(s.upload.queue)
	s.upload.first = slices.DeleteFunc(s.upload.first, same)
	s.upload.queue = slices.DeleteFunc(s.upload.queue, same)
	p.queued -= n - len(s.upload.first) - len(s.upload.queue)
}

// OnSent notes the end of a Send action; ok is false when the run did not reach the peer.
func (s *Swarm) OnSent(now time.Duration, run int32, ok bool, acts []Action) []Action {
	s.upload.sending--
	if ok {
		s.stats.Sent += s.runLen(run)
	}
	acts = s.serve(acts)
	return s.flushConfirmed(acts)
}

// leaveUpload forgets a peer that is gone: secret runs it was told of go to others.
func (s *Swarm) leaveUpload(now time.Duration, id Peer, acts []Action) []Action {
	u := &s.upload
	u.pending = slices.DeleteFunc(u.pending, func(r revealed) bool {
		if r.peer == id {
			u.backlog = append(u.backlog, r.run)
		}
		return r.peer == id
	})
	gone := func(j sendJob) bool { return j.peer == id }
	u.first = slices.DeleteFunc(u.first, gone)
	u.queue = slices.DeleteFunc(u.queue, gone)
	return s.revealMore(now, acts)
}
