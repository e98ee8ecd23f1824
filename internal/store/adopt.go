package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"freshet/internal/content"
	"freshet/internal/store/index"
	"freshet/internal/store/place"
)

// Adopt takes what e lacks from other entries and returns the number of runs that it gained. It
// takes from the entries of the same bytes, whatever their names and groups; from stock of the
// same content; and, unless little is missing, whatever pieces any other entry has. What is of
// other bytes must have been got for the group, which is the device's. Equal files of a piece or
// more are taken by hard link when both are executable or neither is; else pieces are copied.
// What is taken is hashed first where Read would hash it. It takes as long as the disk does.
func (s *Store) Adopt(ctx context.Context, e *Entry, group string) (runs int, err error) {
	before := e.HeldRuns().Count()
	if !e.Complete() {
		err = s.adopt(ctx, e, group)
	}
	if err != nil {
		err = fmt.Errorf("store: adopt for entry %s: %w", e.digest.Short(), err)
	}
	return e.HeldRuns().Count() - before, err
}

func (s *Store) adopt(ctx context.Context, e *Entry, group string) error {
	if err := e.takeAndRelease(ctx, s.ByHashOfHashes(e.manifest.HashOfHashes)); err != nil {
		return err
	}
	for _, d := range s.stockOf(e.manifest.Ref.ID) {
		err := s.withStock(d, func(c *Entry) error {
			if !slices.Contains(c.groups, group) {
				return nil
			}
			return e.take(ctx, []*Entry{c})
		})
		if err != nil {
			return err
		}
	}
	donors, err := s.donors(ctx, e, group)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(donors, openDonors) {
		if err := e.takeAndRelease(ctx, s.getAll(part)); err != nil {
			return err
		}
	}
	return nil
}

// getAll returns those entries that can be opened, each in use by the caller.
func (s *Store) getAll(digests []content.Digest) []*Entry {
	var out []*Entry
	for _, d := range digests {
		e, err := s.Get(d)
		if err != nil {
			s.log.Debug("entry not opened", "manifest", d.Short(), "err", err)
			continue
		}
		out = append(out, e)
	}
	return out
}

func (e *Entry) takeAndRelease(ctx context.Context, donors []*Entry) error {
	defer func() {
		for _, c := range donors {
			c.Release()
		}
	}()
	return e.take(ctx, donors)
}

// take takes what e lacks from donors: whole files by link, and other pieces wherever they are.
func (e *Entry) take(ctx context.Context, donors []*Entry) error {
	for _, c := range donors {
		if e.Complete() {
			return nil
		}
		if err := e.takeFiles(ctx, c); err != nil {
			return err
		}
	}
	return e.takePieces(ctx, donors)
}

// takeFiles links the large files that e lacks and c holds.
func (e *Entry) takeFiles(ctx context.Context, c *Entry) error {
	if c == e {
		return nil
	}
	have := make(map[content.Digest]int)
	for j, f := range c.manifest.Files {
		if place.IsLarge(c.layout, j) && c.FileHeld(j) {
			have[f.SHA256] = j
		}
	}
	for i, f := range e.manifest.Files {
		j, ok := have[f.SHA256]
		if !ok || !place.IsLarge(e.layout, i) || e.FileHeld(i) || !e.sameFile(i, c, j) {
			continue
		}
		if err := e.takeFile(ctx, i, c, j); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotHeld) {
			return err
		}
	}
	return nil
}

// sameFile reports whether file i of e and file j of c have the same mode and pieces.
func (e *Entry) sameFile(i int, c *Entry, j int) bool {
	if e.manifest.Files[i].Executable != c.manifest.Files[j].Executable || e.layout.FileSize(i) != c.layout.FileSize(j) {
		return false
	}
	ef, n := e.layout.FilePieces(i)
	cf, _ := c.layout.FilePieces(j)
	return slices.Equal(e.hashes.Pieces[ef:ef+n], c.hashes.Pieces[cf:cf+n])
}

// takeFile makes file i of e the same as file j of c, which is all held. Where there are no
// links, its pieces are copied later.
func (e *Entry) takeFile(ctx context.Context, i int, c *Entry, j int) error {
	es, _ := e.place.Slot(i)
	cs, _ := c.place.Slot(j)
	if err := c.assure(ctx, j); err != nil {
		return err
	}
	if err := e.linkFile(&e.files[es], &c.files[cs]); err != nil {
		e.s.log.Debug("store file not linked, its pieces are copied", "file", e.files[es].Name, "err", err)
		return nil
	}
	return e.commitNow(ctx, e.runsWithin(i))
}

// assure makes file i durable and hashes what of it must be hashed before it is handed out.
func (e *Entry) assure(ctx context.Context, i int) error {
	if err := e.commit(ctx); err != nil {
		return err
	}
	first, end := e.runsOf(i)
	for run := first; run < end; run++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := e.assureRun(run); err != nil {
			return err
		}
	}
	return nil
}

