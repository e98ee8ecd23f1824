package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/jobs"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/store"
	"freshet/internal/swarm"
)

// Request is one caller's wish.
type Request struct {
	Ref        content.Ref
	URL        string        // normal; asked for instead of Ref when it is set
	Dest       *os.Root      // where the files go; nil: into the cache alone
	Owner      deliver.Owner // of the files
	Foreground bool          // somebody waits for it
	NoCheck    bool          // leave the check to the pieces, whose HashOfHashes was authenticated
}

// String names what is asked for, for people.
func (r Request) String() string {
	if r.URL != "" {
		return api.ShownURL(r.URL)
	}
	return r.Ref.String()
}

// asker says whose wish it is.
func (r Request) asker() records.Askers {
	a := records.Askers{Users: []int{r.Owner.UID}}
	if r.URL != "" {
		a.URLs = []string{r.URL}
	}
	return a
}

// ask asks Content Policy.
func (a *Agent) ask(ctx context.Context, req Request) (*api.ContentPolicy, error) {
	if req.URL != "" {
		return a.opt.Client.ContentPolicyByURL(ctx, req.URL)
	}
	return a.opt.Client.ContentPolicy(ctx, req.Ref)
}

// ErrStopping says that the agent stops: another try, when it runs again, goes on.
var ErrStopping = errors.New("the agent is stopping")

// Progress tells how a download stands. Bytes of pieces, not of protocols.
type Progress struct {
	Ref        string  `json:"content"`
	Manifest   string  `json:"manifestDigest"`
	Size       int64   `json:"size"`
	Held       int64   `json:"held"`       // bytes verified and on disk
	FromPeers  int64   `json:"fromPeers"`  // bytes of this download
	FromOrigin int64   `json:"fromOrigin"` // bytes of this download
	FromCache  int64   `json:"fromCache"`  // bytes held before
	Peers      int     `json:"peers"`      // connected
	Phase      string  `json:"phase"`      // downloading, checking, placing, done
	Waits      string  `json:"waits,omitempty"`
	Simple     string  `json:"simpleMode,omitempty"` // why it comes, or came, from origins alone
	Seconds    float64 `json:"seconds"`
	Files      int     `json:"files,omitempty"` // placed, when done
	Lease      bool    `json:"lease,omitempty"` // this device fetches for its site
}

// progressEvery is how often a caller hears of progress at most.
const progressEvery = 100 * time.Millisecond

// Download gets a content, and places its files in req.Dest once each of them is checked
// and everything is durable. report is called now and then, and with the last state before
// Download returns without an error. It may be called again after any error: what is in
// the cache is not fetched again.
func (a *Agent) Download(ctx context.Context, req Request, report func(Progress)) error {
	d := &download{a: a, req: req, report: report, started: time.Now()}
	end, err := a.turn(ctx, req.Foreground)
	if err != nil {
		return err
	}
	defer end()
	rec, err := a.policy(ctx, req)
	if err != nil {
		return err
	}
	d.req.Ref = rec.Ref
	if d.share, err = a.open(ctx, rec, demand{callers: 1, foreground: req.Foreground}); err != nil {
		return err
	}
	d.rec = rec
	if err = d.note(ctx); err == nil {
		err = d.run(ctx)
	}
	a.leave(d.share, err != nil)
	a.tell(rec, d, err)
	return err
}

// turn waits until a download may run. end lets the next one run.
func (a *Agent) turn(ctx context.Context, foreground bool) (end func(), err error) {
	ready := make(chan struct{})
	a.mu.Lock()
	a.lastID++
	id := a.lastID
	a.start[id] = ready
	a.startLocked(a.queue.OnAdd(id, foreground, nil))
	a.mu.Unlock()
	end = func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.start, id)
		a.startLocked(a.queue.OnEnd(id, nil))
	}
	select {
	case <-ready:
		return end, nil
	case <-ctx.Done():
		end()
		return nil, context.Cause(ctx)
	}
}

func (a *Agent) startLocked(ids []jobs.ID) {
	for _, id := range ids {
		close(a.start[id])
	}
}

// policy asks Content Policy; when it does not answer, what it said last is good enough.
func (a *Agent) policy(ctx context.Context, req Request) (records.Record, error) {
	p, err := a.ask(ctx, req)
	if err == nil {
		rec, err := records.Of(p)
		rec.Wanted, rec.Askers = true, req.asker()
		return rec, err
	}
	if errors.Is(err, client.ErrUnreachable) {
		if rec, ok := a.dev.Records.Find(ctx, req.Ref, req.URL); ok {
			a.log.Warn("Content Policy does not answer; going on with what it said last", "content", rec.Ref.String())
			rec.Wanted, rec.Askers = true, req.asker()
			return rec, nil
		}
		err = fmt.Errorf("agent: %s is not known here, and nobody can be asked: %w", req, err)
	}
	return records.Record{}, err
}

// download is one Request under way.
type download struct {
	a       *Agent
	req     Request
	report  func(Progress)
	share   *share.Share
	rec     records.Record // what Content Policy said
	started time.Time
	before  int64 // bytes that were held at the beginning
	base    swarm.Stats
	phase   string
	files   int
	last    time.Time
}

