package election

import (
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// adopt takes another device for the leader.
func (e *Election) adopt(now time.Duration, c *contest, from wire.DeviceID, b *wire.Beat, period time.Duration, acts []Action) []Action {
	c.lead = leader{device: from, before: c.epoch}
	c.retry = minRetry
	deputy := e.refresh(now, c, b, period)
	c.clear(askTimer, windowTimer, claimTimer)
	c.decided()
	if !c.wanting() || c.shuns >= maxShuns {
		return acts // known, for the day when it is wanted; or given up on leaders
	}
	acts = e.follow(now, c, acts)
	if deputy {
		acts = append(acts, standBy(c))
	}
	return acts
}

func standBy(c *contest) Action {
	return Action{Kind: StandBy, Content: c.id, Device: c.lead.device}
}

// follow begins to follow the leader that is known.
func (e *Election) follow(now time.Duration, c *contest, acts []Action) []Action {
	c.role, c.since, c.expected = following, now, wire.DeviceID{}
	c.clear(askTimer, windowTimer, seekTimer, aloneTimer)
	e.set(c, silenceTimer, c.lead.deadline()+1)
	e.watch(now, c)
	e.report(now, c)
	return append(acts, Action{Kind: Follow, Content: c.id, Device: c.lead.device, Epoch: c.lead.beat.Epoch})
}

// refresh notes that the leader was heard. It reports whether this device has just become its
// deputy.
func (e *Election) refresh(now time.Duration, c *contest, b *wire.Beat, period time.Duration) (deputy bool) {
	l := &c.lead
	if l.gone {
		c.clear(claimTimer, seekTimer) // it is there after all
	}
	if b.Device != l.beat.Device {
		l.deputyGone = false
		deputy = b.Device == e.cfg.Self && c.wanting()
	}
	if b.Flags&wire.Outside != 0 && l.wentOut == 0 {
		l.wentOut = max(now, 1)
	}
	c.epoch = max(c.epoch, min(b.Epoch, l.before+maxStep))
	l.beat, l.heard, l.period, l.gone = *b, now, period, false
	e.set(c, silenceTimer, l.deadline()+1)
	e.watch(now, c)
	return deputy
}

// watch arms the timer of what happens when nothing new comes.
func (e *Election) watch(now time.Duration, c *contest) {
	switch {
	case !c.wanting():
	case c.role == following:
		e.set(c, stallTimer, max(now, e.lastNews(c)+e.patience(c)))
	case c.role == leading && c.out:
		e.set(c, stallTimer, max(now, c.moved(), c.outSince)+e.patience(c))
	}
}

// lastNews returns from when on a follower counts the time without a new piece.
func (e *Election) lastNews(c *contest) time.Duration {
	return max(c.moved(), c.since, c.leaseSince, c.lead.wentOut)
}

// patience returns how long the device waits for a new piece, as follower or leader.
func (e *Election) patience(c *contest) time.Duration {
	d, rate, most := c.pieceTime, c.rate, never
	if c.role != leading {
		rate, most = c.lead.beat.Rate, maxClaimed
	}
	if rate > 0 {
		d = max(d, min(most, time.Duration(content.PieceSize/1024*float64(time.Second)/float64(rate))))
	}
	d = max(minPatience, pieceTimes*d)
	if b := &c.lead.beat; c.role != leading && b.Flags&wire.Outside == 0 && b.Held < b.Total {
		switch c.lease {
		case LeaseUnknown:
			d = max(d, e.cfg.LeaseWait+e.cfg.LeaseWait*3/4)
		case LeaseOther:
			d = max(d, otherLease)
		}
	}
	d <<= min(c.turns, maxTurns)
	if c.role != leading {
		d += leaderFirst
	}
	return d
}

// silence looks whether too many beats are missing.
func (e *Election) silence(now time.Duration, c *contest, acts []Action) []Action {
	l := &c.lead
	switch {
	case l.device.IsZero() || l.gone:
		return acts
	case now <= l.deadline():
		e.set(c, silenceTimer, l.deadline()+1)
		return acts
	}
	return e.lost(now, c, 0, acts)
}

// lost does what is due when the leader is gone: its deputy claims after a while, others give
// it time.
func (e *Election) lost(now time.Duration, c *contest, wait time.Duration, acts []Action) []Action {
	l := &c.lead
	l.gone = true
	c.unheard(now, l.device)
	deputy := l.beat.Device
	switch {
	case c.wanting() && c.shuns >= maxShuns:
	case deputy == e.cfg.Self && e.stands(now, c):
		if wait == 0 {
			return e.claim(now, c, acts)
		}
		e.set(c, claimTimer, now+wait)
	case !c.wanting():
		*l = leader{}
	case deputy.IsZero() || deputy == e.cfg.Self || l.deputyGone || c.avoids(now, deputy):
		return e.seek(now, c, acts)
	default:
		c.expected = deputy
		c.clear(stallTimer)
		e.set(c, seekTimer, now+deputyWait)
	}
	return acts
}

// stall gives the leader up, or the leadership, when nothing new came for too long.
func (e *Election) stall(now time.Duration, c *contest, acts []Action) []Action {
	switch {
	case !c.wanting():
		return acts
	case c.role == leading:
		return e.leaderStalled(now, c, acts)
	case c.role != following || c.lead.gone:
		return acts
	}
	if end := e.lastNews(c) + e.patience(c); now < end {
		e.set(c, stallTimer, end)
		return acts
	}
	return e.giveUp(now, c, acts)
}

// giveUp shuns the leader.
func (e *Election) giveUp(now time.Duration, c *contest, acts []Action) []Action {
	c.shun(now, c.lead.device, shunTime)
	c.shuns++
	acts = append(acts, Action{Kind: Shun, Content: c.id, Device: c.lead.device})
	if c.shuns < maxShuns {
		return e.lost(now, c, 0, acts)
	}
	c.role, c.lead = waiting, leader{}
	c.clear(silenceTimer, claimTimer)
	at := now
	if c.priority == wire.Background {
		at += aloneMin + e.upTo(aloneSpread)
	}
	e.set(c, aloneTimer, at)
	return acts
}
