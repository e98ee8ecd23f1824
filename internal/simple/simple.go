// Package simple fills the draft of a content from origins alone, where each file's SHA-256 is
// the check: simple mode (design section 3, step 3), for when there is a believed manifest and
// no good hash file. Runs are asked for in order. A file that is wrong is read once more past
// caches; wrong again means that the origin has changed, and another one is asked. A draft
// that is whole becomes an entry by its own hash file; one for which a good hash file is found
// meanwhile becomes an entry as it is.
package simple

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/fetch"
	"freshet/internal/store"
	"freshet/internal/web"
)

const (
	rangeSize     = 16 << 20 // bytes asked for at once
	originSilence = 20 * time.Second
	originPause   = 250 * time.Millisecond // after an origin's first failure, then doubled
	maxOriginWait = 30 * time.Second
)

// Options are what New needs.
type Options struct {
	Manifest []byte // believed
	Group    string // that the entry is for
	Origins  []string
	Store    *store.Store
	HTTP     *http.Client       // made by [fetch.Client]
	Header   func() http.Header // of requests to origins
	Receive  *buffers.Pool
	Log      *slog.Logger
	Changed  func() // called from Run when Progress says something else
}

// Progress tells how a draft stands.
type Progress struct {
	Held, Before int64  // bytes in the draft now, and when it was opened
	Wrong        int64  // bytes that were cut off
	Note         string // what is waited for, for people; empty while bytes come
}

// Draft is a draft while it is filled, or becomes an entry. Its fields without a word on that
// are owned by Run.
type Draft struct {
	opt     Options
	origins []*origin
	failed  error // of the draft: no origin's fault

	hashes  atomic.Pointer[[]byte] // a good hash file: the draft becomes an entry as it is
	filling context.Context        // ends when there is a good hash file
	stop    context.CancelFunc

	mu       sync.Mutex // guards the following
	progress Progress
}

// origin is what is known of one origin.
type origin struct {
	plain, fresh *fetch.Source // fresh reads past caches
	url          string
	suspect      int // file that it gave wrongly once; -1: none
	failures     int // in a row
	after        time.Time
	out          error // why it is asked no more
}

// New prepares a draft. With hashes, a good hash file, it is to become an entry as it is, else
// it is filled. Run is called once.
func New(opt Options, hashes []byte) *Draft {
	d := &Draft{opt: opt}
	d.filling, d.stop = context.WithCancel(context.Background())
	d.progress.Note = "waiting for the origin"
	if opt.Store.HasDraft(content.DigestOf(opt.Manifest)) {
		d.progress.Note = "hashing what is in the cache"
	}
	if hashes != nil {
		d.Take(hashes)
	}
	fresh := func() http.Header {
		h := opt.Header()
		h.Set("Cache-Control", "no-cache")
		return h
	}
	for _, u := range opt.Origins {
		d.origins = append(d.origins, &origin{
			plain: fetch.New(opt.HTTP, u, opt.Header), fresh: fetch.New(opt.HTTP, u, fresh), url: u, suspect: -1,
		})
	}
	return d
}

// Take ends the filling: there is a good hash file.
func (d *Draft) Take(hashes []byte) {
	d.hashes.Store(&hashes)
	d.stop()
}

// Taken reports whether there is a good hash file.
func (d *Draft) Taken() bool { return d.hashes.Load() != nil }

// Progress tells how the draft stands.
func (d *Draft) Progress() Progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.progress
}

func (d *Draft) change(f func(*Progress)) {
	d.mu.Lock()
	f(&d.progress)
	d.mu.Unlock()
	d.opt.Changed()
}

