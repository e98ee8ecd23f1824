package swarm

import (
	"time"

	"freshet/internal/content"
)

// peer is what the brain knows of a connected peer. What it holds is in the picker.
//
// Invariants: open is the number of entries in Swarm.open with this peer, owed their bytes;
// its bit in Swarm.room is set exactly when mayAsk; its bit in Swarm.trusted when it is not
// doubted.
//
// A peer that may be asked becomes stuck with its first late request, and is asked for
// nothing until it delivers, or for one run after a while (probe). It is doubted when it
// sent a wrong run, when it never delivered and is late, or when a late request misses its
// second deadline too: until it delivers, its claims keep the device from no origin.
type peer struct {
	id   Peer
	at   int // index in Swarm.live
	zone Zone
	open int   // requests
	owed int64 // bytes asked of it and not yet received

	rate    float64       // bytes a second while busy, smoothed; 0: not measured
	busy    time.Duration // since when it has owed bytes without pause
	latency time.Duration // lowest time from request to run seen, slowly forgotten; 0: not measured
	choked  bool          // it has enough requests waiting
	stuck   bool          // a request of it was late
	probe   time.Duration // when a stuck peer that owes nothing may be asked again
	misses  int           // late requests since the last delivery, at most one for each time it got stuck
	wrong   int           // wrong runs, less withdrawn charges
	excused bool          // a charge was withdrawn once

	confides int  // secret runs it was told of and has not confirmed
	aloof    bool // of another subnet, was told of a secret run and asked for nothing since: it leads nobody
	queued   int  // its requests that wait in the upload queues
	sending  int  // runs being sent to it
}

// delivered reports whether a right run came from p that it was asked for.
func (p *peer) delivered() bool { return p.latency > 0 }

// OnPeer notes a new connection.
func (s *Swarm) OnPeer(now time.Duration, id Peer, zone Zone, acts []Action) []Action {
	for int(id) >= len(s.peers) {
		s.peers = append(s.peers, nil)
		s.told = append(s.told, 0)
	}
	for int(id)/64 >= len(s.room) {
		s.room, s.trusted = append(s.room, 0), append(s.trusted, 0)
	}
	p := &peer{id: id, zone: zone, at: len(s.live)}
	s.peers[id], s.told[id] = p, 0
	s.live = append(s.live, p)
	s.trusted.Add(int(id))
	s.review(p)
	return s.revealMore(now, acts)
}

// OnZone notes where a connected peer turned out to be.
func (s *Swarm) OnZone(now time.Duration, id Peer, zone Zone, acts []Action) []Action {
	p := s.peer(id)
	if p == nil || p.zone == zone {
		return acts
	}
	from := p.zone
	p.zone = zone
	s.review(p)
	acts = s.moveCircle(p, from, s.dropBeyond(acts))
	return s.fill(now, s.revealMore(now, acts))
}

// OnPeerGone notes the end of a connection: what was asked of the peer is asked of others.
func (s *Swarm) OnPeerGone(now time.Duration, id Peer, acts []Action) []Action {
	p := s.peer(id)
	if p == nil {
		return acts
	}
	s.forget(p)
	acts = s.leaveUpload(now, id, acts)
	return s.fill(now, s.fillWAN(now, acts))
}

// forget takes p out of all books but those of the upload.
func (s *Swarm) forget(p *peer) {
	for i := len(s.open) - 1; i >= 0; i-- {
		if s.open[i].peer == p.id {
			s.closeRequest(i)
		}
	}
	s.pick.RemovePeer(int(p.id))
	if p.stuck {
		s.stuck--
	}
	s.room.Remove(int(p.id))
	s.trusted.Remove(int(p.id))
	s.peers[p.id] = nil
	last := len(s.live) - 1
	s.live[p.at] = s.live[last]
	s.live[p.at].at = p.at
	s.live = s.live[:last]
}

// mayAsk reports whether p may be asked for a full run more. One that was late gets one at a
// time until it delivers.
func (s *Swarm) mayAsk(p *peer) bool {
	return s.reaches(p.zone) && !p.choked && !p.stuck && (p.owed == 0 || p.misses == 0 && p.owed+content.PieceSize <= s.window(p))
}

// review sets p's bit in room after something that mayAsk looks at changed.
func (s *Swarm) review(p *peer) {
	if s.mayAsk(p) {
		s.room.Add(int(p.id))
	} else {
		s.room.Remove(int(p.id))
	}
}

