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
	mk    *mark
	want  int
	out   []registry.Peer
}

// choose returns peers for m: the lease's holder; up to half of m's own subnet, which cost
// nobody else's network; of the rest up to half of the holder's subnet, which gets each piece
// first; then any of the site, and of the group elsewhere where both sides allow it. In each
// step they are complete and partial ones, at random; a complete asker is told of partial ones
// alone.
func (s *swarm) choose(now time.Time, m *member, j registry.Join, mk *mark) []registry.Peer {
	s.asks++
	m.chosen = s.asks // never its own peer
	c := &choice{now: now, s: s, asker: m, mk: mk, want: j.PeersWanted}
	if c.want <= 0 {
		c.want = registry.PeersDefault
	}
	c.want = min(c.want, registry.PeersMax)
	here := m.site
	if l := &here.lease; l.running(now) {
		if l.holder != m.device {
			c.add(s.members[l.holder])
		}
		c.fromSubnet(here.subnets[m.subnet])
		if l.subnet != m.subnet {
			c.fromSubnet(here.subnets[l.subnet])
		}
	} else {
		c.fromSubnet(here.subnets[m.subnet])
	}
	c.from(&here.all, c.want)
	if m.mode != registry.ModeSite {
		for _, st := range s.someSites() {
			if st != here {
				c.from(&st.all, c.want)
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
	m.chosen = c.s.asks
	p := registry.Peer{Device: m.device, Address: m.address, SameSite: m.site == c.asker.site, Left: m.left}
	p.SameSubnet = p.SameSite && m.subnet.IsValid() && m.subnet == c.asker.subnet
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

// fromSubnet takes up to half of what is still wanted from a subnet; nil is an unknown one.
func (c *choice) fromSubnet(w *crowd) {
	if w != nil {
		c.from(w, len(c.out)+(c.want-len(c.out))/2)
	}
}

// from goes on until there are upTo peers: a third of what is missing from the complete ones,
// then partial ones, then it fills up with complete ones.
func (c *choice) from(w *crowd, upTo int) {
	room := upTo - len(c.out)
	if room <= 0 {
		return
	}
	taken := 0
	if c.asker.left > 0 {
		taken = c.sample(&w.complete, 0, (room+completeShare-1)/completeShare)
	}
	c.sample(&w.partial, 0, upTo-len(c.out))
	if c.asker.left > 0 {
		c.sample(&w.complete, taken, upTo-len(c.out))
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
		case m.chosen == c.s.asks, !c.offered(m):
			vain++
		default:
			c.add(m)
			n--
		}
		i++
	}
	return i
}
