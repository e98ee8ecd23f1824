package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"freshet/internal/content"
	"freshet/internal/guard"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/wire"
)

const (
	meetTime    = time.Second            // for the array to name those who hold a manifest that was turned down
	connectTime = 250 * time.Millisecond // for connections to them
	lingerTime  = 2 * time.Second        // for the last words to them
	heedTime    = 10 * time.Second       // in which they are to stop; then nobody looks any more
	nameEvery   = 3 * time.Second        // who goes on is named again
)

// errOverruled says that the guard wants something else than what was under way.
var errOverruled = errors.New("the guard decided otherwise")

// orders are what the guard wants of a download.
type orders struct {
	mu    sync.Mutex // guards the following
	queue []guard.Order
	stop  context.CancelCauseFunc // ends what is under way; nil: nothing is
	ready chan struct{}           // capacity 1: there may be orders
}

// put adds an order. What is under way ends, unless the order goes with it.
func (q *orders) put(o guard.Order) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, o)
	if q.stop != nil && overrules(o) {
		q.stop(errOverruled)
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// overrules reports whether an order ends what is under way: a Use goes with the Seek before it,
// and a Deliver with the Use.
func overrules(o guard.Order) bool { return o.Kind != guard.Use && o.Kind != guard.Deliver }

// take returns the next order.
func (q *orders) take() (guard.Order, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return guard.Order{}, false
	}
	o := q.queue[0]
	q.queue = q.queue[1:]
	return o, true
}

// giveBack puts an order in front of all others.
func (q *orders) giveBack(o guard.Order) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = slices.Insert(q.queue, 0, o)
}

// stage returns the context of something that orders may end.
func (q *orders) stage(ctx context.Context) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stop = stop
	if slices.ContainsFunc(q.queue, overrules) {
		stop(errOverruled)
	}
	return ctx, func() {
		q.mu.Lock()
		q.stop = nil
		q.mu.Unlock()
		stop(nil)
	}
}

// Do implements guard.Download. What concerns other devices is done at once; the rest waits for
// the download.
func (d *download) Do(o guard.Order) {
	switch o.Kind {
	case guard.Tell:
		d.tellPeer(o.Device, o.Hint)
	case guard.LeaveOut:
		d.mu.Lock()
		d.out = append(d.out, o.Device)
		d.mu.Unlock()
		d.a.leaveOut(d.concerns)
	case guard.Readmit:
		d.readmit()
	default:
		d.orders.put(o)
	}
}

// run carries out what the guard wants, until the files are delivered.
func (d *download) run(ctx context.Context) error {
	for {
		o, err := d.order(ctx)
		if err != nil {
			return err
		}
		switch err := d.carryOut(ctx, o); {
		case err == nil && d.phase == "done":
			return nil
		case err != nil && !errors.Is(err, errOverruled):
			return err
		}
	}
}

// order waits for the next order, and tells of progress meanwhile.
func (d *download) order(ctx context.Context) (guard.Order, error) {
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	for {
		if o, ok := d.orders.take(); ok {
			return o, nil
		}
		select {
		case <-d.orders.ready:
		case <-t.C:
			d.tell(false)
		case <-d.a.ctx.Done():
			return guard.Order{}, fmt.Errorf("agent: %s: %w", d.req.Ref, ErrStopping)
		case <-ctx.Done():
			return guard.Order{}, context.Cause(ctx)
		}
	}
}

// carryOut does what the guard wants. The error is errOverruled when it wants something else
// before that is done.
func (d *download) carryOut(ctx context.Context, o guard.Order) (err error) {
	stage, end := d.orders.stage(ctx)
	defer end()
	defer func() {
		if err != nil && errors.Is(context.Cause(stage), errOverruled) {
			err = errOverruled
		}
	}()
	switch o.Kind {
	case guard.Ask:
		d.wait(o.Text())
	case guard.Wait:
		d.wait(o.Text())
		d.drop()
		d.part()
		d.giveTurn()
	case guard.Seek:
		return d.seek(stage, o)
	case guard.Use:
		d.used, d.expects, d.sha1 = time.Now(), o.Expects, o.SHA1
		if o.Expects || len(d.dropped) > 0 {
			d.seekHolders()
		}
		return d.use(stage)
	case guard.Drop:
		d.drop()
	case guard.Fail:
		return o.Err
	}
	return nil
}

