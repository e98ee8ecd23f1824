package share

import (
	"context"
	"net/netip"
	"time"

	"freshet/internal/election"
	"freshet/internal/policy"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// role is how far this device goes for a content's bytes, and on whose word: that of the
// elections of its subnets where there are any, else the array's alone.
type role struct {
	part  *subnet.Content // nil: the content takes part in no elections
	stand subnet.Stand    // what they say
	lease subnet.Lease    // what the array said last
	since time.Duration   // of lease
	led   bool            // the swarm's brain leaves it to elections

	joined   bool // an array has answered, or has not
	gathers  bool // part was told so
	wants    bool // likewise
	priority wire.Priority
	proving  map[wire.DeviceID]bool // devices that are to prove that they give
	may      swarm.Reach            // as the swarm's brain knows it
	failures int                    // of origins in a row
	warmed   time.Duration          // when the origin was made ready last; 0: never
	gave     time.Duration          // when the elections heard last that the leader gives
	pulse
}

const (
	noArray     = 45 * time.Second // without elections and arrays, the device goes out after it, up to half as long again
	maxFailures = 2                // in a row, of each origin; after it others shall try
	warmEvery   = time.Minute      // a deputy's connection to the origin is looked after so often
	warmTime    = 15 * time.Second
)

var _ subnet.Member = (*Share)(nil)

// enter begins to take part in elections, and joins the array.
func (s *Share) enter() {
	s.takePart()
	s.owner.Spawn(func() { s.keepJoined(s.ctx) })
}

// takePart begins to take part in elections. A small content waits for none.
func (s *Share) takePart() {
	rec := s.Record()
	if s.dev.Subnet == nil || rec.Size <= smallContent || !s.peering.OK {
		return
	}
	s.role.part, s.role.gathers = s.dev.Subnet.Enter(s.hoh, rec.Size, s), false
	s.know()
	if s.dev.Subnet.Open() {
		s.role.stand.Role = subnet.Idle // until it is said
	}
	s.review()
}

// partWith takes no part in elections any more.
func (s *Share) partWith() {
	s.role.part.Leave()
	s.role.part, s.role.stand, s.role.wants = nil, subnet.Stand{}, false
	s.review()
}

// know tells the elections what the content is called, by its MetadataHash too once there is an
// entry.
func (s *Share) know() {
	if s.role.part == nil {
		return
	}
	rec := s.Record()
	entry := election.Entry{Manifest: rec.Manifest, Ref: rec.Ref, Generation: rec.Generation}
	if e := s.held.Load(); e != nil {
		var err error
		if entry.MetadataSHA1, entry.MetadataSHA256, err = e.Manifest().MetadataHashes(); err != nil {
			s.log.Warn("the content is not found by its metadata", "err", err)
		}
	}
	s.role.part.Know(entry)
}

// Stands implements subnet.Member.
func (s *Share) Stands(st subnet.Stand) {
	s.box.post(func() {
		if s.role.part != nil { // not of one that ended
			s.stands(st)
		}
	})
}

// Meets implements subnet.Member.
func (s *Share) Meets(n subnet.Neighbour) { s.box.post(func() { s.meets(n) }) }

// Proves implements subnet.Member.
func (s *Share) Proves(d wire.DeviceID) { s.box.post(func() { s.proves(d) }) }

func (s *Share) stands(st subnet.Stand) {
	old := s.role.stand
	s.role.stand = st
	if st.Ready && !old.Ready {
		s.warm()
	}
	s.log.Debug("role", "role", st.Role.String(), "out", st.Out, "leader", st.Leader, "epoch", st.Epoch)
	leads, led := st.Role == subnet.Leading, old.Role == subnet.Leading
	ruled, was := st.Role != subnet.NoElection, old.Role != subnet.NoElection
	if leads != led || leads && (st.Epoch != old.Epoch || st.Priority != old.Priority) || ruled != was && s.role.wants {
		s.kickJoin()
	}
	if leads && st.Priority == wire.Foreground { // somebody waits elsewhere
		s.hasten()
	}
	if leads && len(s.Record().ContentURLs) == 0 {
		s.role.part.Unable()
	}
	if st.Out && !old.Out {
		s.role.grown, s.role.bytes = s.now(), s.beyond()
	}
	s.review()
}

// hasten gives peers no more time before HTTP than they have where somebody waits.
func (s *Share) hasten() {
	if s.delay > s.now()+farTime {
		s.delay = min(s.delay, policy.HTTPDelay(s.dev.Settings, true, true))
		s.kickJoin()
		s.review()
	}
}

// warm opens a connection to the origin ahead of time while this device is about to lead, or the
// deputy of a leader: it may have to go out at any moment.
func (s *Share) warm() {
	r := &s.role
	if !r.stand.Ready || len(s.sources) == 0 || r.warmed > 0 && s.now()-r.warmed < warmEvery {
		return
	}
	r.warmed = s.now()
	src := s.sources[0]
	s.owner.Spawn(func() {
		ctx, cancel := context.WithTimeout(s.ctx, warmTime)
		defer cancel()
		if err := src.Warm(ctx); err != nil {
			s.log.Debug("making the origin ready", "err", err)
		}
	})
}

// originFailed counts a failure of one of so many origins: when all failed again and again,
// others shall try.
func (s *Share) originFailed(origins int) {
	if s.role.failures++; s.role.failures >= maxFailures*origins {
		s.role.part.Unable()
	}
}

// proves asks a device for a run, if it is connected.
func (s *Share) proves(d wire.DeviceID) {
	if s.brain == nil {
		return
	}
	if k := s.linkOf(d); k != nil && k.introduced && !k.banned {
		if s.role.proving == nil {
			s.role.proving = map[wire.DeviceID]bool{}
		}
		s.role.proving[d] = true
		s.acts = s.brain.OnProve(s.now(), k.id, s.acts)
	}
}

// gave tells the elections of a right run from a device that was to prove something, or that
// leads.
func (s *Share) gave(d wire.DeviceID) {
	r := &s.role
	if r.proving[d] {
		delete(r.proving, d)
		r.part.Proved(d)
	}
	if now := s.now(); d == r.stand.Leader && now-r.gave >= pulseTime {
		r.gave = now
		r.part.Alive(d)
	}
}

// onLease takes the array's word.
func (s *Share) onLease(l subnet.Lease) {
	if s.role.lease.Known != l.Known {
		s.role.since = s.now()
	}
	s.role.lease = l
	s.role.part.Lease(l)
	s.review()
}

// review lets the swarm's brain know how far the device may go.
func (s *Share) review() {
	s.reach = s.reachNow()
	if may := s.mayReach(); s.brain != nil && may != s.role.may {
		s.role.may = may
		s.acts = s.brain.OnReach(s.now(), may, s.acts)
	}
}

// reachNow returns how far elections, or else the array, let the device go.
func (s *Share) reachNow() swarm.Reach {
	r := &s.role
	switch st := &r.stand; {
	case !s.peering.OK:
		return swarm.ReachAll
	case st.Role == subnet.NoElection:
		return s.leaseReach()
	case st.Out:
		return swarm.ReachAll
	case st.Role == subnet.Leading, st.Role == subnet.Alone:
		return swarm.ReachSite
	}
	return swarm.ReachSubnet
}

// leaseReach returns how far the array's lease alone lets the device go. A brain that leaves it
// to elections does not go out by itself when they have ended and no array answers.
func (s *Share) leaseReach() swarm.Reach {
	r := &s.role
	switch {
	case r.lease.Mine:
		return swarm.ReachAll
	case r.lease.Known:
		return swarm.ReachSite
	case r.led && s.now()-r.since > noArray+time.Duration(s.self[15])*noArray/512:
		return swarm.ReachAll
	}
	return swarm.ReachUnknown
}

// mayReach is the reach as the brain sees it: not to origins before the delay before HTTP is
// over, which gives peers their time.
func (s *Share) mayReach() swarm.Reach {
	if s.reach == swarm.ReachAll && s.now() < s.delay {
		return swarm.ReachSite
	}
	return s.reach
}

// within reports whether peers of a zone are asked, for metadata too.
func (s *Share) within(z swarm.Zone) bool {
	switch s.reach {
	case swarm.ReachSubnet:
		return z == swarm.SameSubnet
	case swarm.ReachSite:
		return z != swarm.Elsewhere
	}
	return true
}

// zone returns where a device at an address is. The array says which site it is of.
func (s *Share) zone(at netip.Addr, far bool) swarm.Zone {
	switch {
	case far:
		return swarm.Elsewhere
	case s.dev.Subnet != nil && s.dev.Subnet.Same(at):
		return swarm.SameSubnet
	}
	return swarm.SameSite
}

// guess returns where a device is of which the array has not said yet where: with the mode that
// knows no other sites, at this one.
func (s *Share) guess(at netip.Addr) swarm.Zone {
	z := s.zone(at, false)
	if z == swarm.SameSite && s.dev.Settings.DownloadMode() != policy.SameSite {
		return swarm.Elsewhere
	}
	return z
}

// wantsLease reports whether the array is asked for the site's lease: for what is missing, by
// whom the elections chose or where there are none, and not before it is used.
func (s *Share) wantsLease(f *Facts) bool {
	chosen := f.Role == subnet.NoElection || f.Role == subnet.Leading
	return chosen && s.wants(f) && s.now() >= s.delay
}

// wants reports whether the device is to get what is missing. One that takes pieces from its own cache
// stands for election with them: others may have none, and would fetch all of it from outside.
func (s *Share) wants(f *Facts) bool {
	return f.Left > 0 && f.Failed == nil && s.Record().Wanted
}

// campaign tells the elections what the device holds and wants.
func (s *Share) campaign(f *Facts) {
	r := &s.role
	f.Role, f.Leader, f.Epoch = r.stand.Role, r.stand.Leader, r.stand.Epoch
	f.WantsLease = s.wantsLease(f)
	if r.part == nil {
		return
	}
	if !s.alone.Load() {
		r.part.Held(s.Record().Size - f.Left)
	}
	wants := s.wants(f) && !s.alone.Load()
	priority := wire.Background
	if s.hurry {
		priority = wire.Foreground
	}
	if gathers := wants && (!r.joined || len(s.dialing) > 0); gathers != r.gathers {
		r.gathers = gathers
		r.part.Gather(gathers)
	}
	switch {
	case wants && (!r.wants || priority != r.priority):
		r.part.Want(priority)
	case !wants && r.wants:
		r.part.Unwant()
	}
	r.wants, r.priority = wants, priority
}
