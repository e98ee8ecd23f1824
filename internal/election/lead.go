package election

import (
	"slices"
	"time"

	"freshet/internal/wire"
)

// claimDue claims: as deputy of a leader that is gone, or as the best holder of what somebody
// asked for.
func (e *Election) claimDue(now time.Duration, c *contest, acts []Action) []Action {
	switch stands := e.stands(now, c); {
	case c.role == leading || c.lead.alive(now) || !stands && !c.wanting():
		return acts
	case !stands:
		return e.seek(now, c, acts)
	}
	if best := c.best(now, fresh); !c.lead.gone && best != nil && best.rank.before(e.rank(now, c)) {
		return acts
	}
	return e.claim(now, c, acts)
}

// claim makes this device the leader.
func (e *Election) claim(now time.Duration, c *contest, acts []Action) []Action {
	c.deposed = c.lead.device
	c.inherit(now)
	c.role, c.lead, c.rivals, c.expected = leading, leader{}, nil, wire.DeviceID{}
	c.clear(askTimer, windowTimer, seekTimer, claimTimer, silenceTimer, aloneTimer)
	c.decided()
	c.epoch = max(c.epoch, c.own) + 1
	c.own, c.begun = c.epoch, c.epoch
	c.since, c.outSince, c.gained = now, now, false
	c.told = c.asked(now)
	c.deputy = c.chooseDeputy(now)
	acts = append(acts, Action{Kind: Lead, Content: c.id, Epoch: c.own, Priority: c.told})
	acts = e.settle(now, c, acts) // before the beat, which tells whether the device goes out
	e.set(c, beatTimer, now)
	e.set(c, lingerTimer, now+linger)
	return e.beat(now, acts)
}

// inherit takes over the site's lease from a leader that is gone and went out: the lease is the
// subnet's, whatever the array said before it knew of that leader. Its next word counts again.
func (c *contest) inherit(now time.Duration) {
	if c.lead.gone && c.lead.beat.Flags&wire.Outside != 0 && (c.lease == LeaseOther || c.lease == LeaseUnknown) {
		c.lease, c.leaseSince = LeaseOurs, now
	}
}

// chooseDeputy returns who takes over when this leader is gone: the last one while it is
// there, else the best.
func (c *contest) chooseDeputy(now time.Duration) wire.DeviceID {
	var best *candidate
	for i := range c.cands {
		k := &c.cands[i]
		if !c.counts(now, k, known) {
			continue
		}
		if k.device == c.deputy {
			return c.deputy
		}
		if best == nil || k.rank.before(best.rank) {
			best = k
		}
	}
	if best == nil {
		return wire.DeviceID{}
	}
	return best.device
}

// beatDue beats for c and whatever else is nearly due.
func (e *Election) beatDue(now time.Duration, c *contest, acts []Action) []Action {
	e.set(c, beatTimer, now)
	return e.beat(now, acts)
}

// beat tells the subnet what is led and, less often, what is wanted.
func (e *Election) beat(now time.Duration, acts []Action) []Action {
	var beats []wire.Beat
	for _, c := range e.list {
		if c.role != leading && !c.wanting() {
			c.clear(beatTimer)
			continue
		}
		period := e.period(now, c)
		if c.at[beatTimer] == never || c.at[beatTimer] > now+period/8 {
			continue
		}
		if c.role == leading {
			c.deputy = c.chooseDeputy(now)
		}
		beats = append(beats, e.beatOf(now, c))
		c.beaten = now
		e.set(c, beatTimer, now+period)
	}
	for some := range slices.Chunk(beats, wire.MaxBeats) {
		acts = append(acts, Action{Kind: Broadcast, Message: wire.Heartbeat{Weight: e.weight(), Beats: some}})
	}
	return acts
}

// moving reports whether pieces of a led content move, as far as the leader knows.
func (e *Election) moving(now time.Duration, c *contest) bool {
	return !c.complete() || now-c.demand < demandTime
}

// period returns the time to the next beat.
func (e *Election) period(now time.Duration, c *contest) time.Duration {
	switch {
	case c.role != leading:
		return reportTime - reportTime/4 + e.upTo(reportTime/2)
	case e.moving(now, c):
		return fastBeat
	}
	return slowBeat
}

func (e *Election) beatOf(now time.Duration, c *contest) wire.Beat {
	s := e.standing(now, c)
	b := wire.Beat{
		HashOfHashes: c.id, Epoch: c.lead.beat.Epoch, Held: c.held, Total: c.total,
		Rate: c.rate, Priority: s.Priority, Device: c.lead.device,
	}
	set := func(f wire.BeatFlags, on bool) {
		if on {
			b.Flags |= f
		}
	}
	set(wire.Able, s.Able)
	set(wire.Stands, s.Weight > 0)
	set(wire.Outside, c.out)
	if c.role == leading {
		b.Flags |= wire.Leads
		set(wire.Moving, e.moving(now, c))
		b.Epoch, b.Device, b.Priority = c.own, c.deputy, c.told
	}
	return b
}

// beatSoon brings the next beat forward, so that those who ask need not wait for it.
func (e *Election) beatSoon(now time.Duration, c *contest) {
	e.set(c, beatTimer, min(c.at[beatTimer], max(now, c.beaten+answerBeat)))
}

