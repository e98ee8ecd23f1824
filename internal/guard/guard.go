// Package guard keeps stale content out of a device: it is the shell around the brain of package
// freshness. Downloads tell it which manifests they found, shares which generations and hints
// they heard of; it asks Content Policy, distribution points and the provider of expected
// metadata, and says what may be used and what is not to be served any more.
//
//	downloads ──► Job ────────┐                     ┌─► Download (orders)
//	shares ──► Hint,          ├─► one goroutine ────┼─► Device (hold, retire, broadcast)
//	           Generation ────┘    with the brain   ├─► Services, Provider, Shelf
//	                                                └─► a file: what is remembered
//
// # Downloads
//
//	Start ─► Ask ─► Seek ─► (Job.Found) ─► Use ─► (Job.Done) ─► Deliver
//	          ▲                │            │ Drop
//	          └──── Wait ◄─────┴────────────┘
//
// A download gets the manifest of a Seek from whoever is nearest, holds it back, and shows it
// with Found. What was not answered by Use makes neither an entry nor a request for a piece.
//
// # The file
//
// JSON, written whole under another name and renamed, a second after a change at the latest: the
// time, what the brain remembers ([freshness.State]), and the findings that are shown. One that
// is missing or cannot be read is begun anew, with a word in the log.
package guard

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/wire"
)

const (
	callTime   = 30 * time.Second // for a service to answer
	forceTime  = 10 * time.Minute // for a distribution point, which may read terabytes
	lookTime   = 30 * time.Second // for the provider of expected metadata
	claimTime  = time.Hour        // in which a download comes back after a restart, or what it knew is forgotten
	askEvery   = time.Minute      // between two questions to Content Policy for a download that waits
	maxLooking = 64               // hints whose holdings are looked up at once; others are dropped
)

// Services are what the guard asks of the fleet; a [client.Client] is one.
type Services interface {
	ContentPolicy(ctx context.Context, ref content.Ref) (*api.ContentPolicy, error)
	MakeSure(ctx context.Context, base string, ref content.Ref, q api.LszRequest, reading func(done, total int64)) (*api.LszReply, error)
	ReportDiffers(ctx context.Context, id content.ID, d api.Differs) error
}

// Provider says what the files of a content must be (package expected).
type Provider = expected.Provider

// Shelf is what the device holds.
type Shelf interface {
	// Held returns the entries of a content, complete or not. One that cannot be read now is among
	// them, without MetadataHashes.
	Held(ctx context.Context, ref content.Ref) ([]freshness.Held, error)
	// Manifest returns the manifest of an entry; fs.ErrNotExist when there is none.
	Manifest(ctx context.Context, digest content.Digest) (*content.Manifest, error)
	// Sums returns the SHA-1 of every file of an entry, in the manifest's order, from its bytes.
	Sums(ctx context.Context, digest content.Digest) ([]content.SHA1, error)
	// Summed returns the same of an entry whose bytes were read before; false when they were not.
	Summed(digest content.Digest) ([]content.SHA1, bool)
	// Keep remembers the SHA-1s of an entry's files, for Summed.
	Keep(digest content.Digest, sums []content.SHA1) error
	// Ban bans a device for a manifest, or lifts the ban.
	Ban(ctx context.Context, device freshness.Device, digest content.Digest, on bool) error
	// Last returns what Content Policy said last of a content, for when it does not answer.
	Last(ctx context.Context, ref content.Ref) (records.Record, bool)
}

// Device is what the guard has done on this device. Its methods do not block.
type Device interface {
	// Hold puts an entry into quarantine, or takes it out.
	Hold(digest content.Digest, on bool)
	// Retire puts an entry into quarantine and ends its use for good; its pieces stay for a while
	// as stock. When that is done it calls Guard.Gone. A Hold that ends the quarantine before
	// takes it back.
	Retire(ref content.Ref, digest content.Digest, stock time.Duration)
	// Confirm is told that services name the manifest of a record now, as the record says.
	Confirm(rec records.Record)
	// Broadcast sends Validate Metadata on the device's subnets.
	Broadcast(v wire.Validate)
}

// Options are what New needs.
type Options struct {
	File       string // where what is remembered lies; "" for nowhere
	Mode       freshness.Mode
	Match      content.Match // of the device's own metadata
	Group      string        // of the device
	Seed       uint64        // of the brain's chance
	Publishers identity.Publishers
	Trust      func() identity.OriginTrust
	Now        func() time.Time // the clock as services correct it
	Services   Services
	Provider   Provider      // of the device's own metadata; nil: it has none
	Look       time.Duration // between two looks whether the provider says something else
	Shelf      Shelf
	Device     Device
	Log        *slog.Logger
}

