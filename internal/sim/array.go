package sim

import (
	"slices"
	"time"

	"freshet/internal/swarm"
)

// Design section 6.
const (
	leaseTime   = 10 * time.Second
	renewPeriod = 3 * time.Second
)

// site is what is the same for all devices of a site.
type site struct {
	wan     link
	leader  int32         // who holds the lease; -1: nobody
	until   time.Duration // when the lease runs out
	members []int32       // devices that are present
	subnets []subnet
	outer   int // the subnet that has the lease; -1: none
}

// join is a device's call to the array, the first one with e.ok: it gets neighbours and hears
// who may go out.
func (s *sim) join(e event, d *device) {
	if s.cfg.Subnets > 0 {
		s.joinSubnet(e, d)
		return
	}
	st := &s.sites[d.site]
	next := renewPeriod
	if e.ok {
		s.enter(e.dev, d)
		next = time.Duration(s.rng.Int64N(int64(renewPeriod)))
	}
	d.joined = s.now
	d.complete = d.done > 0 || d.brain == nil && s.cfg.Boast
	// Half of a device's connections are of its own choosing, half of others'.
	want := min(s.cfg.Neighbours/2, len(st.members)-1)
	for try := 0; try < want && (e.ok || d.links < want); try++ {
		s.connect(e.dev, st.members[s.rng.IntN(len(st.members))])
	}
	if d.brain != nil {
		s.do(e.dev, d.brain.OnReach(s.now, s.reach(e.dev, d, st), s.acts[:0]))
	}
	s.wake(e.dev)
	s.q.push(event{at: s.now + next, kind: evJoin, dev: e.dev})
}

// enter makes a device known to its site.
func (s *sim) enter(dev int32, d *device) {
	if !d.present {
		d.present = true
		st := &s.sites[d.site]
		st.members = append(st.members, dev)
		if s.cfg.Subnets > 0 {
			s.enterSubnet(dev, d)
		}
	}
}

// reach returns how far the array lets a device go that joins.
func (s *sim) reach(dev int32, d *device, st *site) swarm.Reach {
	if st.leader != dev && (st.leader >= 0 && s.now < st.until || d.complete || s.anyComplete(st)) {
		return swarm.ReachSite
	}
	st.leader, st.until = dev, s.now+leaseTime
	return swarm.ReachAll
}

// anyComplete reports whether the array remembers a complete device of the site.
func (s *sim) anyComplete(st *site) bool {
	for i := range s.devs {
		d := &s.devs[i]
		if &s.sites[d.site] == st && d.complete && s.now < d.joined+leaseTime {
			return true
		}
	}
	return false
}

// kill ends device dev: its peers see their connections close, the array hears of it no more.
func (s *sim) kill(dev int32) {
	d := &s.devs[dev]
	if d.dead {
		return
	}
	st := &s.sites[d.site]
	if d.done == 0 {
		s.left--
		s.res.Killed++
		if s.fetches(dev) {
			s.res.Leaders++
		}
	}
	d.dead, d.present = true, false
	st.members = slices.DeleteFunc(st.members, func(m int32) bool { return m == dev })
	if s.cfg.Subnets > 0 {
		s.leaveSubnet(dev, d)
	}
	for _, c := range d.conns {
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evGone, dev: c.dev, a: int32(c.back)})
	}
}

// killLeaders ends each site's leader, if it has one.
func (s *sim) killLeaders() {
	for i := range s.sites {
		if l := s.sites[i].leads(); l >= 0 {
			s.kill(l)
		}
	}
}

// leads returns who fetches for the site, or did last; -1: nobody.
func (st *site) leads() int32 {
	if st.outer >= 0 {
		return st.subnets[st.outer].leader
	}
	return st.leader
}

// fetches reports whether a device is the one that fetches for its site.
func (s *sim) fetches(dev int32) bool {
	st := &s.sites[s.devs[dev].site]
	return st.leads() == dev && (st.outer >= 0 || s.now < st.until)
}
