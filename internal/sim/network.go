package sim

import (
	"time"

	"freshet/internal/content"
	"freshet/internal/swarm"
)

const (
	stalledRate = 1                      // bytes a second of an uplink that stopped
	lossTimeout = 200 * time.Millisecond // least retransmission time-out of today's kernels
)

// link is a queue served at a rate.
type link struct {
	rate float64
	free time.Duration // when the last byte queued has left
}

// carry returns when n bytes queued at now have left.
func (l *link) carry(now time.Duration, n int) time.Duration {
	l.free = max(l.free, now) + l.takes(n)
	return l.free
}

// takes returns how long the link is busy with n bytes.
func (l *link) takes(n int) time.Duration {
	return time.Duration(float64(n) / l.rate * float64(time.Second))
}

// conn is one end of a connection: the other device, and this device's number there.
type conn struct {
	dev  int32
	back swarm.Peer
	gone bool
}

// connect opens a connection between i and j unless there is one, or one has banned the
// other.
func (s *sim) connect(i, j int32) {
	if i == j || s.devs[j].dead || s.devs[i].banned[j] || s.devs[j].banned[i] {
		return
	}
	for _, c := range s.devs[i].conns {
		if c.dev == j && !c.gone {
			return
		}
	}
	a, b := &s.devs[i], &s.devs[j]
	pa, pb := swarm.Peer(len(a.conns)), swarm.Peer(len(b.conns))
	a.conns = append(a.conns, conn{dev: j, back: pb})
	b.conns = append(b.conns, conn{dev: i, back: pa})
	a.links++
	b.links++
	holdsA, holdsB := s.public(a, zoneOf(a, b)), s.public(b, zoneOf(a, b))
	s.meet(i, pa, holdsB)
	s.meet(j, pb, holdsA)
}

// zoneOf returns where two devices of a site are for each other.
func zoneOf(a, b *device) swarm.Zone {
	if a.subnet == b.subnet {
		return swarm.SameSubnet
	}
	return swarm.SameSite
}

// public returns the runs that d tells a new peer in zone z of.
func (s *sim) public(d *device, z swarm.Zone) content.Bits {
	if d.brain == nil {
		return content.FullBits(s.runs)
	}
	return d.brain.Public(z)
}

// meet tells device i of its new peer, and what that one says that it holds.
func (s *sim) meet(i int32, p swarm.Peer, holds content.Bits) {
	d := &s.devs[i]
	if d.brain == nil {
		return
	}
	s.do(i, d.brain.OnPeer(s.now, p, zoneOf(d, &s.devs[d.conns[p].dev]), s.acts[:0]))
	s.do(i, d.brain.OnHolds(s.now, p, holds, s.acts[:0]))
	if other := &s.devs[d.conns[p].dev]; other.brain != nil && other.brain.Choking() {
		s.do(i, d.brain.OnChoke(s.now, p, true, s.acts[:0]))
	}
	s.wake(i)
}

// gone closes device dev's end of the connection to peer.
func (s *sim) gone(dev, peer int32) {
	d := &s.devs[dev]
	if d.conns[peer].gone {
		return
	}
	d.conns[peer].gone = true
	d.links--
	if d.brain != nil {
		s.do(dev, d.brain.OnPeerGone(s.now, swarm.Peer(peer), s.acts[:0]))
		s.wake(dev)
	}
}

// ban closes a connection from device dev's side, and for good.
func (s *sim) ban(dev int32, d *device, peer swarm.Peer) {
	c := &d.conns[peer]
	c.gone = true
	d.links--
	if d.banned == nil {
		d.banned = map[int32]bool{}
	}
	d.banned[c.dev] = true
	s.q.push(event{at: s.now + s.cfg.Delay, kind: evGone, dev: c.dev, a: int32(c.back)})
}

// transfer carries run r from d to its peer p and returns when it has left d.
func (s *sim) transfer(d *device, p, r int32, right bool) time.Duration {
	c := d.conns[p]
	left := d.up.carry(s.now, s.runLen(int(r)))
	at := left + s.cfg.Delay
	if s.cfg.Loss > 0 && s.rng.Float64() < s.cfg.Loss {
		at += 2*s.cfg.Delay + lossTimeout
	}
	// The downlink begins with the run's first byte, and cannot end before its last one.
	first := max(s.now, at-d.up.takes(s.runLen(int(r))))
	s.q.push(event{at: first, kind: evArriving, dev: c.dev, a: int32(c.back), b: r, ok: right, until: at})
	return left
}

// arriving takes a run into the downlink of its receiver.
func (s *sim) arriving(e event, d *device) {
	at := max(e.until, d.down.carry(s.now, s.runLen(int(e.b))))
	s.q.push(event{at: at, kind: evRun, dev: e.dev, a: e.a, b: e.b, ok: e.ok})
}

// fetch asks the origin for a range: its first run comes one round trip from now.
func (s *sim) fetch(dev int32, d *device, a *swarm.Action) {
	d.fetches[a.ID] = a.End
	s.q.push(event{at: s.now + 2*s.cfg.Delay, kind: evOrigin, dev: dev, a: a.ID, b: a.Run})
}

// origin sends the next run of a fetch over the site's link.
func (s *sim) origin(e event, d *device) {
	if _, open := d.fetches[e.a]; !open {
		return
	}
	n := s.runLen(int(e.b))
	s.res.WANBytes[d.site] += int64(n)
	if s.near(e, d) {
		s.res.Again += int64(n)
	}
	s.q.push(event{at: s.sites[d.site].wan.carry(s.now, n), kind: evFetched, dev: e.dev, a: e.a, b: e.b})
}

// near reports whether another device of the site could give what a fetch asks for, or is
// being sent it by the origin.
func (s *sim) near(e event, d *device) bool {
	for _, m := range s.sites[d.site].members {
		o := &s.devs[m]
		if m == e.dev || o.brain == nil || o.up.rate == stalledRate {
			continue
		}
		if o.has.Has(int(e.b)) || o.coming == e.b+1 {
			return true
		}
	}
	d.coming = e.b + 1
	return false
}

// fetched delivers a run of a fetch, and has the next one sent.
func (s *sim) fetched(e event, d *device) {
	end, open := d.fetches[e.a]
	if !open {
		return
	}
	d.has.Add(int(e.b))
	d.coming = 0
	s.do(e.dev, d.brain.OnFetched(s.now, e.a, e.b, true, s.acts[:0]))
	if e.b+1 < end {
		s.origin(event{dev: e.dev, a: e.a, b: e.b + 1}, d)
		return
	}
	delete(d.fetches, e.a)
	s.do(e.dev, d.brain.OnFetchEnd(s.now, e.a, swarm.FetchDone, 0, s.acts[:0]))
}