// Run opens the draft, fills it until it is whole or there is a good hash file, and makes it an
// entry, which the caller releases. What came until ctx ends stays for another try.
func (d *Draft) Run(ctx context.Context) (*store.Entry, error) {
	defer d.stop()
	defer context.AfterFunc(ctx, d.stop)()
	w, err := d.opt.Store.Draft(ctx, d.opt.Manifest, []string{d.opt.Group})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := w.Close(); err != nil {
			d.opt.Log.Warn("keeping what simple mode brought", "err", err)
		}
	}()
	d.change(func(p *Progress) { p.Held, p.Before = w.Held(), w.Held() })
	if !d.Taken() {
		err = d.fill(w)
	}
	if good := d.hashes.Load(); good != nil {
		return w.Become(ctx, *good)
	}
	if err != nil {
		return nil, err
	}
	raw, err := w.HashFile()
	if err != nil {
		return nil, err
	}
	return w.Become(ctx, raw)
}

// fill writes the draft until it is whole.
func (d *Draft) fill(w *store.Draft) error {
	ctx := d.filling
	for !w.Whole() {
		o, wait := d.next(time.Now())
		if o == nil {
			return d.stranded()
		}
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := d.fetch(ctx, w, o)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if d.failed != nil {
			return fmt.Errorf("writing to the cache: %w", d.failed)
		}
		d.judge(o, err, time.Now())
	}
	return nil
}

// next returns the nearest origin that may be asked, and how long that is to be waited for;
// nil when there is none left.
func (d *Draft) next(now time.Time) (best *origin, wait time.Duration) {
	for _, o := range d.origins {
		if o.out != nil {
			continue
		}
		if after := max(0, o.after.Sub(now)); best == nil || after < wait {
			best, wait = o, after
		}
	}
	return best, wait
}

// judge draws the consequences of how a fetch ended.
func (d *Draft) judge(o *origin, err error, now time.Time) {
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
		pause := web.Jitter(min(maxOriginWait, originPause<<min(o.failures, 10)))
		if errors.As(err, &status) {
			pause = max(pause, status.RetryAfter)
		}
		o.failures++
		o.after = now.Add(pause)
	}
	d.opt.Log.Info("simple mode: origin failed", "origin", o.url, "err", err, "asked no more", o.out != nil)
	d.change(func(p *Progress) { p.Note = "waiting for the origin: " + OneLine(err) })
}

// stranded says why no origin can be asked any more.
func (d *Draft) stranded() error {
	errs := []error{errors.New("every origin holds other bytes than the manifest says; publish the content anew")}
	for _, o := range d.origins {
		errs = append(errs, o.out)
	}
	return errors.New(OneLine(errors.Join(errs...)))
}

// OneLine writes joined errors beside each other.
func OneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// fetch asks an origin for the runs that come next.
func (d *Draft) fetch(ctx context.Context, w *store.Draft, o *origin) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(originSilence, func() {
		stop(fmt.Errorf("not a byte came for %s", originSilence))
	})
	defer silence.Stop()
	ctx = web.WithHeard(ctx, func() { silence.Reset(originSilence) })
	src, l, first := o.plain, w.Layout(), w.Next()
	last := endOfRange(l, first)
	if end := endOfFile(l, o.suspect); first < end {
		src, last = o.fresh, min(last, end)
	}
	return src.Fetch(ctx, l, first, last, d.opt.Receive, func(_ int, b []byte) error {
		silence.Reset(originSilence)
		err := d.write(w, b)
		d.opt.Receive.Put(b)
		return err
	})
}

// write puts a run into the draft, and tells of it.
func (d *Draft) write(w *store.Draft, b []byte) error {
	before := w.Held()
	err := w.Write(b)
	held, wrong := w.Held(), int64(0)
	switch {
	case errors.As(err, new(*store.WrongFileError)):
		wrong = before + int64(len(b)) - held
	case err != nil:
		d.failed = err
		return err
	}
	d.change(func(p *Progress) {
		p.Held, p.Note = held, ""
		p.Wrong += wrong
	})
	return err
}

// endOfRange returns the run behind those that are asked for together.
func endOfRange(l *content.Layout, first int) int {
	end, n := first, int64(0)
	for ; end < l.Runs() && (end == first || n+int64(l.Run(end).Len) <= rangeSize); end++ {
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
