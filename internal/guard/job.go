package guard

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/wire"
)

// Order is what a download is to do. Fields that Kind does not name are zero.
type Order struct {
	Kind    OrderKind
	Record  records.Record
	Digest  content.Digest
	Expects bool // of Use: metadata was expected, and decides
	SHA1    bool // of Use: Done wants the SHA-1 of each file
	Outcome freshness.Outcome
	For     time.Duration
	Device  freshness.Device
	Hint    wire.Validate
	Err     error

	judge judge // of Seek
}

// Request is a download that begins.
type Request struct {
	Record   records.Record     // of the content, as it is known
	Source   freshness.Source   // who said so
	Answered bool               // it is Content Policy's word of now
	Signed   []byte             // a distribution point's signature of the manifest; of FromOrigin
	Device   freshness.Device   // of FromDevice
	Metadata []expected.Content // that the caller brought; nil: the device's own
	Match    content.Match      // of Metadata
	Download Download
}

// Job is a download under the guard's eyes.
type Job struct {
	g        *Guard
	id       freshness.Job
	ref      content.Ref
	download Download

	// owned by the guard's loop
	expect  expectation
	first   *Request           // of the first round; nil after
	record  records.Record     // that was sought last
	source  Request            // who named that: its Record, Source, Signed and Device
	asking  bool               // for Content Policy's answer
	waiting bool               // for the next round
	looking bool               // at what is expected
	steps   int                // answers to what was asked before a step are void
	stop    context.CancelFunc // ends what was asked in this step
	reply   *api.LszReply      // of the distribution point that made sure
	parsed  *content.Manifest  // judged last
	diff    content.Diff       // of parsed
	fit     content.Fit        // likewise
}

// expectation is what a download's files must be.
type expectation struct {
	freshness.Expected
	files []expected.FileContent
	match content.Match
	given bool // by the caller: it does not change
}

// sha1 reports whether the metadata names a file by its SHA-1.
func (e *expectation) sha1() bool {
	return slices.ContainsFunc(e.files, func(f expected.FileContent) bool { return f.Algorithm == content.SHA1Algorithm })
}

func (e *expectation) entries() []content.MetadataEntry {
	return expected.Content{Files: e.files}.Entries()
}

// compare says how a manifest fits.
func (e *expectation) compare(m *content.Manifest) (content.Diff, content.Fit) {
	if e.State != freshness.IsExpected {
		return nil, content.FitUnknown
	}
	d, err := content.Compare(m, e.entries(), e.match)
	if err != nil { // the provider would not have said it
		return nil, content.FitUnknown
	}
	return d, d.Fit()
}

// Start begins a download. It waits for the provider of expected metadata.
func (g *Guard) Start(ctx context.Context, r Request) (*Job, error) {
	e, err := g.expectationOf(ctx, &r)
	if err != nil {
		return nil, err
	}
	j := &Job{g: g, ref: r.Record.Ref, download: r.Download, expect: e, first: &r, record: r.Record}
	started := make(chan struct{})
	g.post(func() {
		g.enter(j)
		close(started)
	})
	select {
	case <-started:
		return j, nil
	case <-g.ended:
		return nil, errors.New("guard: it has ended")
	}
}

// enter gives a download its number: the same one after a restart, as far as that can be told.
func (g *Guard) enter(j *Job) {
	for n := uint64(0); ; n++ {
		if j.id = j.number(n); g.jobs[j.id] == nil {
			break
		}
	}
	g.jobs[j.id] = j
	g.acts = g.brain.OnStart(g.now(), freshness.Start{Job: j.id, Ref: j.ref, Match: j.expect.match, Expected: j.expect.Expected}, g.acts)
}

func (j *Job) number(n uint64) freshness.Job {
	b := binary.BigEndian.AppendUint64(nil, n)
	b = append(b, byte(j.expect.match), byte(j.expect.State))
	b = append(b, j.expect.Hash[:]...)
	sum := sha256.Sum256(append(b, j.ref.String()...))
	return freshness.Job(binary.BigEndian.Uint64(sum[:]) >> 1)
}

// step makes answers to what was asked before void.
func (j *Job) step() {
	j.steps++
	j.asking, j.waiting = false, false
	if j.stop != nil {
		j.stop()
		j.stop = nil
	}
}

// current reports whether an answer is to what a job asked last.
func (g *Guard) current(j *Job, step int) bool { return g.jobs[j.id] == j && j.steps == step }

// begin looks for the manifest.
func (g *Guard) begin(j *Job) {
	j.step()
	r := j.first
	j.first = nil
	switch {
	case r == nil:
		j.asking = true
		j.do(Order{Kind: Ask})
		g.ask(j.ref)
	case r.Answered:
		j.asking = true
		g.later = append(g.later, func() { g.answered(r.Record) })
	default:
		if _, ok := g.latest[j.ref]; !ok && r.Source == freshness.FromServices {
			g.latest[j.ref] = namedBy(r.Record)
		}
		g.seek(j, r)
	}
}

