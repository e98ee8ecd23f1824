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
	run   int32
	peer  Peer
	at    time.Duration // when the peer was told; when the run was sent, if it was
	asked bool          // the peer's request waits or is being served: it is this device that takes its time
	sent  bool
	tries int // peers that were told before and did nothing
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
	busy    time.Duration // since when the uplink is busy with the run that is sent next
	rate    float64       // bytes a second of the uplink while busy, smoothed; 0: not known
	choking bool          // peers were told to ask others
}

const (
	maxQueued    = 64              // requests of one peer that wait to be served; more are dropped
	chokeAt      = 4               // waiting requests at which peers are choked
	unchokeAt    = 1               // waiting requests at which they are welcome again
	maxPending   = 4               // secret runs told to one peer at once
	maxTries     = 2               // confidants passed over; then all are told
	promiseTime  = 0.25            // seconds of the uplink's time that secret runs told and not yet sent may take
	promiseSlots = 2               // runs, besides those in the slots, that may be promised however long they take
	revealPeriod = time.Second     // a confidant that does nothing for this long is passed over for another
	slowReveal   = 5 * time.Second // so is one that asked and takes longer than this to receive
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

// withdraw forgets a run that turned out not to be held: it is no secret any more, and not
// sent to those who wait for it.
func (s *Swarm) withdraw(run int32) {
	u := &s.upload
	s.dropJobs(func(j sendJob) bool { return j.run == run })
	u.left.Remove(int(run))
	u.secret.Remove(int(run))
	same := func(r int32) bool { return r == run }
	u.backlog = slices.DeleteFunc(u.backlog, same)
	u.confirmed = slices.DeleteFunc(u.confirmed, same)
	if i := u.pendingAt(run); i >= 0 {
		s.unconfide(i)
	}
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

// revealMore tells runs of the backlog to one peer each, as long as peers have room.
func (s *Swarm) revealMore(now time.Duration, acts []Action) []Action {
	u := &s.upload
	if len(s.live) == 0 || len(u.backlog) == 0 {
		return acts
	}
	done, promised := 0, s.promised()
	for _, run := range u.backlog {
		p, anyLacks := s.confidant(run, None)
		if anyLacks && (p == nil || promised >= s.mayPromise()) { // and so for the rest
			break
		}
		done++
		if p == nil {
			acts = s.publish(run, acts)
			continue
		}
		p.confides++
		promised += s.runLen(run)
		u.pending = append(u.pending, revealed{run: run, peer: p.id, at: now})
		acts = append(acts, Action{Kind: Tell, Peer: p.id, Run: run})
	}
	u.backlog = slices.Delete(u.backlog, 0, done)
	return acts
}

// promised returns the bytes of secret runs that were told to one peer and not yet sent.
func (s *Swarm) promised() int64 {
	var n int64
	for i := range s.upload.pending {
		if r := &s.upload.pending[i]; !r.sent {
			n += s.runLen(r.run)
		}
	}
	return n
}

// mayPromise returns how many there may be: more would only wait for the uplink, and those
// who wait could not ask others, who have the run before.
func (s *Swarm) mayPromise() int64 {
	n := int64(s.cfg.Slots+promiseSlots) * content.PieceSize
	if rate := s.upload.rate; rate > 0 {
		n = min(n, int64(s.cfg.Slots+promiseSlots)*s.runLen(0))
		n = max(n, int64(rate*promiseTime))
	}
	return n
}

// confidant returns the peer other than not that is told of run first: one that lacks it,
// with the fewest runs to confirm; nil when all who lack it have enough. anyLacks is false
// when every peer of the site has it.
func (s *Swarm) confidant(run int32, not Peer) (best *peer, anyLacks bool) {
	n := len(s.live)
	if n == 0 {
		return nil, false
	}
	least, off := maxPending, s.rng.IntN(n)
	for i := range n {
		p := s.live[(i+off)%n]
		if p.id == not || !p.near || s.pick.Has(int(run), int(p.id)) {
			continue
		}
		anyLacks = true
		if c := p.confides; c < least {
			best, least = p, c
		}
	}
	return best, anyLacks
}

// confirm notes that a peer has run: if the run was secret, all may know now, once no first
// copy waits for the uplink.
func (s *Swarm) confirm(now time.Duration, run int32, acts []Action) []Action {
	u := &s.upload
	if len(u.pending) == 0 || !u.secret.Has(int(run)) {
		return acts
	}
	i := u.pendingAt(run)
	if i < 0 {
		return acts
	}
	s.unconfide(i)
	if s.uplinkBusy() {
		u.confirmed = append(u.confirmed, run)
	} else {
		acts = s.publish(run, acts)
	}
	return s.revealMore(now, acts)
}

func (u *upload) pendingAt(run int32) int {
	return slices.IndexFunc(u.pending, func(r revealed) bool { return r.run == run })
}

// unconfide takes entry i out of pending.
func (s *Swarm) unconfide(i int) {
	u := &s.upload
	if p := s.peer(u.pending[i].peer); p != nil {
		p.confides--
	}
	u.pending = slices.Delete(u.pending, i, i+1)
}

// publish tells all of a secret run.
func (s *Swarm) publish(run int32, acts []Action) []Action {
	s.upload.secret.Remove(int(run))
	return s.tellAll(run, acts)
}

// uplinkBusy reports whether a request waits for a slot.
func (s *Swarm) uplinkBusy() bool {
	return slices.ContainsFunc(s.upload.first, s.hasSlot) || slices.ContainsFunc(s.upload.queue, s.hasSlot)
}

// tickUpload tells others of runs whose first confidant did not take them, and all of
// confirmed runs when the uplink is free.
func (s *Swarm) tickUpload(now time.Duration, acts []Action) []Action {
	u := &s.upload
	for i := len(u.pending) - 1; i >= 0; i-- {
		if r := u.pending[i]; now-r.at >= revealPeriod && !r.asked || now-r.at >= s.patience() {
			s.unconfide(i)
			acts = s.passOver(now, r, acts)
		}
	}
	acts = s.flushConfirmed(acts)
	acts = s.revealMore(now, acts)
	if s.pick.Left() == 0 {
		acts = s.endSecrecy(acts)
	}
	return acts
}

// patience is how long a confidant may take to receive a run that it asked for: several
// times what the uplink needs for all that is on its way.
func (s *Swarm) patience() time.Duration {
	if s.upload.rate == 0 {
		return 4 * slowReveal
	}
	need := float64(s.mayPromise()) / s.upload.rate
	return max(slowReveal, time.Duration(4*need*float64(time.Second)))
}

// passOver tells another peer of a run whose confidant did nothing, or takes too long; when
// there is none, or others did nothing either, all.
func (s *Swarm) passOver(now time.Duration, r revealed, acts []Action) []Action {
	p, _ := s.confidant(r.run, r.peer)
	if p == nil || r.tries == maxTries {
		return s.publish(r.run, acts)
	}
	p.confides++
	s.upload.pending = append(s.upload.pending, revealed{run: r.run, peer: p.id, at: now, tries: r.tries + 1})
	return append(acts, Action{Kind: Tell, Peer: p.id, Run: r.run})
}

// endSecrecy tells all of what is secret still when nothing more comes from outside and no
// first copy waits; with no peer there, of the backlog too.
func (s *Swarm) endSecrecy(acts []Action) []Action {
	u := &s.upload
	if len(s.live) == 0 {
		for _, run := range u.backlog {
			acts = s.publish(run, acts)
		}
		u.backlog = nil
	}
	if len(u.backlog) > 0 || slices.ContainsFunc(u.first, s.hasSlot) {
		return acts
	}
	for len(u.pending) > 0 {
		run := u.pending[0].run
		s.unconfide(0)
		acts = s.publish(run, acts)
	}
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
		if i := u.pendingAt(run); i >= 0 && u.pending[i].peer == id {
			u.pending[i].asked = true
		}
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
	for {
		i := slices.IndexFunc(u.first, s.hasSlot)
		if i < 0 {
			break
		}
		j = u.first[i]
		u.first = slices.Delete(u.first, i, i+1)
		if !u.left.Has(int(j.run)) {
			u.left.Add(int(j.run))
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
	if i := s.upload.pendingAt(run); i >= 0 && s.upload.pending[i].peer == id {
		s.upload.pending[i].asked = false
	}
}

// OnSent notes the end of a Send action to peer id, None if that connection is gone; ok is
// false when the run did not reach the peer.
func (s *Swarm) OnSent(now time.Duration, id Peer, run int32, ok bool, acts []Action) []Action {
	u := &s.upload
	u.sending--
	if p := s.peer(id); p != nil {
		p.sending--
	}
	if ok {
		u.rate = smooth(u.rate, float64(s.runLen(run))/max(now-u.busy, time.Microsecond).Seconds(), 0.25)
		s.stats.Sent += s.runLen(run)
	}
	u.busy = now
	if !ok {
		u.left.Remove(int(run))
	}
	if i := u.pendingAt(run); i >= 0 {
		u.pending[i].asked, u.pending[i].sent, u.pending[i].at = false, true, now
	}
	acts = s.serve(now, acts)
	return s.flushConfirmed(acts)
}

// leaveUpload forgets a peer that is gone: secret runs it was told of go to others.
func (s *Swarm) leaveUpload(now time.Duration, id Peer, acts []Action) []Action {
	u := &s.upload
	for i := len(u.pending) - 1; i >= 0; i-- {
		if r := u.pending[i]; r.peer == id {
			s.unconfide(i)
			u.backlog = append(u.backlog, r.run)
		}
	}
	s.dropJobs(func(j sendJob) bool { return j.peer == id })
	return s.revealMore(now, s.throttle(acts))
}
