package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"freshet/internal/content"
	"freshet/internal/fetch"
	"freshet/internal/policy"
	"freshet/internal/store"
	"freshet/internal/swarm"
)

// Simple mode (design section 3, step 3): there is a believed manifest and no good hash file.
// The device leaves the array and its peers, and takes the bytes from the origins in order
// into a [store.Draft], where each file's SHA-256 is the check. The hash file is asked for
// again meanwhile; when a good one comes, the draft becomes an entry as it is and the rest is
// fetched the normal way. A draft that is whole becomes an entry by its own hash file, and the
// device a holder like any other.
const (
	foregroundWait = 5 * time.Second // give or take half, for a good hash file while somebody waits
	backgroundWait = 5 * time.Minute // the same when nobody does
	maxHashPause   = 5 * time.Minute // between questions for the hash file in simple mode

	simpleRange   = 16 << 20 // bytes asked for at once
	originSilence = 20 * time.Second
	originPause   = 250 * time.Millisecond // after an origin's first failure, then doubled
	maxOriginWait = 30 * time.Second
)

// simple is a draft of a share while it is filled, or becomes an entry. It is owned by
// share.run but for what is said otherwise.
type simple struct {
	stop   context.CancelFunc     // of the filling
	hashes atomic.Pointer[[]byte] // a good hash file: the draft becomes an entry as it is
	done   chan struct{}          // closed when drafter.run has returned; guards the following
	entry  *store.Entry
	err    error

	held, before int64 // bytes in the draft now, and when it was opened
	wrong        int64 // bytes that were cut off
	note         string
}

// hashWait is how long a good hash file is waited for before simple mode.
type hashWait struct{ foreground, background time.Duration }

func (w hashWait) draw(hurry bool) time.Duration {
	if hurry {
		return jitter(w.foreground)
	}
	return jitter(w.background)
}

// alwaysSimple returns why the device is in simple mode from the start, or nothing.
func (a *Agent) alwaysSimple(size int64) string {
	if a.opt.Settings.DownloadMode() != policy.Simple {
		return ""
	}
	return policy.MayPeer(a.opt.Settings, a.opt.Facts, size).Reason
}

// sweepDrafts removes what simple mode brought of contents that nobody wants any more.
func (a *Agent) sweepDrafts(recs []record) error {
	wanted := map[content.Digest]bool{}
	for _, r := range recs {
		wanted[r.Manifest] = r.Wanted
	}
	for _, d := range a.store.Drafts() {
		if wanted[d] {
			continue
		}
		if err := a.store.RemoveDraft(d); err != nil {
			return err
		}
	}
	return nil
}

// withoutHashes returns why the download goes on without a hash file now, if it does: the
// device may ask the origin, and has had no good one from anybody for too long.
func (s *share) withoutHashes(now time.Duration) (reason string, yes bool) {
	m := &s.meta
	switch {
	case m.parsed == nil || s.facts.Load().Failed != nil:
		return "", false
	case s.always:
		return s.reason, true
	case m.asked == 0 || now-m.asked < m.patience || !s.mayGoOut(now) || len(m.buf) > 0:
		return "", false
	case m.lastErr == nil:
		return "nobody who has the hash file answers", true
	}
	return oneLine(m.lastErr), true
}

// oneLine writes joined errors beside each other.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// goSimple begins simple mode.
func (s *share) goSimple(reason string) {
	s.log.Warn("simple mode: the bytes come from origins alone", "reason", reason)
	s.reason = reason
	s.alone.Store(true)
	for _, k := range s.live() {
		k.conn.Close()
	}
	if s.peering.OK {
		s.onLease(swarm.Unknown)
	}
	s.kickJoin()
	s.beginDraft(nil)
}

