package agent

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/guard"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

const (
	lookEvery   = 15 * time.Second       // at files with expected metadata
	lookSystem  = 5 * time.Minute        // at the management client, which costs a process
	retirePause = 100 * time.Millisecond // while somebody reads an entry that is to go
	retireAgain = time.Minute            // after an error
)

// newGuard makes the guard over the agent's cache, and lets it hear of hints on the subnet.
func (a *Agent) newGuard(ctx context.Context) (*guard.Guard, error) {
	s := a.opt.Settings
	mode, err := freshness.ParseMode(s.MetadataValidation())
	if err != nil {
		return nil, err
	}
	match, err := content.ParseMatch(s.MetadataMatch())
	if err != nil {
		return nil, err
	}
	provider, look := a.provider(ctx)
	cache := &guard.Cache{Store: a.dev.Store, Records: a.dev.Records, Leads: a.leads, SumsDir: filepath.Join(a.opt.State, "sums"), Log: a.log}
	if err := cache.Tidy(ctx); err != nil {
		a.log.Warn("sums of the cache", "err", err)
	}
	g := guard.New(guard.Options{
		File: filepath.Join(a.opt.State, "freshness.json"), Mode: mode, Match: match,
		Group: a.opt.Credentials.Name().Group, Seed: share.Seed(), Publishers: identity.PublishersOf(s),
		Trust: a.opt.Credentials.OriginTrust, Now: a.opt.Client.Now, Services: a.opt.Client,
		Provider: provider, Look: look, Shelf: cache, Device: keeper{a}, Log: a.log,
	})
	a.dev.Subnet.OnHint(func(h subnet.Hint) { g.Hint(h.From, h.Validate, nil) })
	return g, nil
}

// theGuard returns the guard, nil before Run.
func (a *Agent) theGuard() *guard.Guard {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.guard
}

// provider returns who knows what files must be: the directory of the settings, and the
// management client of this device where there is one.
func (a *Agent) provider(ctx context.Context) (guard.Provider, time.Duration) {
	var all expected.Several
	if dir := a.opt.Settings.MetadataDirectory(); dir != "" {
		all = append(all, expected.NewFiles(dir))
	}
	if runtime.GOOS != "windows" || a.opt.Settings.MetadataValidation() == freshness.Off.String() {
		return all, a.look
	}
	client := expected.NewCCM(expected.SystemRows)
	a.spawn(func() { client.Await(ctx, a.log) })
	return append(all, client), lookSystem
}

// leads reports whether others wait for what this device fetches now: it keeps its place while a
// check lasts, for a time that is package freshness's.
func (a *Agent) leads(digest content.Digest) bool {
	s := a.shareFor(digest)
	if s == nil {
		return false
	}
	f := s.Facts()
	return (f.Reach == swarm.ReachAll || f.Role == subnet.Leading) && f.Left > 0
}

// shareFor returns the share whose manifest this is, nil when there is none.
func (a *Agent) shareFor(digest content.Digest) *share.Share {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.shares {
		if s.Record().Manifest == digest {
			return s
		}
	}
	return nil
}

// sharesOf returns the shares of a content, whatever their manifests.
func (a *Agent) sharesOf(ref content.Ref) []*share.Share {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*share.Share
	for _, s := range a.shares {
		if s.Record().Ref == ref {
			all = append(all, s)
		}
	}
	return all
}

// keeper is the agent as the guard sees it.
type keeper struct{ a *Agent }

var _ guard.Device = keeper{}

// Hold implements guard.Device.
func (k keeper) Hold(digest content.Digest, on bool) {
	k.a.mu.Lock()
	if on {
		k.a.holds[digest] = true
	} else {
		delete(k.a.holds, digest)
		if off := k.a.retiring[digest]; off != nil {
			off()
			delete(k.a.retiring, digest)
		}
	}
	k.a.mu.Unlock()
	if s := k.a.shareFor(digest); s != nil {
		s.Hold(on)
	}
}

