package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"freshet/internal/content"
	"freshet/internal/store/index"
)

// State tells how far an entry is.
type State string

const (
	Partial  State = "partial"  // pieces are missing
	Complete State = "complete" // all pieces are held
)

// Info is what is shown of an entry.
type Info struct {
	Ref          content.Ref
	Digest       content.Digest // of the manifest
	HashOfHashes content.Digest
	Size         int64 // bytes of all files
	Held         int64 // bytes held
	State        State
	Groups       []string
	Created      time.Time
	LastUse      time.Time
	Expires      time.Time // zero: never
	Pinned       bool
	InUse        bool
}

// List returns what is in the cache, the latest used first.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	known, err := s.idx.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("store: list: %w", err)
	}
	s.mu.Lock()
	loaded := make(map[content.Digest]*Entry, len(s.loaded))
	inUse := make(map[content.Digest]bool)
	for d, e := range s.loaded {
		loaded[d] = e
		inUse[d] = e.refs > 0
	}
	s.mu.Unlock()
	var list []Info
	for _, k := range known {
		i := infoOf(k)
		if e := loaded[k.Digest]; e != nil {
			i.InUse, i.Held, i.State = inUse[k.Digest], e.HeldBytes(), stateOf(e.Complete())
		}
		list = append(list, i)
	}
	return list, nil
}

// Has reports whether there is an entry, without opening or using it.
func (s *Store) Has(d content.Digest) (bool, error) {
	switch _, err := s.disk.Stat(d.String()); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("store: entry %s: %w", d.Short(), err)
	}
}

func stateOf(complete bool) State {
	if complete {
		return Complete
	}
	return Partial
}

// infoOf shows what the index tells.
func infoOf(e index.Entry) Info {
	return Info{
		Ref: e.Ref, Digest: e.Digest, HashOfHashes: e.HashOfHashes, Size: e.Size, Held: e.Held,
		State: stateOf(e.Complete), Groups: e.Groups, Created: e.Created, LastUse: e.LastUse,
		Expires: e.Expires, Pinned: e.Pinned,
	}
}

// Pin keeps an entry from being evicted, or no longer.
func (s *Store) Pin(ctx context.Context, d content.Digest, pinned bool) error {
	if err := s.idx.Pin(ctx, d, pinned); err != nil {
		return fmt.Errorf("store: set pinned of entry %s: %w", d.Short(), err)
	}
	return nil
}

// SetExpiry sets when an entry expires: it is evicted before all others then. The zero time
// stands for never.
func (s *Store) SetExpiry(ctx context.Context, d content.Digest, at time.Time) error {
	if err := s.idx.SetExpiry(ctx, d, at); err != nil {
		return fmt.Errorf("store: set expires of entry %s: %w", d.Short(), err)
	}
	return nil
}

// Remove deletes an entry. The error is [ErrInUse] while somebody uses it, fs.ErrNotExist
// when there is none.
func (s *Store) Remove(ctx context.Context, d content.Digest) error {
	defer s.locks.lock(d)()
	if _, err := s.removeLocked(ctx, d); err != nil {
		return fmt.Errorf("store: remove entry %s: %w", d.Short(), err)
	}
	return nil
}

// removeLocked takes the entry's directory away in one step and then deletes what is in it.
// The caller holds the digest's lock.
func (s *Store) removeLocked(ctx context.Context, d content.Digest) (size int64, err error) {
	s.mu.Lock()
	e, closed := s.loaded[d], s.closed
	s.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	if e != nil {
		if !s.forget(e) {
			return 0, ErrInUse
		}
		e.discard()
		e.closeFiles()
	}
	temp := tmpDir + "/" + d.String()
	gone := s.disk.RemoveAll(temp)
	if gone == nil {
		gone = s.disk.Rename(d.String(), temp)
	}
	if gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		return 0, gone
	}
	if size, err = s.idx.Size(ctx, d); err != nil {
		return 0, err
	}
	if gone == nil {
		err = errors.Join(s.disk.SyncDir("."), s.disk.RemoveAll(temp))
	}
	if serr := s.strike(context.WithoutCancel(ctx), d); serr != nil {
		s.unsound(d, serr)
	}
	return size, errors.Join(gone, err)
}

// strike takes an entry that is gone out of the index. The caller holds the digest's lock.
func (s *Store) strike(ctx context.Context, d content.Digest) error {
	size, err := s.idx.Size(ctx, d)
	if err != nil {
		return err
	}
	if err := s.idx.Remove(ctx, d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= size
	return nil
}

// Evict removes entries until need bytes are freed: drafts, all entries that have expired or
// were unused for longer than the greatest age, stock, then those used least recently; never one
// that is pinned or in use. It returns the bytes freed, which may be fewer.
func (s *Store) Evict(ctx context.Context, need int64) (freed int64, err error) {
	if err := s.idx.FlushUses(ctx); err != nil {
		s.log.Warn("last uses not written before evicting", "err", err) // a full disk must not hinder it
	}
	freed = s.evictDrafts(need)
	n, err := s.evictExpired(ctx)
	freed += n
	freed += s.evictStock(need - freed)
	if err == nil && freed < need {
		n, err = s.evictUnused(ctx, need-freed)
		freed += n
	}
	if err != nil {
		return freed, fmt.Errorf("store: evict: %w", err)
	}
	return freed, nil
}

// evictExpired removes all entries that have expired or were unused for too long.
func (s *Store) evictExpired(ctx context.Context) (freed int64, err error) {
	now, oldest := s.now(), time.Time{}
	if s.maxAge > 0 {
		oldest = now.Add(-s.maxAge)
	}
	digests, err := s.idx.Expired(ctx, now, oldest)
	if err != nil {
		return 0, err
	}
	return s.evict(ctx, math.MaxInt64, digests)
}

func (s *Store) evictUnused(ctx context.Context, need int64) (freed int64, err error) {
	digests, err := s.idx.Evictable(ctx)
	if err != nil {
		return 0, err
	}
	return s.evict(ctx, need, digests)
}

// evict removes entries, in this order, until need bytes are freed.
func (s *Store) evict(ctx context.Context, need int64, digests []content.Digest) (freed int64, err error) {
	for _, d := range digests {
		if freed >= need {
			break
		}
		unlock := s.locks.tryLock(d)
		if unlock == nil {
			continue // being opened or made, so in use
		}
		n, err := s.removeLocked(ctx, d)
		unlock()
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			freed += n
			s.log.Info("entry evicted", "manifest", d.Short(), "bytes", n)
		case !errors.Is(err, ErrInUse):
			return freed, err
		}
	}
	return freed, nil
}

// discard keeps a removed entry from being committed, after the commit under way.
func (e *Entry) discard() {
	<-e.commitSem
	defer func() { e.commitSem <- struct{}{} }()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending, e.dropped, e.pendingBytes = nil, nil, 0
}
