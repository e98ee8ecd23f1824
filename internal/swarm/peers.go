package swarm

import (
	"time"

	"freshet/internal/content"
)

// peer is what the brain knows of a connected peer.
//
// Invariants: holds.Has(r) is counted once in the picker's holders[r]; open is the number of
// entries in Swarm.open with this peer; a stuck peer is asked for nothing.
type peer struct {
	id    Peer
	at    int          // index in Swarm.live
	near  bool         // in the same site; far peers are asked when no near one can be
	holds content.Bits // runs it told
	open  int
	owed  int64 // bytes asked of it and not yet received

	rate    float64       // bytes a second while busy, smoothed; 0: not measured
	busy    time.Duration // since when it has owed bytes without pause
	latency time.Duration // lowest time from request to run seen, slowly forgotten; 0: not measured
	choked  bool          // it has enough requests waiting
	stuck   bool          // a request of it is late
	wrong   int           // wrong runs, less withdrawn charges
	excused bool          // a charge was withdrawn once

	confides int // secret runs it was told of and has not confirmed
	queued   int // its requests that wait in the upload queues
}

// OnPeer notes a new connection. near says that the peer is in the same site.
func (s *Swarm) OnPeer(now time.Duration, id Peer, near bool, acts []Action) []Action {
	for int(id) >= len(s.peers) {
		s.peers = append(s.peers, nil)
	}
	p := &peer{id: id, near: near, holds: content.NewBits(s.cfg.Runs)}
	s.peers[id] = p
	p.at = len(s.live)
	s.live = append(s.live, p)
	s.sort(p)
	return s.revealMore(now, acts)
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

// forget takes p out of all books.
func (s *Swarm) forget(p *peer) {
	for i := len(s.open) - 1; i >= 0; i-- {
		if s.open[i].peer == p.id {
			s.closeRequest(i)
		}
	}
	for r := range p.holds.All {
		s.pick.RemoveHolder(r)
	}
	s.peers[p.id] = nil
	p.choked = true
	s.sort(p)
	last := len(s.live) - 1
	s.swap(p.at, last)
	s.live = s.live[:last]
}

// sort moves p to its side of live after choked or stuck changed.
func (s *Swarm) sort(p *peer) {
	is, was := !p.choked && !p.stuck, p.at < s.willing
	switch {
	case is && !was:
		s.swap(p.at, s.willing)
		s.willing++
	case was && !is:
		s.willing--
		s.swap(p.at, s.willing)
	}
}

func (s *Swarm) swap(i, j int) {
	s.live[i], s.live[j] = s.live[j], s.live[i]
	s.live[i].at, s.live[j].at = i, j
}

// OnHolds notes the runs that a peer holds, as its bitfield tells.
func (s *Swarm) OnHolds(now time.Duration, id Peer, holds content.Bits, acts []Action) []Action {
	p := s.peer(id)
	if p == nil {
		return acts
	}
	for r := range holds.All {
		if r < s.cfg.Runs && !p.holds.Has(r) {
			p.holds.Add(r)
			s.pick.AddHolder(r)
		}
	}
	return s.fill(now, acts)
}

// OnHave notes that a peer came to hold a run.
func (s *Swarm) OnHave(now time.Duration, id Peer, run int32, acts []Action) []Action {
	p := s.peer(id)
	if p == nil || int(run) >= s.cfg.Runs || run < 0 {
		return acts
	}
	if !p.holds.Has(int(run)) {
		p.holds.Add(int(run))
		s.pick.AddHolder(int(run))
	}
	acts = s.confirm(now, p, run, acts)
	if len(s.open) < s.cfg.MaxOpen && s.pick.Candidate(int(run)) && s.hasRoom(p, s.runLen(run)) {
		acts = s.ask(now, p, run, acts)
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
	s.sort(p)
	if choked {
		return acts
	}
	return s.fill(now, acts)
}

// unclaim takes from p the claim to hold run.
func (s *Swarm) unclaim(p *peer, run int32) {
	if p.holds.Has(int(run)) {
		p.holds.Remove(int(run))
		s.pick.RemoveHolder(int(run))
	}
}

// blame counts a wrong run against p. The second one bans it.
func (s *Swarm) blame(now time.Duration, p *peer, run int32, acts []Action) []Action {
	p.wrong++
	s.unclaim(p, run)
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

// Holds reports whether the peer told that it holds run.
func (s *Swarm) Holds(id Peer, run int32) bool {
	p := s.peer(id)
	return p != nil && p.holds.Has(int(run))
}