// assureRun hashes a run if Read would.
func (e *Entry) assureRun(run int) error {
	r := e.layout.Run(run)
	fresh, err := e.fresh(run, r)
	if err == nil && !fresh {
		err = e.checkPart(run, r, 0, nil)
	}
	return e.readError(run, err)
}

// linkFile puts a hard link to one store file in the place of another with the same bytes.
// The name is durable with the next commit.
func (e *Entry) linkFile(df, from *dataFile) error {
	from.mu.Lock()
	stamp := from.stamp
	from.mu.Unlock()
	df.mu.Lock()
	defer df.mu.Unlock()
	temp := df.Name + ".new"
	if err := e.s.disk.RemoveAll(temp); err != nil {
		return err
	}
	if err := e.s.disk.Link(from.Name, temp); err != nil {
		return err
	}
	e.s.handles.Renew(&df.Kept) // where a file cannot be replaced while it is open
	if err := e.s.disk.Rename(temp, df.Name); err != nil {
		return err
	}
	e.s.handles.Renew(&df.Kept) // a reader may have opened it in between
	df.stamp = stamp            // so that a change after the hashing is noticed
	e.mu.Lock()
	e.remade = true
	e.mu.Unlock()
	return nil
}

// runsWithin returns the runs that lie in file i alone, in ascending order.
func (e *Entry) runsWithin(i int) []int {
	p, n := e.layout.FilePieces(i)
	first, end := e.runsOf(i)
	var out []int
	for run := first; run < end; run++ {
		if r := e.layout.Run(run); r.First >= p && r.First+r.Count <= p+n {
			out = append(out, run)
		}
	}
	return out
}

// commitNow notes runs as held whose bytes lie in their place already, and commits.
func (e *Entry) commitNow(ctx context.Context, runs []int) error {
	e.mu.Lock()
	for _, run := range runs {
		if e.held.Has(run) {
			continue
		}
		e.hold(run)
		e.checked[run] = e.s.stamp()
		e.pending = append(e.pending, run)
		e.pendingBytes += int64(e.layout.Run(run).Len)
	}
	e.mu.Unlock()
	return e.commit(ctx)
}

// source is where a piece is found.
type source struct {
	c     *Entry
	piece int
}

// takePieces copies the runs that e lacks and whose pieces donors have, wherever they lie there.
func (e *Entry) takePieces(ctx context.Context, donors []*Entry) error {
	found := e.find(donors)
	if len(found) == 0 {
		return nil
	}
	buf := make([]byte, content.PieceSize)
	for run := range e.layout.Runs() {
		if e.Held(run) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		b := buf[:e.layout.Run(run).Len]
		if !e.gather(run, found, b) || !e.Verify(run, b) {
			continue
		}
		if err := e.Write(run, b); err != nil {
			return err
		}
	}
	return nil
}

// find tells where donors hold the pieces that e lacks.
func (e *Entry) find(donors []*Entry) map[index.Key]source {
	lacking := e.lacking()
	found := make(map[index.Key]source)
	for _, c := range donors {
		for run := range c.HeldRuns().All {
			r := c.layout.Run(run)
			for p := r.First; p < r.First+r.Count; p++ {
				key := index.KeyOf(c.hashes.Pieces[p])
				if n, ok := lacking[key]; ok && n == c.layout.PieceLen(p) {
					found[key] = source{c, p}
					delete(lacking, key)
				}
			}
		}
	}
	return found
}

// lacking returns the length of each piece that e lacks.
func (e *Entry) lacking() map[index.Key]int {
	held := e.HeldRuns()
	out := make(map[index.Key]int)
	for run := range e.layout.Runs() {
		if held.Has(run) {
			continue
		}
		r := e.layout.Run(run)
		for p := r.First; p < r.First+r.Count; p++ {
			out[index.KeyOf(e.hashes.Pieces[p])] = e.layout.PieceLen(p)
		}
	}
	return out
}

// gather reads the pieces of a run from where they are found into b, and reports whether all
// were there.
func (e *Entry) gather(run int, found map[index.Key]source, b []byte) bool {
	r := e.layout.Run(run)
	pieces := e.hashes.Pieces[r.First : r.First+r.Count]
	for _, hash := range pieces {
		if _, ok := found[index.KeyOf(hash)]; !ok {
			return false
		}
	}
	for _, hash := range pieces {
		at := found[index.KeyOf(hash)]
		from := at.c.layout.RunOf(at.piece)
		off := int(at.c.layout.PieceOffset(at.piece) - at.c.layout.Run(from).Offset)
		n := at.c.layout.PieceLen(at.piece)
		if n > len(b) || at.c.Read(from, off, n, b) != nil { // dropped meanwhile, or wrong on disk
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}
