package freshness

import (
	"slices"
	"time"

	"freshet/internal/content"
)

// Held is an entry of the store, complete or not.
type Held struct {
	Digest     content.Digest // of its manifest
	Generation uint64         // that it was got with; 0: none
	SHA1Sum    content.Digest // its MetadataHash by SHA-1; zero: the manifest has none, the bytes decide
	SHA256Sum  content.Digest // by SHA-256; zero for a content without files
	Leads      bool           // this device leads in mid-download
}

// sum returns the MetadataHash by alg.
func (h *Held) sum(alg content.Algorithm) content.Digest {
	if alg == content.SHA1Algorithm {
		return h.SHA1Sum
	}
	return h.SHA256Sum
}

// Received is a hint that came in, with all that the device holds of its content.
type Received struct {
	Hint   Hint
	Sender Device
	Single bool // it came to this device alone
	Held   []Held
}

// Own is what this device's own provider says of a manifest that is held.
type Own struct {
	Ref      content.Ref
	Digest   content.Digest // of the manifest
	Expected Expected
	Fit      content.Fit // FitUnknown unless State is IsExpected
}

// recentKey is a question that was checked.
type recentKey struct {
	ref content.Ref
	key content.Digest
}

// asked is what is remembered of a question.
type asked struct {
	at   time.Duration // when it was last checked
	kept bool          // a verdict was that what is held stays
}

// heard is a hint with its sender.
type heard struct {
	hint   Hint
	sender Device
}

// reading is an entry whose bytes are being read because of a hint.
type reading struct {
	ref    content.Ref
	digest content.Digest
	heard  heard
}

// check is a manifest that is being checked, or was found stale and is there still.
//
// Invariant: its verdict comes within CheckTime of its begin, restarts included.
type check struct {
	ref   content.Ref
	held  Held
	heard []heard // empty: a higher generation was learned

	ends        time.Duration
	quarantined bool
	yield       time.Duration // when a leader's place ends; never: it has none, or not any more

	asks     int // of Content Policy
	askAt    time.Duration
	answered bool // policy is set
	policy   Policy

	ownAsked bool
	ownDue   time.Duration // own is taken for silent
	read     bool          // the bytes were read for own

	retiring bool // the verdict is that it is stale: it is in nobody's way any more, and ends with OnGone
}

// next returns when k has something to do.
func (k *check) next() time.Duration {
	if k.retiring {
		return never
	}
	at := min(k.ends, k.yield)
	if !k.answered {
		at = min(at, k.askAt)
	} else if k.ownAsked {
		at = min(at, k.ownDue)
	}
	return at
}

// OnHint takes a Validate Metadata message whose sender is proved.
func (b *Brain) OnHint(now time.Duration, r Received, acts []Action) []Action {
	ack, acts := b.receive(now, r, acts)
	if r.Single {
		acts = append(acts, Action{Kind: Answer, Ref: r.Hint.Ref, Device: r.Sender, Ack: ack})
	}
	return b.done(acts)
}

func (b *Brain) receive(now time.Duration, r Received, acts []Action) (Ack, []Action) {
	h := heard{r.Hint, r.Sender}
	concerned, unread := r.concerned()
	if len(concerned)+len(unread) == 0 {
		return AckNothing, acts
	}
	if b.muted(now, r.Sender, r.Hint.Ref) {
		return AckIgnored, b.tallyHint(h, HintMuted, acts)
	}
	lately := b.checkedLately(now, h.hint)
	fresh := b.join(now, h, concerned)
	unread = slices.DeleteFunc(unread, func(x Held) bool { return b.isRead(h.hint.Ref, x.Digest) })
	if len(fresh)+len(unread) == 0 { // all of it is being checked
		return AckChecking, acts
	}
	if lately {
		return AckKept, b.tallyHint(h, HintRepeated, acts)
	}
	if !b.hasRoom(now, len(fresh), len(unread)) {
		return AckIgnored, b.tallyHint(h, HintCrowded, acts)
	}
	b.recall(now, h.hint)
	for _, held := range unread {
		b.reading = append(b.reading, reading{r.Hint.Ref, held.Digest, h})
		acts = append(acts, Action{Kind: ReadBytes, Ref: r.Hint.Ref, Digest: held.Digest})
	}
	for _, held := range fresh {
		acts = b.startCheck(now, r.Hint.Ref, held, []heard{h}, b.delay(r.Single), acts)
	}
	return AckChecking, acts
}