func namedBy(r records.Record) named { return named{r.Manifest, uint64(max(r.Generation, 0))} }

// seek lets a download get a manifest.
func (g *Guard) seek(j *Job, r *Request) {
	j.step()
	j.record, j.source = r.Record, *r
	last := g.latest[j.ref]
	j.do(Order{Kind: Seek, Record: r.Record, Digest: r.Record.Manifest, judge: judge{
		step: j.steps, expect: j.expect, request: *r,
		catalog: last.digest == r.Record.Manifest, generation: last.generation,
	}})
}

// judge is what a manifest is judged by.
type judge struct {
	step       int
	expect     expectation
	request    Request
	catalog    bool
	generation uint64
}

// Found shows the manifest that an order asked for. It compares it before it returns.
func (j *Job) Found(o Order, raw []byte, parsed *content.Manifest) {
	g, q := j.g, &o.judge
	diff, fit := q.expect.compare(parsed)
	facts := g.facts(q, raw, parsed.Ref)
	g.post(func() {
		if !g.current(j, q.step) {
			return
		}
		j.parsed, j.diff, j.fit = parsed, diff, fit
		g.acts = g.brain.OnOffer(g.now(), freshness.Offer{
			Job: j.id, Digest: o.Digest, Source: q.request.Source, Device: q.request.Device, Facts: facts, Fit: fit,
		}, g.acts)
	})
}

// facts are what is known of a manifest besides its files. What a publisher signed counts for the
// content alone that the manifest says it is of.
func (g *Guard) facts(q *judge, raw []byte, of content.Ref) freshness.Facts {
	rec := &q.request.Record
	f := freshness.Facts{
		Catalog: q.catalog, Generation: q.generation,
		Pinned: g.opt.Publishers.Covers(rec.Ref.ID), Wall: g.opt.Now().Unix(),
	}
	terms, ok, err := g.opt.Publishers.Verify(identity.Signed{ID: rec.Ref.ID, Manifest: raw, Signature: rec.Signature})
	switch {
	case err != nil:
		g.log.Info("publisher's signature", "content", rec.Ref.String(), "err", err)
	case ok && terms.Allows(g.opt.Group) && of == rec.Ref:
		f.Signed, f.SignedGeneration, f.Expires = true, uint64(terms.Generation), terms.Expires.Unix()
	}
	if q.request.Source == freshness.FromOrigin {
		by, err := g.opt.Trust().VerifyManifest(rec.Manifest, q.request.Signed)
		if f.OriginSigned = err == nil; err != nil {
			g.log.Info("distribution point's signature", "content", rec.Ref.String(), "err", err)
		} else {
			g.log.Debug("signed by a distribution point", "content", rec.Ref.String(), "device", by.Device)
		}
	}
	return f
}

// Done asks whether the files may be delivered: all bytes are there, and each file's SHA-256 is
// what the manifest says. sha1s are those of the files' bytes, where Use asked for them: what the
// manifest says of SHA-1s is its maker's word alone.
func (j *Job) Done(sha1s []content.SHA1) {
	j.event(func(g *Guard) {
		g.weigh(j, sha1s)
		g.acts = g.brain.OnDone(g.now(), j.id, j.fit, g.acts)
	})
}

// weigh compares a download's files with what is expected of them, by the SHA-1s of their bytes.
// Those that the manifest does not say, or says wrongly, are kept beside the entry.
func (g *Guard) weigh(j *Job, sha1s []content.SHA1) {
	if j.parsed == nil || !j.expect.sha1() {
		return
	}
	if len(sha1s) != len(j.parsed.Files) {
		j.fit = content.NeedsBytes
		return
	}
	read, before := withSums(j.parsed, sha1s), j.fit
	if j.diff, j.fit = j.expect.compare(read); j.fit != before {
		g.find(j, outcomeOf(j.fit))
	}
	if slices.Equal(read.Files, j.parsed.Files) {
		return
	}
	digest := j.record.Manifest
	g.spawn(func(context.Context) {
		if err := g.opt.Shelf.Keep(digest, sha1s); err != nil {
			g.log.Warn("keeping the SHA-1s of an entry", "manifest", digest.Short(), "err", err)
		}
	})
}

// End ends a download, done or not. Nothing is ordered any more afterwards but what is under way.
func (j *Job) End() {
	g := j.g
	g.post(func() {
		if g.jobs[j.id] != j {
			return
		}
		j.step()
		delete(g.jobs, j.id)
		g.acts = g.brain.OnEnd(g.now(), j.id, g.acts)
		if !g.anyJob(j.ref) {
			delete(g.latest, j.ref)
		}
	})
}

func (g *Guard) anyJob(ref content.Ref) bool {
	for _, j := range g.jobs {
		if j.ref == ref {
			return true
		}
	}
	return false
}