// beginDraft opens the draft. With a hash file it becomes an entry as it is, else it is filled.
func (s *share) beginDraft(hashes []byte) {
	s.meta.leave()
	ctx, stop := context.WithCancel(s.ctx)
	m := &simple{stop: stop, done: make(chan struct{}), note: "waiting for the origin"}
	if s.a.store.HasDraft(s.record().Manifest) {
		m.note = "hashing what is in the cache"
	}
	if hashes != nil {
		m.hashes.Store(&hashes)
	}
	s.simple = m
	w := s.newDrafter(m)
	began := s.a.spawn(func() {
		defer close(m.done)
		defer stop()
		m.entry, m.err = w.run(ctx)
		s.box.post(func() { s.drafted(m) })
	})
	if !began {
		stop()
		close(m.done)
	}
}

// tickSimple asks for the hash file again.
func (s *share) tickSimple(now time.Duration) {
	if !s.always && s.simple.hashes.Load() == nil && !s.meta.asking && now >= s.meta.hold {
		s.askOrigin()
	}
}

// take ends the filling: there is a good hash file.
func (m *simple) take(hashes []byte) {
	m.hashes.Store(&hashes)
	m.stop()
}

// drafted ends simple mode: the draft has become an entry, or nothing more can be done.
func (s *share) drafted(m *simple) {
	s.simple = nil
	s.brought += m.held - m.before
	s.refused += m.wrong
	if m.err != nil {
		s.fail(fmt.Errorf("simple mode: %w", m.err))
		return
	}
	if m.hashes.Load() != nil && !s.always {
		s.log.Info("simple mode is left: there is a good hash file")
		s.reason = ""
	}
	s.meta = metadata{}
	s.alone.Store(!s.peering.OK)
	s.opened(m.entry)
	s.kickJoin()
}

// endSimple gives back what a share that ends has of simple mode.
func (s *share) endSimple() {
	m := s.simple
	if m == nil {
		return
	}
	m.stop()
	<-m.done
	if m.entry != nil {
		m.entry.Release()
	}
}

// addSimple lets the figures of simple mode count.
func (s *share) addSimple(f *facts) {
	f.Simple = s.reason
	f.Stats.FromOrigin += s.brought
	f.Stats.Wrong += s.refused
	if m := s.simple; m != nil {
		f.Left -= m.held
		f.Stats.FromOrigin += m.held - m.before
		f.Stats.Wrong += m.wrong
	}
}

// drafter fills a draft from origins. It is used by one goroutine.
type drafter struct {
	s        *share
	m        *simple
	manifest []byte
	origins  []*origin
	failed   error // of the draft: no origin's fault
}

// origin is what a drafter knows of one origin.
type origin struct {
	plain, fresh *fetch.Source // fresh reads past caches
	url          string
	suspect      int // file that it gave wrongly once; -1: none
	failures     int // in a row
	after        time.Time
	out          error // why it is asked no more
}

func (s *share) newDrafter(m *simple) *drafter {
	w := &drafter{s: s, m: m, manifest: s.meta.manifest}
	fresh := func() http.Header {
		h := s.grantHeader()
		h.Set("Cache-Control", "no-cache")
		return h
	}
	for _, u := range s.record().ContentURLs {
		w.origins = append(w.origins, &origin{
			plain: fetch.New(s.a.http, u, s.grantHeader), fresh: fetch.New(s.a.http, u, fresh), url: u, suspect: -1,
		})
	}
	return w
}

// run opens the draft, fills it until it is whole or a good hash file comes, which ends ctx,
// and makes it an entry.
func (w *drafter) run(ctx context.Context) (*store.Entry, error) {
	s := w.s
	d, err := s.a.store.Draft(s.ctx, w.manifest, []string{s.a.opt.Credentials.Name().Group})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := d.Close(); err != nil {
			s.log.Warn("keeping what simple mode brought", "err", err)
		}
	}()
	held := d.Held()
	s.box.post(func() { w.m.held, w.m.before = held, held })
	if w.m.hashes.Load() == nil {
		err = w.fill(ctx, d)
	}
	if good := w.m.hashes.Load(); good != nil {
		return d.Become(s.ctx, *good)
	}
	if err != nil {
		return nil, err
	}
	raw, err := d.HashFile()
	if err != nil {
		return nil, err
	}
	return d.Become(s.ctx, raw)
}

