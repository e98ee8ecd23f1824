package memory

import (
	"net/netip"
	"sync"
	"time"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

// swarm is the members of one group and HashOfHashes.
type swarm struct {
	mu      sync.Mutex // guards the following
	rnd     chance
	members map[wire.DeviceID]*member
	sites   map[string]*site
	order   []*site // of sites, in no order, for sampling
	asks    uint64  // choices of peers so far; names each
	gone    bool    // taken out of its shard
}

// site is the part of a swarm behind one WAN link.
type site struct {
	name    string
	at      int // in swarm.order
	all     crowd
	subnets map[netip.Prefix]*crowd // those of all whose subnet is known; none is empty
	leaders int                     // of all that want the lease and lead a subnet; its holder may be one
	lease   lease

	followers map[wire.DeviceID]int // of each device that any of all follows
}

// member is one device. It lies in one pool of its site and, where its subnet is known, in one
// of that.
type member struct {
	device wire.DeviceID
	site   *site
	in     [ways]struct {
		pool *pool // nil: none
		at   int   // in pool.list
	}
	chosen  uint64 // the last of swarm.asks that it was handed out in
	address netip.AddrPort
	far     netip.AddrPort // for other sites, in ModeAcross; zero: none
	subnet  netip.Prefix
	mode    int
	left    int64
	leads   bool          // counted in site.leaders
	follows wire.DeviceID // counted in site.followers; zero: nobody
	dropAt  time.Time
}

func newSwarm(rnd chance) *swarm {
	return &swarm{rnd: rnd, members: map[wire.DeviceID]*member{}, sites: map[string]*site{}}
}

// join enters j's device, settles the lease and chooses peers.
func (s *swarm) join(now time.Time, j registry.Join, r *Registry) registry.Answer {
	m := s.enter(j, &r.mark)
	st := m.site
	m.dropAt = now.Add(registry.Lifetime(m.left)) // later than its lease's end
	served := !j.Stalled && s.hasComplete(now, st, &r.mark)
	st.settle(now, j, served, r)
	a := registry.Answer{Lease: st.lease.tell(now, j.Device), Next: s.next(now, m, served)}
	a.Peers = s.choose(now, m, j, &r.mark)
	return a
}

// enter adds or moves the device.
func (s *swarm) enter(j registry.Join, mk *mark) *member {
	m := s.members[j.Device]
	if m != nil && m.site.name != j.Site {
		s.remove(m, mk)
		m = nil
	}
	if m == nil {
		m = &member{device: j.Device, site: s.site(j.Site)}
		s.members[j.Device] = m
	} else {
		m.site.remove(m)
	}
	m.address, m.far, m.subnet, m.mode, m.left = j.Address, j.Far, j.Subnet, j.Mode, j.Left
	m.leads = j.WantLease && j.Left > 0 && j.LeaderEpoch > 0
	if m.follows = j.Follows; m.follows == m.device {
		m.follows = wire.DeviceID{}
	}
	m.site.add(m)
	return m
}

func (s *swarm) site(name string) *site {
	st := s.sites[name]
	if st == nil {
		st = newSite(name, len(s.order))
		s.sites[name] = st
		s.order = append(s.order, st)
	}
	return st
}

// remove takes m out, its lease with it, and its site when nothing of it is left.
func (s *swarm) remove(m *member, mk *mark) {
	st := m.site
	st.remove(m)
	delete(s.members, m.device)
	if st.lease.holds(m.device) {
		st.lease.end(mk)
	}
	s.forget(st)
}

// forget drops a site without members; its lease has ended with the last of them.
func (s *swarm) forget(st *site) {
	if !st.all.empty() {
		return
	}
	last := len(s.order) - 1
	s.order[st.at] = s.order[last]
	s.order[st.at].at = st.at
	s.order[last] = nil
	s.order = s.order[:last]
	delete(s.sites, st.name)
}

// sweep drops what has run out.
func (s *swarm) sweep(now time.Time, mk *mark) {
	for _, st := range s.sites {
		st.lease.lapse(now, mk)
	}
	for _, m := range s.members {
		if !now.Before(m.dropAt) {
			s.remove(m, mk)
		}
	}
}

// hasComplete reports whether a device of the site is complete; those that have run out are
// dropped on the way.
func (s *swarm) hasComplete(now time.Time, st *site, mk *mark) bool {
	complete := &st.all.complete
	for n := len(complete.list); n > 0; n = len(complete.list) {
		m := complete.list[n-1]
		if now.Before(m.dropAt) {
			return true
		}
		s.remove(m, mk)
	}
	return false
}

// next returns when m should come again; served says that it needs no lease.
func (s *swarm) next(now time.Time, m *member, served bool) time.Duration {
	wait := s.usual(now, m, served)
	st := m.site
	if !m.leads || served || st.lease.holds(m.device) {
		return wait
	}
	waiting := time.Duration(st.leaders) // the holder too, where it is one
	return min(wait, s.jitter(registry.IntervalWaiting*(1+(waiting-1)/registry.WaitingJoins)))
}

// usual is next but for those that lead a subnet and wait for the lease.
func (s *swarm) usual(now time.Time, m *member, served bool) time.Duration {
	l := &m.site.lease
	switch {
	case m.left == 0:
		return s.jitter(registry.IntervalComplete)
	case !l.running(now) && served:
		return s.jitter(registry.IntervalPartial)
	case !l.running(now):
		return s.jitter(registry.IntervalLeaderless)
	case l.holds(m.device):
		return registry.LeaseRenew
	}
	if rest := l.expires.Sub(now); rest < registry.LeaseTime-registry.LeaseLate {
		return rest + time.Duration(s.rnd.intn(int(registry.AfterLease))) + time.Millisecond
	}
	return s.jitter(registry.IntervalPartial)
}

func (s *swarm) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - registry.Jitter + 2*registry.Jitter*s.rnd.share()))
}
