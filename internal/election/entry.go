package election

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Entry is what the device holds, or is about to fetch, under one manifest.
type Entry struct {
	HashOfHashes   content.Digest
	Manifest       content.Digest
	Ref            content.Ref
	Generation     int64
	MetadataSHA1   content.Digest // MetadataHash by SHA-1; zero: not known
	MetadataSHA256 content.Digest
	Held, Total    uint32 // pieces; Total at least 1
	OnHold         bool   // in quarantine, or not yet validated
}

func (n *Entry) name() name {
	return name{
		manifest: n.Manifest, ref: n.Ref, generation: n.Generation, onHold: n.OnHold,
		metadata: [2]content.Digest{n.MetadataSHA1, n.MetadataSHA256},
	}
}

// Fits reports whether an entry is what a subject names; one on hold is nothing.
func (n *Entry) Fits(s *wire.Subject) bool {
	named := n.name()
	return named.fits(s)
}

// OnEntry tells of an entry: before OnWant, as the answer to Find, and when an entry that was
// told of has changed.
func (e *Election) OnEntry(now time.Duration, entry Entry, acts []Action) []Action {
	c := e.contests[entry.HashOfHashes]
	if c == nil {
		c = e.begin(now, &entry)
	}
	if entry.Total != c.total || entry.Held > c.total {
		return acts // not the bytes of this HashOfHashes
	}
	n := entry.name()
	if i := slices.IndexFunc(c.names, func(o name) bool { return o.manifest == n.manifest }); i >= 0 {
		c.names[i] = n
	} else {
		if len(c.names) == maxNames {
			c.names = slices.Delete(c.names, 0, 1)
		}
		c.names = append(c.names, n)
	}
	acts = e.held(now, c, wire.DeviceID{}, entry.Held, acts)
	acts = e.holdChanged(now, c, acts)
	acts = e.answerPending(now, acts)
	return e.settle(now, c, acts)
}

// begin adds a content. One that nobody needs makes room.
func (e *Election) begin(now time.Duration, entry *Entry) *contest {
	c := &contest{
		id: entry.HashOfHashes, tie: tieOf(e.cfg.Self, entry.HashOfHashes),
		held: entry.Held, total: max(1, entry.Total), used: now, demand: now - linger,
		leaseSince: now, leaseWait: e.cfg.LeaseWait + e.upTo(e.cfg.LeaseWait/2+1), retry: minRetry,
	}
	for t := range c.at {
		c.at[t] = never
	}
	e.makeRoom()
	e.contests[c.id] = c
	e.list = append(e.list, c)
	return c
}

// makeRoom drops the idle content that was not used for longest, when there are too many.
func (e *Election) makeRoom() {
	var oldest *contest
	idles := 0
	for _, c := range e.list {
		if c.role != idle || c.wanted {
			continue
		}
		idles++
		if oldest == nil || c.used < oldest.used {
			oldest = c
		}
	}
	if idles >= e.cfg.MaxContents {
		e.drop(oldest)
	}
}

func (e *Election) drop(c *contest) {
	delete(e.contests, c.id)
	e.list = slices.DeleteFunc(e.list, func(o *contest) bool { return o == c })
}

// OnForget tells that the store does not hold a manifest's entry any more.
func (e *Election) OnForget(now time.Duration, hoh, manifest content.Digest, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil {
		return acts
	}
	c.names = slices.DeleteFunc(c.names, func(n name) bool { return n.manifest == manifest })
	if len(c.names) > 0 {
		acts = e.holdChanged(now, c, acts)
		return e.settle(now, c, acts)
	}
	c.wanted = false
	if c.role == leading {
		acts = e.resign(now, c, wire.Unable, acts)
	}
	c.role = idle
	acts = e.settle(now, c, acts)
	e.drop(c)
	return acts
}

// OnHold tells that an entry is in quarantine, or out of it again: on hold it neither answers
// nor leads.
func (e *Election) OnHold(now time.Duration, hoh, manifest content.Digest, onHold bool, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil {
		return acts
	}
	for i := range c.names {
		if c.names[i].manifest == manifest {
			c.names[i].onHold = onHold
		}
	}
	acts = e.holdChanged(now, c, acts)
	return e.settle(now, c, acts)
}

