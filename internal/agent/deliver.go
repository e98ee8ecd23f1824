package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/guard"
	"freshet/internal/store"
)

// deliver stages the files as they become complete, and places them when the guard agrees.
func (d *download) deliver(ctx context.Context) error {
	e, err := d.held(ctx)
	if err != nil {
		return err
	}
	defer e.Release()
	d.before = e.HeldBytes() - d.gained()
	order := deliver.Order{Entry: e, Dest: d.req.Dest, Owner: d.req.Owner}
	if d.expects || d.sha1 || !d.req.NoCheck && d.a.opt.Settings.WholeFileCheck() {
		order.Sums = d.share.Sums(e, d.sha1)
	}
	p, err := d.a.stages.Begin(order)
	if err != nil {
		return err
	}
	defer p.Close()
	for i := range e.Manifest().Files {
		if err := p.File(i, func(run int) error { return d.waitFor(ctx, e, run) }); err != nil {
			return err
		}
		d.tell(false)
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	if err := d.agreed(ctx, p.SHA1s()); err != nil {
		return err
	}
	return d.place(ctx, e, p)
}

// agreed asks the guard whether the files, with these SHA-1s, may be delivered.
func (d *download) agreed(ctx context.Context, sha1s []content.SHA1) error {
	if err := d.meet(ctx); err != nil {
		return err
	}
	d.phase = "checking"
	d.job.Done(sha1s)
	for {
		o, err := d.order(ctx)
		switch {
		case err != nil:
			return err
		case o.Kind == guard.Deliver:
			return nil
		case overrules(o):
			d.orders.giveBack(o)
			return errOverruled
		}
	}
}

// place makes everything durable and gives the files their names.
func (d *download) place(ctx context.Context, e *store.Entry, p *deliver.Placement) (err error) {
	d.phase = "placing"
	d.tell(true)
	if err := e.Sync(ctx); err != nil {
		return fmt.Errorf("agent: making %s durable: %w", d.req.Ref, err)
	}
	if d.files, err = p.Finish(); err != nil {
		return err
	}
	if err := d.keep(ctx, false); err != nil { // the files are there: it is done all the same
		d.a.log.Warn("noting that a download is over", "content", d.rec.Ref.String(), "err", err)
	}
	d.phase = "done"
	d.tell(true)
	return nil
}

// gained returns the bytes that the share got since the download began.
func (d *download) gained() int64 {
	s := d.share.Facts().Stats
	return max(0, s.FromPeers+s.FromOrigin-d.base.FromPeers-d.base.FromOrigin)
}

// settle waits until the share has booked every run: the store holds one a moment before the
// share hears of it, and the figures of a finished download are final.
func (d *download) settle(ctx context.Context) error {
	for {
		next := d.share.News()
		if d.share.Facts().Left == 0 {
			return nil
		}
		if err := d.pause(ctx, next); err != nil {
			return err
		}
	}
}

// note saves that the content is wanted. Without room for that what is held can be had all the
// same, and what is not held is refused for want of room anyway.
func (d *download) note(ctx context.Context) error {
	err := d.keep(ctx, true)
	if store.IsFull(err) {
		d.a.log.Warn("noting that a download begins", "content", d.rec.Ref.String(), "err", err)
		return nil
	}
	return err
}

// keep saves whether the content is wanted, for a start after a crash.
func (d *download) keep(ctx context.Context, wanted bool) error {
	if err := d.share.Want(ctx, wanted); err != nil || d.share.Record().Manifest == d.rec.Manifest {
		return err
	}
	rec := d.rec
	rec.Wanted = wanted
	return d.a.dev.Records.Keep(ctx, rec)
}

// held waits for the entry. The caller releases it.
func (d *download) held(ctx context.Context) (*store.Entry, error) {
	for {
		next := d.share.News()
		if e := d.share.Use(); e != nil {
			if e.Digest() == d.rec.Manifest {
				return e, nil
			}
			defer e.Release()
			return d.renamed(ctx, e)
		}
		if err := d.pause(ctx, next); err != nil {
			return nil, err
		}
	}
}

// renamed makes the entry of a content that has the bytes of e under other names: the share's
// swarm brings the bytes, the manifest is the content's own.
func (d *download) renamed(ctx context.Context, e *store.Entry) (*store.Entry, error) {
	for run := range e.Layout().Runs() {
		if err := d.waitFor(ctx, e, run); err != nil {
			return nil, err
		}
	}
	group := d.a.opt.Credentials.Name().Group
	other, err := d.a.dev.Store.Create(ctx, d.own, e.HashFileRaw(), []string{group})
	if err != nil {
		return nil, err
	}
	if _, err = d.a.dev.Store.Adopt(ctx, other, group); err == nil && !other.Complete() {
		err = fmt.Errorf("agent: %s: the same bytes under other names were damaged in the cache; ask again", d.req.Ref)
	}
	if err != nil {
		other.Release()
		return nil, err
	}
	return other, nil
}

// waitFor waits until a run is held, and hashed not long ago: bits rot in caches. A run found
// wrong is fetched again.
func (d *download) waitFor(ctx context.Context, e *store.Entry, run int) error {
	for {
		next := d.share.News()
		if e.Held(run) {
			err := e.Read(run, 0, 0, nil)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, store.ErrCorrupt) && e.Digest() != d.share.Record().Manifest: // a namesake
				if _, err := d.a.dev.Store.Adopt(ctx, e, d.a.opt.Credentials.Name().Group); err != nil {
					return err
				}
			case errors.Is(err, store.ErrCorrupt):
				d.share.Damaged(run)
			case !errors.Is(err, store.ErrNotHeld):
				return err
			}
		}
		if err := d.pause(ctx, next); err != nil {
			return err
		}
	}
}

// errShareEnded says that the share ended though the agent does not.
var errShareEnded = errors.New("the share has ended")

// pause waits for news, tells of progress, and ends with the share.
func (d *download) pause(ctx context.Context, next <-chan struct{}) error {
	if err := d.share.Facts().Failed; err != nil {
		return fmt.Errorf("agent: %s: %w", d.req.Ref, err)
	}
	d.tell(false)
	d.nameSome()
	t := time.NewTimer(progressEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-next:
	case <-t.C:
	case <-d.share.Ended():
		switch err := d.share.Facts().Failed; {
		case err != nil:
			return fmt.Errorf("agent: %s: %w", d.req.Ref, err)
		case d.a.ctx.Err() != nil:
			return fmt.Errorf("agent: %s: %w", d.req.Ref, ErrStopping)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return errShareEnded
	}
	return nil
}
