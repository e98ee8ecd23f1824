package memory

import (
	"time"

	"freshet/internal/registry"
)

// completeShare of the wanted peers are complete ones, where there are as many; the rest are
// partial ones first, since they are what spreads a flash crowd.
const completeShare = 3 // one in three

// Bounds of the work of one answer.
const (
	otherSites = 8  // sites elsewhere that are looked at
	looks      = 64 // members looked at in vain, per pool
)

// choice is one answer's peers while they are chosen.
type choice struct {
	now   time.Time
	s     *swarm
	asker *member
	skip  *member // the lease's holder, already in
	mk    *mark
	want  int
	out   []registry.Peer
}

// choose returns peers for m: the lease's holder, then complete and partial ones of the site,
// at random, then of the group elsewhere where both sides allow it. A complete asker is told
// of partial ones alone.
func (s *swarm) choose(now time.Time, m *member, j registry.Join, mk *mark) []registry.Peer {
	c := &choice{now: now, s: s, asker: m, mk: mk, want: j.PeersWanted}
	if c.want <= 0 {
		c.want = registry.PeersDefault
	}
	c.want = min(c.want, registry.PeersMax)
	if l := &m.site.lease; l.running(now) && l.holder != m.device {
		c.skip = s.members[l.holder]
		c.add(c.skip)
	}
	here := m.site
	c.fromSite(here)
	if m.mode != registry.ModeSite {
		for _, st := range s.someSites() {
			if st != here {
				c.fromSite(st)
			}
		}
	}
	return c.out
}

// someSites returns up to otherSites sites from a random place on. The slice is a copy:
// choosing may forget a site.
func (s *swarm) someSites() []*site {
	n := min(otherSites, len(s.order))
	some := make([]*site, 0, n)
	first := s.rnd.intn(len(s.order))
	for i := range n {
		some = append(some, s.order[(first+i)%len(s.order)])
	}
	return some
}

func (c *choice) add(m *member) {
	p := registry.Peer{Device: m.device, Address: m.address, SameSite: m.site == c.asker.site, Left: m.left}
	if !p.SameSite && m.mode == registry.ModeAcross {
		p.Address = m.far
	}
	c.out = append(c.out, p)
}

// offered reports whether m may be handed out to the asker.
func (c *choice) offered(m *member) bool {
	switch {
	case m.site == c.asker.site:
		return true
	case m.mode == registry.ModeAcross:
		return m.far.IsValid()
	}
	return m.mode == registry.ModeGroup
}

// fromSite takes a third of what is still wanted from the complete ones, then partial ones,
// then fills up with complete ones.
func (c *choice) fromSite(st *site) {
	room := c.want - len(c.out)
	if room <= 0 {
		return
	}
	taken := 0
	if c.asker.left > 0 {
		taken = c.sample(&st.complete, 0, (room+completeShare-1)/completeShare)
	}
	c.sample(&st.partial, 0, c.want-len(c.out))
	if c.asker.left > 0 {
		c.sample(&st.complete, taken, c.want-len(c.out))
	}
}

// sample takes up to n members of p at random, beside its first from, which were looked at
// already, and returns how many members at the front have been looked at by now. It shuffles
// them to the front and drops those that have run out.
func (c *choice) sample(p *pool, from, n int) int {
	i := from
	for vain := 0; n > 0 && i < len(p.list) && vain < looks; {
		p.swap(i, i+c.s.rnd.intn(len(p.list)-i))
		m := p.list[i]
		switch {
		case !c.now.Before(m.dropAt):
			c.s.remove(m, c.mk)
			continue // another one has moved to i
		case m == c.asker, m == c.skip, !c.offered(m):
			vain++
		default:
			c.add(m)
			n--
		}
		i++
	}
	return i
}