// Settled says what a hint comes to where that can be told without a look at what is held:
// HintMuted or HintRepeated, with the acknowledgement; else NoOutcome. It changes nothing.
func (b *Brain) Settled(now time.Duration, device Device, h Hint) (Ack, Outcome) {
	s := b.senders[device]
	switch {
	case s != nil && s.mutedOn(now, h.Ref):
		return AckIgnored, HintMuted
	case !b.checkedLately(now, h):
	case b.recent[recentKey{h.Ref, h.key()}].kept:
		return AckKept, HintRepeated
	case slices.ContainsFunc(b.checks, func(k *check) bool { return k.ref == h.Ref && slices.Contains(k.heard, heard{h, device}) }):
		return AckChecking, HintRepeated
	}
	return 0, NoOutcome
}

// isRead reports whether the bytes of an entry are being read because of a hint.
func (b *Brain) isRead(ref content.Ref, digest content.Digest) bool {
	return slices.ContainsFunc(b.reading, func(r reading) bool { return r.ref == ref && r.digest == digest })
}

// concerned returns the entries that differ from what the hint says, and those of which the
// bytes must tell.
func (r *Received) concerned() (differ, unread []Held) {
	for _, h := range r.Held {
		switch sum := h.sum(r.Hint.Algorithm); {
		case r.Hint.Algorithm == 0:
			if h.Digest == r.Hint.Rejected {
				differ = append(differ, h)
			}
		case sum.IsZero():
			unread = append(unread, h)
		case sum != r.Hint.Wanted:
			differ = append(differ, h)
		}
	}
	return differ, unread
}

// join adds a hint to the checks that run already, one of each sender, and returns the entries
// without a check.
func (b *Brain) join(now time.Duration, h heard, concerned []Held) (fresh []Held) {
	for _, held := range concerned {
		k := b.check(h.hint.Ref, held.Digest)
		switch {
		case k == nil:
			fresh = append(fresh, held)
		case k.retiring:
		case len(k.heard) < maxHints && !slices.ContainsFunc(k.heard, func(x heard) bool { return x.sender == h.sender }):
			k.heard = append(k.heard, h)
			b.recall(now, h.hint)
			b.dirty = true
		}
	}
	return fresh
}

func (b *Brain) check(ref content.Ref, digest content.Digest) *check {
	for _, k := range b.checks {
		if k.ref == ref && k.held.Digest == digest {
			return k
		}
	}
	return nil
}

// checkedLately reports whether a hint asks what was asked within CheckTime.
func (b *Brain) checkedLately(now time.Duration, h Hint) bool {
	q, ok := b.recent[recentKey{h.Ref, h.key()}]
	return ok && now < q.at+CheckTime
}

// recall notes that a question is being checked now.
func (b *Brain) recall(now time.Duration, h Hint) {
	key := recentKey{h.Ref, h.key()}
	if b.checkedLately(now, h) || len(b.recent) >= maxRecent {
		return
	}
	b.recent[key] = asked{at: now}
	b.dirty = true
}

// hasRoom reports whether a question more can be checked and remembered.
func (b *Brain) hasRoom(now time.Duration, checks, reads int) bool {
	if len(b.recent) >= maxRecent {
		for key, q := range b.recent {
			if now >= q.at+CheckTime {
				delete(b.recent, key)
			}
		}
	}
	return len(b.recent) < maxRecent && len(b.checks)+checks <= maxChecks && len(b.reading)+reads <= maxReading
}

// keep notes that a question has its verdict: what is held stays.
func (b *Brain) keep(h Hint) {
	key := recentKey{h.Ref, h.key()}
	if q, ok := b.recent[key]; ok {
		q.kept = true
		b.recent[key] = q
	}
}

// delay spreads the questions of those who heard one broadcast.
func (b *Brain) delay(single bool) time.Duration {
	if single {
		return 0
	}
	return time.Duration(b.rng.Int64N(int64(jitterTime)))
}

// OnSums takes an entry whose bytes were read: it has all sums now.
func (b *Brain) OnSums(now time.Duration, ref content.Ref, held Held, acts []Action) []Action {
	mine := func(r reading) bool { return r.ref == ref && r.digest == held.Digest }
	for _, r := range b.reading {
		if mine(r) && b.check(ref, held.Digest) == nil && held.sum(r.heard.hint.Algorithm) != r.heard.hint.Wanted && len(b.checks) < maxChecks {
			acts = b.startCheck(now, ref, held, []heard{r.heard}, 0, acts)
		}
	}
	b.reading = slices.DeleteFunc(b.reading, mine)
	if k := b.check(ref, held.Digest); k != nil && k.ownAsked && !k.retiring {
		k.held.SHA1Sum, k.held.SHA256Sum = held.SHA1Sum, held.SHA256Sum
		acts = b.askOwn(now, k, acts)
	}
	return b.done(acts)
}

