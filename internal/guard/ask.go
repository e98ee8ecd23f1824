package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/records"
)

// ask asks Content Policy, once for all who want to know.
func (g *Guard) ask(ref content.Ref) {
	if g.asking[ref] {
		return
	}
	g.asking[ref] = true
	g.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		p, err := g.opt.Services.ContentPolicy(ctx, ref)
		var rec records.Record
		if err == nil {
			rec, err = records.Of(p)
		}
		g.post(func() {
			delete(g.asking, ref)
			g.done = append(g.done, g.waiters[ref]...)
			delete(g.waiters, ref)
			if err != nil {
				g.unanswered(ref, err)
				return
			}
			g.answered(rec)
		})
	})
}

// answered takes Content Policy's word.
func (g *Guard) answered(rec records.Record) {
	ref, last := rec.Ref, namedBy(rec)
	if g.anyJob(ref) {
		g.latest[ref] = last
	}
	g.acts = g.brain.OnPolicy(g.now(), ref, freshness.Policy{Known: true, Digest: last.digest, Generation: last.generation}, g.acts)
	g.later = append(g.later, func() {
		for _, j := range g.jobsAsking(ref) {
			g.seek(j, &Request{Record: rec, Source: freshness.FromServices})
		}
	})
	g.opt.Device.Confirm(rec)
	g.spawn(func(ctx context.Context) {
		g.withHeld(ctx, ref, func(held []freshness.Held) {
			older := slices.DeleteFunc(held, func(h freshness.Held) bool { return h.Digest == last.digest })
			g.acts = g.brain.OnGeneration(g.now(), freshness.News{Ref: ref, Generation: last.generation, Held: older}, g.acts)
		})
	})
}

// jobsAsking returns the downloads that wait for Content Policy's word, in order.
func (g *Guard) jobsAsking(ref content.Ref) []*Job {
	var all []*Job
	for _, j := range g.jobs {
		if j.ref == ref && j.asking {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b *Job) int { return cmp.Compare(a.id, b.id) })
	return all
}

// unanswered goes on with what was said last when nobody answers. A service that says no ends
// the downloads that asked.
func (g *Guard) unanswered(ref content.Ref, err error) {
	if g.ctx.Err() != nil {
		return
	}
	if p := (*api.Problem)(nil); errors.As(err, &p) && p.Status == http.StatusNotFound {
		g.acts = g.brain.OnPolicy(g.now(), ref, freshness.Policy{}, g.acts)
	}
	g.log.Info("Content Policy", "content", ref.String(), "err", err)
	for _, j := range g.jobsAsking(ref) {
		if !client.Unavailable(err) {
			j.step()
			j.do(Order{Kind: Fail, Err: err})
			continue
		}
		g.spawn(func(ctx context.Context) {
			rec, ok := g.opt.Shelf.Last(ctx, ref)
			g.post(func() { g.goOn(j, rec, ok) })
		})
	}
}

// goOn begins a round with what was known before. What others named before does not become the
// word of Content Policy by its silence.
func (g *Guard) goOn(j *Job, rec records.Record, ok bool) {
	if g.jobs[j.id] != j || !j.asking {
		return
	}
	r := j.source
	if ok {
		r = Remembered(rec)
	}
	if _, known := g.latest[j.ref]; !known && r.Source == freshness.FromServices {
		g.latest[j.ref] = namedBy(r.Record)
	}
	g.seek(j, &r)
}

// Remembered makes a request of a record that was kept: it was Content Policy's word where that
// gave a grant. Without one, what a publisher signed is judged by its signature again.
func Remembered(rec records.Record) Request {
	r := Request{Record: rec, Source: freshness.FromServices}
	if len(rec.Grant) == 0 && len(rec.Signature) > 0 {
		r.Source = freshness.FromCacheHost // this device's own cache
	}
	return r
}

