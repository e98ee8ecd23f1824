package sim

import (
	"slices"
	"time"

	"freshet/internal/swarm"
)

// Design section 6.
const (
	electTime    = 300 * time.Millisecond // until a subnet without a leader has one
	progressTime = 2 * time.Second        // until devices do without a leader that gives nothing
	guides       = 4                      // devices of each other subnet that the array names to leaders
)

// subnet is what is the same for all devices of a subnet.
type subnet struct {
	leader  int32 // -1: nobody
	members []int32
}

func newSubnets(n int) []subnet {
	all := make([]subnet, n)
	for i := range all {
		all[i].leader = -1
	}
	return all
}

// joinSubnet finds neighbours for a device: of its subnet, and if it leads it also beyond.
func (s *sim) joinSubnet(e event, d *device) {
	if e.ok {
		s.enter(e.dev, d)
	}
	sn := s.subnetOf(d)
	want := min(s.cfg.Neighbours/2, len(sn.members)-1)
	for try := 0; try < want && (e.ok || s.linksInside(d) < want); try++ {
		s.connect(e.dev, sn.members[s.rng.IntN(len(sn.members))])
	}
	switch {
	case sn.leader == e.dev:
		s.reachOut(e.dev)
	case sn.leader >= 0 && s.linksInside(d) == 0:
		s.connect(e.dev, sn.leader)
	}
	s.setReach(e.dev)
	s.wake(e.dev)
	s.q.push(event{at: s.now + renewPeriod, kind: evJoin, dev: e.dev})
}

// linksInside counts the connections of d to devices of its subnet.
func (s *sim) linksInside(d *device) int {
	n := 0
	for i := range d.conns {
		if o := &s.devs[d.conns[i].dev]; !d.conns[i].gone && o.subnet == d.subnet {
			n++
		}
	}
	return n
}

func (s *sim) subnetOf(d *device) *subnet { return &s.sites[d.site].subnets[d.subnet] }

// enterSubnet makes a device known to its subnet.
func (s *sim) enterSubnet(dev int32, d *device) {
	sn := s.subnetOf(d)
	sn.members = append(sn.members, dev)
	if sn.leader < 0 || s.fitness(sn.leader) <= 1 {
		s.electIn(d, electTime)
	}
}

// leaveSubnet notes that a device vanished.
func (s *sim) leaveSubnet(dev int32, d *device) {
	sn := s.subnetOf(d)
	sn.members = slices.DeleteFunc(sn.members, func(m int32) bool { return m == dev })
	if sn.leader == dev {
		s.electIn(d, electTime)
	}
}

// stall stops the uplink of a device. If it leads, the others do without it after a while.
func (s *sim) stall(dev int32, d *device) {
	d.up.rate = stalledRate
	if s.cfg.Subnets > 0 && s.subnetOf(d).leader == dev {
		s.electIn(d, progressTime)
	}
}

func (s *sim) electIn(d *device, after time.Duration) {
	s.q.push(event{at: s.now + after, kind: evElect, a: int32(d.site), b: int32(d.subnet)})
}

// elect gives a subnet without a leader, or the site's lease without a subnet, what it lacks.
func (s *sim) elect(of, which int) {
	st := &s.sites[of]
	if which >= 0 {
		s.lead(st, which)
	}
	if st.outer < 0 || which < 0 {
		s.lease(st)
	}
	for i := range st.subnets {
		if l := st.subnets[i].leader; l >= 0 {
			s.reachOut(l)
		}
	}
	for _, m := range st.members {
		s.setReach(m)
		s.wake(m)
	}
	if which >= 0 && st.outer >= 0 && s.fitness(st.subnets[st.outer].leader) <= 1 { // nobody renews the lease
		s.q.push(event{at: s.now + leaseTime, kind: evElect, a: int32(of), b: -1})
	}
}

// lease gives the site's lease to the first subnet with a fit leader, unless who has it is fit.
func (s *sim) lease(st *site) {
	best, most := -1, 0
	for i := range st.subnets {
		f := min(s.fitness(st.subnets[i].leader), 2)
		if f > most || f == most && i == st.outer {
			best, most = i, f
		}
	}
	st.outer = best
}

// lead makes the fittest member the leader of a subnet whose leader is not fit.
func (s *sim) lead(st *site, which int) {
	sn := &st.subnets[which]
	best, most := int32(-1), 0
	if sn.leader >= 0 && s.fitness(sn.leader) > 1 {
		return
	}
	for _, m := range sn.members {
		if f := s.fitness(m); f > most {
			best, most = m, f
		}
	}
	sn.leader = best
}

// fitness says how well a device would lead: 0 for not at all, 1 for one that gives nothing,
// more for others by what they hold.
func (s *sim) fitness(dev int32) int {
	if dev < 0 {
		return 0
	}
	d := &s.devs[dev]
	switch {
	case d.brain == nil || d.dead:
		return 0
	case d.up.rate == stalledRate:
		return 1
	}
	return 2 + d.has.Count()
}

// reachOut connects a leader to the other subnets' leaders, and to some of their devices, which
// may ask it for nothing.
func (s *sim) reachOut(dev int32) {
	d := &s.devs[dev]
	for i, sn := range s.sites[d.site].subnets {
		if sn.leader >= 0 {
			s.connect(dev, sn.leader)
		}
		if i == d.subnet {
			continue
		}
		for _, m := range sn.members[:min(guides, len(sn.members))] {
			s.connect(dev, m)
		}
	}
}

// setReach tells a device how far it may go.
func (s *sim) setReach(dev int32) {
	d := &s.devs[dev]
	st := &s.sites[d.site]
	if d.brain == nil || d.dead {
		return
	}
	reach := swarm.ReachSubnet
	switch {
	case st.subnets[d.subnet].leader != dev:
	case st.outer == d.subnet:
		reach = swarm.ReachAll
	default:
		reach = swarm.ReachSite
	}
	s.do(dev, d.brain.OnReach(s.now, reach, s.acts[:0]))
}