// wait shows why there is nothing to do.
func (d *download) wait(why string) {
	d.mu.Lock()
	d.waits = why
	d.mu.Unlock()
	d.phase = "waiting"
	d.tell(true)
}

// seek gets the manifest of an order, and shows it to the guard.
func (d *download) seek(ctx context.Context, o guard.Order) error {
	if err := d.takeTurn(ctx); err != nil {
		return err
	}
	o.Record.Wanted, o.Record.Askers = true, d.req.asker()
	d.mu.Lock()
	d.rec, d.waits = o.Record, ""
	d.mu.Unlock()
	d.phase = "downloading"
	for {
		if err := d.open(ctx); err != nil {
			return err
		}
		m, err := d.manifest(ctx)
		if errors.Is(err, errShareEnded) {
			continue
		}
		if err != nil {
			return err
		}
		d.knows()
		d.job.Found(o, m.Bytes, m.Parsed)
		return nil
	}
}

// open opens the share of what is sought, and leaves another one.
func (d *download) open(ctx context.Context) error {
	s, err := d.a.open(ctx, d.rec, demand{caller: true, foreground: d.req.Foreground})
	if err != nil {
		return err
	}
	d.base = s.Facts().Stats
	if old := d.share; old != nil {
		d.leave(old, old != s && !old.Allowed())
	}
	d.setShare(s)
	return nil
}

// manifest waits for the manifest of what is sought. The share may be of another one with the
// same bytes: then it is got besides.
func (d *download) manifest(ctx context.Context) (*share.Sought, error) {
	d.own = nil
	if d.share.Record().Manifest != d.rec.Manifest {
		return d.namesake(ctx)
	}
	for {
		next := d.share.News()
		if m := d.share.Sought(); m != nil {
			return m, nil
		}
		if err := d.pause(ctx, next); err != nil {
			return nil, err
		}
	}
}

// namesake gets the manifest of a content that has the share's bytes under other names.
func (d *download) namesake(ctx context.Context) (*share.Sought, error) {
	raw := d.rec.Inline
	if e, err := d.a.dev.Store.Get(d.rec.Manifest); err == nil {
		raw = e.ManifestBytes()
		e.Release()
	}
	if raw == nil {
		var err error
		if raw, err = share.FetchManifest(ctx, d.a.opt.Client, d.rec); err != nil {
			return nil, err
		}
	}
	if content.DigestOf(raw) != d.rec.Manifest {
		return nil, fmt.Errorf("agent: %s: the manifest is not the one that Content Policy says", d.req.Ref)
	}
	parsed, err := content.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("agent: %s: %w", d.req.Ref, err)
	}
	d.own = raw
	return &share.Sought{Bytes: raw, Parsed: parsed}, nil
}

// use brings the files, checked, to where they are wanted. A share that ends for reasons of its
// own, such as another content with the same bytes that was retired, is opened again.
func (d *download) use(ctx context.Context) error {
	for {
		if d.own == nil {
			d.share.Allow()
		}
		err := d.note(ctx)
		if err == nil {
			d.base = d.share.Facts().Stats
			err = d.deliver(ctx)
		}
		if errors.Is(err, share.ErrStranded) {
			err = d.recheck(ctx, err)
		}
		if !errors.Is(err, errShareEnded) {
			return err
		}
		if err := d.open(ctx); err != nil {
			return err
		}
		if _, err := d.manifest(ctx); err != nil && !errors.Is(err, errShareEnded) {
			return err
		}
	}
}

