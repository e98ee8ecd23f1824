package sim

import (
	"time"

	"freshet/internal/swarm"
)

type kind uint8

const (
	evTick    kind = iota // of dev
	evRequest             // dev's peer a asks for run b
	evCancel              // dev's peer a cancels run b
	evHave                // dev told run b to all its peers
	evHaveOne             // dev's peer a told it run b
	evChoke               // dev choked all its peers; ok: unchoked them
	evSent                // run b of dev left its uplink, for peer a
	evRun                 // run b reached dev from peer a; ok: it is right
	evFetched             // run b reached dev through fetch a; ok: it was the last one
	evGone                // dev's peer a is gone
	evKill                // dev vanishes
	evLease               // site a's lease runs out
)

func (s *sim) handle(e event) {
	d := &s.devs[e.dev]
	if d.dead && e.kind != evLease {
		return
	}
	switch e.kind {
	case evTick:
		s.do(e.dev, d.brain.OnTick(s.now, s.acts[:0]))
		if d.done == 0 || !d.brain.Idle() {
			s.q.push(event{at: s.now + swarm.TickInterval, kind: evTick, dev: e.dev})
		}
	case evRequest:
		s.request(e, d)
	case evCancel:
		if d.brain != nil {
			d.brain.OnCancel(swarm.Peer(e.a), e.b)
		}
	case evHave:
		s.tellAll(d, e.b)
	case evHaveOne:
		if d.brain != nil && !d.conns[e.a].gone {
			s.do(e.dev, d.brain.OnHave(s.now, swarm.Peer(e.a), e.b, s.acts[:0]))
		}
	case evChoke:
		s.chokeAll(d, !e.ok)
	case evSent:
		s.do(e.dev, d.brain.OnSent(s.now, e.b, e.ok, s.acts[:0]))
	case evRun:
		s.do(e.dev, d.brain.OnRun(s.now, swarm.Peer(e.a), e.b, e.ok, s.acts[:0]))
	case evFetched:
		s.fetched(e, d)
	case evGone:
		s.gone(e.dev, e.a)
	case evKill:
		s.kill(e.dev)
	case evLease:
		s.leader[e.a] = -1
		s.lead(int(e.a))
	}
}

// request serves a liar's request at once; an honest device's brain decides.
func (s *sim) request(e event, d *device) {
	if d.conns[e.a].gone {
		return
	}
	if d.brain == nil {
		s.transfer(d, e.a, e.b, liarRuns)
		return
	}
	s.do(e.dev, d.brain.OnRequest(s.now, swarm.Peer(e.a), e.b, s.acts[:0]))
}

// transfer carries run r from d to its peer p and returns when it has left d.
func (s *sim) transfer(d *device, p, r int32, right bool) time.Duration {
	c := d.conns[p]
	n := s.runLen(int(r))
	left := d.up.carry(s.now, n)
	to := &s.devs[c.dev]
	at := max(left+s.cfg.Delay, to.down.carry(s.now, n))
	if s.cfg.Loss > 0 && s.rng.Float64() < s.cfg.Loss {
		at += 2*s.cfg.Delay + 200*time.Millisecond // minimal retransmission time-out (RFC 6298 as kernels have it)
	}
	to.down.free = max(to.down.free, at)
	s.q.push(event{at: at, kind: evRun, dev: c.dev, a: int32(c.back), b: r, ok: right})
	return left
}

// tellAll delivers a Have of d to all its peers.
func (s *sim) tellAll(d *device, run int32) {
	for i := range d.conns {
		c := &d.conns[i]
		to := &s.devs[c.dev]
		if c.gone || to.dead || to.brain == nil {
			continue
		}
		s.do(c.dev, to.brain.OnHave(s.now, c.back, run, s.acts[:0]))
	}
}

// chokeAll delivers a Choke or Unchoke of d to all its peers.
func (s *sim) chokeAll(d *device, choked bool) {
	for i := range d.conns {
		c := &d.conns[i]
		to := &s.devs[c.dev]
		if c.gone || to.dead || to.brain == nil {
			continue
		}
		s.do(c.dev, to.brain.OnChoke(s.now, c.back, choked, s.acts[:0]))
	}
}

// fetched delivers the next run of a fetch and starts the one after it.
func (s *sim) fetched(e event, d *device) {
	if !d.fetching[e.a] {
		return
	}
	s.do(e.dev, d.brain.OnFetched(s.now, e.a, e.b, true, s.acts[:0]))
	if e.ok {
		delete(d.fetching, e.a)
		s.do(e.dev, d.brain.OnFetchEnd(s.now, e.a, swarm.FetchDone, 0, s.acts[:0]))
	}
}

func (s *sim) gone(dev, peer int32) {
	d := &s.devs[dev]
	if d.conns[peer].gone {
		return
	}
	d.conns[peer].gone = true
	if d.brain != nil {
		s.do(dev, d.brain.OnPeerGone(s.now, swarm.Peer(peer), s.acts[:0]))
	}
}

// kill ends device dev: its peers see their connections close, the array its lease lapse.
func (s *sim) kill(dev int32) {
	d := &s.devs[dev]
	d.dead = true
	if d.done == 0 {
		s.left--
	}
	for _, c := range d.conns {
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evGone, dev: c.dev, a: int32(c.back)})
	}
	if s.leader[d.site] == dev {
		s.q.push(event{at: s.now + leaseTime, kind: evLease, dev: dev, a: int32(d.site)})
	}
}

// do does the actions of device dev. It keeps the slice for the next event.
func (s *sim) do(dev int32, acts []swarm.Action) {
	s.acts = acts[len(acts):] // an action may lead to further events at once
	for i := range acts {
		s.act(dev, &acts[i])
	}
	s.acts = acts[:0]
}

func (s *sim) act(dev int32, a *swarm.Action) {
	d := &s.devs[dev]
	switch a.Kind {
	case swarm.Request, swarm.Cancel, swarm.Tell:
		c := d.conns[a.Peer]
		k := evRequest
		if a.Kind == swarm.Cancel {
			k = evCancel
		} else if a.Kind == swarm.Tell {
			k = evHaveOne
		}
		s.q.push(event{at: s.now + s.cfg.Delay, kind: k, dev: c.dev, a: int32(c.back), b: a.Run})
	case swarm.TellAll:
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evHave, dev: dev, b: a.Run})
	case swarm.Choke, swarm.Unchoke:
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evChoke, dev: dev, ok: a.Kind == swarm.Unchoke})
	case swarm.Send:
		left := s.transfer(d, int32(a.Peer), a.Run, true)
		s.q.push(event{at: left, kind: evSent, dev: dev, b: a.Run, ok: true})
	case swarm.Ban:
		d.conns[a.Peer].gone = true
		s.q.push(event{at: s.now, kind: evGone, dev: d.conns[a.Peer].dev, a: int32(d.conns[a.Peer].back)})
	case swarm.Fetch:
		s.fetch(dev, d, a)
	case swarm.Stop:
		delete(d.fetching, a.ID)
	case swarm.Complete:
		d.done = s.now
		s.left--
	}
}

// fetch queues a range on the site's WAN link, one round trip from now.
func (s *sim) fetch(dev int32, d *device, a *swarm.Action) {
	d.fetching[a.ID] = true
	wan := &s.wan[d.site]
	for r := a.Run; r < a.End; r++ {
		at := wan.carry(s.now+2*s.cfg.Delay, s.runLen(int(r)))
		s.q.push(event{at: at, kind: evFetched, dev: dev, a: a.ID, b: r, ok: r == a.End-1})
	}
}
