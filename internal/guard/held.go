package guard

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/freshness"
	"freshet/internal/wire"
)

// Hint takes a Validate Metadata of a device whose name is proved. One that came to this device
// alone has an answer, which sends the body of an acknowledgement; one of a subnet has nil.
//
// What is held is looked up, and the brain judges. More of them at once than maxLooking are
// dropped: whoever floods a device cannot make it read its index without end.
func (g *Guard) Hint(from freshness.Device, v wire.Validate, answer func(body []byte)) {
	if v.Wanted.IsZero() && v.Rejected.IsZero() {
		return
	}
	g.withHeld(v.Ref, func(held []freshness.Held) {
		g.answer = answer
		g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
			return g.brain.OnHint(now, freshness.Received{Hint: freshness.Hint(v), Sender: from, Single: answer != nil, Held: held}, acts)
		})
	})
}

// Generation takes a generation that a service's or a device's reply carried.
func (g *Guard) Generation(ref content.Ref, generation uint64) {
	g.withHeld(ref, func(held []freshness.Held) {
		g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
			return g.brain.OnGeneration(now, freshness.News{Ref: ref, Generation: generation, Held: held}, acts)
		})
	})
}

// withHeld looks up what is held of a content, and posts an event with it.
func (g *Guard) withHeld(ref content.Ref, event func([]freshness.Held)) {
	select {
	case g.looking <- struct{}{}:
	default:
		return
	}
	g.spawn(func(ctx context.Context) {
		held, err := g.opt.Shelf.Held(ctx, ref)
		<-g.looking
		if err != nil {
			g.log.Warn("looking up what is held", "content", ref.String(), "err", err)
			return
		}
		g.post(func() { event(held) })
	})
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
			g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
				return g.brain.OnAck(now, j.id, from, ack, acts)
			})
		}
	})
}

// Gone tells of an entry that left the cache for other reasons.
func (g *Guard) Gone(ref content.Ref, digest content.Digest) {
	g.post(func() { g.gone(ref, digest) })
}

func (g *Guard) gone(ref content.Ref, digest content.Digest) {
	g.opt.Device.Hold(digest, false)
	g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
		return g.brain.OnGone(now, ref, digest, acts)
	})
}

// askOwn compares an entry with what this device's own provider says.
func (g *Guard) askOwn(ref content.Ref, digest content.Digest) {
	g.spawn(func(ctx context.Context) {
		e := g.lookup(ctx, ref)
		own := freshness.Own{Ref: ref, Digest: digest, Expected: e.Expected}
		m, err := g.opt.Shelf.Manifest(ctx, digest)
		var diff content.Diff
		if err == nil {
			diff, own.Fit = e.compare(m)
		}
		if own.Fit == content.NeedsBytes {
			diff, own.Fit = g.compareBytes(ctx, &e, m, digest, false)
		}
		g.post(func() {
			if errors.Is(err, fs.ErrNotExist) {
				g.gone(ref, digest)
				return
			}
			g.noteDiff(ref, diff)
			g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
				return g.brain.OnOwn(now, own, acts)
			})
		})
	})
}

// compareBytes compares an entry by the SHA-1 of its bytes, which are read only where read says so.
func (g *Guard) compareBytes(ctx context.Context, e *expectation, m *content.Manifest, digest content.Digest, read bool) (content.Diff, content.Fit) {
	sums, known := g.opt.Shelf.Summed(digest)
	if !known && read {
		var err error
		if sums, err = g.opt.Shelf.Sums(ctx, digest); err != nil {
			g.log.Warn("reading the bytes of an entry", "manifest", digest.Short(), "err", err)
		}
	}
	if len(sums) != len(m.Files) {
		return e.compare(m)
	}
	return e.compare(withSums(m, sums))
}

// withSums returns m with these SHA-1s where it has none.
func withSums(m *content.Manifest, sums []content.SHA1) *content.Manifest {
	full := *m
	full.Files = slices.Clone(m.Files)
	for i := range full.Files {
		if full.Files[i].SHA1 == (content.SHA1{}) {
			full.Files[i].SHA1 = sums[i]
		}
	}
	return &full
}

// readBytes takes the SHA-1 of all files of an entry, for a download or for a hint.
func (g *Guard) readBytes(a freshness.Action) {
	j := g.jobs[a.Job]
	switch {
	case a.Job == 0:
		g.readHeld(a.Ref, a.Digest)
	case j != nil && j.parsed != nil:
		step, e, m := j.steps, j.expect, j.parsed
		g.spawn(func(ctx context.Context) {
			diff, fit := g.compareBytes(ctx, &e, m, a.Digest, true)
			g.post(func() {
				if !g.current(j, step) {
					return
				}
				if fit == content.NeedsBytes || fit == content.FitUnknown {
					j.do(Order{Kind: Fail, Err: errNoSums})
					return
				}
				j.diff, j.fit = diff, fit
				g.find(j, outcomeOf(fit))
				g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
					return g.brain.OnDone(now, j.id, fit, acts)
				})
			})
		})
	}
}

var errNoSums = errors.New("guard: the files' bytes in the cache cannot be read, to compare them with the expected metadata; the log says why; ask again")

func outcomeOf(fit content.Fit) freshness.Outcome {
	if fit == content.Differs {
		return freshness.ExpectedDiffers
	}
	return freshness.OK
}

// readHeld reads an entry because of a hint. What cannot be read has no sums.
func (g *Guard) readHeld(ref content.Ref, digest content.Digest) {
	g.spawn(func(ctx context.Context) {
		if _, err := g.opt.Shelf.Sums(ctx, digest); err != nil {
			g.log.Warn("reading the bytes of an entry", "manifest", digest.Short(), "err", err)
		}
		held, err := g.opt.Shelf.Held(ctx, ref)
		at := slices.IndexFunc(held, func(h freshness.Held) bool { return h.Digest == digest })
		g.post(func() {
			if err != nil || at < 0 {
				g.gone(ref, digest)
				return
			}
			g.apply(func(now time.Duration, acts []freshness.Action) []freshness.Action {
				return g.brain.OnSums(now, ref, held[at], acts)
			})
		})
	})
}