// recheck asks whether the content was published anew when nobody has its bytes any more. Then
// the guard wants something else; if not, that was the end.
func (d *download) recheck(ctx context.Context, failed error) error {
	d.job.Recheck(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return failed
}

// readmit lets devices in again that the download left out.
func (d *download) readmit() {
	d.mu.Lock()
	out := d.out
	d.out = nil
	d.mu.Unlock()
	if len(out) > 0 {
		d.a.leaveOut(d.concerns)
	}
}

// shares returns the shares of the download's content: its own, and those of other manifests.
func (d *download) shares() []*share.Share { return d.a.sharesOf(d.req.Ref) }

// tellPeer sends Validate Metadata over whichever share's connection there is.
func (d *download) tellPeer(device wire.DeviceID, v wire.Validate) {
	gone := func() { d.a.spawn(func() { d.job.PeerGone(device) }) }
	for _, s := range d.shares() {
		if slices.Contains(s.Present(), device) {
			s.Validate(device, v, gone)
			return
		}
	}
	gone()
}

// nameSome is name, at most every progressEvery: it looks through all shares of the device.
func (d *download) nameSome() {
	if time.Since(d.looked) >= progressEvery {
		d.name()
	}
}

// name tells the guard which devices are connected for this content, and which of them have
// another manifest of it than the one in use.
func (d *download) name() {
	d.looked = time.Now()
	if !d.used.IsZero() && time.Since(d.used) > heedTime {
		d.part()
	}
	for _, s := range d.shares() {
		rec := s.Record()
		for _, device := range s.Present() {
			key := named{device, rec.Manifest}
			if at, ok := d.named[key]; ok && time.Since(at) < nameEvery {
				continue
			}
			if d.named == nil {
				d.named = map[named]time.Time{}
			}
			d.named[key] = time.Now()
			d.job.Peer(device)
			if rec.Manifest != d.rec.Manifest {
				d.job.Named(device, rec.Manifest, uint64(max(rec.Generation, 0)))
			}
		}
	}
}

// named is a device with a manifest that it has.
type named struct {
	device   wire.DeviceID
	manifest content.Digest
}

// dropped is a share whose manifest the guard turned down.
type dropped struct {
	share *share.Share
	since time.Time
}

// drop gives up the share. One whose manifest was never used stays for a while: those who hold
// it are to hear that it is stale.
func (d *download) drop() {
	s := d.share
	if s == nil {
		return
	}
	d.setShare(nil)
	if s.Allowed() {
		d.leave(s, true)
		return
	}
	s.Refuse()
	d.leave(s, false)
	d.dropped = append(d.dropped, dropped{s, time.Now()})
}

// seekHolders asks the subnet who has another issue of the content: where the metadata of a
// management system decides, or a manifest was turned down, those are to hear that theirs is stale.
// It asks by name: by the MetadataHash only those would answer who hold the right one.
func (d *download) seekHolders() {
	if d.sought != nil {
		return
	}
	done, a, job := make(chan struct{}), d.a, d.job
	d.sought = done
	subject := wire.Subject{By: wire.ByRef, Ref: d.req.Ref}
	a.spawn(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(a.ctx, holderPatience)
		defer cancel()
		holders, err := a.dev.Subnet.Seek(ctx, subject, wire.Background)
		if err != nil {
			a.dev.Subnet.Sought(subject)
			return
		}
		for _, h := range holders {
			job.Named(h.Device, h.Manifest, uint64(max(h.Generation, 0)))
		}
	})
}

// meet waits until the holders of what was turned down could be met and told.
func (d *download) meet(ctx context.Context) error {
	if d.sought != nil {
		select {
		case <-d.sought:
		case <-time.After(meetTime):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, x := range d.dropped {
		end, heard := x.since.Add(meetTime), false
		for !x.share.Alone() && !x.share.Stopped() && time.Now().Before(end) {
			if !heard && x.share.Heard() {
				heard, end = true, earlier(end, time.Now().Add(connectTime))
			}
			d.name()
			select {
			case <-x.share.News():
			case <-time.After(progressEvery):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	d.name()
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// part ends what is left of shares that were turned down, when the last words have gone out.
func (d *download) part() {
	if len(d.dropped) == 0 {
		return
	}
	list, a := d.dropped, d.a
	d.dropped = nil
	a.spawn(func() {
		t := time.NewTimer(lingerTime)
		defer t.Stop()
		select {
		case <-t.C:
		case <-a.ctx.Done():
		}
		for _, x := range list {
			a.abandonUnused(x.share)
		}
	})
}

// setShare sets what the download takes bytes from. For the share that it was before it leaves out
// nobody any more.
func (d *download) setShare(s *share.Share) {
	d.mu.Lock()
	old := d.share
	d.share = s
	d.mu.Unlock()
	d.a.leaveOut(func(x *share.Share) bool { return x == old || d.concerns(x) })
}

// state returns what is sought or used, and why nothing can be done.
func (d *download) state() (rec records.Record, waits string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rec, d.waits
}