// Guard is the device's guard. Its methods may be called from any goroutine.
type Guard struct {
	opt    Options
	log    *slog.Logger
	start  time.Time
	box    chan func()
	booted chan struct{} // closed when what was in quarantine is again
	ended  chan struct{} // closed when the loop has ended
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of spawned questions

	looking chan struct{} // holds a token for each hint whose holdings are looked up
	dropped atomic.Int64  // hints for which there was no token

	mu       sync.Mutex // guards the following
	findings findings
	over     bool // nothing is spawned any more

	// owned by the loop
	brain   *freshness.Brain
	acts    []freshness.Action
	later   []func() // events that duties brought about
	jobs    map[freshness.Job]*Job
	asking  map[content.Ref]bool
	waiters map[content.Ref][]chan struct{} // for the answer to be settled
	done    []chan struct{}                 // of the answer under way
	latest  map[content.Ref]named           // of contents that have jobs
	answer  func(body []byte)               // of the hint under way; nil: it did not come singly
	unsaved bool
	saving  bool
	saveAt  time.Time // saving begins not before
	counts  map[freshness.Outcome]int64
	unsaid  map[freshness.Outcome]int64 // of counts: hints that were settled, and are not in the log
	said    int64                       // of dropped, in the log
}

// named is what Content Policy said last of a content.
type named struct {
	digest     content.Digest
	generation uint64
}

// New returns a guard that knows what it knew. Run starts it.
func New(opt Options) *Guard {
	g := &Guard{
		opt: opt, log: opt.Log, start: time.Now(),
		box: make(chan func(), 256), booted: make(chan struct{}), ended: make(chan struct{}),
		looking: make(chan struct{}, maxLooking),
		jobs:    map[freshness.Job]*Job{}, asking: map[content.Ref]bool{}, waiters: map[content.Ref][]chan struct{}{}, latest: map[content.Ref]named{},
		counts: map[freshness.Outcome]int64{}, unsaid: map[freshness.Outcome]int64{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	memory, away := g.load()
	g.findings = memory.Findings
	g.brain = freshness.New(freshness.Config{
		Seed: opt.Seed, Mode: opt.Mode, Match: opt.Match, State: memory.State, Away: away,
	})
	return g
}

// Booted returns a channel that is closed when what was in quarantine before is so again.
func (g *Guard) Booted() <-chan struct{} { return g.booted }

// Run owns the brain until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	defer g.end()
	g.acts = g.brain.OnBoot(g.now(), g.acts)
	g.settle()
	close(g.booted)
	look := time.NewTicker(g.opt.Look)
	defer look.Stop()
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	claim := time.NewTimer(claimTime)
	defer claim.Stop()
	due := time.NewTimer(g.wait())
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-g.box:
			event()
		case <-due.C:
			g.tick()
		case <-look.C:
			g.look()
		case <-ask.C:
			g.askForWaiting()
			g.sayHints()
		case <-claim.C:
			g.forgetUnclaimed()
		}
		g.settle()
		due.Reset(g.wait())
	}
}

// end waits for what is under way, and keeps what is known.
func (g *Guard) end() {
	g.mu.Lock()
	g.over = true
	g.mu.Unlock()
	g.cancel()
	close(g.ended)
	g.wg.Wait()
	if g.unsaved || g.saving {
		g.write(g.memory())
	}
}

func (g *Guard) now() time.Duration { return time.Since(g.start) }

// wait returns the time until the brain has something to do.
func (g *Guard) wait() time.Duration {
	at, ok := g.brain.Next()
	if !ok {
		return time.Hour
	}
	return max(at-g.now(), 0)
}

func (g *Guard) tick() {
	if at, ok := g.brain.Next(); ok && at <= g.now() {
		g.acts = g.brain.OnTick(g.now(), g.acts)
	}
}

// post adds an event; after the end it is dropped. Only the loop may not call it.
func (g *Guard) post(event func()) {
	select {
	case g.box <- event:
	case <-g.ended:
	}
}

// spawn runs f, which may wait, beside the loop; its context ends with the guard.
func (g *Guard) spawn(f func(ctx context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		g.wg.Go(func() { f(g.ctx) })
	}
}

// settle does what the brain decided, in order, and then the events that came of it.
func (g *Guard) settle() {
	for len(g.acts) > 0 || len(g.later) > 0 {
		acts := g.acts
		g.acts = nil
		for i := range acts {
			g.act(&acts[i])
		}
		if len(g.acts) == 0 && len(g.later) > 0 {
			event := g.later[0]
			g.later = g.later[1:]
			event()
		}
	}
	g.answer = nil
	for _, ch := range g.done {
		close(ch)
	}
	g.done = nil
	g.save()
}

// Counts returns how often each outcome came since the start.
func (g *Guard) Counts() map[freshness.Outcome]int64 {
	counts := make(chan map[freshness.Outcome]int64, 1)
	g.post(func() {
		all := make(map[freshness.Outcome]int64, len(g.counts))
		for o, n := range g.counts {
			all[o] = n
		}
		counts <- all
	})
	select {
	case all := <-counts:
		return all
	case <-g.ended:
		return nil
	}
}

// forgetUnclaimed lets go of downloads that did not come back after the restart.
func (g *Guard) forgetUnclaimed() {
	for _, s := range g.brain.State(g.now()).Jobs {
		if g.jobs[s.Job] == nil {
			g.acts = g.brain.OnEnd(g.now(), s.Job, g.acts)
		}
	}
}