// News is a generation that a service's reply carried.
type News struct {
	Ref        content.Ref
	Generation uint64
	Held       []Held
}

// OnGeneration checks what is held of a lower generation than the fleet has, and wakes
// downloads that wait. The reply may be forged or old: only Content Policy's answer counts.
func (b *Brain) OnGeneration(now time.Duration, n News, acts []Action) []Action {
	key := Hint{Ref: n.Ref, Rejected: generationKey(n.Generation)}
	if n.Generation == 0 || b.checkedLately(now, key) || !b.hasRoom(now, len(n.Held), 0) {
		return acts
	}
	asked := false
	for _, held := range n.Held {
		if held.Generation < n.Generation && b.check(n.Ref, held.Digest) == nil {
			acts = b.startCheck(now, n.Ref, held, nil, b.delay(false), acts)
			asked = true
		}
	}
	waits := slices.ContainsFunc(b.jobs, func(j *job) bool { return j.ref == n.Ref })
	if !asked && waits && n.Generation > b.knows(now, n.Ref).generation {
		acts = append(acts, Action{Kind: AskPolicy, Ref: n.Ref})
		asked = true
	}
	if asked {
		b.recall(now, key)
	}
	return b.done(acts)
}

// generationKey stands for a generation where a hash stands for a hint.
func generationKey(g uint64) content.Digest {
	var d content.Digest
	for i := range 8 {
		d[i] = byte(g >> (8 * i))
	}
	return d
}

// startCheck begins to check an entry; Content Policy is asked after delay.
func (b *Brain) startCheck(now time.Duration, ref content.Ref, held Held, from []heard, delay time.Duration, acts []Action) []Action {
	k := &check{ref: ref, held: held, heard: from, ends: now + CheckTime, yield: never, askAt: now + delay}
	b.checks = append(b.checks, k)
	b.dirty = true
	if held.Leads {
		k.yield = now + leaderTime
	} else {
		acts = b.quarantine(now, k, acts)
	}
	if delay == 0 {
		acts = b.askPolicy(now, k, acts)
	}
	return acts
}

func (b *Brain) quarantine(now time.Duration, k *check, acts []Action) []Action {
	k.quarantined, k.yield = true, never
	return append(acts, Action{Kind: Quarantine, Ref: k.ref, Digest: k.held.Digest, For: k.ends - now})
}

// askPolicy asks Content Policy, and again after longer and longer times.
func (b *Brain) askPolicy(now time.Duration, k *check, acts []Action) []Action {
	k.askAt = now + b.jitter(policyRetry<<min(k.asks, 6))
	k.asks++
	return append(acts, Action{Kind: AskPolicy, Ref: k.ref})
}

func (b *Brain) askOwn(now time.Duration, k *check, acts []Action) []Action {
	k.ownAsked, k.ownDue = true, now+ownPatience
	return append(acts, Action{Kind: AskOwn, Ref: k.ref, Digest: k.held.Digest})
}

// advance goes on with a check when Content Policy has answered.
func (b *Brain) advance(now time.Duration, k *check, acts []Action) []Action {
	if k.policy.Known && k.policy.Digest == k.held.Digest {
		return b.finish(now, k, HintRefuted, acts)
	}
	return b.askOwn(now, k, acts)
}

// OnOwn takes what this device's own provider says.
func (b *Brain) OnOwn(now time.Duration, o Own, acts []Action) []Action {
	k := b.check(o.Ref, o.Digest)
	if k == nil || !k.ownAsked || k.retiring {
		return acts
	}
	if b.decides(&o) && o.Fit == content.NeedsBytes && !k.read {
		k.read, k.ownDue = true, k.ends
		return append(acts, Action{Kind: ReadBytes, Ref: k.ref, Digest: k.held.Digest})
	}
	return b.done(b.finish(now, k, b.verdict(k, &o), acts))
}

// decides reports whether the device's own metadata is a source.
func (b *Brain) decides(o *Own) bool { return b.cfg.Mode == Enforce && o.Expected.State == IsExpected }

