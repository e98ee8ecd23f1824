package share

import (
	"fmt"
	"time"

	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// stallTime without a new run is told to the array: whom it named does not give. What was before it
// answered does not count.
const stallTime = 5 * time.Second

// Facts are what other goroutines read of a share.
type Facts struct {
	Stats      swarm.Stats
	Left       int64 // bytes missing; the whole size until the manifest is held
	Peers      int
	Reach      swarm.Reach   // ReachAll: this device fetches from outside
	Role       subnet.Role   // in the elections of its subnets
	Leader     wire.DeviceID // when it follows
	Epoch      uint64        // of the leadership that it follows or has
	WantsLease bool          // the array is asked for the site's lease
	Stalled    bool          // nothing came for stallTime, though an array answers
	Waits      string        // why nothing arrives, for people; empty while something does
	Simple     string        // why the content came, or comes, in simple mode; empty: it does not
	Failed     error         // nothing more can be done
}

// publish lets other goroutines know how things stand.
func (s *Share) publish() {
	old := s.facts.Load()
	f := Facts{Left: s.Record().Size, Reach: s.reach, Failed: old.Failed}
	if s.dormant {
		f.Left, f.Stats = 0, old.Stats
	}
	for _, l := range s.links {
		if l != nil {
			f.Peers++
		}
	}
	if s.brain != nil {
		f.Stats = s.brain.Stats()
		f.Stats.Bans, f.Stats.Sent = s.bans, s.toPeers
		f.Left = s.brain.Missing()
	}
	if s.taking != nil {
		f.Left -= s.taking.HeldBytes()
	}
	if !s.dormant {
		s.addSimple(&f)
	}
	if f.Left != old.Left {
		s.moved = s.now()
	}
	f.Stalled = f.Left > 0 && !s.opening() && (s.meta == nil || !s.meta.Asking()) && s.role.lease.Known &&
		(s.now()-max(s.moved, s.role.since) >= stallTime || s.deserted())
	s.campaign(&f)
	f.Waits = s.waits(&f, old)
	if f != *old {
		s.facts.Store(&f)
		s.news.ring()
	}
	if f.Stalled && !old.Stalled { // which a join says by now, as the next
		s.kickJoin()
	}
	if f.WantsLease && !old.WantsLease {
		select {
		case s.claim <- struct{}{}:
		default:
		}
	}
}

// deserted reports whether none of the peers that the array named can be reached.
func (s *Share) deserted() bool {
	return s.offered > 0 && len(s.dialing) == 0 && len(s.live()) == 0
}

// waits says why nothing arrives, while something may.
func (s *Share) waits(f, old *Facts) string {
	switch {
	case f.Failed != nil, f.Left == 0 && (s.brain != nil || s.dormant):
		return ""
	case s.draft != nil:
		return s.draft.Progress().Note
	case s.taking != nil:
		return "taking pieces from other contents in the cache"
	case s.guard.pending != nil:
		return "waiting for a download that may use the manifest"
	case f.Stats.FromPeers+f.Stats.FromOrigin > old.Stats.FromPeers+old.Stats.FromOrigin:
		return ""
	case !s.role.stand.OutAt.IsZero():
		return fmt.Sprintf("waiting for the lease: no array answers, going out in about %d s", tens(time.Until(s.role.stand.OutAt)))
	case s.opening():
		return "making room in the cache"
	case s.brain == nil:
		return s.meta.Waits(s.reach == swarm.ReachUnknown)
	case s.brain.GoingOut() && len(s.sources) == 0:
		return "no origin is named; waiting for a device that holds the missing pieces"
	case s.brain.GoingOut():
		return "waiting for the origin"
	case s.reach == swarm.ReachUnknown:
		return "waiting for the array: no service answers"
	case f.Role == subnet.Seeking:
		return "waiting for the devices of this subnet to choose who fetches"
	case f.Peers == 0 && f.Role == subnet.Following:
		return "waiting for the device of this subnet that fetches: not connected to it yet"
	case f.Peers == 0:
		return "waiting for the device of this site that fetches: not connected to it yet"
	default:
		return fmt.Sprintf("waiting for pieces from %d peers", f.Peers)
	}
}

// tens returns the seconds of d in whole tens, rounded up: what is shown does not change all the
// time.
func tens(d time.Duration) int { return 10 * max(1, int((d+10*time.Second-1)/(10*time.Second))) }
