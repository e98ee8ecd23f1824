package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/fetch"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/store"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// smallContent waits for no lease: after earlyOut the origin is asked (design section 3, 4).
const (
	smallContent = 64 << 10
	earlyOut     = 10 * time.Millisecond
	restEvery    = time.Minute
	stallTime    = 5 * time.Second // without a new run: the array is told
)

// share is one content's swarm on this device. Fields below "owned by run" are touched by
// events of its mailbox alone.
type share struct {
	a     *Agent
	hoh   content.Digest
	self  wire.DeviceID
	log   *slog.Logger
	start time.Time
	box   *mailbox

	layout  atomic.Pointer[content.Layout] // nil until manifest and hash file are held
	held    atomic.Pointer[store.Entry]    // likewise
	sums    atomic.Pointer[deliver.Sums]   // of held, once a caller wants them
	facts   atomic.Pointer[facts]
	news    *news
	rejoin  chan struct{} // capacity 1: join the array now
	traffic traffic

	ctx      context.Context // ends the share
	stop     context.CancelFunc
	unwanted atomic.Bool   // the last download gave up
	alone    atomic.Bool   // neither peers nor arrays are dealt with
	ended    chan struct{} // closed when run has returned

	mu  sync.Mutex // guards rec, and held while it is given back
	rec record

	// owned by run
	brain   *swarm.Swarm // nil until manifest and hash file are held
	acts    []swarm.Action
	links   []*link // by peer number; nil where free
	dialing map[string]bool
	sources []*fetch.Source
	stops   map[int32]context.CancelFunc // of open fetches
	meta    metadata
	simple  *simple // nil but while a draft is filled
	always  bool    // simple mode is the policy
	reason  string  // why the content came, or comes, in simple mode; empty: it does not
	brought int64   // bytes of drafts that ended
	refused int64   // bytes of wrong files in them
	hurry   bool    // somebody waits for it
	lease   swarm.Lease
	peering policy.Decision
	delay   time.Duration // before the device asks an origin for pieces; 0: over
	early   time.Duration // when the device goes out without a lease
	charges map[wire.DeviceID]*charge
	offered int           // peers that the array named last
	metFar  bool          // it named one of another site
	toPeers int64         // bytes to all peers
	moved   time.Duration // when bytes were last gained
	quiet   time.Time     // since when the share has neither links nor callers
	dormant bool          // complete and quiet: the entry may be evicted

	bans int // of devices, by this run of the share

	rechecking []*link   // that wait for the cache to be hashed again
	rechecked  time.Time // when that was done last
}

// facts are what other goroutines read of a share.
type facts struct {
	Stats   swarm.Stats
	Left    int64 // bytes missing; the whole size until the manifest is held
	Peers   int
	Lease   swarm.Lease
	Stalled bool   // nothing came for stallTime
	Waits   string // why nothing arrives, for people; empty while something does
	Simple  string // why the content came, or comes, in simple mode; empty: it does not
	Failed  error  // nothing more can be done
}

func newShare(a *Agent, rec record, foreground bool) *share {
	s := &share{
		a: a, hoh: rec.HashOfHashes, self: a.Device(), rec: rec, start: time.Now(), box: newMailbox(),
		log:     a.log.With("content", rec.Ref.String(), "manifest", rec.Manifest.Short()),
		news:    newNews(),
		rejoin:  make(chan struct{}, 1),
		dialing: map[string]bool{},
		charges: map[wire.DeviceID]*charge{},
		ended:   make(chan struct{}),
		stops:   map[int32]context.CancelFunc{},
		early:   5 * time.Second,
	}
	if rec.Size <= smallContent {
		s.early = earlyOut
	}
	s.peering = policy.MayPeer(a.opt.Settings, a.opt.Facts, rec.Size)
	if !rec.Peerable {
		s.peering = policy.Decision{Reason: "the content's policy forbids peers"}
	}
	if rec.Size == 0 {
		s.peering = policy.Decision{Reason: "a content without bytes joins no swarm"}
	}
	if s.peering.OK {
		s.delay = policy.HTTPDelay(a.opt.Settings, foreground, true)
	}
	s.hurry, s.reason = foreground, a.alwaysSimple(rec.Size)
	s.always = s.reason != ""
	s.alone.Store(!s.peering.OK)
	s.facts.Store(&facts{Left: rec.Size})
	return s
}

func (s *share) now() time.Duration { return time.Since(s.start) }

// record returns what Content Policy said last.
func (s *share) record() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// update takes a newer reply of Content Policy: a fresh grant, other origins.
func (s *share) update(rec record) {
	s.mu.Lock()
	rec.Wanted = rec.Wanted || s.rec.Wanted
	if rec.Manifest == s.rec.Manifest {
		rec.Askers = s.rec.Askers.add(rec.Askers)
		s.rec = rec
	}
	s.rec.Wanted = rec.Wanted // also for the same bytes under other names
	s.mu.Unlock()
}

