package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"freshet/internal/content"
	"freshet/internal/store/place"
)

// maxDonors bounds how many entries are tried for one file.
const maxDonors = 8

// Adopt takes what e lacks from other entries and returns the number of runs that it gained:
// equal files of a piece or more by hard link (by copy when one is executable and the other
// is not), any run of an entry with the same HashOfHashes by copy, and any piece that another
// issue or version of the same content has, or stock of it. What is taken is hashed first
// where Read would hash it.
func (s *Store) Adopt(ctx context.Context, e *Entry) (runs int, err error) {
	before := e.HeldRuns().Count()
	if err := s.adopt(ctx, e); err != nil {
		err = fmt.Errorf("store: adopt for entry %s: %w", e.digest.Short(), err)
		return e.HeldRuns().Count() - before, err
	}
	return e.HeldRuns().Count() - before, nil
}

func (s *Store) adopt(ctx context.Context, e *Entry) error {
	for i := range e.layout.Files() {
		if !place.IsLarge(e.layout, i) || e.FileHeld(i) {
			continue
		}
		if err := s.adoptFile(ctx, e, i); err != nil {
			return err
		}
	}
	if e.Complete() {
		return nil
	}
	for _, c := range s.ByHashOfHashes(e.manifest.HashOfHashes) {
		err := e.copyRuns(ctx, c, func(run int) (int, bool) { return run, c != e })
		c.Release()
		if err != nil {
			return err
		}
	}
	if e.Complete() {
		return nil
	}
	return s.adoptKin(ctx, e)
}

// adoptFile looks for file i in other entries.
func (s *Store) adoptFile(ctx context.Context, e *Entry, i int) error {
	donors, err := s.idx.FilesOf(ctx, e.manifest.Files[i].SHA256, e.digest, maxDonors)
	if err != nil {
		return err
	}
	for _, d := range donors {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		c, err := s.Get(d.Digest)
		if err != nil {
			continue // gone meanwhile
		}
		if e.sameFile(i, c, d.Number) && c.FileHeld(d.Number) {
			err = e.takeFile(ctx, i, c, d.Number)
		}
		c.Release()
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotHeld) {
			return err
		}
		if e.FileHeld(i) {
			return nil
		}
	}
	return nil
}

// sameFile reports whether file i of e and file j of c have the same pieces.
func (e *Entry) sameFile(i int, c *Entry, j int) bool {
	if j >= c.layout.Files() || e.layout.FileSize(i) != c.layout.FileSize(j) {
		return false
	}
	ef, n := e.layout.FilePieces(i)
	cf, _ := c.layout.FilePieces(j)
	return slices.Equal(e.hashes.Pieces[ef:ef+n], c.hashes.Pieces[cf:cf+n])
}

// takeFile makes file i of e the same as file j of c, which is all held.
func (e *Entry) takeFile(ctx context.Context, i int, c *Entry, j int) error {
	es, _ := e.place.Slot(i)
	cs, _ := c.place.Slot(j)
	if e.files[es].mode == c.files[cs].mode {
		if err := c.assure(ctx, j); err != nil {
			return err
		}
		if err := e.linkFile(&e.files[es], &c.files[cs]); err == nil {
			return e.commitNow(ctx, e.runsWithin(i))
		} else {
			e.s.log.Debug("store file not linked, its pieces are copied", "file", e.files[es].Name, "err", err)
		}
	}
	ef, _ := e.layout.FilePieces(i)
	cf, _ := c.layout.FilePieces(j)
	within := e.runsWithin(i)
	return e.copyRuns(ctx, c, func(run int) (int, bool) {
		r := e.layout.Run(run)
		if _, ok := slices.BinarySearch(within, run); !ok || r.Count != 1 {
			return 0, false
		}
		from := c.layout.RunOf(r.First - ef + cf)
		return from, c.layout.Run(from).Count == 1
	})
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

// copyRuns copies runs that e lacks and c holds; from tells which run of c is which of e.
func (e *Entry) copyRuns(ctx context.Context, c *Entry, from func(run int) (int, bool)) error {
	var buf []byte
	for run := range e.layout.Runs() {
		source, ok := from(run)
		if !ok || e.Held(run) || !c.Held(source) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if buf == nil {
			buf = make([]byte, content.PieceSize)
		}
		n := e.layout.Run(run).Len
		err := c.Read(source, 0, n, buf)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotHeld) {
			continue
		}
		if err == nil && e.Verify(run, buf[:n]) {
			err = e.Write(run, buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
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
