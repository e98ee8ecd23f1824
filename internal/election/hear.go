package election

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// pending is a question for what was not known.
type pending struct {
	from     wire.DeviceID
	question wire.Question
	at       time.Duration
}

// pendingTime is how long a question waits for the store.
const pendingTime = time.Second

// OnQuestion takes a question of another device.
func (e *Election) OnQuestion(now time.Duration, from wire.DeviceID, q wire.Question, acts []Action) []Action {
	if from == e.cfg.Self || !e.admits(now, from) {
		return acts
	}
	if l := e.lookup(q.Subject); l != nil {
		return e.lookupAsked(now, l, from, &q, acts)
	}
	if c, manifest := e.match(&q.Subject); c != nil {
		return e.askedFor(now, c, manifest, from, &q, acts)
	}
	if e.cfg.Weight == 0 || e.contests[q.Subject.Digest] != nil && q.Subject.By == wire.ByHashOfHashes {
		return acts // on hold; or a device that never answers
	}
	e.pend(now, from, &q)
	return append(acts, Action{Kind: Find, Device: from, Subject: q.Subject})
}

// pend keeps a question until there is an entry that it asks for.
func (e *Election) pend(now time.Duration, from wire.DeviceID, q *wire.Question) {
	for len(e.pending) > 0 && (len(e.pending) == maxPending || now-e.pending[0].at > pendingTime) {
		e.pending = slices.Delete(e.pending, 0, 1)
	}
	e.pending = append(e.pending, pending{from, *q, now})
}

// answerPending looks whether a new entry is what somebody asked for.
func (e *Election) answerPending(now time.Duration, acts []Action) []Action {
	kept := e.pending[:0]
	for _, p := range e.pending {
		c, manifest := e.match(&p.question.Subject)
		switch {
		case now-p.at > pendingTime:
		case c == nil:
			kept = append(kept, p)
		default:
			acts = e.askedFor(now, c, manifest, p.from, &p.question, acts)
		}
	}
	e.pending = kept
	return acts
}

// askedFor takes a question for what is known. Only one for the bytes is an election; one for
// a name wants to know what there is, also of those who would not lead.
func (e *Election) askedFor(now time.Duration, c *contest, manifest content.Digest, from wire.DeviceID, q *wire.Question, acts []Action) []Action {
	c.used = now
	if q.Subject.By == wire.ByHashOfHashes {
		return e.asked(now, c, from, q, acts)
	}
	if e.cfg.Weight > 0 {
		e.answerLater(now, c, manifest, q.Subject.Tag())
	}
	return acts
}

// match returns the content that a subject means, and which of its manifests: not on hold,
// the newest.
func (e *Election) match(s *wire.Subject) (*contest, content.Digest) {
	if s.By == wire.ByHashOfHashes {
		c := e.contests[s.Digest]
		if c == nil || c.onHold() {
			return nil, content.Digest{}
		}
		return c, c.newest()
	}
	var found *contest
	var best *name
	for _, c := range e.list {
		for i := range c.names {
			if n := &c.names[i]; n.fits(s) && (best == nil || n.newer(best)) {
				found, best = c, n
			}
		}
	}
	if found == nil {
		return nil, content.Digest{}
	}
	return found, best.manifest
}

func (n *name) fits(s *wire.Subject) bool {
	switch {
	case n.onHold:
		return false
	case s.By == wire.ByRef:
		return n.ref.ID == s.Ref.ID && (s.Ref.Version == 0 || n.ref.Version == s.Ref.Version)
	}
	m := n.metadata[0]
	if s.Algorithm == content.SHA256Algorithm {
		m = n.metadata[1]
	}
	return !m.IsZero() && m == s.Digest
}

func (n *name) newer(o *name) bool {
	if n.ref.Version != o.ref.Version {
		return n.ref.Version > o.ref.Version
	}
	return n.generation > o.generation
}

// OnAnswer takes an answer of another device.
func (e *Election) OnAnswer(now time.Duration, from wire.DeviceID, a wire.Answer, acts []Action) []Action {
	if from == e.cfg.Self {
		return acts
	}
	for _, l := range e.lookups {
		if l.tag == a.Tag {
			l.add(from, &a)
		}
	}
	c := e.contests[a.HashOfHashes]
	if c == nil {
		return acts
	}
	k := e.note(now, c, from, a.Standing)
	if !c.counts(now, k, 0) || !k.rank.before(e.rank(now, c)) {
		return acts
	}
	e.silenced(c, a.Tag, a.Manifest)
	return acts
}

