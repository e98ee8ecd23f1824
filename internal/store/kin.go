package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"freshet/internal/content"
	"freshet/internal/store/place"
)

// adoptKin takes what e lacks from other issues and versions of its content, stock among them:
// whole files by link, and any other piece by its hash.
func (s *Store) adoptKin(ctx context.Context, e *Entry) error {
	take := func(c *Entry) error {
		if c == e || e.Complete() {
			return nil
		}
		if err := e.takeFiles(ctx, c); err != nil {
			return err
		}
		return e.takePieces(ctx, c)
	}
	id := e.manifest.Ref.ID
	for _, d := range s.stockOf(id) {
		if err := s.withStock(d, take); err != nil {
			return err
		}
	}
	kin, err := s.idx.ByID(ctx, id, maxDonors)
	if err != nil {
		return err
	}
	for _, d := range kin {
		c, err := s.Get(d)
		if err != nil {
			continue // gone meanwhile
		}
		err = take(c)
		c.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// takeFiles takes the large files that e lacks and c holds.
func (e *Entry) takeFiles(ctx context.Context, c *Entry) error {
	have := make(map[content.Digest]int)
	for j, sum := range c.largeFiles {
		have[sum] = j
	}
	for i, f := range e.manifest.Files {
		j, ok := have[f.SHA256]
		if !ok || !place.IsLarge(e.layout, i) || e.FileHeld(i) || !e.sameFile(i, c, j) || !c.FileHeld(j) {
			continue
		}
		if err := e.takeFile(ctx, i, c, j); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotHeld) {
			return err
		}
	}
	return nil
}

// takePieces copies the runs that e lacks and that c has all pieces of, wherever they lie there.
func (e *Entry) takePieces(ctx context.Context, c *Entry) error {
	pieces := c.hashes.Pieces
	order := make([]int32, len(pieces)) // pieces of c by hash
	for p := range order {
		order[p] = int32(p)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(bytes.Compare(pieces[a][:], pieces[b][:]), cmp.Compare(a, b))
	})
	find := func(h content.Digest) (int, bool) {
		at, ok := slices.BinarySearchFunc(order, h, func(p int32, h content.Digest) int { return bytes.Compare(pieces[p][:], h[:]) })
		if !ok {
			return 0, false
		}
		return int(order[at]), true
	}
	var buf []byte
	for run := range e.layout.Runs() {
		if e.Held(run) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if buf == nil {
			buf = make([]byte, content.PieceSize)
		}
		b := buf[:e.layout.Run(run).Len]
		if !e.gather(run, c, find, b) || !e.Verify(run, b) {
			continue
		}
		if err := e.Write(run, b); err != nil {
			return err
		}
	}
	return nil
}

// gather reads the pieces of a run of e from c into b, and reports whether all were there.
func (e *Entry) gather(run int, c *Entry, find func(content.Digest) (int, bool), b []byte) bool {
	r := e.layout.Run(run)
	for p := r.First; p < r.First+r.Count; p++ {
		q, ok := find(e.hashes.Pieces[p])
		n := e.layout.PieceLen(p)
		if !ok || c.layout.PieceLen(q) != n {
			return false
		}
		from := c.layout.RunOf(q)
		off := int(c.layout.PieceOffset(q) - c.layout.Run(from).Offset)
		if c.Read(from, off, n, b) != nil { // not held, or wrong on disk
			return false
		}
		b = b[n:]
	}
	return true
}
