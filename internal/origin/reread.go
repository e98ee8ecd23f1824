package origin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// logEvery is the time between two lines on the progress of one reading.
const logEvery = 10 * time.Second

// errBusy says that a publish is changing the content.
var errBusy = errors.New("a publish is under way")

// held is a directory as it was hashed.
type held struct {
	record   *record
	manifest *content.Manifest
	complete *content.Manifest // manifest with all SHA-1s
}

// flight is one reading of a content's directory, however many wait for it.
type flight struct {
	all  bool          // every byte is read, whatever the stamps say
	done chan struct{} // closed at the end
	err  error         // set before done is closed

	mu          sync.Mutex // guards the following
	read, total int64      // bytes
	logged      time.Time
}

// progress returns how far the reading is, in bytes.
func (f *flight) progress() (read, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read, f.total
}

// advance notes progress, and reports whether it is time to log it.
func (f *flight) advance(read, total int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read, f.total = read, total
	now := time.Now()
	due := now.Sub(f.logged) >= logEvery
	if due {
		f.logged = now
	}
	return due
}

// reread begins to read the directory of ref and to serve what it holds now, or joins the
// reading that is under way. It goes on when nobody waits for it any more.
func (o *Origin) reread(ref content.Ref, all bool) *flight {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.flights[ref]; ok {
		return f
	}
	f := &flight{all: all, done: make(chan struct{}), logged: time.Now()}
	if o.life.Err() != nil {
		f.err = o.life.Err()
		close(f.done)
		return f
	}
	o.flights[ref] = f
	o.running.Go(func() {
		f.err = o.renew(ref, f)
		o.mu.Lock()
		delete(o.flights, ref)
		o.mu.Unlock()
		close(f.done)
	})
	return f
}

// renew reads what has changed in the directory of ref, or all of it, and when that is another
// content, serves it in place of the old one and registers it.
func (o *Origin) renew(ref content.Ref, f *flight) error {
	if !o.lock(ref) {
		return errBusy
	}
	defer o.unlock(ref)
	e, served := o.current(ref)
	if served && e.complete != nil && (!f.all || e.record.Forced) && unchanged(e) {
		return nil // another reading ended after this one was asked for
	}
	if err := o.failedBefore(ref, f.all); err != nil {
		return err
	}
	old := o.holding(ref)
	if old == nil {
		old = o.recorded(o.life, ref) // it was served before the start
	}
	o.cfg.Log.Info("content is read again", "content", ref.String(), "all", f.all)
	h, err := o.readDir(o.life, reading{ref: ref, old: old, all: f.all, progress: func(done, total int64) {
		if f.advance(done, total) {
			o.cfg.Log.Info("content is being read", "content", ref.String(), "read", done, "total", total)
		}
	}})
	if err != nil {
		o.cfg.Log.Warn("content could not be read", "content", ref.String(), "err", err)
		return err
	}
	if err := o.saveRecord(h.record); err != nil {
		return err
	}
	if err := o.serve(h); err != nil {
		return err
	}
	if !served || old.record.Manifest != h.record.Manifest {
		e, _ = o.current(ref)
		o.tryRegister(o.life, e)
	}
	return nil
}

// holding returns what is served for ref; nil: nothing.
func (o *Origin) holding(ref content.Ref) *held {
	e, ok := o.current(ref)
	if !ok {
		return nil
	}
	r := e.keep()
	return &held{record: &r, manifest: e.manifest, complete: e.complete}
}

// reading says what is to be read.
type reading struct {
	ref      content.Ref
	old      *held // nil: nothing is known
	all      bool  // trust no stamp
	progress func(done, total int64)
}

// readDir hashes a directory and keeps manifest and hash file; nothing is served of it yet. Files
// that are those of the old manifest keep it, though it may lack SHA-1s, and its digest.
func (o *Origin) readDir(ctx context.Context, rd reading) (*held, error) {
	dir, _ := o.dirOf(rd.ref)
	opt := blob.HashOptions{Ref: rd.ref, Progress: rd.progress}
	if rd.old != nil && !rd.all && rd.old.record.Dir == dir {
		opt.Known = o.hashedBefore(ctx, rd.old)
	}
	look := lookAt(dir)
	m, r, err := o.hash(ctx, dir, opt)
	o.noteReading(rd.ref, failure{look, rd.all, err})
	if err != nil {
		return nil, err
	}
	h := &held{record: r, manifest: m, complete: m}
	r.Forced = rd.all
	if rd.old == nil {
		return h, nil
	}
	was := rd.old.record
	r.Groups, r.Known, r.Generation = was.Groups, was.Known, was.Generation
	if len(content.CompareManifests(rd.old.manifest, m)) == 0 {
		if r.Manifest != was.Manifest {
			r.Complete = r.Manifest
		}
		r.Manifest, r.Signature, h.manifest = was.Manifest, was.Signature, rd.old.manifest
	}
	return h, nil
}

// hashedBefore returns what is known of a directory, nil when its hash file is lost.
func (o *Origin) hashedBefore(ctx context.Context, h *held) *blob.Hashed {
	m := h.complete
	if m == nil {
		m = h.manifest
	}
	raw, err := o.files.HashFile(ctx, m.HashOfHashes)
	if err != nil {
		return nil
	}
	hf, err := content.ParseHashFileRaw(raw, m)
	if err != nil || len(h.record.Stamps) != len(m.Files) {
		return nil
	}
	return &blob.Hashed{Manifest: m, HashFile: hf, Stamps: h.record.Stamps}
}

// completed returns m when it has all SHA-1s, else the manifest kept beside it that has, else
// nil.
func (o *Origin) completed(ctx context.Context, m *content.Manifest, kept content.Digest) *content.Manifest {
	if !slices.ContainsFunc(m.Files, func(f content.File) bool { return f.SHA1 == content.SHA1{} }) {
		return m
	}
	if kept.IsZero() {
		return nil
	}
	b, err := o.files.Manifest(ctx, kept)
	if err != nil {
		return nil
	}
	c, err := content.ParseManifest(b)
	if err != nil || len(content.CompareManifests(m, c)) > 0 {
		return nil
	}
	return c
}

// dirExists reports whether a content's directory is there.
func (o *Origin) dirExists(ref content.Ref) bool {
	if dir, mapped := o.dirOf(ref); mapped {
		m, err := blob.OpenDir(dir, false)
		if err != nil {
			return false
		}
		return m.Close() == nil
	}
	info, err := o.root.Lstat(pathOf(ref))
	return err == nil && info.Mode().Type() == fs.ModeDir
}

// wait returns how f ended, and false when it has not after the time that an asker waits.
func (o *Origin) wait(ctx context.Context, f *flight) (ended bool, err error) {
	t := time.NewTimer(o.cfg.Patience)
	defer t.Stop()
	select {
	case <-f.done:
		return true, f.err
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("origin: wait for a reading: %w", ctx.Err())
	}
}