// holdChanged lets a leader go that has nothing but entries on hold.
func (e *Election) holdChanged(now time.Duration, c *contest, acts []Action) []Action {
	if c.role == leading && c.onHold() {
		return e.resign(now, c, wire.Unable, acts)
	}
	return acts
}

// OnWant tells that the device wants a content's bytes, or how urgently it wants them now.
func (e *Election) OnWant(now time.Duration, hoh content.Digest, p wire.Priority, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || c.complete() {
		return acts
	}
	again := c.wanted
	c.wanted, c.priority, c.used = true, p, now
	switch {
	case again:
		if c.role == following || c.role == leading {
			e.beatSoon(now, c)
		}
		if p == wire.Foreground && c.at[aloneTimer] != never {
			e.set(c, aloneTimer, now)
		}
	default:
		c.progress, c.shuns, c.turns, c.retry = now, 0, 0, minRetry
		if c.role != leading {
			acts = e.enter(now, c, acts)
		}
	}
	return e.settle(now, c, acts)
}

// OnGather tells whether devices that were named to this one are being connected with: where datagrams
// are dropped, nobody is heard before. An election in which nobody was heard waits for them, for
// maxGather at most, and begins anew with the last.
func (e *Election) OnGather(now time.Duration, hoh content.Digest, on bool, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || c.gathers == on {
		return acts
	}
	c.gathers = on
	if !on && c.at[windowTimer] != never && c.best(now, fresh) == nil {
		acts = e.ask(now, c, acts)
	}
	return e.settle(now, c, acts)
}

// enter lets a device that wants pieces follow who leads, or seek.
func (e *Election) enter(now time.Duration, c *contest, acts []Action) []Action {
	if c.lead.alive(now) {
		return e.follow(now, c, acts)
	}
	return e.seek(now, c, acts)
}

// OnUnwant tells that the device does not want a content any more.
func (e *Election) OnUnwant(now time.Duration, hoh content.Digest, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || !c.wanted {
		return acts
	}
	c.wanted = false
	if c.role == leading && !c.complete() {
		acts = e.resign(now, c, wire.Unable, acts)
	}
	e.rest(c)
	return e.settle(now, c, acts)
}

// rest ends the search of a device that wants nothing more.
func (e *Election) rest(c *contest) {
	if c.role == leading {
		return
	}
	c.role, c.expected = idle, wire.DeviceID{}
	c.clear(askTimer, windowTimer, seekTimer, stallTimer, aloneTimer, beatTimer)
}

// OnPiece tells how many pieces the device holds after a verified one came from a device of
// the fleet, or else from (zero) outside or the disk.
func (e *Election) OnPiece(now time.Duration, hoh content.Digest, from wire.DeviceID, held uint32, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || held > c.total {
		return acts
	}
	acts = e.held(now, c, from, held, acts)
	return e.settle(now, c, acts)
}

func (e *Election) held(now time.Duration, c *contest, from wire.DeviceID, held uint32, acts []Action) []Action {
	grown := held > c.held
	whole := c.complete()
	c.held = held
	if grown {
		e.progressed(now, c)
	}
	if r := c.rival(from); r != nil && c.role == leading {
		r.proven = true
		if now-r.heard <= fresh+slowBeat {
			acts = e.yield(now, c, r, acts)
		}
	}
	if c.complete() && !whole {
		c.wanted = false
		c.clear(stallTimer)
		if c.role == leading {
			e.beatSoon(now, c)
			e.set(c, lingerTimer, now+linger)
		}
		e.rest(c)
	}
	return acts
}

func (e *Election) progressed(now time.Duration, c *contest) {
	if c.wanted {
		d := now - max(c.progress, c.since, c.outSince, c.leaseSince)
		if c.pieceTime > 0 {
			d = c.pieceTime + (d-c.pieceTime)/4
		}
		c.pieceTime = d
	}
	c.progress, c.turns, c.retry = now, 0, minRetry
	c.gained = c.gained || c.role == leading
}

