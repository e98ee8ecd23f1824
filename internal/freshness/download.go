package freshness

import (
	"cmp"
	"slices"
	"time"

	"freshet/internal/content"
)

// ExpectedState says whether a download has expected metadata.
type ExpectedState uint8

const (
	NotExpected ExpectedState = iota // the provider says nothing of the content
	IsExpected
	Unread // the provider cannot be read: nobody knows
)

// Expected is what a provider says of a content.
type Expected struct {
	State     ExpectedState
	Hash      content.Digest    // MetadataHash of the entries
	Algorithm content.Algorithm // of all entries; 0 where there are several, and the hash cannot be asked for
}

// Start is a download that begins, or goes on after a restart.
type Start struct {
	Job      Job
	Ref      content.Ref
	Match    content.Match
	Expected Expected
}

// Source says who gave a manifest.
type Source uint8

const (
	FromServices Source = iota // metadata hosting, or inline from Content Policy
	FromOrigin                 // a DP
	FromCacheHost
	FromDevice
)

// Offer is a manifest for a download, whole and of the digest, compared with the download's
// expected metadata.
type Offer struct {
	Job    Job
	Digest content.Digest
	Source Source
	Device Device // of FromDevice
	Facts  Facts
	Fit    content.Fit // FitUnknown without expected metadata
}

// ForceResult is what a DP says when it is asked to make sure.
type ForceResult uint8

const (
	ForceFits        ForceResult = 1 + iota // its manifest fits, and the catalog has it; it may have made it just now
	ForceDiffers                            // it made one that fits; the catalog names another publisher's, so it was not registered
	ForceStale                              // its own bytes do not fit
	ForceUnavailable                        // no answer, or one that says nothing of the bytes
)

// Forced is a DP's answer.
type Forced struct {
	Job        Job
	Result     ForceResult
	Digest     content.Digest // of the manifest that fits
	RetryAfter time.Duration  // of ForceStale and ForceUnavailable; 0: not said
}

// Policy is an answer of Content Policy. No answer is no event.
type Policy struct {
	Known      bool // it has the content
	Digest     content.Digest
	Generation uint64
}

// phase is what a download does.
type phase uint8

const (
	starting phase = iota // a manifest is looked for
	forcing               // the DP makes sure
	telling               // peers are told; then it starts again
	using                 // digest is downloaded
	waiting               // for the next round
	paused                // the same, for long
)

// job is one download.
//
// Invariant: digest is set exactly while it is using; then it is not rejected.
type job struct {
	id       Job
	ref      content.Ref
	match    content.Match
	expected Expected
	phase    phase
	due      time.Duration // when phase ends by itself; never: by an event alone

	digest     content.Digest
	generation uint64         // that digest is vouched for with; 0: none
	fromDP     content.Digest // alone: the one manifest that the DP serves this download

	rejected []content.Digest // oldest first
	rounds   int              // failed ones in a row
	forced   bool             // the DP was asked in this round
	last     Outcome          // why it waits or will

	peers  []peer
	sent   []sent
	banned []Banned
}

func (j *job) rejects(d content.Digest) bool { return slices.Contains(j.rejected, d) }

func byID(j *job, id Job) int { return cmp.Compare(j.id, id) }

func (b *Brain) job(id Job) *job {
	at, found := slices.BinarySearchFunc(b.jobs, id, byID)
	if !found {
		return nil
	}
	return b.jobs[at]
}

// Reason says why a download is not going on; OK when it is.
func (b *Brain) Reason(id Job) Outcome {
	j := b.job(id)
	switch {
	case j == nil:
		return NoOutcome
	case j.phase == using:
		return OK
	}
	return j.last
}

// enforces reports whether metadata decides for j.
func (b *Brain) enforces(j *job) bool {
	return b.cfg.Mode == Enforce && j.expected.State == IsExpected
}

// OnStart takes a download.
func (b *Brain) OnStart(now time.Duration, s Start, acts []Action) []Action {
	if b.job(s.Job) != nil {
		return acts
	}
	j := &job{id: s.Job, ref: s.Ref, match: s.Match, expected: s.Expected, due: never}
	if old, ok := b.saved[s.Job]; ok {
		delete(b.saved, s.Job)
		if old.into(j) {
			acts = b.forgive(j, acts)
		}
	}
	at, _ := slices.BinarySearchFunc(b.jobs, s.Job, byID)
	b.jobs = slices.Insert(b.jobs, at, j)
	b.dirty = true
	if j.rounds >= MaxRounds {
		return b.done(b.pause(now, j, acts))
	}
	return b.done(b.begin(now, j, acts))
}

