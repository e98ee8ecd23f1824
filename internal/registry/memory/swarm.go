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
	gone    bool    // taken out of its shard
}

// site is the part of a swarm behind one WAN link.
type site struct {
	name     string
	at       int // in swarm.order
	complete pool
	partial  pool
	lease    lease
}

// member is one device. It lies in exactly one pool of its site.
type member struct {
	device  wire.DeviceID
	site    *site
	pool    *pool
	at      int // in pool.list
	address netip.AddrPort
	far     netip.AddrPort // for other sites, in ModeAcross; zero: none
	mode    int
	left    int64
	dropAt  time.Time
}

// pool is a set of members, dense and in no order.
type pool struct{ list []*member }

func (p *pool) add(m *member) {
	m.pool, m.at = p, len(p.list)
	p.list = append(p.list, m)
}

func (p *pool) remove(m *member) {
	last := len(p.list) - 1
	p.swap(m.at, last)
	p.list[last] = nil
	p.list = p.list[:last]
}

func (p *pool) swap(i, j int) {
	p.list[i], p.list[j] = p.list[j], p.list[i]
	p.list[i].at, p.list[j].at = i, j
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
	st.lease.settle(now, j, served, r)
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
		m.pool.remove(m)
	}
	m.address, m.far, m.mode, m.left = j.Address, j.Far, j.Mode, j.Left
	if j.Left == 0 {
		m.site.complete.add(m)
	} else {
		m.site.partial.add(m)
	}
	return m
}

func (s *swarm) site(name string) *site {
	st := s.sites[name]
	if st == nil {
		st = &site{name: name, at: len(s.order)}
		s.sites[name] = st
		s.order = append(s.order, st)
	}
	return st
}

// remove takes m out, its lease with it, and its site when nothing of it is left.
func (s *swarm) remove(m *member, mk *mark) {
	st := m.site
	m.pool.remove(m)
	delete(s.members, m.device)
	if st.lease.holds(m.device) {
		st.lease.end(mk)
	}
	s.forget(st)
}

// forget drops a site without members; its lease has ended with the last of them.
func (s *swarm) forget(st *site) {
	if len(st.complete.list)+len(st.partial.list) > 0 {
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
	for n := len(st.complete.list); n > 0; n = len(st.complete.list) {
		m := st.complete.list[n-1]
		if now.Before(m.dropAt) {
			return true
		}
		s.remove(m, mk)
	}
	return false
}

// next returns when m should come again; served says that it needs no lease.
func (s *swarm) next(now time.Time, m *member, served bool) time.Duration {
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