// hello is what this end shows to peers.
func (s *share) hello() peer.Hello {
	return peer.Hello{HashOfHashes: s.hoh, Device: s.a.Device(), Grant: s.record().Grant}
}

// keep saves the record.
func (s *share) keep(ctx context.Context, wanted bool) error {
	s.mu.Lock()
	s.rec.Wanted = wanted
	rec := s.rec
	s.mu.Unlock()
	return s.a.keep(ctx, rec)
}

// use returns the entry, which the caller releases; nil until manifest and hash file are held.
func (s *share) use() *store.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.held.Load()
	if e != nil {
		e.Use()
	}
	return e
}

// letGo gives the entry back.
func (s *share) letGo() {
	s.mu.Lock()
	e, sums := s.held.Swap(nil), s.sums.Swap(nil)
	s.mu.Unlock()
	if sums != nil {
		sums.Close()
	}
	if e != nil {
		e.Release()
	}
}

// summed returns the sums of e, which are taken from now on if e is what the share fetches.
func (s *share) summed(e *store.Entry) *deliver.Sums {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e != s.held.Load() {
		return deliver.NewSums(e, s.a.parked)
	}
	if s.sums.Load() == nil {
		s.sums.Store(deliver.NewSums(e, s.a.parked))
	}
	return s.sums.Load()
}

// run owns the share until ctx ends.
func (s *share) run() {
	ctx := s.ctx
	defer s.end()
	s.begin()
	tick := time.NewTicker(s.tickInterval())
	defer tick.Stop()
	rest := time.NewTicker(s.a.resting)
	defer rest.Stop()
	for {
		var due <-chan time.Time // armed while something is open
		if s.active() {
			due = tick.C
		}
		select {
		case <-ctx.Done():
			return
		case <-s.box.ready:
			for _, event := range s.box.take() {
				event()
				s.perform()
			}
		case <-due:
			s.tick()
			s.perform()
		case <-rest.C:
			s.rest()
		}
		s.publish()
	}
}

// active reports whether time matters: a download is open or peers are being served.
func (s *share) active() bool {
	return !s.dormant && (s.brain == nil || !s.brain.Idle())
}

// rest lets the entry of a complete content go when nobody uses it, so that it may be
// evicted, and ends the share when it was.
func (s *share) rest() {
	switch {
	case s.dormant:
		e, err := s.a.store.Get(s.record().Manifest)
		if err == nil {
			e.Release()
			return
		}
		s.log.Info("no longer in the cache")
		if err := s.a.store.DeleteJob(s.ctx, s.recordKey()); err != nil {
			s.log.Warn("forgetting a content", "err", err)
		}
		s.a.retire(s)
	case !s.done() || len(s.live()) > 0 || s.a.callers(s) > 0:
		s.quiet = time.Time{}
	case s.quiet.IsZero():
		s.quiet = time.Now()
	case time.Since(s.quiet) >= s.a.resting:
		s.letGo()
		s.layout.Store(nil)
		s.brain, s.sources, s.links, s.stops, s.dormant = nil, nil, nil, map[int32]context.CancelFunc{}, true
	}
}

// wake takes the entry up again. When it was evicted, it is fetched again if a download
// wants it; else wake is false.
func (s *share) wake(wanted bool) bool {
	s.quiet = time.Time{}
	if !s.dormant {
		return true
	}
	e, err := s.a.store.Get(s.record().Manifest)
	if err != nil && !wanted {
		return false
	}
	s.dormant = false
	if err == nil {
		s.opened(e)
		return true
	}
	s.log.Info("no longer in the cache; it is fetched again")
	s.meta.begin(s.now())
	s.tryInline()
	s.kickJoin()
	return true
}

func (s *share) recordKey() string {
	r := s.record()
	return r.key()
}

// begin finds what is held already, and joins the array.
func (s *share) begin() {
	if e, err := s.a.store.Get(s.record().Manifest); err == nil {
		s.opened(e)
	} else {
		s.meta.begin(s.now())
		s.tryInline()
	}
	if s.peering.OK {
		s.a.spawn(func() { s.keepJoined(s.ctx) })
	} else {
		s.onLease(swarm.Mine)
	}
	s.perform()
	s.publish()
}

// end gives everything back. What is under way has the entry in use for itself.
func (s *share) end() {
	s.stop()
	s.box.close()
	for _, l := range s.links {
		if l != nil {
			l.conn.Close()
		}
	}
	for _, stop := range s.stops {
		stop()
	}
	s.endSimple()
	s.letGo()
	if s.unwanted.Load() {
		if err := s.keep(context.WithoutCancel(s.ctx), false); err != nil {
			s.log.Warn("keeping a record", "err", err)
		}
	}
	s.a.forget(s)
	close(s.ended)
}