// OnEnd notes that a download was withdrawn.
func (b *Brain) OnEnd(_ time.Duration, id Job, acts []Action) []Action {
	b.remove(id)
	return b.done(acts)
}

func (b *Brain) remove(id Job) {
	delete(b.saved, id)
	b.jobs = slices.DeleteFunc(b.jobs, func(j *job) bool { return j.id == id })
	b.dirty = true
}

// begin starts a round.
func (b *Brain) begin(now time.Duration, j *job, acts []Action) []Action {
	if b.cfg.Mode == Enforce && j.expected.State == Unread {
		j.last, j.rounds = ExpectedUnread, MaxRounds
		return b.pause(now, j, acts)
	}
	j.to(starting, never)
	j.fromDP = content.Digest{}
	if len(j.rejected) > 0 {
		j.due = now + startPatience
	}
	return append(acts, Action{Kind: Begin, Job: j.id, Ref: j.ref})
}

// to changes the phase; only accept sets the digest again.
func (j *job) to(p phase, due time.Duration) {
	j.phase, j.due = p, due
	j.digest, j.generation = content.Digest{}, 0
}

// OnExpected tells a download what the provider says now.
func (b *Brain) OnExpected(now time.Duration, id Job, e Expected, acts []Action) []Action {
	j := b.job(id)
	if j == nil || j.expected == e || e.State == Unread {
		return acts // what was read last, be it nothing, goes on to hold while nothing can be read
	}
	j.expected = e
	if b.cfg.Mode != Enforce {
		return acts
	}
	acts = b.drop(j, acts)
	acts = b.tally(j, ExpectedChanged, acts)
	acts = b.forgive(j, acts)
	j.rejected, j.rounds, j.forced = nil, 0, false
	b.dirty = true
	return b.done(b.begin(now, j, acts))
}

// drop gives up the manifest in use, if there is one.
func (b *Brain) drop(j *job, acts []Action) []Action {
	if j.phase != using {
		return acts
	}
	return append(acts, Action{Kind: Drop, Job: j.id, Ref: j.ref, Digest: j.digest})
}

func (b *Brain) tally(j *job, o Outcome, acts []Action) []Action {
	return append(acts, Action{Kind: Tally, Job: j.id, Ref: j.ref, Digest: j.digest, Outcome: o})
}

// OnPolicy takes an answer of Content Policy, for downloads and for checks.
func (b *Brain) OnPolicy(now time.Duration, ref content.Ref, p Policy, acts []Action) []Action {
	k := b.knows(now, ref)
	seen := k.generation
	if p.Known {
		b.raise(k, p.Generation, p.Digest)
	}
	for _, j := range slices.Clone(b.jobs) {
		if j.ref == ref {
			acts = b.policyFor(now, j, p, seen, acts)
		}
	}
	for _, c := range slices.Clone(b.checks) {
		switch {
		case c.ref != ref:
		case c.retiring:
			acts = b.reprieve(c, p, acts)
		case !c.answered:
			c.answered, c.policy = true, p
			acts = b.advance(now, c, acts)
		}
	}
	return b.done(acts)
}

// policyFor is OnPolicy for one download; seen is the highest generation before.
func (b *Brain) policyFor(now time.Duration, j *job, p Policy, seen uint64, acts []Action) []Action {
	switch {
	case !p.Known:
		return acts
	case j.phase == waiting || j.phase == paused:
		if p.Generation > seen {
			j.rounds, j.forced = 0, false
			return b.begin(now, j, b.tally(j, GenerationRaised, acts))
		}
	case j.phase == starting && p.Generation < seen:
		return b.fail(now, j, OlderGeneration, 0, acts)
	case j.phase == starting && j.fromDP.IsZero() && j.rejects(p.Digest):
		return b.sure(now, j, acts)
	case j.phase == using && p.Digest != j.digest && p.Generation > j.generation && !b.enforces(j):
		// Where metadata is expected, it wins for this download: what fits it stays.
		// It is not rejected: the next generation may have the same bytes again.
		return b.begin(now, j, b.tally(j, GenerationRaised, b.drop(j, acts)))
	}
	return acts
}

