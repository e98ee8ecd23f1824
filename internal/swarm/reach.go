package swarm

import "time"

// Zone says where a peer is.
type Zone uint8

const (
	SameSubnet Zone = iota
	SameSite        // on another subnet of it
	Elsewhere       // its bytes cross the WAN, as those of an origin do
)

// Reach says how far the device may go for bytes now. A peer of a zone beyond it is served,
// and never asked.
type Reach uint8

const (
	ReachUnknown Reach = iota // nobody said: the site, with [Config].Led the subnet
	ReachSubnet
	ReachSite
	ReachAll // origins, too
)

// OnReach notes how far the device may go from now on. When nobody says so any more, who
// fetches from outside goes on. What was asked of peers beyond is cancelled; a fetch brings the
// run under way, whose bytes are paid for, and ends.
func (s *Swarm) OnReach(now time.Duration, reach Reach, acts []Action) []Action {
	w := &s.wan
	if reach == ReachUnknown && w.reach == ReachAll {
		return acts
	}
	if w.reach != reach {
		w.reach, w.since = reach, now
	}
	switch {
	case reach == ReachAll:
		w.alone = false
	case reach != ReachUnknown && !w.alone:
		acts = s.endFetches(acts)
	}
	acts = s.reviewBeyond(acts)
	return s.fillWAN(now, s.fill(now, acts))
}

// GoingOut reports whether the device fetches from outside now.
func (s *Swarm) GoingOut() bool { return s.wan.reach == ReachAll || s.wan.alone }

// reaches reports whether peers of a zone may be asked.
func (s *Swarm) reaches(z Zone) bool {
	switch z {
	case SameSubnet:
		return true
	case SameSite:
		return s.GoingOut() || s.wan.reach == ReachSite || s.wan.reach == ReachUnknown && !s.cfg.Led
	default:
		return s.GoingOut()
	}
}

// reviewBeyond reviews the peers beyond the subnet after the reach changed.
func (s *Swarm) reviewBeyond(acts []Action) []Action {
	for _, p := range s.live {
		if p.zone != SameSubnet {
			s.review(p)
		}
	}
	return s.dropBeyond(acts)
}

// dropBeyond cancels what was asked of peers beyond the reach.
func (s *Swarm) dropBeyond(acts []Action) []Action {
	for i := len(s.open) - 1; i >= 0; i-- {
		if q := s.open[i]; !s.reaches(s.peers[q.peer].zone) {
			s.closeRequest(i)
			acts = append(acts, Action{Kind: Cancel, Peer: q.peer, Run: q.run})
		}
	}
	return acts
}