// verdict is the rule of what is stale (design section 7, step 4). Content Policy has answered,
// and did not name the manifest held.
func (b *Brain) verdict(k *check, o *Own) Outcome {
	names := b.decides(o) && o.Fit == content.Fits
	rejects := b.decides(o) && o.Fit == content.Differs
	higher := k.policy.Known && k.policy.Generation > k.held.Generation
	wants := b.decides(o) && b.cfg.Match == content.Exact && slices.ContainsFunc(k.heard, func(h heard) bool {
		return h.hint.Algorithm != 0 && h.hint.Algorithm == o.Expected.Algorithm && h.hint.Wanted == o.Expected.Hash
	})
	switch {
	case names:
		return HintRefuted
	case higher || wants || rejects:
		return HintConfirmed
	}
	return HintUnconfirmed
}

// finish ends a check with its verdict.
func (b *Brain) finish(now time.Duration, k *check, o Outcome, acts []Action) []Action {
	b.dirty = true
	if o == HintConfirmed {
		k.retiring = true
		acts = b.restart(now, k, retire(k, acts))
	} else {
		b.checks = slices.DeleteFunc(b.checks, func(x *check) bool { return x == k })
		if k.quarantined {
			acts = append(acts, Action{Kind: Release, Ref: k.ref, Digest: k.held.Digest})
		}
	}
	from := k.heard
	k.heard = nil
	if len(from) == 0 && o == HintConfirmed {
		o = GenerationRaised
	}
	if len(from) == 0 {
		return append(acts, Action{Kind: Tally, Ref: k.ref, Digest: k.held.Digest, Outcome: o})
	}
	for _, h := range from {
		if o != HintConfirmed {
			b.wrong(now, h.sender, k.ref, o == HintRefuted)
			b.keep(h.hint)
		}
		acts = b.tallyHint(h, o, acts)
	}
	return acts
}

// retire has the shell end the use of what is stale. It is asked again after a restart, until it
// says OnGone: what was found stale is not served because a process ended in between.
func retire(k *check, acts []Action) []Action {
	return append(acts, Action{Kind: Retire, Ref: k.ref, Digest: k.held.Digest, For: StockTime})
}

// reprieve keeps what is to go and is there still when the catalog names it anew.
func (b *Brain) reprieve(k *check, p Policy, acts []Action) []Action {
	if !p.Known || p.Digest != k.held.Digest {
		return acts
	}
	b.checks = slices.DeleteFunc(b.checks, func(x *check) bool { return x == k })
	b.dirty = true
	return append(acts, Action{Kind: Release, Ref: k.ref, Digest: k.held.Digest})
}

// restart starts the downloads of a stale manifest again.
func (b *Brain) restart(now time.Duration, k *check, acts []Action) []Action {
	for _, j := range slices.Clone(b.jobs) {
		if j.ref == k.ref && j.phase == using && j.digest == k.held.Digest {
			acts = b.begin(now, j, b.drop(j, acts))
		}
	}
	return acts
}

func (b *Brain) tallyHint(h heard, o Outcome, acts []Action) []Action {
	return append(acts, Action{Kind: Tally, Ref: h.hint.Ref, Device: h.sender, Hint: h.hint, Outcome: o})
}

// tickCheck does what falls due for a check.
func (b *Brain) tickCheck(now time.Duration, k *check, acts []Action) []Action {
	if k.retiring {
		return acts
	}
	if now >= k.ends {
		return b.finish(now, k, HintUnanswered, acts)
	}
	if now >= k.yield {
		acts = b.quarantine(now, k, acts)
	}
	switch {
	case !k.answered && now >= k.askAt:
		acts = b.askPolicy(now, k, acts)
	case k.answered && k.ownAsked && now >= k.ownDue: // the provider is silent: no source
		acts = b.finish(now, k, b.verdict(k, &Own{}), acts)
	}
	return acts
}

// OnGone notes that the store has an entry no more: it was retired, or went for other reasons.
func (b *Brain) OnGone(_ time.Duration, ref content.Ref, digest content.Digest, acts []Action) []Action {
	had := len(b.checks)
	b.checks = slices.DeleteFunc(b.checks, func(k *check) bool { return k.ref == ref && k.held.Digest == digest })
	b.OnUnread(ref, digest)
	if len(b.checks) != had {
		b.dirty = true
	}
	return b.done(acts)
}

// OnUnread notes that nothing is known of an entry's bytes that were to be read. A check that waits
// for them ends by its time.
func (b *Brain) OnUnread(ref content.Ref, digest content.Digest) {
	b.reading = slices.DeleteFunc(b.reading, func(r reading) bool { return r.ref == ref && r.digest == digest })
}
