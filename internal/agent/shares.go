package agent

import (
	"context"
	"errors"
	"io/fs"

	"freshet/internal/content"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/wire"
)

// shareOf returns the share of these bytes, nil when there is none.
func (a *Agent) shareOf(hoh content.Digest) *share.Share {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shares[hoh]
}

var errNotRunning = errors.New("agent: it is not running")

// demand says on whose behalf a share is opened.
type demand struct {
	caller     bool // a download waits for it
	foreground bool // and somebody for that
	allowed    bool // the manifest was used before
}

// callers is how many downloads wait for a share, and how many of them somebody waits for.
type callers struct{ all, foreground int }

// open returns the share of rec's bytes, started when there was none. One that is ending is
// waited for: it may have ended for a reason that is gone. A download is its caller until it
// calls leave.
func (a *Agent) open(ctx context.Context, rec records.Record, want demand) (*share.Share, error) {
	for {
		s, ending, err := a.tryOpen(rec, want)
		if ending == nil {
			return s, err
		}
		select {
		case <-ending:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (a *Agent) tryOpen(rec records.Record, want demand) (s *share.Share, ending <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.ctx == nil {
		return nil, nil, errNotRunning
	}
	s = a.shares[rec.HashOfHashes]
	switch {
	case s == nil:
		s = share.New(a.ctx, &a.dev, daemon{a}, rec, want.foreground)
		if want.allowed {
			s.Allow()
		}
		if a.holds[rec.Manifest] {
			s.Hold(true)
		}
		a.shares[rec.HashOfHashes] = s
		a.spawnLocked(s.Run)
	case s.Facts().Failed != nil && a.calls[s].all == 0:
		s.Stop()
		return nil, s.Ended(), nil
	case s.Stopped():
		return nil, s.Ended(), nil
	case a.calls[s].all == 0 && a.outdated(s, rec):
		s.Stop()
		return nil, s.Ended(), nil
	default:
		s.Update(rec)
		if want.foreground {
			s.Hurry(true)
		}
	}
	if want.caller {
		c := a.calls[s]
		c.all++
		if want.foreground {
			c.foreground++
		}
		a.calls[s] = c
		s.Wake()
	}
	return s, nil, nil
}

// outdated reports whether a share that no download waits for must begin anew for a record: its
// manifest was turned down and this one is another, or it was to be alone and need not be any more.
func (a *Agent) outdated(s *share.Share, rec records.Record) bool {
	old := s.Record()
	if old.Manifest != rec.Manifest {
		return !s.Allowed() && s.Facts().Left > 0
	}
	return !old.Peerable && rec.Peerable
}

// abandonUnused ends a share whose manifest no download wants.
func (a *Agent) abandonUnused(s *share.Share) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls[s].all == 0 && !s.Allowed() {
		s.Abandon()
	}
}

// leave ends what open began for a download. A share whose last caller gave up before the
// content was complete ends: nobody wants it any more.
func (d *download) leave(s *share.Share, gaveUp bool) {
	a := d.a
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.calls[s]
	c.all--
	if d.req.Foreground {
		if c.foreground--; c.foreground == 0 {
			s.Hurry(false)
		}
	}
	if a.calls[s] = c; c.all > 0 {
		return
	}
	delete(a.calls, s)
	if gaveUp && a.ctx.Err() == nil && s.Facts().Left > 0 {
		s.Abandon()
	}
}

// leaveOut lets the shares that are meant have nothing to do with the devices that a download which
// takes bytes from them leaves out.
func (a *Agent) leaveOut(meant func(*share.Share) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.shares {
		if !meant(s) {
			continue
		}
		var out []wire.DeviceID
		for o := range a.downloads {
			if o.concerns(s) {
				o.mu.Lock()
				out = append(out, o.out...)
				o.mu.Unlock()
			}
		}
		s.LeaveOut(out)
	}
}

// concerns reports whether a share is of the download's content, or what it uses.
func (d *download) concerns(s *share.Share) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.share == s || s.Record().Ref == d.req.Ref
}

// daemon is the agent as shares see it.
type daemon struct{ a *Agent }

var _ share.Daemon = daemon{}

// Spawn implements share.Daemon.
func (d daemon) Spawn(f func()) bool { return d.a.spawn(f) }

// Callers implements share.Daemon.
func (d daemon) Callers(s *share.Share) int {
	d.a.mu.Lock()
	defer d.a.mu.Unlock()
	return d.a.calls[s].all
}

// Retire implements share.Daemon.
func (d daemon) Retire(s *share.Share) {
	d.a.mu.Lock()
	defer d.a.mu.Unlock()
	if d.a.calls[s].all == 0 {
		s.Stop()
	}
}

// Forget implements share.Daemon.
func (d daemon) Forget(s *share.Share) {
	d.a.mu.Lock()
	defer d.a.mu.Unlock()
	if d.a.shares[s.HashOfHashes()] == s {
		delete(d.a.shares, s.HashOfHashes())
	}
}

// resume opens a share for everything that was downloaded, or begun, before. What cannot be opened
// keeps no other from it.
func (a *Agent) resume(ctx context.Context) error {
	recs, err := a.dev.Records.All(ctx)
	if err != nil {
		return err
	}
	if err := a.sweepDrafts(recs); err != nil {
		a.log.Warn("removing drafts", "err", err)
	}
	for _, rec := range recs {
		if err := a.resumeOne(ctx, rec); err != nil && ctx.Err() == nil {
			a.log.Warn("a content is not served", "content", rec.Ref.String(), "manifest", rec.Manifest.Short(), "err", err)
		}
	}
	return nil
}

// resumeOne opens the share of a record, and forgets what is neither there nor wanted.
func (a *Agent) resumeOne(ctx context.Context, rec records.Record) error {
	e, err := a.dev.Store.Get(rec.Manifest)
	switch {
	case err == nil:
		e.Release()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !rec.Wanted:
		return a.dev.Records.Forget(ctx, rec.Manifest)
	}
	_, err = a.open(ctx, rec, demand{allowed: true})
	return err
}

// sweepDrafts removes what simple mode brought of contents that nobody wants any more.
func (a *Agent) sweepDrafts(recs []records.Record) error {
	wanted := map[content.Digest]bool{}
	for _, r := range recs {
		wanted[r.Manifest] = r.Wanted
	}
	for _, d := range a.dev.Store.Drafts() {
		if wanted[d] {
			continue
		}
		if err := a.dev.Store.RemoveDraft(d); err != nil {
			return err
		}
	}
	return nil
}