func (d *download) run(ctx context.Context) error {
	d.phase = "downloading"
	d.base = d.share.Facts().Stats
	e, err := d.entry(ctx)
	if err != nil {
		return err
	}
	defer e.Release()
	d.before = e.HeldBytes() - d.gained()
	order := deliver.Order{Entry: e, Dest: d.req.Dest, Owner: d.req.Owner}
	if !d.req.NoCheck && d.a.opt.Settings.WholeFileCheck() {
		order.Sums = d.share.Sums(e)
	}
	p, err := d.a.stages.Begin(order)
	if err != nil {
		return err
	}
	defer p.Close()
	for i := range e.Manifest().Files {
		if err := p.File(i, func(run int) error { return d.wait(ctx, e, run) }); err != nil {
			return err
		}
		d.tell(false)
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
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
	if err := d.share.Keep(ctx, wanted); err != nil || d.share.Record().Manifest == d.rec.Manifest {
		return err
	}
	d.rec.Wanted = wanted
	return d.a.dev.Records.Keep(ctx, d.rec)
}

// entry waits for manifest and hash file. The caller releases the entry.
func (d *download) entry(ctx context.Context) (*store.Entry, error) {
	for {
		next := d.share.News()
		if e := d.share.Use(); e != nil {
			if e.Digest() == d.rec.Manifest {
				return e, nil
			}
			defer e.Release()
			return d.namesake(ctx, e)
		}
		if err := d.pause(ctx, next); err != nil {
			return nil, err
		}
	}
}

// namesake makes the entry of a content that has the bytes of e under other names: the
// share's swarm brings the bytes, the manifest is the content's own.
func (d *download) namesake(ctx context.Context, e *store.Entry) (*store.Entry, error) {
	for run := range e.Layout().Runs() {
		if err := d.wait(ctx, e, run); err != nil {
			return nil, err
		}
	}
	manifest, raw := d.rec.Inline, e.HashFileRaw()
	if manifest == nil {
		var err error
		if manifest, err = share.FetchManifest(ctx, d.a.opt.Client, d.rec); err != nil {
			return nil, err
		}
	}
	if content.DigestOf(manifest) != d.rec.Manifest {
		return nil, fmt.Errorf("agent: %s: the manifest is not the one that Content Policy says", d.req.Ref)
	}
	other, err := d.a.dev.Store.Create(ctx, manifest, raw, []string{d.a.opt.Credentials.Name().Group})
	if err != nil {
		return nil, err
	}
	if _, err = d.a.dev.Store.Adopt(ctx, other); err == nil && !other.Complete() {
		err = fmt.Errorf("agent: %s: the same bytes under other names were damaged in the cache; ask again", d.req.Ref)
	}
	if err != nil {
		other.Release()
		return nil, err
	}
	return other, nil
}

// wait waits until a run is held, and hashed not long ago: bits rot in caches. A run found
// wrong is fetched again.
func (d *download) wait(ctx context.Context, e *store.Entry, run int) error {
	for {
		next := d.share.News()
		if e.Held(run) {
			err := e.Read(run, 0, 0, nil)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, store.ErrCorrupt) && e.Digest() != d.share.Record().Manifest: // a namesake
				if _, err := d.a.dev.Store.Adopt(ctx, e); err != nil {
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

// pause waits for news, tells of progress, and ends with the share.
func (d *download) pause(ctx context.Context, next <-chan struct{}) error {
	if err := d.share.Facts().Failed; err != nil {
		return fmt.Errorf("agent: %s: %w", d.req.Ref, err)
	}
	d.tell(false)
	t := time.NewTimer(progressEvery)
	defer t.Stop()
	select {
	case <-next:
	case <-t.C:
	case <-d.share.Ended():
		if err := d.share.Facts().Failed; err != nil {
			return fmt.Errorf("agent: %s: %w", d.req.Ref, err)
		}
		return fmt.Errorf("agent: %s: %w", d.req.Ref, ErrStopping)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// tell reports progress, at most every progressEvery unless it must.
func (d *download) tell(must bool) {
	if now := time.Now(); must || now.Sub(d.last) >= progressEvery {
		d.last = now
		d.report(d.progress())
	}
}

func (d *download) progress() Progress {
	f, rec := d.share.Facts(), &d.rec
	return Progress{
		Ref: rec.Ref.String(), Manifest: rec.Manifest.String(), Size: rec.Size, Held: rec.Size - f.Left,
		FromPeers:  f.Stats.FromPeers - d.base.FromPeers,
		FromOrigin: f.Stats.FromOrigin - d.base.FromOrigin,
		FromCache:  d.before, Peers: f.Peers, Phase: d.phase, Waits: f.Waits, Simple: f.Simple,
		Seconds: time.Since(d.started).Seconds(), Files: d.files, Lease: f.Lease == swarm.Mine,
	}
}

// tell reports a download that ended to the services; it is not waited for.
func (a *Agent) tell(rec records.Record, d *download, err error) {
	p := d.progress()
	r := api.Report{
		Job:       fmt.Sprintf("%s-%d", a.Device().String()[:16], d.started.UnixNano()),
		ContentId: string(rec.Ref.ID), Version: rec.Ref.Version, ManifestDigest: rec.Manifest.String(),
		State: "done", Started: d.started.Unix(), Ended: time.Now().Unix(), Size: rec.Size,
		BytesFromPeers: p.FromPeers, BytesFromOrigin: p.FromOrigin, BytesToPeers: d.share.Facts().Stats.Sent - d.base.Sent,
	}
	if err != nil {
		r.State, r.Error = "failed", err.Error()
		if errors.Is(err, context.Canceled) {
			r.State = "cancelled"
		}
	}
	a.spawn(func() {
		ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
		defer cancel()
		if err := a.opt.Client.Report(ctx, api.Reports{Reports: []api.Report{r}}); err != nil {
			a.log.Info("reporting a download", "err", err)
		}
	})
}
