package store

import (
	"context"
	"errors"
	"io/fs"

	"freshet/internal/content"
)

// reconcile brings an index that is not sound into line with the directories, which are the
// truth: entries it does not know are put in, those that are gone are taken out, and what is
// held of unfinished ones is read again, as are entries whose pieces it does not know.
func (s *Store) reconcile() {
	added, err := s.reconcileAll(context.Background())
	if err != nil {
		s.log.Warn("index not rebuilt; it is tried again when the cache is opened", "err", err)
		return
	}
	if added > 0 {
		s.log.Info("index rebuilt from the directories", "entries", added)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sound = true
}

func (s *Store) reconcileAll(ctx context.Context) (added int, err error) {
	list, err := s.disk.List(".")
	if err != nil {
		return 0, err
	}
	known, err := s.idx.Known(ctx)
	if err != nil {
		return 0, err
	}
	for _, st := range list {
		d, err := content.ParseDigest(st.Name())
		if err != nil || !st.IsDir() {
			continue
		}
		settled, ok := known[d]
		delete(known, d)
		if settled {
			continue
		}
		if err := s.relist(ctx, d); err != nil {
			return added, err
		}
		if !ok {
			added++
		}
	}
	for d := range known {
		if err := s.delist(ctx, d); err != nil {
			return added, err
		}
	}
	return added, nil
}

// relist puts an entry into the index as its directory tells. One that cannot be opened is
// left to whoever creates or removes it, and the index is sound without its pieces.
func (s *Store) relist(ctx context.Context, d content.Digest) error {
	e, err := s.Get(d)
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err != nil {
		s.log.Warn("entry not opened", "manifest", d.Short(), "err", err)
		return s.idx.PutUnread(ctx, d)
	}
	defer s.release(e) // no use that counts
	if err := s.enlist(ctx, e); err != nil {
		return err
	}
	return s.idx.SetHeld(ctx, e.digest, e.HeldBytes(), e.Complete())
}

// delist takes an entry that has no directory out of the index.
func (s *Store) delist(ctx context.Context, d content.Digest) error {
	defer s.locks.lock(d)()
	if _, err := s.disk.Stat(d.String()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.strike(ctx, d)
}