// Origins returns the base addresses of the distribution points that have a content.
func Origins(rec *records.Record) []string {
	var all []string
	for _, u := range rec.ContentURLs {
		if base, ok := api.OriginOf(u); ok && !slices.Contains(all, base) {
			all = append(all, base)
		}
	}
	return all
}

// force has the distribution points make sure, the nearest first, until one has what fits.
func (g *Guard) force(j *Job) {
	step, at, q := j.steps, Origins(&j.record), expected.Content{Files: j.expect.files}.Question(j.expect.match)
	ctx, stop := context.WithTimeout(g.ctx, forceTime)
	j.stop = stop
	ref := j.ref
	g.spawn(func(context.Context) {
		defer stop()
		best := forced{Forced: freshness.Forced{Job: j.id, Result: freshness.ForceUnavailable}}
		for _, base := range at {
			if f := g.makeSure(ctx, base, ref, q); f.Result < best.Result {
				best.Forced, best.reply = f.Forced, f.reply
			}
			if best.Result == freshness.ForceFits {
				break
			}
		}
		best.Job = j.id
		g.post(func() {
			if !g.current(j, step) {
				return
			}
			j.reply = best.reply
			g.acts = g.brain.OnForced(g.now(), best.Forced, g.acts)
		})
	})
}

// forced is what a distribution point said. The better the answer, the lower its Result.
type forced struct {
	freshness.Forced
	reply *api.LszReply
}

func (g *Guard) makeSure(ctx context.Context, base string, ref content.Ref, q api.LszRequest) forced {
	reply, err := g.opt.Services.MakeSure(ctx, base, ref, q, nil)
	var stale *client.OriginStale
	switch {
	case errors.As(err, &stale):
		g.log.Warn("the distribution point's own files do not fit", "content", ref.String(), "origin", base, "err", err)
		return forced{Forced: freshness.Forced{Result: freshness.ForceStale, RetryAfter: stale.RetryAfter}}
	case err != nil:
		g.log.Warn("asking a distribution point to make sure", "content", ref.String(), "origin", base, "err", err)
		return forced{Forced: freshness.Forced{Result: freshness.ForceUnavailable}}
	}
	digest, err := content.ParseDigest(reply.ManifestDigest)
	if err != nil {
		return forced{Forced: freshness.Forced{Result: freshness.ForceUnavailable}}
	}
	result := freshness.ForceFits
	if reply.Outcome == api.LszDiffers {
		result = freshness.ForceDiffers
	}
	return forced{freshness.Forced{Result: result, Digest: digest}, reply}
}

// fetch gets the manifest that a distribution point has for this download alone.
func (g *Guard) fetch(j *Job, digest content.Digest) {
	if j.reply == nil || j.reply.ManifestDigest != digest.String() {
		return // the brain waits no longer than its patience
	}
	rec, err := records.OfLsz(j.reply)
	if err != nil {
		g.log.Warn("a distribution point's reply", "content", j.ref.String(), "err", err)
		return
	}
	rec.Peerable = false // it is announced nowhere
	g.seek(j, &Request{Record: rec, Source: freshness.FromOrigin, Signed: j.reply.Signature})
}

// maxSummary bounds what the catalog is told of a difference, in bytes.
const maxSummary = 1 << 10

// tellCatalog reports a manifest that does not fit.
func (g *Guard) tellCatalog(j *Job, digest content.Digest) {
	summary := j.diff.Summary(3)
	if len(summary) > maxSummary {
		summary = j.diff.Summary(0)
	}
	d := api.Differs{Version: api.Number(j.ref.Version), ManifestDigest: digest.String(), MetadataHash: j.expect.Hash.String(), Summary: summary}
	id := j.ref.ID
	g.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := g.opt.Services.ReportDiffers(ctx, id, d); err != nil {
			g.log.Info("telling the catalog that its manifest differs", "err", fmt.Errorf("%s: %w", id, err))
		}
	})
}
