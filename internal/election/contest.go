package election

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// role is what the device is in a contest.
type role uint8

const (
	idle      role = iota // holds the bytes, or some
	seeking               // asks, or is about to
	expecting             // somebody else is to claim
	waiting               // nobody can lead, or the time to go out alone has not come
	following
	leading
	alone
)

var roleNames = [...]string{"idle", "seeking", "expecting", "waiting", "following", "leading", "alone"}

func (r role) String() string { return roleNames[r] }

// timer is one of a contest's timers.
type timer uint8

const (
	askTimer     timer = iota // ask the subnet
	readyTimer                // nobody better was heard so far
	windowTimer               // choose among those who were heard
	seekTimer                 // seek anew
	claimTimer                // claim: as deputy, or as the best holder of what was asked for
	answerTimer               // answer a question
	beatTimer                 // tell the subnet
	silenceTimer              // beats of the leader are missing
	stallTimer                // no new piece
	aloneTimer                // go out alone
	leaseTimer                // no array has answered for long enough
	lingerTimer               // nobody wants what is led
	timers
)

// fire says what is done when a timer is due.
var fire = [timers]func(*Election, time.Duration, *contest, []Action) []Action{
	askTimer: (*Election).ask, readyTimer: (*Election).ready, windowTimer: (*Election).choose, seekTimer: (*Election).giveUpWaiting,
	claimTimer: (*Election).claimDue, answerTimer: (*Election).answer, beatTimer: (*Election).beatDue,
	silenceTimer: (*Election).silence, stallTimer: (*Election).stall, aloneTimer: (*Election).aloneDue,
	leaseTimer: (*Election).nothing, lingerTimer: (*Election).lingerDue,
}

// nothing is done but what settle does.
func (e *Election) nothing(_ time.Duration, _ *contest, acts []Action) []Action { return acts }

func (e *Election) fireDue(now time.Duration, c *contest, acts []Action) []Action {
	fired := false
	for t := range timers {
		if c.at[t] <= now {
			c.at[t], fired = never, true
			acts = fire[t](e, now, c, acts)
		}
	}
	if fired {
		acts = e.settle(now, c, acts)
	}
	return acts
}

// Lease says what the array told of the right to fetch from outside the site.
type Lease uint8

const (
	LeaseUnknown Lease = iota // no array answered yet, or any more
	LeaseOurs                 // this device or its subnet's leader
	LeaseOther                // a device of another subnet
	LeaseNone                 // there are no arrays: the election alone decides
)

// contest is one content, by its HashOfHashes.
//
// Invariant: role is leading exactly between a Lead and a StopLeading.
type contest struct {
	id          content.Digest
	tie         content.Digest // of this device
	names       []name         // at least one
	held, total uint32         // pieces
	used        time.Duration  // last told of by the shell or asked for

	wanted   bool
	priority wire.Priority
	role     role
	at       [timers]time.Duration
	epoch    uint64 // highest accepted
	own      uint64 // of this device's last leadership
	begun    uint64 // the same when it began
	cands    []candidate
	shunned  []shunned
	expected wire.DeviceID // who is to claim; zero: nobody
	gathers  bool          // devices of the subnet are being connected with, see OnGather
	patience time.Duration // until then, who hears nobody asks again for their sake
	retry    time.Duration // until the next election, after one that nobody won
	replies  []reply       // of answerTimer

	lead      leader        // who leads, when it is not this device
	since     time.Duration // when this device began to follow or to lead
	progress  time.Duration // last new piece, or when the content was wanted
	signs     time.Duration // last sign that one will come, see OnProgress
	pieceTime time.Duration // smoothed time between new pieces; 0: not known
	shuns     int           // leaders shunned in this download
	turns     int           // leaders that resigned as stalled since the last new piece, up to maxTurns

	lease      Lease
	leaseSince time.Duration
	leaseKept  bool // the lease was ours when the arrays fell silent
	leaseWait  time.Duration
	unable     time.Duration // the device cannot fetch before
	out        bool          // GoOut was the last word
	outSince   time.Duration
	rate       uint32 // KiB a second from outside

	deputy  wire.DeviceID // of this leader
	deposed wire.DeviceID // the leader that this one took over from
	gained  bool          // this leader got a new piece
	told    wire.Priority // of this leader
	demand  time.Duration // last sign of somebody else who wants the bytes
	beaten  time.Duration // last beat
	rivals  []rival       // of this leader
}

// name is one manifest of the bytes.
type name struct {
	manifest   content.Digest
	ref        content.Ref
	generation int64
	metadata   [2]content.Digest // MetadataHash by SHA-1 and SHA-256; zero: not known
	onHold     bool
}

// reply is an answer in waiting.
type reply struct {
	tag      uint64
	manifest content.Digest
}

// leader is another device that leads.
type leader struct {
	device     wire.DeviceID // zero: none is known
	beat       wire.Beat     // the last one
	before     uint64        // highest epoch accepted before its first
	heard      time.Duration
	period     time.Duration // between its beats
	wentOut    time.Duration // when it said so for the first time, which those who waited for it did not wait for; 0: it did not
	gone       bool          // nothing was heard since its connection closed, or for too long
	deputyGone bool
}

// rival is another leader that is ahead of this one.
type rival struct {
	device wire.DeviceID
	beat   wire.Beat
	since  time.Duration
	heard  time.Duration
	asked  time.Duration // next Prove
	proven bool
}

// candidate is another device that wants or holds the bytes.
type candidate struct {
	device   wire.DeviceID
	rank     rank // weight 0: does not stand
	priority wire.Priority
	wants    bool
	leads    bool // its last beat said so
	heard    time.Duration
	passed   time.Duration // it did not claim in its turn, and counts again from then on
}