// report arms the beats of a device that does not lead.
func (e *Election) report(now time.Duration, c *contest) {
	e.set(c, beatTimer, min(c.at[beatTimer], now+fastBeat+e.upTo(fastBeat)))
}

// raise takes an epoch above that of a rival that gave way: it was ahead by its epoch for a
// while, and may have taken the subnet's lease over. One leadership does so within the step
// that others accept. Any epoch may come: it is subtracted from, after it is known to be higher.
func (e *Election) raise(now time.Duration, c *contest, epoch uint64, acts []Action) []Action {
	if epoch < c.own || epoch-c.begun >= maxStep-1 {
		return acts
	}
	c.own = epoch + 1
	c.epoch = max(c.epoch, c.own)
	e.beatSoon(now, c)
	return append(acts, Action{Kind: Raise, Content: c.id, Epoch: c.own})
}

// stepDown ends the leadership of this device.
func (e *Election) stepDown(c *contest, reason wire.ResignReason, successor wire.DeviceID, acts []Action) []Action {
	c.role, c.rivals, c.deposed = idle, nil, wire.DeviceID{}
	c.clear(beatTimer, stallTimer, lingerTimer, leaseTimer)
	return append(acts,
		Action{Kind: StopLeading, Content: c.id, Epoch: c.own, Reason: reason, Device: successor},
		Action{Kind: Broadcast, Content: c.id, Message: wire.Resign{HashOfHashes: c.id, Epoch: c.own, Reason: reason, Successor: successor}})
}

// resign steps down and gives the deputy time to claim.
func (e *Election) resign(now time.Duration, c *contest, reason wire.ResignReason, acts []Action) []Action {
	deputy := c.deputy
	acts = e.stepDown(c, reason, wire.DeviceID{}, acts)
	if c.wanting() {
		e.expect(now, c, deputy, deputyWait)
		e.report(now, c)
	}
	return acts
}

// lingerDue ends the leadership of what nobody wants any more.
func (e *Election) lingerDue(now time.Duration, c *contest, acts []Action) []Action {
	switch end := max(c.since, c.progress, c.demand) + linger; {
	case c.role != leading:
	case c.wanting() || now < end:
		e.set(c, lingerTimer, max(now+linger/4, end))
	default:
		return e.resign(now, c, wire.Unwanted, acts)
	}
	return acts
}

// onRival takes the beat of another leader while this device leads.
func (e *Election) onRival(now time.Duration, c *contest, k *candidate, b *wire.Beat, acts []Action) []Action {
	if k.device == c.deposed && !c.gained {
		return e.yield(now, c, &rival{device: k.device, beat: *b}, acts)
	}
	if !e.ahead(now, c, k, b) {
		c.dropRival(k.device)
		e.beatSoon(now, c) // so that it hears who is ahead
		return acts
	}
	r := c.rival(k.device)
	if r == nil {
		if len(c.rivals) == maxRivals {
			c.rivals = slices.Delete(c.rivals, 0, 1)
		}
		c.rivals = append(c.rivals, rival{device: k.device, since: now})
		r = &c.rivals[len(c.rivals)-1]
	}
	r.beat, r.heard = *b, now
	switch {
	case r.proven, e.justElected(now, c), e.stalled(now, c):
		return e.yield(now, c, r, acts)
	case now-r.since > proofTime:
		c.shun(now, k.device, unprovenTime)
		c.dropRival(k.device)
	case now >= r.asked:
		r.asked = now + proofEvery
		acts = append(acts, Action{Kind: Prove, Content: c.id, Device: k.device})
	}
	return acts
}

// ahead reports whether another leader is to win: more pieces, then the order. A beat tells
// of pieces that were, so a few more do not count: else each of two that fetch would see the
// other one behind.
func (e *Election) ahead(now time.Duration, c *contest, k *candidate, b *wire.Beat) bool {
	more, few := int64(b.Held)-int64(c.held), int64(max(fewPieces, c.total/64))
	if more > few || more < -few {
		return more > 0
	}
	own, other := e.rank(now, c), k.rank
	if own.share != wire.Complete && other.share != wire.Complete {
		other.share = own.share
	}
	return other.before(own)
}

// justElected reports whether this leader may give way to another one without harm.
func (e *Election) justElected(now time.Duration, c *contest) bool {
	return !c.gained && now-c.since <= freshLeader
}

// stalled reports whether this leader fetches and nothing comes.
func (e *Election) stalled(now time.Duration, c *contest) bool {
	return c.out && now-max(c.moved(), c.outSince) > e.patience(c)
}

// yield gives way to a rival.
func (e *Election) yield(now time.Duration, c *contest, r *rival, acts []Action) []Action {
	to := *r
	acts = e.stepDown(c, wire.Yielded, to.device, acts)
	return e.adopt(now, c, to.device, &to.beat, slowBeat, acts)
}

// leaderStalled resigns when nothing comes and another could lead.
func (e *Election) leaderStalled(now time.Duration, c *contest, acts []Action) []Action {
	if !c.out {
		return acts
	}
	end := max(c.moved(), c.outSince) + e.patience(c)
	switch {
	case now < end:
		e.set(c, stallTimer, end)
		return acts
	case c.best(now, known) == nil:
		e.set(c, stallTimer, now+minPatience)
		return acts
	}
	c.unable = now + unableTime
	c.turns = min(c.turns+1, maxTurns)
	return e.resign(now, c, wire.Stalled, acts)
}
