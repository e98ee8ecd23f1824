package origin

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// settler says when directories were quiet for long enough to be read. It has no clock.
type settler struct {
	quiet time.Duration
	last  map[content.Ref]time.Time // of the last change
}

func (s *settler) touch(now time.Time, ref content.Ref) { s.last[ref] = now }

// due returns what is quiet, and forgets it.
func (s *settler) due(now time.Time) []content.Ref {
	var refs []content.Ref
	for ref, at := range s.last {
		if now.Sub(at) >= s.quiet {
			refs = append(refs, ref)
			delete(s.last, ref)
		}
	}
	return refs
}

// next returns how long nothing is due; false: for ever.
func (s *settler) next(now time.Time) (time.Duration, bool) {
	if len(s.last) == 0 {
		return 0, false
	}
	first := slices.MinFunc(slices.Collect(maps.Values(s.last)), time.Time.Compare)
	return max(first.Add(s.quiet).Sub(now), 0), true
}

// watch is the state of Watch, owned by its goroutine.
type watch struct {
	o       *Origin
	notify  *fsnotify.Watcher      // nil: this system has none to give
	dirs    map[string]content.Ref // of contents that are served, or will be
	settler settler
	again   chan content.Ref // what changed while it was read
	warned  bool             // that not all can be watched
}

// Watch sees to it, until ctx ends, that contents whose files change are read again when they
// are quiet. Changes are notified by the system and, since such notices can be lost and have
// limits, looked for every now and then.
func (o *Origin) Watch(ctx context.Context) error {
	w := &watch{
		o: o, dirs: map[string]content.Ref{}, again: make(chan content.Ref),
		settler: settler{quiet: o.cfg.Quiet, last: map[content.Ref]time.Time{}},
	}
	var err error
	if w.notify, err = fsnotify.NewWatcher(); err != nil {
		o.cfg.Log.Warn("directories are not watched, and only looked at every now and then", "every", o.cfg.CheckEvery, "err", err)
		w.notify = &fsnotify.Watcher{} // its channels are nil
	} else {
		defer w.notify.Close()
	}
	return w.run(ctx)
}

func (w *watch) run(ctx context.Context) error {
	check := time.NewTicker(w.o.cfg.CheckEvery)
	defer check.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.o.news:
			w.addFresh()
		case e := <-w.notify.Events:
			w.changed(e)
		case err := <-w.notify.Errors:
			w.lost(err)
		case <-check.C:
			w.checkAll()
		case ref := <-w.again:
			w.settler.touch(time.Now(), ref)
		case <-quiet.C:
			for _, ref := range w.settler.due(time.Now()) {
				w.reread(ctx, ref)
			}
		}
		if d, ok := w.settler.next(time.Now()); ok {
			quiet.Reset(d)
		}
	}
}

// addFresh watches what is served anew, and what could not be read at the start.
func (w *watch) addFresh() {
	o := w.o
	o.mu.Lock()
	refs := slices.Collect(maps.Keys(o.fresh))
	clear(o.fresh)
	o.mu.Unlock()
	for _, ref := range refs {
		if e, ok := o.current(ref); ok {
			w.dirs[e.record.Dir] = ref
			w.add(e.record.Dir)
			w.check(e) // it may have changed before it was watched
		} else {
			w.await(ref)
		}
	}
}

// await watches a directory that is not served, and has it read when it is quiet, unless it
// could not be read as it is now.
func (w *watch) await(ref content.Ref) {
	dir, _ := w.o.dirOf(ref)
	w.dirs[dir] = ref
	w.add(dir)
	if _, waits := w.settler.last[ref]; !waits && w.o.failedBefore(ref, false) == nil {
		w.settler.touch(time.Now(), ref)
	}
}

// add watches a directory and those below. One that was moved away and replaced is another,
// so each is watched anew.
func (w *watch) add(top string) {
	if w.notify.Events == nil {
		return
	}
	err := filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		_ = w.notify.Remove(at) // it may not be watched yet
		return w.notify.Add(at)
	})
	if err != nil && !w.warned {
		w.warned = true
		w.o.cfg.Log.Warn("not all directories are watched; those are looked at every now and then", "directory", top, "every", w.o.cfg.CheckEvery, "err", err)
	}
}

// changed notes a change, and watches new directories.
func (w *watch) changed(e fsnotify.Event) {
	ref, ok := w.refOf(e.Name)
	if !ok {
		return
	}
	w.settler.touch(time.Now(), ref)
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			w.add(e.Name)
		}
	}
}

// refOf returns the content that a path belongs to.
func (w *watch) refOf(path string) (content.Ref, bool) {
	for {
		if ref, ok := w.dirs[path]; ok {
			return ref, true
		}
		up := filepath.Dir(path)
		if up == path {
			return content.Ref{}, false
		}
		path = up
	}
}

// lost looks at all files, since notices were lost: too many came at once.
func (w *watch) lost(err error) {
	w.o.cfg.Log.Warn("notices of changes were lost", "err", err)
	w.checkAll()
}

// checkAll notes contents whose files have not the names and stamps that they were hashed with,
// and those that are not served.
func (w *watch) checkAll() {
	w.o.forgetPassing()
	w.o.mu.Lock()
	entries := slices.Collect(maps.Values(w.o.byRef))
	w.o.mu.Unlock()
	for _, e := range entries {
		w.check(e)
	}
	if !w.o.loaded.Load() {
		return
	}
	refs, err := w.o.find()
	if err != nil {
		w.o.cfg.Log.Warn("new contents are not looked for", "root", w.o.cfg.Root, "err", err)
	}
	for _, ref := range refs {
		if _, served := w.o.current(ref); !served {
			w.await(ref)
		}
	}
}

func (w *watch) check(e *entry) {
	ref := e.record.ref()
	if _, waits := w.settler.last[ref]; waits {
		return
	}
	if !unchanged(e) {
		w.settler.touch(time.Now(), ref)
	}
}

// unchanged reports whether the files of e have the names and stamps that they were hashed with.
func unchanged(e *entry) bool {
	same, err := blob.Unchanged(e.record.Dir, e.manifest, e.record.Stamps)
	return err == nil && same
}

// reread has a content read again, and again when it changed meanwhile: what changes late in a
// reading that was under way already is not in it.
func (w *watch) reread(ctx context.Context, ref content.Ref) {
	f := w.o.reread(ref, false)
	go func() {
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
		if f.err == nil {
			if e, ok := w.o.current(ref); !ok || unchanged(e) {
				return
			}
		} else if !errors.Is(f.err, errBusy) && !w.o.changedSince(ref, f.err) {
			return
		}
		select {
		case w.again <- ref:
		case <-ctx.Done():
		}
	}()
}