// reject notes that digest is not taken again for this download. It reports whether that is new.
func (b *Brain) reject(j *job, digest content.Digest) bool {
	if j.rejects(digest) {
		return false
	}
	j.rejected = append(j.rejected, digest)
	if len(j.rejected) > maxRejected {
		j.rejected = j.rejected[1:]
	}
	b.dirty = true
	return true
}

// OnOffer judges a manifest that was found.
func (b *Brain) OnOffer(now time.Duration, o Offer, acts []Action) []Action {
	j := b.job(o.Job)
	if j == nil || j.phase != starting {
		return acts
	}
	k := b.knows(now, j.ref)
	belief, why := Believe(o.Facts, o.Fit, k.generation)
	if belief == ByOrigin && slices.Contains(k.superseded, o.Digest) {
		belief, why = NoBelief, OlderGeneration
	}
	switch {
	case j.rejects(o.Digest) && o.Source == FromDevice:
		acts = b.refuse(now, j, o, PeerStale, acts)
		acts = b.offends(now, j, o.Device, o.Digest, acts)
	case j.rejects(o.Digest):
		acts = b.sure(now, j, b.refuse(now, j, o, ExpectedDiffers, acts))
	case !j.fromDP.IsZero() && o.Digest != j.fromDP:
		acts = b.refuse(now, j, o, OriginDiffers, acts)
	case b.enforces(j) && o.Fit == content.Differs:
		acts = b.mismatch(now, j, o, belief, acts)
	case b.enforces(j) && o.Fit == content.FitUnknown: // it was compared with nothing
		acts = b.refuse(now, j, o, NotBelieved, acts)
	case belief == NoBelief && o.Source != FromDevice && why != NotBelieved:
		acts = b.fail(now, j, why, 0, b.refuse(now, j, o, why, acts))
	case belief == NoBelief:
		acts = b.refuse(now, j, o, why, acts)
	default:
		acts = b.accept(j, o, belief, acts)
		if belief != ByOrigin {
			b.raise(k, o.Facts.generation(), o.Digest)
		}
	}
	return b.done(acts)
}

// refuse turns an offer down; another giver is asked, for a while.
func (b *Brain) refuse(now time.Duration, j *job, o Offer, why Outcome, acts []Action) []Action {
	j.last = why
	j.due = min(j.due, now+startPatience)
	return append(acts, Action{Kind: Refuse, Job: j.id, Ref: j.ref, Digest: o.Digest, Device: o.Device, Outcome: why})
}

// accept takes a manifest.
func (b *Brain) accept(j *job, o Offer, belief Belief, acts []Action) []Action {
	alone := !j.fromDP.IsZero()
	outcome := OK
	switch {
	case b.cfg.Mode != Off && o.Fit == content.NeedsBytes:
		outcome = BytesNeeded
	case b.cfg.Mode == Report && o.Fit == content.Differs:
		outcome = ExpectedDiffers
	}
	j.to(using, never)
	j.digest, j.generation, j.last, j.forced = o.Digest, o.Facts.generation(), outcome, false
	acts = append(acts, Action{Kind: Use, Job: j.id, Ref: j.ref, Digest: o.Digest, Outcome: outcome, Alone: alone})
	if outcome == ExpectedDiffers {
		acts = b.tally(j, outcome, acts)
	}
	return acts
}

// mismatch drops a manifest that does not fit. Who vouched for it is told, not who brought it:
// one that the catalog or the publisher names was right to bear.
func (b *Brain) mismatch(now time.Duration, j *job, o Offer, belief Belief, acts []Action) []Action {
	acts = append(acts, Action{Kind: Drop, Job: j.id, Ref: j.ref, Digest: o.Digest})
	if belief != NoBelief || o.Source != FromDevice {
		return b.differs(now, j, o.Digest, acts)
	}
	acts = b.refuse(now, j, o, PeerStale, acts)
	b.reject(j, o.Digest)
	if !b.validate(now, j, o.Digest) {
		return b.offends(now, j, o.Device, o.Digest, acts)
	}
	acts = b.tell(now, j, acts)
	j.to(telling, now+settle)
	return acts
}

// differs rejects a manifest that the fleet's own services vouch for, and has the DP make sure.
func (b *Brain) differs(now time.Duration, j *job, digest content.Digest, acts []Action) []Action {
	if b.reject(j, digest) {
		acts = b.tellCatalog(now, j, digest, acts)
	}
	return b.sure(now, j, acts)
}