// Peer tells of a device whose swarm connection carries this download's hints.
func (j *Job) Peer(device freshness.Device) {
	j.event(func(g *Guard) { g.acts = g.brain.OnPeer(g.now(), j.id, device, g.acts) })
}

// PeerGone tells of a device that is connected no more.
func (j *Job) PeerGone(device freshness.Device) {
	j.event(func(g *Guard) { g.acts = g.brain.OnPeerGone(g.now(), j.id, device, g.acts) })
}

// Recheck asks Content Policy whether the manifest in use is still the one. When it returns, the
// orders that follow from the answer are given; it may be that there was none.
func (j *Job) Recheck(ctx context.Context) {
	g, settled := j.g, make(chan struct{})
	g.post(func() {
		g.waiters[j.ref] = append(g.waiters[j.ref], settled)
		g.ask(j.ref)
	})
	select {
	case <-settled:
	case <-g.ended:
	case <-ctx.Done():
	}
}

// Named tells of a device that has a manifest of the content. generation is what it claims, 0
// when it does not.
func (j *Job) Named(device freshness.Device, digest content.Digest, generation uint64) {
	j.event(func(g *Guard) {
		n := freshness.Named{Job: j.id, Device: device, Digest: digest, Generation: generation}
		g.acts = g.brain.OnNamed(g.now(), n, g.acts)
	})
}

// event posts something that concerns j while it lasts.
func (j *Job) event(f func(g *Guard)) {
	j.g.post(func() {
		if j.g.jobs[j.id] == j {
			f(j.g)
		}
	})
}

// expectationOf finds what the files of a download must be.
func (g *Guard) expectationOf(ctx context.Context, r *Request) (expectation, error) {
	if r.Metadata == nil {
		return g.lookup(ctx, r.Record.Ref), nil
	}
	if g.opt.Mode == freshness.Off {
		return expectation{}, errors.New("guard: metadataValidation is off on this device, so that the metadata given would be compared with nothing; set it to enforce or report")
	}
	at := slices.IndexFunc(r.Metadata, func(c expected.Content) bool { return c.Ref == r.Record.Ref })
	if at < 0 {
		return expectation{}, fmt.Errorf("guard: the metadata given says nothing of %s", r.Record.Ref)
	}
	e := expects(r.Metadata[at], r.Match)
	e.given = true
	return e, nil
}

// Wanted returns the MetadataHash of the manifests that fit a download, by the algorithm of the
// files' hashes, so that they can be asked for. There is none, and ok is false, unless metadata is
// expected and decides, no file may be there besides, and one algorithm hashed them all.
func (g *Guard) Wanted(ctx context.Context, r Request) (alg content.Algorithm, hash content.Digest, ok bool) {
	e, err := g.expectationOf(ctx, &r)
	if err != nil || g.opt.Mode != freshness.Enforce || e.State != freshness.IsExpected || e.match != content.Exact || e.Algorithm == 0 {
		return 0, content.Digest{}, false
	}
	return e.Algorithm, e.Hash, true
}

// lookup asks the device's own provider.
func (g *Guard) lookup(ctx context.Context, ref content.Ref) expectation {
	e := expectation{match: g.opt.Match}
	if g.opt.Mode == freshness.Off || g.opt.Provider == nil {
		return e
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, err := g.opt.Provider.Lookup(ctx, ref)
	switch {
	case err == nil:
		return expects(c, g.opt.Match)
	case errors.Is(err, expected.ErrNone):
	default:
		g.log.Warn("expected metadata", "content", ref.String(), "err", err)
		e.State = freshness.Unread
	}
	return e
}

// expects makes an expectation of what a provider says.
func expects(c expected.Content, match content.Match) expectation {
	hash, err := c.MetadataHash()
	if err != nil { // the provider would not have said it
		return expectation{Expected: freshness.Expected{State: freshness.Unread}, match: match}
	}
	return expectation{
		Expected: freshness.Expected{State: freshness.IsExpected, Hash: hash, Algorithm: c.Algorithm()},
		files:    c.Files, match: match,
	}
}

// askForWaiting asks Content Policy for those who wait: a new issue lets them go on.
func (g *Guard) askForWaiting() {
	for _, j := range g.jobs {
		if j.waiting {
			g.ask(j.ref)
		}
	}
}

// look sees whether other metadata is expected than before. A look that takes its time is not
// doubled.
func (g *Guard) look() {
	for _, j := range g.jobs {
		if j.looking || j.expect.given || g.opt.Provider == nil || g.opt.Mode == freshness.Off {
			continue
		}
		j.looking = true
		g.spawn(func(ctx context.Context) {
			e := g.lookup(ctx, j.ref)
			g.post(func() {
				j.looking = false
				g.expected(j, e)
			})
		})
	}
}

func (g *Guard) expected(j *Job, e expectation) {
	if g.jobs[j.id] != j || e.Expected == j.expect.Expected || e.State == freshness.Unread {
		return
	}
	j.expect = e
	g.acts = g.brain.OnExpected(g.now(), j.id, e.Expected, g.acts)
}