type shunned struct {
	device wire.DeviceID
	until  time.Duration
}

// subject returns what a question for the bytes asks for.
func (c *contest) subject() wire.Subject {
	return wire.Subject{By: wire.ByHashOfHashes, Digest: c.id}
}

func (c *contest) complete() bool { return c.held == c.total }

// moved returns when something new came last.
func (c *contest) moved() time.Duration { return max(c.progress, c.signs) }

// wanting reports whether the device misses pieces that it wants.
func (c *contest) wanting() bool { return c.wanted && !c.complete() }

func (c *contest) clear(ts ...timer) {
	for _, t := range ts {
		c.at[t] = never
	}
}

// name returns the name with a manifest that is not on hold; nil when there is none.
func (c *contest) name(manifest content.Digest) *name {
	for i := range c.names {
		if n := &c.names[i]; n.manifest == manifest && !n.onHold {
			return n
		}
	}
	return nil
}

func (c *contest) onHold() bool {
	return !slices.ContainsFunc(c.names, func(n name) bool { return !n.onHold })
}

// alive reports whether a leader is heard.
func (l *leader) alive(now time.Duration) bool {
	return !l.device.IsZero() && !l.gone && now <= l.deadline()
}

// deadline is when too many beats are missing.
func (l *leader) deadline() time.Duration { return l.heard + missedBeats*l.period + beatSlack }

// stands reports whether the device would lead.
func (e *Election) stands(now time.Duration, c *contest) bool {
	switch {
	case e.cfg.Weight == 0, c.onHold():
		return false
	case c.complete():
		return true
	}
	return c.wanted && e.cond.MayGoOut && now >= c.unable
}

// standing says how the device stands.
func (e *Election) standing(now time.Duration, c *contest) wire.Standing {
	s := wire.Standing{
		Able:  e.cond.MayGoOut && !e.cond.Battery && !e.cond.Metered && now >= c.unable,
		Share: shareOf(c.held, c.total),
	}
	if c.wanted {
		s.Priority = c.priority
	}
	if e.stands(now, c) {
		s.Weight = e.weight()
	}
	return s
}

func (e *Election) rank(now time.Duration, c *contest) rank {
	return rankOf(e.standing(now, c), c.tie)
}

// note keeps how another device stands.
func (e *Election) note(now time.Duration, c *contest, from wire.DeviceID, s wire.Standing) *candidate {
	i := slices.IndexFunc(c.cands, func(k candidate) bool { return k.device == from })
	if i < 0 {
		k := candidate{device: from, rank: rank{tie: tieOf(from, c.id)}}
		if i = len(c.cands); i < maxCandidates {
			c.cands = append(c.cands, k)
		} else {
			i = oldest(c.cands)
			c.cands[i] = k
		}
	}
	k := &c.cands[i]
	k.rank, k.priority, k.heard = rankOf(s, k.rank.tie), s.Priority, now
	return k
}

// unheard lets a candidate count again only when it is heard again.
func (c *contest) unheard(now time.Duration, device wire.DeviceID) {
	for i := range c.cands {
		if c.cands[i].device == device {
			c.cands[i].heard = now - known - 1
		}
	}
}

// led reports whether a device was heard to lead.
func (c *contest) led(device wire.DeviceID) bool {
	return slices.ContainsFunc(c.cands, func(k candidate) bool { return k.device == device && k.leads })
}

func oldest(cands []candidate) int {
	at := 0
	for i := range cands {
		if cands[i].heard < cands[at].heard {
			at = i
		}
	}
	return at
}

// rival returns the rival of that id; nil when there is none.
func (c *contest) rival(device wire.DeviceID) *rival {
	for i := range c.rivals {
		if c.rivals[i].device == device {
			return &c.rivals[i]
		}
	}
	return nil
}

func (c *contest) dropRival(device wire.DeviceID) {
	c.rivals = slices.DeleteFunc(c.rivals, func(r rival) bool { return r.device == device })
}

// counts reports whether k, heard within d, may win.
func (c *contest) counts(now time.Duration, k *candidate, d time.Duration) bool {
	return k.rank.weight > 0 && now-k.heard <= d && now >= k.passed && !c.avoids(now, k.device)
}

// avoids reports whether a device is shunned.
func (c *contest) avoids(now time.Duration, device wire.DeviceID) bool {
	return slices.ContainsFunc(c.shunned, func(s shunned) bool { return s.device == device && now < s.until })
}

// shun keeps a device from being followed for d.
func (c *contest) shun(now time.Duration, device wire.DeviceID, d time.Duration) {
	c.shunned = slices.DeleteFunc(c.shunned, func(s shunned) bool { return s.device == device || now >= s.until })
	if len(c.shunned) == maxShunned {
		c.shunned = slices.Delete(c.shunned, 0, 1)
	}
	c.shunned = append(c.shunned, shunned{device, now + d})
}

// best returns the best candidate heard within d, but for this device.
func (c *contest) best(now, d time.Duration) *candidate {
	var best *candidate
	for i := range c.cands {
		k := &c.cands[i]
		if c.counts(now, k, d) && (best == nil || k.rank.before(best.rank)) {
			best = k
		}
	}
	return best
}

// asked returns the highest priority that is asked of the leader.
func (c *contest) asked(now time.Duration) wire.Priority {
	p := wire.Background
	if c.wanted {
		p = c.priority
	}
	for i := range c.cands {
		if k := &c.cands[i]; k.wants && now-k.heard <= known {
			p = max(p, k.priority)
		}
	}
	return p
}
