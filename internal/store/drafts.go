package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"freshet/internal/content"
	"freshet/internal/store/place"
)

// Drafts returns the manifest digests of all drafts.
func (s *Store) Drafts() []content.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]content.Digest, 0, len(s.drafts))
	for d := range s.drafts {
		out = append(out, d)
	}
	return out
}

// HasDraft reports whether there is a draft of a manifest.
func (s *Store) HasDraft(d content.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drafts[d] != nil
}

func (s *Store) draftOpen(d content.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.drafts[d]
	return st != nil && st.open != nil
}

// unregister forgets a draft and returns the bytes that were reserved for it.
func (s *Store) unregister(d content.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.drafts[d]
	if st == nil {
		return 0
	}
	delete(s.drafts, d)
	s.used -= st.size
	return st.size
}

// RemoveDraft deletes a draft. The error is [ErrInUse] while somebody uses it.
func (s *Store) RemoveDraft(d content.Digest) error {
	defer s.locks.lock(d)()
	if s.draftOpen(d) {
		return fmt.Errorf("store: remove draft %s: %w", d.Short(), ErrInUse)
	}
	if err := s.removeDraftLocked(d); err != nil {
		return fmt.Errorf("store: remove draft %s: %w", d.Short(), err)
	}
	return nil
}

// removeDraftLocked deletes a draft that nobody uses. The caller holds the digest's lock.
func (s *Store) removeDraftLocked(d content.Digest) error {
	temp := tmpDir + "/" + rand.Text()
	err := s.disk.Rename(draftDir(d), temp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.unregister(d)
	if err != nil {
		return nil
	}
	return errors.Join(s.disk.SyncDir(draftsDir), s.disk.RemoveAll(temp))
}

// dropDraft removes a draft whose entry has come by another way. The caller holds the
// digest's lock.
func (s *Store) dropDraft(d content.Digest) {
	if !s.HasDraft(d) || s.draftOpen(d) {
		return
	}
	if err := s.removeDraftLocked(d); err != nil {
		s.log.Warn("draft not removed", "manifest", d.Short(), "err", err)
	}
}

// evictDrafts removes drafts that nobody uses, the oldest first: those that were not opened
// for draftIdle, and more until need bytes are freed. It returns the bytes freed.
func (s *Store) evictDrafts(need int64) (freed int64) {
	type idle struct {
		d content.Digest
		draftState
	}
	var list []idle
	s.mu.Lock()
	for d, st := range s.drafts {
		if st.open == nil {
			list = append(list, idle{d, *st})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b idle) int { return a.used.Compare(b.used) })
	for _, i := range list {
		if freed >= need && s.now().Sub(i.used) < draftIdle {
			break
		}
		unlock := s.locks.tryLock(i.d)
		if unlock == nil {
			continue // being opened
		}
		if !s.draftOpen(i.d) {
			if err := s.removeDraftLocked(i.d); err != nil {
				s.log.Warn("draft not removed", "manifest", i.d.Short(), "err", err)
			} else {
				freed += i.size
				s.log.Info("draft evicted", "manifest", i.d.Short(), "bytes", i.size)
			}
		}
		unlock()
	}
	return freed
}

// findDrafts notes what drafts there are when the store opens. Their bytes are what their
// files take; one that became an entry is removed.
func (s *Store) findDrafts() error {
	list, err := s.disk.List(draftsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, st := range list {
		d, err := content.ParseDigest(st.Name())
		_, entry := s.disk.Stat(st.Name())
		if err != nil || entry == nil || !st.IsDir() {
			if err := s.disk.RemoveAll(draftsDir + "/" + st.Name()); err != nil {
				return err
			}
			continue
		}
		size, err := s.reserved(draftDir(d))
		if err != nil {
			return err
		}
		s.drafts[d] = &draftState{size: size, used: s.now()}
		s.used += size
	}
	return nil
}

// reserved returns the bytes of the store files in a directory.
func (s *Store) reserved(dir string) (n int64, err error) {
	list, err := s.disk.List(dir + "/f")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if st, err := s.disk.Stat(dir + "/" + place.Small); err == nil {
		list = append(list, st)
	}
	for _, st := range list {
		n += st.Size()
	}
	return n, nil
}
