package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/store/index"
	"freshet/internal/store/journal"
)

const tmpDir = "tmp"

// headFile is one of the small files of an entry.
type headFile struct {
	name  string
	bytes []byte
}

// Create returns the entry of a manifest, made when it is not there yet and mended when its
// manifest or hash file is damaged; it is in use by the caller until [Entry.Release]. The
// hash file is in its raw form. All its bytes are reserved at once: the error is a
// [FullError] when there is no room even after evicting. The groups are added to those that
// the content was got for before.
func (s *Store) Create(ctx context.Context, manifest, hashFile []byte, groups []string) (*Entry, error) {
	d := content.DigestOf(manifest)
	for _, g := range groups {
		if g == "" || strings.ContainsRune(g, '\n') {
			return nil, fmt.Errorf("store: create entry %s: group %q is not a name", d.Short(), g)
		}
	}
	defer s.locks.lock(d)()
	e, err := s.getLocked(d)
	if errors.Is(err, fs.ErrNotExist) {
		e, err = s.create(ctx, manifest, hashFile, groups)
	}
	if err == nil {
		s.dropDraft(d)
		if ierr := s.enlist(context.WithoutCancel(ctx), e); ierr != nil {
			s.unsound(d, ierr)
		}
		if err = e.addGroups(ctx, groups); err != nil {
			e.Release()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store: create entry %s: %w", d.Short(), err)
	}
	return e, nil
}

// create makes or mends an entry that cannot be loaded. The caller holds the digest's lock.
func (s *Store) create(ctx context.Context, manifest, hashFile []byte, groups []string) (*Entry, error) {
	m, err := content.ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	e := newEntry(s, content.DigestOf(manifest), slices.Clone(manifest), m)
	if e.hashes, err = parseHashes(hashFile, m, e.layout); err != nil {
		return nil, err
	}
	if _, err := s.disk.Stat(e.dir); err == nil {
		if e, err = s.mend(e); err != nil {
			return nil, err
		}
	} else {
		e.groups = slices.Compact(slices.Sorted(slices.Values(groups)))
		if err := s.make(ctx, e); err != nil {
			return nil, err
		}
	}
	return e, s.adoptLoaded(e)
}

// enlist puts an entry into the index.
func (s *Store) enlist(ctx context.Context, e *Entry) error {
	m := e.manifest
	grown, err := s.idx.Put(ctx, index.Entry{
		Ref: m.Ref, Digest: e.digest, HashOfHashes: m.HashOfHashes, Size: m.Size,
		Held: e.HeldBytes(), Complete: e.Complete(), Groups: e.Groups(), Created: s.now(),
	}, index.AppendKeys(nil, e.hashes.Pieces))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.used += grown
	s.mu.Unlock()
	return nil
}

// mend replaces the manifest and the hash file of a damaged entry and keeps what its journal
// says is held.
func (s *Store) mend(e *Entry) (*Entry, error) {
	s.log.Warn("entry is mended", "manifest", e.digest.Short())
	for _, f := range []headFile{{"manifest", e.bytes}, {"hashes", e.HashFileRaw()}} {
		if err := disk.ReplaceFile(s.disk, e.dir+"/"+f.name, f.bytes); err != nil {
			return nil, err
		}
	}
	return s.load(e.digest)
}

// make reserves room and makes the entry's directory. Nothing is synced: the first commit
// does that, so that a small content is on its way at once.
func (s *Store) make(ctx context.Context, e *Entry) error {
	size := e.layout.Size()
	if err := s.makeRoom(ctx, size); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		err := s.makeDir(e)
		if !disk.IsFull(err) {
			return err
		}
		freed, evictErr := s.Evict(ctx, size)
		if evictErr != nil || freed == 0 || attempt == 3 {
			free, _ := s.disk.Free()
			return errors.Join(&FullError{Dir: s.dir, Needed: size, Free: free}, evictErr)
		}
	}
}

// makeDir makes the directory under a random name and gives it its own when it is whole.
func (s *Store) makeDir(e *Entry) (err error) {
	temp := tmpDir + "/" + rand.Text()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.disk.RemoveAll(temp))
		}
	}()
	if err := errors.Join(s.disk.Mkdir(temp), s.disk.Mkdir(temp+"/f")); err != nil {
		return err
	}
	for i := range e.files {
		df := &e.files[i]
		if err := df.create(s.disk, temp+strings.TrimPrefix(df.Name, e.dir)); err != nil {
			return err
		}
	}
	header := journal.AppendHeader(nil, e.digest)
	for _, f := range append(e.head(e.groups), headFile{"journal", header}) {
		if err := disk.WriteFile(s.disk, temp+"/"+f.name, f.bytes); err != nil {
			return err
		}
	}
	e.tail = int64(len(header))
	return s.disk.Rename(temp, e.dir)
}

// head returns the small files that say what an entry is. A draft has no hash file yet.
func (e *Entry) head(groups []string) []headFile {
	head := []headFile{{"manifest", e.bytes}, {"groups", appendGroups(nil, groups)}}
	if e.hashes != nil {
		head = append(head, headFile{"hashes", e.HashFileRaw()})
	}
	return head
}

// makeRoom evicts until size more bytes fit into the cache's limit and onto its disk. A full
// disk is told before the limit, which may be a share of what is free there.
func (s *Store) makeRoom(ctx context.Context, size int64) error {
	free, err := s.disk.Free()
	if err != nil {
		return err
	}
	over, _ := s.overLimit(free, size)
	if need := max(over, size+spareBytes-free); need > 0 {
		if _, err := s.Evict(ctx, need); err != nil {
			return err
		}
		if free, err = s.disk.Free(); err != nil {
			return err
		}
	}
	if free < size+spareBytes {
		return &FullError{Dir: s.dir, Needed: size, Free: max(free-spareBytes, 0)}
	}
	if over, limit := s.overLimit(free, size); over > 0 {
		return &FullError{Dir: s.dir, Needed: size, Free: max(size-over, 0), Limit: limit}
	}
	return nil
}

// overLimit returns by how many bytes size more would pass the limit, and the limit.
func (s *Store) overLimit(free, size int64) (over, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit = s.limit(free, s.used)
	if limit <= 0 {
		return 0, 0
	}
	return max(s.used-limit+size, 0), limit
}

// addGroups notes further groups that the content was got for. The caller holds the digest's
// lock.
func (e *Entry) addGroups(ctx context.Context, groups []string) error {
	have := e.Groups()
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(have, groups))))
	if slices.Equal(all, have) {
		return nil
	}
	if err := disk.ReplaceFile(e.s.disk, e.dir+"/groups", appendGroups(nil, all)); err != nil {
		return err
	}
	e.mu.Lock()
	e.groups = all
	e.mu.Unlock()
	if err := e.s.idx.SetGroups(ctx, e.digest, all); err != nil {
		e.s.unsound(e.digest, err)
	}
	return nil
}

func appendGroups(b []byte, groups []string) []byte {
	for _, g := range groups {
		b = append(b, g...)
		b = append(b, '\n')
	}
	return b
}

func parseGroups(b []byte) []string {
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// emptyTmp removes what an earlier process left half made or half removed.
func (s *Store) emptyTmp() error {
	if err := s.disk.RemoveAll(tmpDir); err != nil {
		return err
	}
	return s.disk.Mkdir(tmpDir)
}