// OnProgress tells that something came for a content that is no whole piece yet: a part of its
// manifest, or of a piece over a slow link.
func (e *Election) OnProgress(now time.Duration, hoh content.Digest) {
	if c := e.contests[hoh]; c != nil {
		c.signs = now
	}
}

// OnAlive tells that a device gave a verified piece of a content: a leader whose beats are late
// is there.
func (e *Election) OnAlive(now time.Duration, hoh content.Digest, device wire.DeviceID) {
	if c := e.contests[hoh]; c != nil && c.lead.device == device && !c.lead.gone {
		c.lead.heard = now
	}
}

// OnLease tells what the array said of the site's lease, or that no array answers. When it
// was ours and no array answers any more, the leader goes on.
func (e *Election) OnLease(now time.Duration, hoh content.Digest, l Lease, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || c.lease == l {
		return acts
	}
	c.leaseKept = c.lease == LeaseOurs && l == LeaseUnknown
	c.lease, c.leaseSince = l, now
	e.watch(now, c)
	return e.settle(now, c, acts)
}

// OnUnable tells that the device tried and cannot fetch a content from outside. It stands for
// no election until some time has passed, and leads no more where another could.
func (e *Election) OnUnable(now time.Duration, hoh content.Digest, acts []Action) []Action {
	c := e.contests[hoh]
	if c == nil || c.complete() {
		return acts
	}
	c.unable = now + unableTime
	if c.role == leading && c.best(now, known) != nil {
		acts = e.resign(now, c, wire.Unable, acts)
	}
	return e.settle(now, c, acts)
}

// OnRate tells how fast a content comes from outside, in bytes a second.
func (e *Election) OnRate(hoh content.Digest, rate float64) {
	if c := e.contests[hoh]; c != nil {
		c.rate = uint32(min(rate/1024, 1<<31))
	}
}

// OnDamaged tells that a held piece turned out to be damaged: fewer are held.
func (e *Election) OnDamaged(now time.Duration, hoh content.Digest, held uint32, acts []Action) []Action {
	return e.OnPiece(now, hoh, wire.DeviceID{}, held, acts)
}

// settle opens and closes the way out, and passes on the priority that is asked.
func (e *Election) settle(now time.Duration, c *contest, acts []Action) []Action {
	if out := e.mayFetch(now, c); out != c.out {
		c.out = out
		kind := StayIn
		if out {
			kind, c.outSince = GoOut, now
			e.watch(now, c)
		}
		acts = append(acts, Action{Kind: kind, Content: c.id})
	}
	if c.role == leading {
		if p := c.asked(now); p != c.told {
			c.told = p
			acts = append(acts, Action{Kind: Hurry, Content: c.id, Priority: p})
		}
	}
	return acts
}

// GoesOut returns when this device, which leads a content, goes out for it since no array answers.
func (e *Election) GoesOut(hoh content.Digest) (at time.Duration, ok bool) {
	c := e.contests[hoh]
	if c == nil || c.role != leading || c.lease != LeaseUnknown || c.out || !c.wanting() || !e.cond.MayGoOut {
		return 0, false
	}
	at = c.at[leaseTimer]
	return at, at != never
}

// mayFetch reports whether the device may fetch a content from outside the subnet.
func (e *Election) mayFetch(now time.Duration, c *contest) bool {
	if !c.wanting() || !e.cond.MayGoOut {
		return false
	}
	return c.role == alone || c.role == leading && e.leaseAllows(now, c)
}

func (e *Election) leaseAllows(now time.Duration, c *contest) bool {
	switch c.lease {
	case LeaseOurs, LeaseNone:
		return true
	case LeaseOther:
		return false
	}
	at := max(c.leaseSince, c.since) + c.leaseWait
	if now < at && !c.leaseKept {
		e.set(c, leaseTimer, at)
		return false
	}
	return true
}