// opened begins the swarm: manifest and hash file are held.
func (s *share) opened(e *store.Entry) {
	if n, err := s.a.store.Adopt(s.ctx, e); err != nil {
		s.log.Warn("taking pieces from other contents", "err", err)
	} else if n > 0 {
		s.log.Info("took pieces from other contents in the cache", "runs", n)
	}
	l := e.Layout()
	rec := s.record()
	for _, u := range rec.ContentURLs {
		s.sources = append(s.sources, fetch.New(s.a.http, u, s.grantHeader))
	}
	s.brain = swarm.New(swarm.Config{
		Seed: seed(), Runs: l.Runs(), Held: e.HeldRuns(),
		Lens:     func(r int) int { return l.Run(r).Len },
		Origins:  len(s.sources),
		OutAfter: s.outAfter(),
		Slots:    s.a.opt.Settings.UploadSlots(),
	})
	s.held.Store(e)
	s.layout.Store(l)
	s.acts = s.brain.OnLease(s.now(), s.mayLease(), s.acts)
	for _, k := range s.links {
		if k != nil {
			s.introduce(k)
		}
	}
	if s.brain.Left() == 0 {
		s.complete()
	}
}

// tickInterval is short for small content, which may not wait.
func (s *share) tickInterval() time.Duration {
	return min(swarm.TickInterval, s.early)
}

// outAfter is how long the brain waits for an array's word before it goes out by itself.
func (s *share) outAfter() time.Duration {
	if s.record().Size <= smallContent {
		return earlyOut
	}
	return 0
}

func (s *share) tick() {
	if s.facts.Load().Failed != nil {
		return
	}
	if s.brain == nil {
		s.tickMetadata()
		return
	}
	if s.delay > 0 && s.now() >= s.delay {
		s.delay = 0
		s.onLease(s.lease)
	}
	s.acts = s.brain.OnTick(s.now(), s.acts)
	if s.brain.Stranded() {
		s.fail(errors.New("no peer holds the missing pieces, and every origin holds other bytes than the manifest says; publish the content anew"))
	}
}

// fail notes that the download cannot go on. Without a caller the share ends; the next
// download begins anew.
func (s *share) fail(err error) {
	f := *s.facts.Load()
	if f.Failed != nil || s.ctx.Err() != nil {
		return
	}
	s.log.Warn("download failed", "err", err)
	f.Failed = err
	s.facts.Store(&f)
	s.news.ring()
	s.a.retire(s)
}

// publish lets other goroutines know how things stand.
func (s *share) publish() {
	old := s.facts.Load()
	f := facts{Left: s.record().Size, Lease: s.lease, Failed: old.Failed}
	if s.dormant {
		f.Left, f.Stats = 0, old.Stats
	}
	for _, l := range s.links {
		if l != nil {
			f.Peers++
		}
	}
	if s.brain != nil {
		f.Stats = s.brain.Stats()
		f.Stats.Bans, f.Stats.Sent = s.bans, s.toPeers
		f.Left = s.brain.Missing()
	}
	if !s.dormant {
		s.addSimple(&f)
	}
	if f.Left != old.Left {
		s.moved = s.now()
	}
	f.Stalled = f.Left > 0 && !s.meta.asking && (s.now()-s.moved >= stallTime || s.deserted())
	if f.Stalled && !old.Stalled {
		s.kickJoin()
	}
	f.Waits = s.waits(&f, old)
	if f != *old {
		s.facts.Store(&f)
		s.news.ring()
	}
}

// deserted reports whether none of the peers that the array named can be reached.
func (s *share) deserted() bool {
	return s.offered > 0 && len(s.dialing) == 0 && len(s.live()) == 0
}

// waits says why nothing arrives.
func (s *share) waits(f, old *facts) string {
	switch {
	case f.Left == 0 && (s.brain != nil || s.dormant):
		return ""
	case s.simple != nil:
		return s.simple.note
	case s.brain == nil:
		return s.meta.waits(s)
	case f.Stats.FromPeers+f.Stats.FromOrigin > old.Stats.FromPeers+old.Stats.FromOrigin:
		return ""
	case s.brain.GoingOut():
		return "waiting for the origin"
	case s.lease == swarm.Unknown:
		return "waiting for the array: no service answers"
	case f.Peers == 0:
		return "waiting for the device of this site that fetches: not connected to it yet"
	default:
		return fmt.Sprintf("waiting for pieces from %d peers", f.Peers)
	}
}

// complete is called when every run is held.
func (s *share) complete() {
	if err := s.keep(s.ctx, s.record().Wanted); err != nil {
		s.log.Warn("keeping the content's record", "err", err)
	}
	s.kickJoin()
}

func (s *share) kickJoin() {
	select {
	case s.rejoin <- struct{}{}:
	default:
	}
}

// onLease takes the array's word.
func (s *share) onLease(l swarm.Lease) {
	s.lease = l
	if s.brain != nil {
		s.acts = s.brain.OnLease(s.now(), s.mayLease(), s.acts)
	}
}

// mayLease is the lease as the brain sees it: not this device's before the delay before
// HTTP is over, which gives peers their time.
func (s *share) mayLease() swarm.Lease {
	if s.lease == swarm.Mine && s.now() < s.delay {
		return swarm.Other
	}
	return s.lease
}
