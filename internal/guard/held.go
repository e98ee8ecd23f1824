package guard

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/wire"
)

// Hint takes a Validate Metadata of a device whose name is proved. One that came to this device
// alone has an answer, which sends the body of an acknowledgement; one of a subnet has nil.
//
// What is held is looked up, and the brain judges. More hints at once than maxLooking are dropped
// unread, whoever sent them, so that a flood costs no more than that many looks at a time; those of
// senders that are not heard, and questions that were answered lately, cost none.
func (g *Guard) Hint(from freshness.Device, v wire.Validate, answer func(body []byte)) {
	if v.Wanted.IsZero() && v.Rejected.IsZero() {
		return
	}
	select {
	case g.looking <- struct{}{}:
	default:
		g.dropped.Add(1)
		return
	}
	g.spawn(func(ctx context.Context) {
		defer func() { <-g.looking }()
		if g.settled(from, v, answer) {
			return
		}
		g.withHeld(ctx, v.Ref, func(held []freshness.Held) {
			g.answer = answer
			g.acts = g.brain.OnHint(g.now(), freshness.Received{Hint: freshness.Hint(v), Sender: from, Single: answer != nil, Held: held}, g.acts)
		})
	})
}

// settled answers a hint of which the brain can tell without what is held what it comes to.
func (g *Guard) settled(from freshness.Device, v wire.Validate, answer func(body []byte)) bool {
	told := make(chan bool, 1)
	g.post(func() {
		ack, outcome := g.brain.Settled(g.now(), from, freshness.Hint(v))
		told <- outcome != freshness.NoOutcome
		if outcome == freshness.NoOutcome {
			return
		}
		g.counts[outcome]++
		g.unsaid[outcome]++
		if answer != nil {
			answer([]byte{byte(ack)})
		}
	})
	select {
	case settled := <-told:
		return settled
	case <-g.ended:
		return true
	}
}

// Generation takes a generation that an array's reply carried.
func (g *Guard) Generation(ref content.Ref, generation uint64) {
	g.spawn(func(ctx context.Context) {
		g.withHeld(ctx, ref, func(held []freshness.Held) {
			g.acts = g.brain.OnGeneration(g.now(), freshness.News{Ref: ref, Generation: generation, Held: held}, g.acts)
		})
	})
}

// withHeld looks up what is held of a content, and posts an event with it.
func (g *Guard) withHeld(ctx context.Context, ref content.Ref, event func([]freshness.Held)) {
	held, err := g.opt.Shelf.Held(ctx, ref)
	if err != nil {
		g.log.Warn("looking up what is held", "content", ref.String(), "err", err)
		return
	}
	g.post(func() { event(held) })
}

// sayHints logs how many hints were settled or dropped since it did so last: a line for each of them
// would let a flood fill the disk.
func (g *Guard) sayHints() {
	for outcome, n := range g.unsaid {
		g.log.Info("freshness: "+outcome.Text(), "outcome", outcome.String(), "hints", n)
	}
	clear(g.unsaid)
	if n := g.dropped.Load(); n > g.said {
		g.log.Warn("hints that copies here are stale were dropped unread: too many came at once", "dropped", n-g.said)
		g.said = n
	}
}

// Acknowledged takes the body of a device's acknowledgement.
func (g *Guard) Acknowledged(ref content.Ref, from freshness.Device, body []byte) {
	ack, err := freshness.ParseAck(body)
	if err != nil {
		return
	}
	g.post(func() {
		for _, j := range g.jobs {
			if j.ref != ref {
				continue
			}
			g.acts = g.brain.OnAck(g.now(), j.id, from, ack, g.acts)
		}
	})
}

// Gone tells of an entry that left the cache: it was retired.
func (g *Guard) Gone(ref content.Ref, digest content.Digest) {
	g.post(func() { g.gone(ref, digest) })
}

func (g *Guard) gone(ref content.Ref, digest content.Digest) {
	g.opt.Device.Hold(digest, false)
	g.acts = g.brain.OnGone(g.now(), ref, digest, g.acts)
}

// askOwn compares an entry with what this device's own provider says.
func (g *Guard) askOwn(ref content.Ref, digest content.Digest) {
	g.spawn(func(ctx context.Context) {
		e := g.lookup(ctx, ref)
		own := freshness.Own{Ref: ref, Digest: digest, Expected: e.Expected}
		m, err := g.opt.Shelf.Manifest(ctx, digest)
		var diff content.Diff
		if err == nil {
			diff, own.Fit = g.compareHeld(&e, m, digest)
		}
		g.post(func() {
			if errors.Is(err, fs.ErrNotExist) {
				g.gone(ref, digest)
				return
			}
			g.noteDiff(ref, diff)
			g.acts = g.brain.OnOwn(g.now(), own, g.acts)
		})
	})
}

// compareHeld compares an entry, by the SHA-1s of its bytes where they were read.
func (g *Guard) compareHeld(e *expectation, m *content.Manifest, digest content.Digest) (content.Diff, content.Fit) {
	if sums, ok := g.opt.Shelf.Summed(digest); ok && len(sums) == len(m.Files) {
		m = withSums(m, sums)
	}
	return e.compare(m)
}

// withSums returns m with these SHA-1s, which were taken of the bytes, in the place of its own.
func withSums(m *content.Manifest, sums []content.SHA1) *content.Manifest {
	read := *m
	read.Files = slices.Clone(m.Files)
	for i := range read.Files {
		read.Files[i].SHA1 = sums[i]
	}
	return &read
}

func outcomeOf(fit content.Fit) freshness.Outcome {
	if fit == content.Differs {
		return freshness.ExpectedDiffers
	}
	return freshness.OK
}

// readBytes takes the SHA-1s of all files of an entry because of a hint. What cannot be read has
// none; where it cannot be told whether the entry is there, nothing comes of it.
func (g *Guard) readBytes(ref content.Ref, digest content.Digest) {
	g.spawn(func(ctx context.Context) {
		if _, err := g.opt.Shelf.Sums(ctx, digest); err != nil {
			g.log.Warn("reading the bytes of an entry", "manifest", digest.Short(), "err", err)
		}
		held, err := g.opt.Shelf.Held(ctx, ref)
		if err != nil {
			g.log.Warn("looking up what is held", "content", ref.String(), "err", err)
			g.post(func() { g.brain.OnUnread(ref, digest) })
			return
		}
		at := slices.IndexFunc(held, func(h freshness.Held) bool { return h.Digest == digest })
		g.post(func() {
			if at < 0 {
				g.gone(ref, digest)
				return
			}
			g.acts = g.brain.OnSums(g.now(), ref, held[at], g.acts)
		})
	})
}
