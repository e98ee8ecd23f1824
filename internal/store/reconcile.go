package store

import (
	"context"
	"errors"
	"io/fs"

	"freshet/internal/content"
)

// reconcile brings an index that is not sound into line with the directories, which are the
// truth: entries it does not know are put in, those that are gone are taken out, and what is
// held of unfinished ones is read again.
func (s *Store) reconcile() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	list, err := s.disk.list(".")
	if err != nil {
		s.log.Warn("index not rebuilt", "err", err)
		return
	}
	known, err := s.idx.known(ctx)
	if err != nil {
		s.log.Warn("index not rebuilt", "err", err)
		return
	}
	added := 0
	for _, st := range list {
		d, err := content.ParseDigest(st.Name())
		if err != nil || !st.IsDir() {
			continue
		}
		complete, ok := known[d]
		delete(known, d)
		if complete || s.isClosed() {
			continue
		}
		if s.relist(ctx, d) && !ok {
			added++
		}
	}
	for d := range known {
		s.delist(ctx, d)
	}
	if added > 0 {
		s.log.Info("index rebuilt from the directories", "entries", added)
	}
}

// relist puts an entry into the index as its directory tells.
func (s *Store) relist(ctx context.Context, d content.Digest) bool {
	e, err := s.Get(d)
	if err != nil {
		s.log.Debug("entry not opened", "manifest", d.Short(), "err", err)
		return false
	}
	defer e.Release()
	err = s.enlist(ctx, e)
	if err == nil {
		err = s.idx.setHeld(ctx, d, e.HeldBytes(), e.Complete())
	}
	if err != nil {
		s.log.Warn("entry not put into the index", "manifest", d.Short(), "err", err)
	}
	return err == nil
}

// delist takes an entry that has no directory out of the index.
func (s *Store) delist(ctx context.Context, d content.Digest) {
	defer s.locks.lock(d)()
	if _, err := s.disk.stat(d.String()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	n, err := s.idx.remove(ctx, d)
	if err != nil {
		s.log.Warn("entry not taken out of the index", "manifest", d.Short(), "err", err)
		return
	}
	s.mu.Lock()
	s.used -= n
	s.mu.Unlock()
}

// known returns the entries of the index and whether each is complete.
func (x *index) known(ctx context.Context) (map[content.Digest]bool, error) {
	rows, err := x.read.QueryContext(ctx, "SELECT digest, complete FROM entries")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[content.Digest]bool)
	for rows.Next() {
		var b []byte
		var complete bool
		if err := rows.Scan(&b, &complete); err != nil {
			return nil, err
		}
		if len(b) == len(content.Digest{}) {
			out[content.Digest(b)] = complete
		}
	}
	return out, rows.Err()
}
