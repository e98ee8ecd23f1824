package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"freshet/internal/disk"
	"freshet/internal/store/journal"
)

// batch is what one commit makes durable.
type batch struct {
	held    []int // runs, in ascending order
	dropped []int // runs, in ascending order
	bytes   int64 // of held
	remade  bool  // store files were made again
}

// wake starts the committer, or wakes it when there is reason to commit at once. The caller
// holds e.mu.
func (e *Entry) wake() {
	if e.committing {
		if e.due(e.s.now()) <= 0 {
			select {
			case e.kick <- struct{}{}:
			default:
			}
		}
		return
	}
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if !e.s.closed {
		e.committing = true
		e.s.wg.Go(e.committer)
	}
}

// due returns how long the next commit may wait. The caller holds e.mu.
func (e *Entry) due(now time.Time) time.Duration {
	if e.stuck == nil && (e.left == 0 || e.pendingBytes >= e.s.window/2) {
		return 0
	}
	return e.lastCommit.Add(commitEvery).Sub(now)
}

// committer commits for as long as there is something to commit.
func (e *Entry) committer() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		e.mu.Lock()
		if len(e.pending) == 0 && len(e.dropped) == 0 {
			e.committing = false
			e.mu.Unlock()
			return
		}
		wait := e.due(e.s.now())
		e.mu.Unlock()
		if wait > 0 {
			timer.Reset(min(wait, commitEvery))
			select {
			case <-timer.C:
			case <-e.kick:
				continue
			case <-e.s.closing:
				e.mu.Lock()
				e.committing = false
				e.mu.Unlock()
				return // Close flushes
			}
		}
		if err := e.commit(context.Background()); err != nil {
			e.s.log.Warn("commit", "manifest", e.digest.Short(), "err", err)
		}
	}
}