// Retire implements guard.Device.
func (k keeper) Retire(ref content.Ref, digest content.Digest, stock time.Duration) {
	k.Hold(digest, true)
	a := k.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.retiring[digest] != nil {
		return // it goes on until it is done, or taken back
	}
	ctx, off := context.WithCancel(a.ctx)
	a.retiring[digest] = off
	a.spawnLocked(func() { a.retireUntil(ctx, ref, digest, stock) })
}

// retireUntil tries to retire an entry until it is gone, of which the guard hears. When ctx ends
// before, the entry is taken up again.
func (a *Agent) retireUntil(ctx context.Context, ref content.Ref, digest content.Digest, stock time.Duration) {
	select {
	case <-a.resumed: // else the entry's share may be opened behind its end
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		err := a.retire(ctx, digest, stock)
		if err == nil {
			a.theGuard().Gone(ref, digest)
			return
		}
		pause := retirePause
		if !errors.Is(err, store.ErrInUse) && ctx.Err() == nil {
			pause = retireAgain
			a.log.Warn("retiring a stale content", "content", ref.String(), "manifest", digest.Short(), "err", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if err := a.takeUp(digest); err != nil && a.ctx.Err() == nil {
		a.log.Warn("a content that is not to go is not served", "content", ref.String(), "manifest", digest.Short(), "err", err)
	}
}

// retire ends the share of a manifest, and takes the entry's name and record away. The error is
// store.ErrInUse while somebody reads it. Other contents with the same bytes are served again.
//
// The record goes last: by it the entry is taken up again when it is not to go after all, and a try
// after an error or a crash knows the bytes. The guard asks for that try.
func (a *Agent) retire(ctx context.Context, digest content.Digest, stock time.Duration) error {
	a.turnover.Lock()
	defer a.turnover.Unlock()
	hoh, err := a.bytesOf(digest)
	if err != nil {
		return err
	}
	if s := a.shareFor(digest); s != nil {
		s.Stop()
		<-s.Ended()
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := a.dev.Store.Retire(ctx, digest, stock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, a.reopen(hoh, digest))
	}
	if err := a.reopen(hoh, digest); err != nil {
		return err
	}
	return a.dev.Records.Forget(a.ctx, digest)
}

// bytesOf returns the HashOfHashes of a manifest as its share or its record has it; zero when there
// is neither.
func (a *Agent) bytesOf(digest content.Digest) (content.Digest, error) {
	if s := a.shareFor(digest); s != nil {
		return s.HashOfHashes(), nil
	}
	rec, err := a.dev.Records.Get(a.ctx, digest)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return rec.HashOfHashes, err
}

// reopen opens the share of bytes again that another content than the one of a manifest has.
func (a *Agent) reopen(hoh, but content.Digest) error {
	recs, err := a.dev.Records.All(a.ctx)
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if rec.HashOfHashes != hoh || rec.Manifest == but {
			continue
		}
		if _, err := a.open(a.ctx, rec, demand{allowed: true}); err != nil {
			return err
		}
	}
	return nil
}

// takeUp opens the share of an entry that was to go and is not any more.
func (a *Agent) takeUp(digest content.Digest) error {
	a.turnover.Lock()
	defer a.turnover.Unlock()
	rec, err := a.dev.Records.Get(a.ctx, digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went before
	}
	if err != nil {
		return err
	}
	return a.resumeOne(a.ctx, rec)
}

// Confirm implements guard.Device.
func (k keeper) Confirm(rec records.Record) {
	a := k.a
	if s := a.shareFor(rec.Manifest); s != nil {
		s.Update(rec)
	}
	a.spawn(func() {
		err := a.dev.Records.Change(a.ctx, rec.Manifest, func(old *records.Record) bool {
			if old.Manifest.IsZero() || len(old.Grant) > 0 && old.Generation >= rec.Generation {
				return false
			}
			*old = old.Renewed(rec)
			return true
		})
		if err != nil {
			a.log.Warn("keeping a record", "content", rec.Ref.String(), "err", err)
		}
	})
}

// Broadcast implements guard.Device.
func (k keeper) Broadcast(v wire.Validate) { k.a.dev.Subnet.SendHint(v) }
