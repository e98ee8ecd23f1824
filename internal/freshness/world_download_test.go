package freshness

import (
	"time"

	"freshet/internal/content"
)

// download does what concerns a device's download.
func (w *world) download(d *device, a Action) {
	n := w.issueOf(a.Digest)
	switch a.Kind {
	case Begin:
		d.round++
		d.why = NoOutcome
		w.search(d, d.round)
	case Drop:
		d.round++
	case Use:
		if w.offered(d, n) == content.Differs && d.mode == Enforce {
			w.fail(d, "issue %d is used and does not fit", n)
		}
		d.round++
		round := d.round
		w.lives(d, time.Second+time.Duration(w.rng.Int64N(int64(20*time.Second))), func() {
			if round != d.round || d.done {
				return
			}
			d.hold(n, w.generationFor(n, a.Alone), a.Alone)
			w.do(d, d.brain.OnDone(w.local(d), a.Job, w.fit(d, n), nil))
		})
	case Deliver:
		w.deliver(d, n)
	case Fetch:
		w.lives(d, w.lag(), func() {
			w.offer(d, Offer{Job: a.Job, Digest: a.Digest, Source: FromOrigin, Facts: Facts{OriginSigned: true}, Fit: w.offered(d, n)})
		})
	case Force:
		w.force(d)
	case Pause, Wait:
		d.round++
		d.why = a.Outcome
	}
}

func (d *device) hold(n int, generation uint64, alone bool) {
	if d.entry(n) == nil {
		d.store = append(d.store, &entry{issue: n, generation: generation, since: never, alone: alone})
	}
}

func (w *world) generationFor(n int, alone bool) uint64 {
	if alone {
		return 0
	}
	return w.issues[n].generation
}

// deliver checks the promise: never what does not fit, never older than what was seen.
func (w *world) deliver(d *device, n int) {
	d.done = true
	if d.mode == Enforce && d.expected.State == IsExpected {
		if !w.has(d, n) {
			w.fail(d, "issue %d is delivered and does not fit", n)
		}
		return
	}
	if g := w.issues[n].generation; g < d.seen {
		w.fail(d, "generation %d is delivered after %d was seen", g, d.seen)
	}
}

// search is what a shell does for Begin: services, then whoever is on the subnet, and the cache
// host for what a publisher signed; again while nothing was taken.
func (w *world) search(d *device, round int) {
	if round != d.round || d.done {
		return
	}
	w.askPolicy(d, func(n int) {
		if round == d.round {
			w.offer(d, Offer{
				Job: d.job, Digest: w.issues[n].digest, Source: FromServices, Fit: w.offered(d, n),
				Facts: Facts{Catalog: n == w.catalog, Generation: w.issues[n].generation},
			})
		}
	})
	for _, p := range w.devs {
		for _, e := range p.store {
			if p != d && !p.down && !e.alone && (e.served() || p.deaf) && w.hears(d, p) {
				w.lives(d, 3*w.lag(), func() { w.answer(d, p.name, e.issue, round) })
			}
		}
	}
	w.lives(d, 5*w.lag(), func() {
		if round == d.round && !w.reaches(d) {
			m := w.issues[w.cached]
			w.offer(d, Offer{
				Job: d.job, Digest: m.digest, Source: FromCacheHost, Fit: w.offered(d, w.cached),
				Facts: Facts{Pinned: m.signed, Signed: m.signed, SignedGeneration: m.generation},
			})
		}
	})
	w.lives(d, 30*time.Second, func() { w.search(d, round) })
}

// answer is a device's answer to a question for the content: what it has, and its manifest.
func (w *world) answer(d *device, from Device, n, round int) {
	m := w.issues[n]
	if d.done || d.left[from] || d.banned[Banned{from, m.digest}] {
		return
	}
	w.do(d, d.brain.OnPeer(w.local(d), d.job, from, nil))
	w.do(d, d.brain.OnNamed(w.local(d), Named{d.job, from, m.digest, m.generation}, nil))
	if round == d.round && !w.reaches(d) {
		w.offer(d, Offer{
			Job: d.job, Digest: m.digest, Source: FromDevice, Device: from, Fit: w.offered(d, n),
			Facts: Facts{Pinned: m.signed, Signed: m.signed, SignedGeneration: m.generation},
		})
	}
}

func (w *world) offer(d *device, o Offer) {
	w.do(d, d.brain.OnOffer(w.local(d), o, nil))
}

// force is a DP that makes sure.
func (w *world) force(d *device) {
	p := &w.dps[w.rng.IntN(len(w.dps))]
	f := Forced{Job: d.job, Result: ForceStale, RetryAfter: time.Duration(w.rng.IntN(100)) * time.Second}
	switch {
	case !w.reaches(d) && w.rng.IntN(2) == 0:
		f.Result = ForceUnavailable
	case p.nature == liar:
		n := w.rng.IntN(len(w.issues))
		f.Result, f.Digest = ForceFits+ForceResult(w.rng.IntN(2)), w.issues[n].digest
	case !w.has(d, p.bytes):
	case w.catalog == p.bytes:
		f.Result, f.Digest = ForceFits, w.issues[p.bytes].digest
	case p.owner && w.up:
		f.Result, f.Digest = ForceFits, w.issues[p.bytes].digest
		w.publish(p.bytes)
	default:
		f.Result, f.Digest = ForceDiffers, w.issues[p.bytes].digest
	}
	w.lives(d, w.lag()+time.Duration(w.rng.IntN(5))*time.Second, func() {
		w.do(d, d.brain.OnForced(w.local(d), f, nil))
	})
}

// publish lets the catalog name an issue, with a higher generation; never an earlier one.
func (w *world) publish(n int) {
	if n > w.catalog {
		w.issues[n].generation = w.issues[w.catalog].generation + 1 + w.rng.Uint64N(1000)
		w.catalog = n
	}
}
