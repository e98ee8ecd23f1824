package sim

import (
	"time"

	"freshet/internal/swarm"
)

type kind uint8

const (
	evTick        kind = iota // of dev
	evRequest                 // dev's peer a asks for run b
	evCancel                  // dev's peer a cancels run b
	evHave                    // dev told run b to all its peers
	evHaveOne                 // dev's peer a told it run b
	evChoke                   // dev choked all its peers; ok: unchoked them
	evSent                    // run b of dev left its uplink to its connection a
	evArriving                // run b begins to reach dev from peer a, and cannot all be there before until
	evRun                     // run b reached dev from peer a; ok: it is right
	evOrigin                  // the origin has dev's fetch a, which begins with run b
	evFetched                 // run b reached dev through fetch a
	evGone                    // dev's connection to peer a is closed
	evJoin                    // dev calls the array; ok: for the first time
	evKill                    // dev vanishes
	evStall                   // dev's uplink stops
	evKillLeaders             // every site's leader vanishes
	evElect                   // subnet b of site a has a leader again; b is -1: another subnet gets the lease
)

func (s *sim) handle(e event) {
	d := &s.devs[e.dev]
	if e.kind == evElect {
		s.elect(int(e.a), int(e.b))
		return
	}
	if d.dead {
		if e.kind == evKillLeaders {
			s.killLeaders()
		}
		return
	}
	switch e.kind {
	case evTick:
		s.tick(e.dev, d)
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
		s.do(e.dev, d.brain.OnSent(s.now, swarm.Peer(e.a), e.b, true, s.acts[:0]))
	case evArriving:
		s.arriving(e, d)
	case evRun:
		s.run(e, d)
	case evOrigin:
		s.origin(e, d)
	case evFetched:
		s.fetched(e, d)
	case evGone:
		s.gone(e.dev, e.a)
	case evJoin:
		s.join(e, d)
	case evKill:
		s.kill(e.dev)
	case evStall:
		s.stall(e.dev, d)
	case evKillLeaders:
		s.killLeaders()
	}
}

// wake lets device dev tick while it has something to watch.
func (s *sim) wake(dev int32) {
	d := &s.devs[dev]
	if d.brain == nil || d.ticking || d.brain.Idle() {
		return
	}
	d.ticking = true
	s.q.push(event{at: s.now + time.Duration(s.rng.Int64N(int64(swarm.TickInterval))), kind: evTick, dev: dev})
}

func (s *sim) tick(dev int32, d *device) {
	s.do(dev, d.brain.OnTick(s.now, s.acts[:0]))
	if d.brain.Idle() {
		d.ticking = false
		return
	}
	s.q.push(event{at: s.now + swarm.TickInterval, kind: evTick, dev: dev})
}

// request lets a device's brain, or what else it is, answer a peer's request.
func (s *sim) request(e event, d *device) {
	switch {
	case d.conns[e.a].gone || d.nature == silent:
	case d.nature == liar:
		s.transfer(d, e.a, e.b, false)
	default:
		s.do(e.dev, d.brain.OnRequest(s.now, swarm.Peer(e.a), e.b, s.acts[:0]))
		s.wake(e.dev)
	}
}

// run delivers a run to the brain, which hears from the shell whether it verified.
func (s *sim) run(e event, d *device) {
	if d.conns[e.a].gone {
		return
	}
	if e.ok {
		d.has.Add(int(e.b))
	}
	s.do(e.dev, d.brain.OnRun(s.now, swarm.Peer(e.a), e.b, e.ok, s.acts[:0]))
}

// tellAll delivers a Have of d to all its peers.
func (s *sim) tellAll(d *device, run int32) {
	for i := range d.conns {
		c := &d.conns[i]
		if c.gone {
			continue
		}
		if to := &s.devs[c.dev]; !to.dead && to.brain != nil {
			s.do(c.dev, to.brain.OnHave(s.now, c.back, run, s.acts[:0]))
		}
	}
}

// chokeAll delivers a Choke or Unchoke of d to all its peers.
func (s *sim) chokeAll(d *device, choked bool) {
	for i := range d.conns {
		c := &d.conns[i]
		if c.gone {
			continue
		}
		if to := &s.devs[c.dev]; !to.dead && to.brain != nil {
			s.do(c.dev, to.brain.OnChoke(s.now, c.back, choked, s.acts[:0]))
		}
	}
}

// do does the actions of device dev. It keeps the slice for the next event.
func (s *sim) do(dev int32, acts []swarm.Action) {
	if len(acts) == 0 {
		return
	}
	s.acts = acts[len(acts):] // an action may lead to further events at once
	for i := range acts {
		s.act(dev, &acts[i])
	}
	s.acts = acts[:0]
}

func (s *sim) act(dev int32, a *swarm.Action) {
	d := &s.devs[dev]
	switch a.Kind {
	case swarm.Request:
		s.message(evRequest, d, a)
	case swarm.Cancel:
		s.message(evCancel, d, a)
	case swarm.Tell:
		s.message(evHaveOne, d, a)
	case swarm.TellAll:
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evHave, dev: dev, b: a.Run})
	case swarm.Choke, swarm.Unchoke:
		s.q.push(event{at: s.now + s.cfg.Delay, kind: evChoke, dev: dev, ok: a.Kind == swarm.Unchoke})
	case swarm.Send:
		s.send(dev, d, a)
	case swarm.Ban:
		s.ban(dev, d, a.Peer)
	case swarm.Fetch:
		s.fetch(dev, d, a)
	case swarm.Stop:
		delete(d.fetches, a.ID)
	case swarm.Complete:
		d.done = s.now
		s.left--
		if d.has.Count() != s.runs {
			s.res.Unheld++
		}
	}
}

// message sends an action's run to its peer as a small message.
func (s *sim) message(k kind, d *device, a *swarm.Action) {
	c := d.conns[a.Peer]
	s.q.push(event{at: s.now + s.cfg.Delay, kind: k, dev: c.dev, a: int32(c.back), b: a.Run})
}

func (s *sim) send(dev int32, d *device, a *swarm.Action) {
	if !d.has.Has(int(a.Run)) {
		s.res.Unheld++
	}
	left := s.transfer(d, int32(a.Peer), a.Run, true)
	s.q.push(event{at: left, kind: evSent, dev: dev, a: int32(a.Peer), b: a.Run})
}
