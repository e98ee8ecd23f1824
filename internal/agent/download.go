package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/guard"
	"freshet/internal/jobs"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// Request is one caller's wish.
type Request struct {
	Ref        content.Ref
	URL        string        // normal; asked for instead of Ref when it is set
	Dest       *os.Root      // where the files go; nil: into the cache alone
	Owner      deliver.Owner // of the files
	Foreground bool          // somebody waits for it
	NoCheck    bool          // leave the check to the pieces, whose HashOfHashes was authenticated

	Expect []expected.Content // what the files must be, in the device's own metadata's place; nil: that decides
	Match  content.Match      // of Expect
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
	Phase      string  `json:"phase"`      // waiting, downloading, checking, placing, done
	Waits      string  `json:"waits,omitempty"`
	Simple     string  `json:"simpleMode,omitempty"` // why it comes, or came, from origins alone
	Seconds    float64 `json:"seconds"`
	Files      int     `json:"files,omitempty"` // placed, when done
	Lease      bool    `json:"lease,omitempty"` // this device fetches for its site

	Freshness *guard.Finding `json:"freshness,omitempty"` // what came of comparing the content last
}

// progressEvery is how often a caller hears of progress at most.
const progressEvery = 100 * time.Millisecond

// Download gets a content, and places its files in req.Dest once each of them is checked
// and everything is durable. report is called now and then, and with the last state before
// Download returns without an error. It waits for as long as the guard finds nothing to use. It
// may be called again after any error: what is in the cache is not fetched again.
func (a *Agent) Download(ctx context.Context, req Request, report func(Progress)) error {
	d := &download{
		a: a, req: req, report: report, started: time.Now(), orders: orders{ready: make(chan struct{}, 1)},
		rec: records.Record{Ref: req.Ref},
	}
	if d.guard = a.theGuard(); d.guard == nil {
		return errNotRunning
	}
	if err := d.takeTurn(ctx); err != nil {
		return err
	}
	defer d.giveTurn()
	defer d.knows()
	begin, err := d.policy(ctx)
	if err != nil {
		return err
	}
	d.rec, d.req.Ref = begin.Record, begin.Record.Ref
	begin.Metadata, begin.Match, begin.Download = req.Expect, req.Match, d
	a.enter(d)
	defer a.exit(d)
	if d.job, err = d.guard.Start(ctx, begin); err != nil {
		return err
	}
	defer d.job.End()
	err = d.run(ctx)
	if s := d.share; s != nil {
		d.leave(s, err != nil)
	}
	d.readmit()
	d.part()
	a.tell(d.ended(err))
	return err
}

// enter notes a download for the status.
func (a *Agent) enter(d *download) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.downloads[d] = true
}

func (a *Agent) exit(d *download) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.downloads, d)
}

// takeTurn waits until the download may run, unless it may already.
func (d *download) takeTurn(ctx context.Context) (err error) {
	if d.endTurn == nil {
		d.endTurn, err = d.a.turn(ctx, d.req.Foreground)
	}
	return err
}