// tellCatalog tells the services of a manifest that differs, if it is theirs.
func (b *Brain) tellCatalog(now time.Duration, j *job, digest content.Digest, acts []Action) []Action {
	if b.knows(now, j.ref).digest != digest {
		return acts
	}
	return append(acts, Action{Kind: TellCatalog, Job: j.id, Ref: j.ref, Digest: digest, Outcome: ExpectedDiffers})
}

// sure asks the DP to make sure, once a round.
func (b *Brain) sure(now time.Duration, j *job, acts []Action) []Action {
	if j.forced || !b.enforces(j) {
		return b.fail(now, j, ExpectedDiffers, 0, acts)
	}
	j.forced, j.last = true, ExpectedDiffers
	j.to(forcing, now+forcePatience)
	return append(acts, Action{Kind: Force, Job: j.id, Ref: j.ref, Outcome: ExpectedDiffers})
}

// OnForced takes the DP's answer.
func (b *Brain) OnForced(now time.Duration, f Forced, acts []Action) []Action {
	j := b.job(f.Job)
	if j == nil || j.phase != forcing {
		return acts
	}
	fits := f.Result == ForceFits || f.Result == ForceDiffers
	switch {
	case fits && j.rejects(f.Digest):
		acts = b.fail(now, j, OriginLies, f.RetryAfter, acts)
	case f.Result == ForceDiffers:
		acts = b.tally(j, OriginDiffers, acts)
		j.to(starting, now+startPatience)
		j.fromDP, j.last = f.Digest, OriginDiffers
		acts = append(acts, Action{Kind: Fetch, Job: j.id, Ref: j.ref, Digest: f.Digest})
	case fits:
		acts = b.begin(now, j, acts)
	case f.Result == ForceStale:
		acts = b.fail(now, j, OriginStale, f.RetryAfter, acts)
	default:
		acts = b.fail(now, j, OriginUnavailable, f.RetryAfter, acts)
	}
	return b.done(acts)
}

// fail ends a round.
func (b *Brain) fail(now time.Duration, j *job, why Outcome, retry time.Duration, acts []Action) []Action {
	j.rounds++
	j.last, j.forced = why, false
	b.dirty = true
	if j.rounds >= MaxRounds {
		return b.pause(now, j, acts)
	}
	wait := min(b.jitter(10*time.Second<<(2*(j.rounds-1))), MaxBackOff) // about 10 s, 40 s, 160 s, 10 min
	wait = max(wait, min(retry, maxRetryAfter))
	j.to(waiting, now+wait)
	return append(acts, Action{Kind: Wait, Job: j.id, Ref: j.ref, Outcome: why, For: wait})
}

// pause lets j wait for long. Each try later is one round.
func (b *Brain) pause(now time.Duration, j *job, acts []Action) []Action {
	j.forced = false
	wait := b.jitter(PauseTime)
	j.to(paused, now+wait)
	return append(acts, Action{Kind: Pause, Job: j.id, Ref: j.ref, Outcome: j.last, For: wait})
}

// tickJob does what falls due for a download.
func (b *Brain) tickJob(now time.Duration, j *job, acts []Action) []Action {
	if now < j.due {
		return acts
	}
	switch j.phase {
	case starting:
		return b.fail(now, j, j.last, 0, acts)
	case forcing:
		return b.fail(now, j, OriginUnavailable, 0, acts)
	case telling:
		if j.awaits() {
			j.due = now + settle
			return acts
		}
		return b.begin(now, j, acts)
	case waiting, paused:
		return b.begin(now, j, acts)
	}
	return acts
}

// OnDone asks whether a download may be delivered: all bytes are there, and every file's whole
// hashes were taken of them and compared with the expected metadata. What does not fit, or cannot
// be told, is treated as any manifest that differs; under report it is told, once a download.
func (b *Brain) OnDone(now time.Duration, id Job, fit content.Fit, acts []Action) []Action {
	j := b.job(id)
	if j == nil || j.phase != using {
		return acts
	}
	if b.enforces(j) && fit != content.Fits {
		digest := j.digest
		acts = b.drop(j, acts)
		return b.done(b.differs(now, j, digest, acts))
	}
	if b.cfg.Mode == Report && fit == content.Differs {
		if j.last != ExpectedDiffers {
			acts = b.tally(j, ExpectedDiffers, acts)
		}
		acts = b.tellCatalog(now, j, j.digest, acts)
	}
	acts = append(acts, Action{Kind: Deliver, Job: id, Ref: j.ref, Digest: j.digest})
	b.remove(id)
	return b.done(acts)
}