// fill writes the draft until it is whole.
func (w *drafter) fill(ctx context.Context, d *store.Draft) error {
	for !d.Whole() {
		o, wait := w.next(time.Now())
		if o == nil {
			return w.stranded()
		}
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := w.fetch(ctx, d, o)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w.failed != nil {
			return fmt.Errorf("writing to the cache: %w", w.failed)
		}
		w.judge(o, err, time.Now())
	}
	return nil
}

// next returns the nearest origin that may be asked, and how long that is to be waited for;
// nil when there is none left.
func (w *drafter) next(now time.Time) (best *origin, wait time.Duration) {
	for _, o := range w.origins {
		if o.out != nil {
			continue
		}
		if after := max(0, o.after.Sub(now)); best == nil || after < wait {
			best, wait = o, after
		}
	}
	return best, wait
}

// judge draws the consequences of how a fetch ended. A wrong file is read once more past
// caches; wrong again means that the origin has changed.
func (w *drafter) judge(o *origin, err error, now time.Time) {
	var wrong *store.WrongFileError
	var status *fetch.StatusError
	switch {
	case err == nil:
		o.failures = 0
		return
	case errors.As(err, &wrong) && o.suspect != wrong.File:
		o.suspect = wrong.File
	case wrong != nil, errors.Is(err, fetch.ErrChanged), errors.Is(err, fetch.ErrRange):
		o.out = err
	default:
		pause := jitter(min(maxOriginWait, originPause<<min(o.failures, 10)))
		if errors.As(err, &status) {
			pause = max(pause, status.RetryAfter)
		}
		o.failures++
		o.after = now.Add(pause)
	}
	w.s.log.Info("simple mode: origin failed", "origin", o.url, "err", err, "asked no more", o.out != nil)
	w.tell("waiting for the origin: " + oneLine(err))
}

// stranded says why no origin can be asked any more.
func (w *drafter) stranded() error {
	errs := []error{errors.New("every origin holds other bytes than the manifest says; publish the content anew")}
	for _, o := range w.origins {
		errs = append(errs, o.out)
	}
	return errors.New(oneLine(errors.Join(errs...)))
}

// tell lets people know what is waited for; nothing while bytes come.
func (w *drafter) tell(note string) {
	w.s.box.post(func() { w.m.note = note })
}

// fetch asks an origin for the runs that come next.
func (w *drafter) fetch(ctx context.Context, d *store.Draft, o *origin) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(originSilence, func() {
		stop(fmt.Errorf("not a byte came for %s", originSilence))
	})
	defer silence.Stop()
	ctx = withHeard(ctx, func() { silence.Reset(originSilence) })
	src, l, first := o.plain, d.Layout(), d.Next()
	last := endOfRange(l, first)
	if end := endOfFile(l, o.suspect); first < end {
		src, last = o.fresh, min(last, end)
	}
	return src.Fetch(ctx, l, first, last, w.s.a.receive, func(_ int, b []byte) error {
		silence.Reset(originSilence)
		err := w.write(d, b)
		w.s.a.receive.Put(b)
		return err
	})
}

// write puts a run into the draft, and tells of it.
func (w *drafter) write(d *store.Draft, b []byte) error {
	before := d.Held()
	err := d.Write(b)
	held, m, wrong := d.Held(), w.m, int64(0)
	switch {
	case errors.As(err, new(*store.WrongFileError)):
		wrong = before + int64(len(b)) - held
	case err != nil:
		w.failed = err
		return err
	}
	w.s.box.post(func() {
		m.held, m.note = held, ""
		m.wrong += wrong
	})
	return err
}

// endOfRange returns the run behind those that are asked for together.
func endOfRange(l *content.Layout, first int) int {
	end, n := first, int64(0)
	for ; end < l.Runs() && (end == first || n+int64(l.Run(end).Len) <= simpleRange); end++ {
		n += int64(l.Run(end).Len)
	}
	return end
}

// endOfFile returns the run behind a file, 0 for none.
func endOfFile(l *content.Layout, file int) int {
	if file < 0 {
		return 0
	}
	first, count := l.FilePieces(file)
	return l.RunOf(first+count-1) + 1
}