// OnHeartbeat takes a heartbeat of another device.
func (e *Election) OnHeartbeat(now time.Duration, from wire.DeviceID, h wire.Heartbeat, acts []Action) []Action {
	if from == e.cfg.Self {
		return acts
	}
	for i := range h.Beats {
		b := &h.Beats[i]
		period := slowBeat
		if b.Flags&wire.Moving != 0 {
			period = fastBeat
		}
		acts = e.onBeat(now, from, h.Weight, b, period, acts)
	}
	return acts
}

func (e *Election) onBeat(now time.Duration, from wire.DeviceID, weight uint8, b *wire.Beat, period time.Duration, acts []Action) []Action {
	c := e.contests[b.HashOfHashes]
	if c == nil || b.Total != c.total {
		return acts
	}
	s := wire.Standing{Able: b.Flags&wire.Able != 0, Share: shareOf(b.Held, b.Total), Weight: weight, Priority: b.Priority}
	if b.Flags&wire.Stands == 0 {
		s.Weight = 0
	}
	k := e.note(now, c, from, s)
	k.leads = b.Flags&wire.Leads != 0
	k.wants = !k.leads
	if k.wants {
		c.demand = now
		if c.role != leading && c.lead.device == from && !c.lead.gone && !b.Device.IsZero() {
			r := wire.Resign{Reason: wire.Yielded, Successor: b.Device} // it follows another
			acts = e.resigned(now, c, &r, acts)
		}
	} else {
		acts = e.onClaim(now, c, k, b, period, acts)
	}
	return e.settle(now, c, acts)
}

// onClaim takes the beat of a leader.
func (e *Election) onClaim(now time.Duration, c *contest, k *candidate, b *wire.Beat, period time.Duration, acts []Action) []Action {
	switch {
	case b.Epoch > c.epoch+maxJump, c.avoids(now, k.device):
	case c.role == leading:
		return e.onRival(now, c, k, b, acts)
	case c.lead.device == k.device:
		if e.refresh(now, c, b, period) {
			acts = append(acts, standBy(c))
		}
	case c.lead.alive(now): // it is not displaced
	default:
		return e.adopt(now, c, k.device, b, period, acts)
	}
	return acts
}

// OnResign takes the resignation of another device.
func (e *Election) OnResign(now time.Duration, from wire.DeviceID, r wire.Resign, acts []Action) []Action {
	c := e.contests[r.HashOfHashes]
	switch {
	case c == nil || from == e.cfg.Self:
		return acts
	case c.role == leading:
		c.dropRival(from)
		if r.Successor == e.cfg.Self && c.led(from) {
			acts = e.raise(now, c, r.Epoch, acts)
		}
		return acts
	case c.lead.device != from || r.Epoch < c.lead.beat.Epoch:
		return acts
	}
	if r.Reason == wire.Stalled {
		c.turns = min(c.turns+1, maxTurns)
	}
	acts = e.resigned(now, c, &r, acts)
	return e.settle(now, c, acts)
}

func (e *Election) resigned(now time.Duration, c *contest, r *wire.Resign, acts []Action) []Action {
	switch {
	case r.Reason == wire.Unwanted || !r.Successor.IsZero():
		c.lead = leader{}
		if !c.wanting() || c.shuns >= maxShuns {
			return acts
		}
		if r.Successor.IsZero() || r.Successor == e.cfg.Self || c.avoids(now, r.Successor) {
			return e.seek(now, c, acts)
		}
		e.expect(now, c, r.Successor, claimWait)
		return acts
	}
	return e.lost(now, c, 0, acts)
}

// OnGone tells that the connection to a device closed.
func (e *Election) OnGone(now time.Duration, device wire.DeviceID, acts []Action) []Action {
	for _, c := range e.list {
		acts = e.gone(now, c, device, acts)
		acts = e.settle(now, c, acts)
	}
	return acts
}

func (e *Election) gone(now time.Duration, c *contest, device wire.DeviceID, acts []Action) []Action {
	c.unheard(now, device)
	c.dropRival(device)
	if c.role == leading {
		if c.deputy == device {
			e.beatSoon(now, c) // with another deputy
		}
		return acts
	}
	l := &c.lead
	if !l.device.IsZero() && l.beat.Device == device {
		l.deputyGone = true
		if l.gone && c.at[seekTimer] != never {
			return e.seek(now, c, acts)
		}
	}
	if l.device != device || l.gone {
		return acts
	}
	if l.beat.Device == e.cfg.Self && e.stands(now, c) {
		q := wire.Question{Standing: e.standing(now, c), Subject: c.subject()}
		acts = append(acts, Action{Kind: Send, Content: c.id, Device: device, Message: q})
	}
	return e.lost(now, c, closedWait, acts)
}