// commit makes everything written before it durable. After an error that is not [ErrLost]
// what was to be committed stays to be.
func (e *Entry) commit(ctx context.Context) error {
	select {
	case <-e.commitSem:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { e.commitSem <- struct{}{} }()
	b := e.takeBatch()
	if len(b.held) == 0 && len(b.dropped) == 0 {
		return nil
	}
	err := e.s.explain(e.persist(b), b.bytes)
	e.endBatch(b, err)
	return err
}

func (e *Entry) takeBatch() batch {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := batch{held: e.pending, dropped: e.dropped, bytes: e.pendingBytes, remade: e.remade}
	slices.Sort(b.held)
	slices.Sort(b.dropped)
	b.dropped = slices.Compact(b.dropped)
	e.pending, e.dropped, e.pendingBytes, e.remade = nil, nil, 0, false
	e.commitBytes = b.bytes
	return b
}

// unqueue takes a run off what is to be committed. The caller holds e.mu.
func (e *Entry) unqueue(run int) {
	if i := slices.Index(e.pending, run); i >= 0 {
		e.pending = slices.Delete(e.pending, i, i+1)
		e.pendingBytes -= int64(e.layout.Run(run).Len)
	}
}

// endBatch draws the consequences of a commit: after [ErrLost] all that was written and not
// durable is not held, after another error it waits for the next commit.
func (e *Entry) endBatch(b batch, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.commitBytes = 0
	e.lastCommit = e.s.now()
	e.stuck = nil
	switch {
	case errors.Is(err, ErrLost):
		for _, run := range append(b.held, e.pending...) {
			e.unhold(run)
		}
		e.pending, e.pendingBytes = nil, 0
		e.dropped = append(e.dropped, b.dropped...)
		e.epoch++
		e.lost = errors.Join(e.lost, err)
	case err != nil:
		e.stuck = err
		e.dropped = append(e.dropped, b.dropped...)
		for _, run := range b.held {
			if e.held.Has(run) && !slices.Contains(e.pending, run) {
				e.pending = append(e.pending, run)
				e.pendingBytes += int64(e.layout.Run(run).Len)
			}
		}
	}
	e.remade = e.remade || b.remade && err != nil
	e.cond.Broadcast()
}

// persist does the syncs of a commit in their order.
func (e *Entry) persist(b batch) error {
	if err := e.establish(b.remade); err != nil {
		return err
	}
	for _, slot := range e.slotsOf(b.held) {
		if err := e.syncData(&e.files[slot]); err != nil {
			return err
		}
	}
	if e.rewrite {
		return e.rewriteJournal(b)
	}
	return e.appendJournal(b)
}

// establish syncs what the first record of the journal relies on: manifest, hash file,
// groups, journal header and the names of all files.
func (e *Entry) establish(remade bool) error {
	if e.durable && !remade {
		return nil
	}
	if !e.durable {
		if err := e.syncHead(); err != nil {
			return err
		}
	}
	for _, dir := range []string{e.dir + "/f", e.dir, path.Dir(e.dir)} {
		if err := e.s.disk.SyncDir(dir); err != nil {
			return fmt.Errorf("%w: sync directory %q: %w", ErrLost, dir, err)
		}
	}
	e.durable = true
	return nil
}

// syncHead syncs the small files of an entry, or after a failed sync writes them anew.
func (e *Entry) syncHead() error {
	if e.headBad {
		return e.writeHead()
	}
	for _, name := range []string{"manifest", "hashes", "groups", "journal"} {
		err := disk.SyncFile(e.s.disk, e.dir+"/"+name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.headBad, e.rewrite = true, true
			return fmt.Errorf("%w: sync %q: %w", ErrLost, name, err)
		}
	}
	return nil
}

// writeHead puts new files in the place of those whose sync failed; the journal's turn comes
// when it is written.
func (e *Entry) writeHead() error {
	e.mu.Lock()
	groups := e.groups
	e.mu.Unlock()
	for _, f := range e.head(groups) {
		if err := disk.ReplaceFile(e.s.disk, e.dir+"/"+f.name, f.bytes); err != nil {
			return fmt.Errorf("%w: replace %q: %w", ErrLost, f.name, err)
		}
	}
	e.headBad = false
	return nil
}

// slotsOf returns the store files that runs lie in, in ascending order.
func (e *Entry) slotsOf(runs []int) []int {
	var slots []int
	last := -1
	for _, run := range runs {
		segs, n := e.place.Segments(e.layout.Run(run))
		for _, s := range segs[:n] {
			if s.Slot != last {
				slots = append(slots, s.Slot)
				last = s.Slot
			}
		}
	}
	slices.Sort(slots)
	return slices.Compact(slots)
}

func (e *Entry) syncData(df *dataFile) error {
	h, err := e.s.handles.Get(&df.Kept)
	if err != nil {
		return fmt.Errorf("%w: sync %q: %w", ErrLost, df.Name, err)
	}
	defer e.s.handles.Put(h)
	if err := h.File.Datasync(); err != nil {
		return fmt.Errorf("%w: sync %q: %w", ErrLost, df.Name, err)
	}
	return nil
}

// records returns what the journal is to say of a batch: drops first, since a run may have
// been dropped and written again.
func (e *Entry) records(b batch) []byte {
	out := journal.AppendRecords(nil, e.digest, journal.Records(journal.Dropped, e.layout, b.dropped))
	return journal.AppendRecords(out, e.digest, journal.Records(journal.Held, e.layout, b.held))
}

// appendJournal writes the batch's records behind the good ones. When the sync fails nobody
// knows what is on disk, and the journal is written anew next time.
func (e *Entry) appendJournal(b batch) error {
	f, err := e.s.disk.Open(e.dir+"/journal", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return e.rewriteJournal(b)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	rec := e.records(b)
	if _, err := f.WriteAt(rec, e.tail); err != nil {
		e.rewrite = true
		return fmt.Errorf("write journal: %w", err)
	}
	if err := f.Datasync(); err != nil {
		e.rewrite = true
		return fmt.Errorf("%w: sync journal: %w", ErrLost, err)
	}
	e.tail += int64(len(rec))
	return nil
}

// rewriteJournal puts a new journal in the place of the old one: what is durable already and
// the batch. It is whole before it has its name.
func (e *Entry) rewriteJournal(b batch) error {
	e.rewrite = true
	temp := e.dir + "/journal.new"
	if err := e.s.disk.RemoveAll(temp); err != nil {
		return err
	}
	whole := e.wholeJournal(b)
	if err := disk.WriteFile(e.s.disk, temp, whole); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := disk.SyncFile(e.s.disk, temp); err != nil {
		return fmt.Errorf("%w: sync journal: %w", ErrLost, err)
	}
	if err := e.s.disk.Rename(temp, e.dir+"/journal"); err != nil {
		return fmt.Errorf("%w: rename journal: %w", ErrLost, err)
	}
	if err := e.s.disk.SyncDir(e.dir); err != nil {
		return fmt.Errorf("%w: sync directory %q: %w", ErrLost, e.dir, err)
	}
	e.tail, e.rewrite = int64(len(whole)), false
	return nil
}

// wholeJournal returns a journal of all runs held but those that wait for the next commit.
func (e *Entry) wholeJournal(b batch) []byte {
	e.mu.Lock()
	durable := e.held.Clone()
	for _, run := range e.pending {
		durable.Remove(run)
	}
	e.mu.Unlock()
	runs := make([]int, 0, durable.Count())
	for run := range durable.All {
		runs = append(runs, run)
	}
	header := journal.AppendHeader(nil, e.digest)
	return append(header, e.records(batch{held: runs})...)
}
