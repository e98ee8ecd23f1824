package election

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// seek begins an election.
func (e *Election) seek(now time.Duration, c *contest, acts []Action) []Action {
	c.role, c.lead, c.expected = seeking, leader{}, wire.DeviceID{}
	c.patience = now + maxGather
	c.clear(seekTimer, windowTimer, silenceTimer, stallTimer)
	e.set(c, askTimer, now+e.upTo(maxAskWait))
	return acts
}

// ask asks the subnet.
func (e *Election) ask(now time.Duration, c *contest, acts []Action) []Action {
	e.set(c, readyTimer, now+window-readyTime)
	e.set(c, windowTimer, now+window)
	q := wire.Question{Standing: e.standing(now, c), Subject: c.subject()}
	return append(acts, Action{Kind: Broadcast, Content: c.id, Message: q})
}

// ready lets a device that will probably lead prepare for it.
func (e *Election) ready(now time.Duration, c *contest, acts []Action) []Action {
	best := c.best(now, fresh)
	if c.at[windowTimer] == never || c.complete() || !e.stands(now, c) || best != nil && best.rank.before(e.rank(now, c)) {
		return acts
	}
	return append(acts, Action{Kind: StandBy, Content: c.id})
}

// choose ends the window: the best candidate claims.
func (e *Election) choose(now time.Duration, c *contest, acts []Action) []Action {
	best := c.best(now, fresh)
	switch stands := e.stands(now, c); {
	case best == nil && c.gathers && now < c.patience:
		return e.ask(now, c, acts)
	case stands && (best == nil || e.rank(now, c).before(best.rank)):
		return e.claim(now, c, acts)
	case best != nil:
		e.expect(now, c, best.device, claimWait)
		return acts
	case e.cfg.Weight == 0 && !c.onHold() && e.cond.MayGoOut && now >= c.unable:
		return e.goAlone(now, c, acts)
	}
	c.role = waiting
	e.set(c, seekTimer, now+c.retry+e.upTo(c.retry))
	c.unable = min(c.unable, c.at[seekTimer]) // nobody can do better
	c.retry = min(2*c.retry, maxRetry)
	return acts
}

// expect gives another device time to claim.
func (e *Election) expect(now time.Duration, c *contest, device wire.DeviceID, d time.Duration) {
	c.role, c.expected = expecting, device
	c.clear(askTimer, windowTimer)
	e.set(c, seekTimer, now+d)
}

// giveUpWaiting seeks anew when nobody claimed. Who was expected to counts not for a while.
func (e *Election) giveUpWaiting(now time.Duration, c *contest, acts []Action) []Action {
	if !c.wanting() || c.lead.alive(now) {
		return acts
	}
	for i := range c.cands {
		if c.cands[i].device == c.expected {
			c.cands[i].passed = now + passTime
		}
	}
	return e.seek(now, c, acts)
}

// asked takes a question for the bytes of c from another device.
func (e *Election) asked(now time.Duration, c *contest, from wire.DeviceID, q *wire.Question, acts []Action) []Action {
	k := e.note(now, c, from, q.Standing)
	k.wants, c.demand = true, now
	own := e.rank(now, c)
	ahead := c.counts(now, k, 0) && (!e.stands(now, c) || k.rank.before(own))
	switch {
	case c.role == leading:
		e.beatSoon(now, c)
	case c.lead.alive(now): // it beats
	case ahead:
		if c.at[askTimer] != never {
			e.expect(now, c, from, window+claimWait)
		}
		e.silenced(c, q.Subject.Tag(), c.newest())
	case e.stands(now, c):
		e.answerLater(now, c, c.newest(), q.Subject.Tag())
		if c.role == idle && c.at[claimTimer] == never && e.idleLed() < maxIdleLed {
			e.set(c, claimTimer, now+window)
		}
	}
	return e.settle(now, c, acts)
}

// decided drops the answers that an election was to have: its leader beats. Who asked by name
// is still to hear what there is.
func (c *contest) decided() {
	s := c.subject()
	c.replies = slices.DeleteFunc(c.replies, func(r reply) bool { return r.tag == s.Tag() })
}

// silenced drops what a better device makes unnecessary. A deputy's claim stays.
func (e *Election) silenced(c *contest, tag uint64, manifest content.Digest) {
	c.replies = slices.DeleteFunc(c.replies, func(r reply) bool { return r.tag == tag && r.manifest == manifest })
	if !c.lead.gone {
		c.clear(claimTimer)
	}
}

// newest returns the manifest that an answer about the bytes bears: the newest not on hold.
func (c *contest) newest() content.Digest {
	var best *name
	for i := range c.names {
		if n := &c.names[i]; !n.onHold && (best == nil || n.generation > best.generation) {
			best = n
		}
	}
	if best == nil {
		return content.Digest{}
	}
	return best.manifest
}

// answerLater answers after a random time, unless a better one does before.
func (e *Election) answerLater(now time.Duration, c *contest, manifest content.Digest, tag uint64) {
	r := reply{tag, manifest}
	if len(c.replies) < maxReplies && !slices.Contains(c.replies, r) {
		c.replies = append(c.replies, r)
	}
	if c.at[answerTimer] == never {
		e.set(c, answerTimer, now+e.upTo(maxAnswer))
	}
}

func (e *Election) answer(now time.Duration, c *contest, acts []Action) []Action {
	bytes := c.subject()
	replies := c.replies
	c.replies = nil
	for _, r := range replies {
		if n := c.name(r.manifest); n != nil && (r.tag != bytes.Tag() || e.stands(now, c)) {
			a := wire.Answer{Tag: r.tag, HashOfHashes: c.id, Manifest: n.manifest, Generation: n.generation, Standing: e.standing(now, c)}
			acts = append(acts, Action{Kind: Broadcast, Content: c.id, Message: a})
		}
	}
	return acts
}

// idleLed returns how many contents the device leads for others' sake alone.
func (e *Election) idleLed() int {
	n := 0
	for _, c := range e.list {
		if c.role == leading && c.complete() {
			n++
		}
	}
	return n
}

// goAlone lets the device fetch without a leader.
func (e *Election) goAlone(now time.Duration, c *contest, acts []Action) []Action {
	c.role = alone
	c.clear(askTimer, windowTimer, seekTimer, stallTimer, aloneTimer)
	e.report(now, c)
	return append(acts, Action{Kind: GoAlone, Content: c.id})
}

// aloneDue goes out alone, unless pieces come or the device may not.
func (e *Election) aloneDue(now time.Duration, c *contest, acts []Action) []Action {
	switch quiet := now - c.moved(); {
	case !c.wanting():
	case !e.cond.MayGoOut || c.onHold():
		e.set(c, aloneTimer, now+aloneMin)
	case quiet < aloneQuiet && c.priority == wire.Background:
		e.set(c, aloneTimer, now+aloneQuiet-quiet+e.upTo(aloneQuiet))
	default:
		return e.goAlone(now, c, acts)
	}
	return acts
}
