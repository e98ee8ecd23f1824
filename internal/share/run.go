package share

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"freshet/internal/fetch"
	"freshet/internal/store"
	"freshet/internal/swarm"
)

// ErrStranded says that nobody has the missing pieces any more. Perhaps the content was published
// anew meanwhile.
var ErrStranded = errors.New("no peer holds the missing pieces, and every origin holds other bytes than the manifest says; publish the content anew")

// Run owns the share until it is stopped.
func (s *Share) Run() {
	ctx := s.ctx
	defer s.end()
	s.begin()
	tick := time.NewTicker(s.tickInterval())
	defer tick.Stop()
	rest := time.NewTicker(s.dev.Resting)
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
func (s *Share) active() bool {
	return !s.dormant && (s.brain == nil || !s.brain.Idle())
}

// rest lets the entry of a complete content go when nobody uses it, so that it may be
// evicted, and ends the share when it was.
func (s *Share) rest() {
	switch {
	case s.dormant:
		s.endEvicted()
	case !s.done() || len(s.live()) > 0 || s.owner.Callers(s) > 0:
		s.quiet = time.Time{}
	case s.quiet.IsZero():
		s.quiet = time.Now()
	case time.Since(s.quiet) >= s.dev.Resting:
		s.letGo()
		s.layout.Store(nil)
		s.brain, s.sources, s.links, s.stops, s.dormant = nil, nil, nil, map[int32]context.CancelFunc{}, true
	}
}

// endEvicted ends a share that rests when its entry is not in the cache any more. A cache that
// cannot be read now says nothing about that.
func (s *Share) endEvicted() {
	rec := s.Record()
	switch has, err := s.dev.Store.Has(rec.Manifest); {
	case err != nil:
		s.log.Warn("looking for a content in the cache", "err", err)
		return
	case has:
		return
	}
	s.log.Info("no longer in the cache")
	if s.owner.Retire(s); !s.Stopped() {
		return // a download waits for it
	}
	if err := s.dev.Records.Forget(context.WithoutCancel(s.ctx), rec.Manifest); err != nil {
		s.log.Warn("forgetting a content", "err", err)
	}
}

// wake takes the entry up again. When it was evicted, it is fetched again if a download
// wants it; else wake is false, as it is when the entry cannot be opened now.
func (s *Share) wake(wanted bool) bool {
	s.quiet = time.Time{}
	if wanted {
		s.unrefuse()
	}
	if !s.dormant {
		return true
	}
	e, err := s.dev.Store.Get(s.Record().Manifest)
	switch {
	case err == nil:
		s.dormant = false
		s.opened(e)
		return true
	case !errors.Is(err, fs.ErrNotExist):
		s.log.Warn("opening a content in the cache", "err", err)
		if wanted {
			s.fail(err)
		}
		return false
	case !wanted:
		return false
	}
	s.dormant = false
	s.guard.allowed = false
	s.used.Store(false)
	s.log.Info("no longer in the cache; it is fetched again")
	s.wantMetadata()
	s.kickJoin()
	return true
}

// begin finds what is held already, and joins the array.
func (s *Share) begin() {
	s.addSources() // that one may be made ready
	e, err := s.dev.Store.Get(s.Record().Manifest)
	if err == nil {
		s.opened(e)
	} else {
		if !errors.Is(err, fs.ErrNotExist) { // the store tries again once there is metadata
			s.log.Warn("opening a content in the cache", "err", err)
		}
		s.wantMetadata()
	}
	if s.peering.OK {
		s.enter()
	} else {
		s.review()
	}
	s.perform()
	s.publish()
}

// end gives everything back. What is under way has the entry in use for itself.
func (s *Share) end() {
	s.stop()
	s.box.close()
	s.role.part.Leave()          // first: nobody is gone for this content
	for _, k := range s.live() { // what dropLink would do comes too late for the mailbox
		k.conn.Close()
		s.parted(k)
	}
	for _, stop := range s.stops {
		stop()
	}
	s.endDraft()
	s.letGo()
	if s.unwanted.Load() && s.guard.allowed {
		if err := s.Want(context.WithoutCancel(s.ctx), false); err != nil {
			s.log.Warn("keeping a record", "err", err)
		}
	}
	s.owner.Forget(s)
	close(s.ended)
}

// create makes the entry, which takes as long as the disk does: all its files get their room.
func (s *Share) create(manifest, hashes []byte) {
	s.owner.Spawn(func() {
		if s.ctx.Err() != nil {
			return // it would be nobody's
		}
		e, err := s.dev.Store.Create(s.ctx, manifest, hashes, []string{s.dev.Credentials.Name().Group})
		if err != nil {
			s.box.post(func() { s.fail(err) })
			return
		}
		taken := make(chan struct{})
		s.box.post(func() {
			close(taken)
			s.opened(e)
		})
		select {
		case <-taken:
		case <-s.ended:
		}
		select {
		case <-taken:
		default: // the share ended before
			e.Release()
		}
	})
}

// opening reports whether the entry is being made, or takes pieces from others.
func (s *Share) opening() bool { return s.brain == nil && s.meta == nil && !s.dormant }

// opened takes what other contents of the cache have of e, apart since it may be long, and then
// begins the swarm, which fetches nothing that is there already. Manifest and hash file are held.
func (s *Share) opened(e *store.Entry) {
	s.sought.Store(&Sought{Bytes: e.ManifestBytes(), Parsed: e.Manifest()})
	if e.Complete() {
		s.beginSwarm(e)
		return
	}
	s.taking = e
	e.Use()
	began := s.owner.Spawn(func() {
		defer e.Release()
		n, err := s.dev.Store.Adopt(s.ctx, e, s.dev.Credentials.Name().Group)
		if err != nil && s.ctx.Err() == nil {
			s.log.Warn("taking pieces from other contents", "err", err)
		} else if n > 0 {
			s.log.Info("took pieces from other contents in the cache", "runs", n)
		}
		s.box.post(func() {
			s.taking = nil
			s.beginSwarm(e)
		})
	})
	if !began {
		e.Release()
	}
}

// beginSwarm begins the swarm, and gives what is held.
func (s *Share) beginSwarm(e *store.Entry) {
	l := e.Layout()
	s.addSources()
	s.role.led = s.role.part != nil && s.dev.Subnet.Open()
	s.brain = swarm.New(swarm.Config{
		Seed: Seed(), Runs: l.Runs(), Held: e.HeldRuns(),
		Lens:     func(r int) int { return l.Run(r).Len },
		Origins:  len(s.sources),
		OutAfter: s.outAfter(),
		Slots:    s.dev.Settings.UploadSlots(),
		Led:      s.role.led,
	})
	s.held.Store(e)
	s.layout.Store(l)
	s.role.may = s.mayReach()
	s.acts = s.brain.OnReach(s.now(), s.role.may, s.acts)
	s.know()
	for _, k := range s.links {
		if k != nil {
			s.introduce(k)
		}
	}
	if s.brain.Left() == 0 {
		s.complete()
	}
}

// maxSources bounds the origins of a share, with those that Content Policy names no more.
const maxSources = 64

// addSources takes the origins that Content Policy named since.
func (s *Share) addSources() {
	for _, u := range s.Record().ContentURLs {
		known := slices.ContainsFunc(s.sources, func(o *fetch.Source) bool { return o.At(u) })
		if !known && len(s.sources) < maxSources {
			s.sources = append(s.sources, fetch.New(s.dev.HTTP, u, s.grantHeader))
		}
	}
}

// moreSources lets a swarm that has begun use them, and those that are named no more after all others.
func (s *Share) moreSources() {
	if s.brain == nil {
		return
	}
	s.addSources()
	urls, named := s.Record().ContentURLs, make([]bool, len(s.sources))
	for i, o := range s.sources {
		named[i] = slices.ContainsFunc(urls, o.At)
	}
	s.acts = s.brain.OnOrigins(s.now(), named, s.acts)
}

// tickInterval is short for small content, which may not wait.
func (s *Share) tickInterval() time.Duration {
	return min(swarm.TickInterval, s.early)
}

// outAfter is how long the brain waits for an array's word before it goes out by itself.
func (s *Share) outAfter() time.Duration {
	if s.Record().Size <= smallContent {
		return earlyOut
	}
	return 0
}

func (s *Share) tick() {
	if s.facts.Load().Failed != nil {
		return
	}
	s.feel()
	if s.brain == nil {
		s.review()
		if s.meta != nil && !s.guard.refused {
			s.seek(s.meta.OnTick(s.now(), s.around(), nil))
		}
		return
	}
	if s.delay > 0 && s.now() >= s.delay {
		s.delay = 0
		s.kickJoin()
	}
	s.review()
	s.acts = s.brain.OnTick(s.now(), s.acts)
	if s.brain.Stranded() {
		s.fail(ErrStranded)
	}
}

// fail notes that the download cannot go on. Without a caller the share ends; the next
// download begins anew.
func (s *Share) fail(err error) {
	f := *s.facts.Load()
	if f.Failed != nil || s.ctx.Err() != nil {
		return
	}
	s.log.Warn("download failed", "err", err)
	f.Failed = err
	s.facts.Store(&f)
	s.news.ring()
	s.owner.Retire(s)
}

// complete is called when every run is held.
func (s *Share) complete() {
	if err := s.dev.Records.Change(s.ctx, s.Record().Manifest, s.kept); err != nil {
		s.log.Warn("keeping the content's record", "err", err)
	}
	s.kickJoin()
}

func (s *Share) kickJoin() {
	select {
	case s.rejoin <- struct{}{}:
	default:
	}
}