// setStuck notes that a request of p, open for took, is late.
func (s *Swarm) setStuck(now, took time.Duration, p *peer) {
	if p.stuck {
		return
	}
	p.stuck = true
	s.stuck++
	p.probe = now + min(maxProbe, took<<min(p.misses, 8))
	p.misses++
	s.review(p)
}

// unstick lets p be asked again.
func (s *Swarm) unstick(p *peer) {
	if p.stuck {
		p.stuck = false
		s.stuck--
		s.review(p)
	}
}

// doubt stops to count on what p claims to hold, and on what it was asked for.
func (s *Swarm) doubt(p *peer) {
	s.trusted.Remove(int(p.id))
	for i := range s.open {
		if q := &s.open[i]; q.peer == p.id && q.sure {
			q.sure = false
			s.pick.Unsure(int(q.run))
		}
	}
}

// trust counts on p again: it delivered. What else it was asked for will come, too.
func (s *Swarm) trust(now time.Duration, p *peer) {
	s.trusted.Add(int(p.id))
	if p.misses == 0 {
		return
	}
	p.misses = 0
	for i := range s.open {
		if q := &s.open[i]; q.peer == p.id && q.late {
			s.late--
			q.late, q.sure = false, true
			q.deadline = now + s.timeout(p)
			s.pick.Ask(int(q.run), true)
		}
	}
	s.unstick(p)
	s.review(p)
}

// OnHolds notes the runs that a peer holds, as its bitfield tells.
func (s *Swarm) OnHolds(now time.Duration, id Peer, holds content.Bits, acts []Action) []Action {
	if s.peer(id) == nil {
		return acts
	}
	for r := range holds.All {
		if r < s.cfg.Runs && s.pick.Add(r, int(id)) {
			s.told[id]++
		}
	}
	return s.fill(now, acts)
}

// OnHave notes that a peer came to hold a run. It is by far the most frequent event: what a
// swarm of N neighbours receives costs each of them N of these.
func (s *Swarm) OnHave(now time.Duration, id Peer, run int32, acts []Action) []Action {
	if s.peer(id) == nil || int(run) >= s.cfg.Runs || run < 0 || !s.pick.Add(int(run), int(id)) {
		return acts
	}
	s.told[id]++
	acts = s.confirm(now, s.peers[id].zone, run, acts)
	if s.room.Has(int(id)) && s.asking() < s.cfg.MaxOpen && s.pick.Candidate(int(run)) {
		acts = s.ask(now, s.peers[id], run, acts)
	}
	return acts
}

// OnChoke notes that a peer wants no new requests, or does again.
func (s *Swarm) OnChoke(now time.Duration, id Peer, choked bool, acts []Action) []Action {
	p := s.peer(id)
	if p == nil {
		return acts
	}
	p.choked = choked
	s.review(p)
	if choked {
		return acts
	}
	return s.fill(now, acts)
}

// unclaim takes from p the claim to hold run.
func (s *Swarm) unclaim(p *peer, run int32) {
	if s.pick.Remove(int(run), int(p.id)) {
		s.told[p.id]--
	}
}

// blame counts a wrong run against p. The second one bans it.
func (s *Swarm) blame(now time.Duration, p *peer, run int32, acts []Action) []Action {
	p.wrong++
	s.unclaim(p, run)
	s.doubt(p)
	acts = append(acts, Action{Kind: Charge, Peer: p.id, Run: run})
	if p.wrong < 2 {
		return acts
	}
	s.stats.Bans++
	s.forget(p)
	acts = append(acts, Action{Kind: Ban, Peer: p.id})
	return s.leaveUpload(now, p.id, acts)
}

// OnAcknowledged notes that a peer acknowledged a charge and has hashed its entry again.
// One charge is withdrawn, ever (design section 10): bits rot on honest disks too.
func (s *Swarm) OnAcknowledged(id Peer) {
	if p := s.peer(id); p != nil && !p.excused && p.wrong > 0 {
		p.excused = true
		p.wrong--
	}
}

func (s *Swarm) peer(id Peer) *peer {
	if id < 0 || int(id) >= len(s.peers) {
		return nil
	}
	return s.peers[id]
}

// Rate returns what the peer delivers in bytes a second; 0: not known yet.
func (s *Swarm) Rate(id Peer) float64 {
	if p := s.peer(id); p != nil {
		return p.rate
	}
	return 0
}