// giveTurn lets another download run.
func (d *download) giveTurn() {
	if d.endTurn != nil {
		d.endTurn()
		d.endTurn = nil
	}
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

// policy asks Content Policy; when it does not answer, what it said last is good enough, or what
// others say.
func (d *download) policy(ctx context.Context) (guard.Request, error) {
	a, req := d.a, d.req
	p, err := a.ask(ctx, req)
	if err == nil {
		rec, err := records.Of(p)
		return guard.Request{Record: rec, Answered: true}, err
	}
	if !client.Unavailable(err) {
		return guard.Request{}, err
	}
	if rec, ok := a.dev.Records.Find(ctx, req.Ref, req.URL); ok {
		a.log.Warn("Content Policy does not answer; going on with what was said last", "content", rec.Ref.String())
		return guard.Remembered(rec), nil
	}
	return d.unserved(ctx, err)
}

// download is one Request under way.
type download struct {
	a       *Agent
	req     Request
	report  func(Progress)
	guard   *guard.Guard
	job     *guard.Job
	orders  orders
	started time.Time
	endTurn func() // nil while it may not run

	mu    sync.Mutex      // guards the following
	out   []wire.DeviceID // devices that the download takes nothing from
	share *share.Share    // nil while there is none; this and the rest run's goroutine alone changes
	rec   records.Record  // what is sought or used
	waits string          // why there is nothing to do; empty: there is

	// owned by run's goroutine
	asked   *wire.Subject       // what the subnet waits for this device to find out; nil: nothing
	own     []byte              // the manifest of rec, when the share is of another one with the same bytes
	named   map[named]time.Time // when the guard was told of devices last
	looked  time.Time           // when it was looked for devices to name last
	dropped []dropped
	sought  chan struct{} // closed when the subnet was asked who has other issues; nil: it was not
	used    time.Time     // when the guard let the manifest be used; zero: it has not yet
	expects bool          // expected metadata decides: whole files are checked, whatever the caller says
	sha1    bool          // the guard wants the SHA-1 of each file
	before  int64         // bytes that were held at the beginning
	base    swarm.Stats
	phase   string
	files   int
	last    time.Time
}

// tell reports progress, at most every progressEvery unless it must.
func (d *download) tell(must bool) {
	if now := time.Now(); must || now.Sub(d.last) >= progressEvery {
		d.last = now
		d.report(d.progress())
	}
}

func (d *download) progress() Progress {
	rec := &d.rec
	p := Progress{
		Ref: rec.Ref.String(), Manifest: rec.Manifest.String(), Size: rec.Size,
		FromCache: d.before, Phase: d.phase, Waits: d.waits,
		Seconds: time.Since(d.started).Seconds(), Files: d.files,
	}
	if f, ok := d.guard.Finding(rec.Ref); ok {
		p.Freshness = &f
	}
	if d.share == nil {
		return p
	}
	f := d.share.Facts()
	p.Held, p.Peers, p.Simple, p.Lease = rec.Size-f.Left, f.Peers, f.Simple, f.Reach == swarm.ReachAll
	p.FromPeers, p.FromOrigin = f.Stats.FromPeers-d.base.FromPeers, f.Stats.FromOrigin-d.base.FromOrigin
	if p.Waits == "" {
		p.Waits = d.turnedDown(p.Freshness)
	}
	if p.Waits == "" {
		p.Waits = f.Waits
	}
	return p
}

// turnedDown says why the manifest that is there is not used, while nothing else is tried.
func (d *download) turnedDown(f *guard.Finding) string {
	if f == nil || f.Outcome == freshness.OK || d.share.Allowed() || d.share.Sought() == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s", f.Outcome, f.Text)
}

// ended returns what is reported of a download that ended.
func (d *download) ended(err error) api.Report {
	p, rec := d.progress(), &d.rec
	r := api.Report{
		Job:       fmt.Sprintf("%s-%d", d.a.Device().String()[:16], d.started.UnixNano()),
		ContentId: string(rec.Ref.ID), Version: rec.Ref.Version, ManifestDigest: rec.Manifest.String(),
		State: "done", Started: d.started.Unix(), Ended: time.Now().Unix(), Size: rec.Size,
		BytesFromPeers: p.FromPeers, BytesFromOrigin: p.FromOrigin,
	}
	if d.share != nil {
		st := d.share.Facts().Stats
		r.BytesToPeers, r.WanIdleMillis = st.Sent-d.base.Sent, max(0, st.WANIdle-d.base.WANIdle).Milliseconds()
	}
	if err != nil {
		r.State, r.Error = "failed", err.Error()
		if errors.Is(err, context.Canceled) {
			r.State = "cancelled"
		}
	}
	return r
}

// tell sends a report to the services; it is not waited for.
func (a *Agent) tell(r api.Report) {
	a.spawn(func() {
		ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
		defer cancel()
		if err := a.opt.Client.Report(ctx, api.Reports{Reports: []api.Report{r}}); err != nil {
			a.log.Info("reporting a download", "err", err)
		}
	})
}
