package memory

import (
	"net/netip"

	"freshet/internal/wire"
)

// Ways in which members are looked up: a member lies in at most one pool of each.
const (
	bySite = iota
	bySubnet
	ways
)

// crowd is members, those that hold all apart.
type crowd struct{ complete, partial pool }

func newCrowd(way int) crowd { return crowd{pool{way: way}, pool{way: way}} }

func (w *crowd) add(m *member) {
	if m.left == 0 {
		w.complete.add(m)
	} else {
		w.partial.add(m)
	}
}

func (w *crowd) empty() bool { return len(w.complete.list)+len(w.partial.list) == 0 }

// pool is a set of members, dense and in no order.
type pool struct {
	way  int
	list []*member
}

func (p *pool) add(m *member) {
	slot := &m.in[p.way]
	slot.pool, slot.at = p, len(p.list)
	p.list = append(p.list, m)
}

func (p *pool) remove(m *member) {
	last := len(p.list) - 1
	p.swap(m.in[p.way].at, last)
	p.list[last] = nil
	p.list = p.list[:last]
	m.in[p.way].pool = nil
}

func (p *pool) swap(i, j int) {
	p.list[i], p.list[j] = p.list[j], p.list[i]
	p.list[i].in[p.way].at, p.list[j].in[p.way].at = i, j
}

func newSite(name string, at int) *site {
	return &site{name: name, at: at, all: newCrowd(bySite), subnets: map[netip.Prefix]*crowd{}, followers: map[wire.DeviceID]int{}}
}

// add takes m in, as it is now.
func (st *site) add(m *member) {
	st.all.add(m)
	if m.leads {
		st.leaders++
	}
	if !m.follows.IsZero() {
		st.followers[m.follows]++
	}
	if !m.subnet.IsValid() {
		return
	}
	w := st.subnets[m.subnet]
	if w == nil {
		made := newCrowd(bySubnet)
		w = &made
		st.subnets[m.subnet] = w
	}
	w.add(m)
}

// remove takes m out; nothing of it may have changed since it was added.
func (st *site) remove(m *member) {
	m.in[bySite].pool.remove(m)
	if m.leads {
		st.leaders--
	}
	if !m.follows.IsZero() {
		if st.followers[m.follows]--; st.followers[m.follows] == 0 {
			delete(st.followers, m.follows)
		}
	}
	if p := m.in[bySubnet].pool; p != nil {
		p.remove(m)
		if st.subnets[m.subnet].empty() {
			delete(st.subnets, m.subnet)
		}
	}
}
