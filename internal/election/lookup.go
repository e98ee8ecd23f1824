package election

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Holding is one thing that the subnet holds of a subject.
type Holding struct {
	HashOfHashes content.Digest
	Manifest     content.Digest
	Generation   int64
	Device       wire.DeviceID // one that holds it, the best
	Standing     wire.Standing // of Device
}

// lookup is a question by MetadataHash or name: what bytes does it mean? Of those who ask the
// same where nobody knows, the best asks the services, so that metadata comes into the subnet
// once, too. Its questions say so by a share of wire.Complete, which goes before any standing;
// nobody waits longer than lookupWait for others.
type lookup struct {
	subject  wire.Subject
	tag      uint64
	tie      content.Digest // of this device
	key      content.Digest
	priority wire.Priority
	state    lookupState
	at       time.Duration // of the state's end
	begun    time.Duration
	told     time.Duration // last question of this device
	passed   wire.DeviceID // was waited for in vain
	waited   wire.DeviceID
	answers  []Holding // one for each device that answered: what it said last
}

type lookupState uint8

const (
	toAsk   lookupState = iota // asks at the end
	asking                     // chooses at the end
	silent                     // another asks; asks at the end
	outside                    // asks the services
)

// Times of lookups.
const (
	lookupWait = 10 * time.Second       // for others to bring what nobody holds
	lookupTurn = time.Second            // for a better seeker, each time
	lookupTell = 200 * time.Millisecond // between two questions of a device that asks the services
)

// OnSeek asks the subnet for a subject by MetadataHash or name. Found or AskOutside is the
// answer. Before Found, a device asks again and again; after AskOutside it keeps others
// silent until OnSought.
func (e *Election) OnSeek(now time.Duration, s wire.Subject, p wire.Priority, acts []Action) []Action {
	if l := e.lookup(s); l != nil {
		l.priority = p
		return acts
	}
	l := &lookup{subject: s, tag: s.Tag(), key: s.Key(), priority: p, begun: now, told: -lookupTell}
	l.tie = tieOf(e.cfg.Self, l.key)
	e.lookups = append(e.lookups, l)
	e.phase(l, toAsk, now+e.upTo(maxAskWait))
	return acts
}

// OnSought tells that the device knows what a subject means, or wants to know it no more.
func (e *Election) OnSought(s wire.Subject) {
	e.lookups = slices.DeleteFunc(e.lookups, func(l *lookup) bool { return l.subject == s })
}

func (e *Election) lookup(s wire.Subject) *lookup {
	for _, l := range e.lookups {
		if l.subject == s {
			return l
		}
	}
	return nil
}

func (e *Election) phase(l *lookup, s lookupState, until time.Duration) {
	l.state, l.at = s, until
	e.due = min(e.due, until)
}

// lookupStanding says how the device stands as one that asks the services.
func (e *Election) lookupStanding(l *lookup) wire.Standing {
	s := wire.Standing{Able: e.cond.MayGoOut && !e.cond.Battery && !e.cond.Metered, Priority: l.priority}
	if e.cond.MayGoOut {
		s.Weight = e.weight()
	}
	if l.state == outside {
		s.Share = wire.Complete // it is on its way
	}
	return s
}

func (e *Election) tickLookup(now time.Duration, l *lookup, acts []Action) []Action {
	if now < l.at {
		return acts
	}
	switch l.state {
	case toAsk, silent:
		l.passed, l.waited = l.waited, wire.DeviceID{}
		e.phase(l, asking, now+window)
		return e.tellLookup(now, l, acts)
	case asking:
		return e.endLookup(now, l, acts)
	}
	l.at = never
	return e.tellLookup(now, l, acts)
}

func (e *Election) tellLookup(now time.Duration, l *lookup, acts []Action) []Action {
	l.told = now
	return append(acts, Action{Kind: Broadcast, Subject: l.subject, Message: wire.Question{Standing: e.lookupStanding(l), Subject: l.subject}})
}

// endLookup ends the window: what was found goes to the shell, else one asks the services.
func (e *Election) endLookup(now time.Duration, l *lookup, acts []Action) []Action {
	switch {
	case len(l.answers) > 0:
		e.OnSought(l.subject)
		return append(acts, Action{Kind: Found, Subject: l.subject, Holdings: l.holdings()})
	case !l.waited.IsZero() && now-l.begun < lookupWait:
		e.phase(l, silent, now+lookupTurn+e.upTo(maxAskWait))
		return acts
	}
	e.phase(l, outside, never)
	acts = e.tellLookup(now, l, acts)
	return append(acts, Action{Kind: AskOutside, Subject: l.subject})
}

// lookupAsked takes another device's question for what this device seeks, too.
func (e *Election) lookupAsked(now time.Duration, l *lookup, from wire.DeviceID, q *wire.Question, acts []Action) []Action {
	ahead := q.Weight > 0 && from != l.passed
	if own := e.lookupStanding(l); own.Weight > 0 {
		ahead = ahead && rankOf(q.Standing, tieOf(from, l.key)).before(rankOf(own, l.tie))
	}
	ahead = ahead || q.Share == wire.Complete
	switch {
	case l.state == outside:
		e.phase(l, outside, max(now, l.told+lookupTell))
		e.pend(now, from, q) // the entry may be there before
	case !ahead:
	case l.state == toAsk:
		e.phase(l, silent, now+lookupTurn+e.upTo(maxAskWait))
		l.waited = from
	case l.state == asking:
		l.waited = from
	}
	return acts
}

// add notes an answer. No device takes another's place in the list.
func (l *lookup) add(from wire.DeviceID, a *wire.Answer) {
	h := Holding{a.HashOfHashes, a.Manifest, a.Generation, from, a.Standing}
	if i := slices.IndexFunc(l.answers, func(o Holding) bool { return o.Device == from }); i >= 0 {
		l.answers[i] = h
	} else if len(l.answers) < maxCandidates {
		l.answers = append(l.answers, h)
	}
}

// holdings returns the different things that devices said, each with the best that said it.
func (l *lookup) holdings() []Holding {
	var found []Holding
	for _, h := range l.answers {
		i := slices.IndexFunc(found, func(o Holding) bool {
			return o.HashOfHashes == h.HashOfHashes && o.Manifest == h.Manifest && o.Generation == h.Generation
		})
		switch {
		case i >= 0 && h.rank().before(found[i].rank()):
			found[i] = h
		case i < 0 && len(found) < maxHoldings:
			found = append(found, h)
		}
	}
	return found
}

func (h *Holding) rank() rank { return rankOf(h.Standing, tieOf(h.Device, h.HashOfHashes)) }
