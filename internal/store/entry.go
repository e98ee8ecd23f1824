package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/store/journal"
	"freshet/internal/store/place"
)

// Entry is a content in the store. Whoever got it from the store has it in use, so that it
// is not evicted, until Release. Its methods may be called from any goroutine.
type Entry struct {
	s        *Store
	digest   content.Digest
	dir      string // below the cache directory
	bytes    []byte // of the manifest
	manifest *content.Manifest
	hashes   *content.HashFile // nil in a draft
	layout   *content.Layout
	place    place.Place
	files    []dataFile // by slot of place

	refs int // users; guarded by Store.mu

	commitSem chan struct{} // holds one token when no commit runs; it guards the following
	tail      int64         // bytes of the journal that are good
	rewrite   bool          // the journal must be written anew before it is used
	headBad   bool          // a sync of manifest, hashes or groups failed: they must be written anew
	durable   bool          // manifest, hashes, groups, journal header and all names are synced

	mu      sync.Mutex // guards the following
	cond    *sync.Cond // on mu: a commit ended
	groups  []string   // in byte order
	held    content.Bits
	left    int      // runs not held
	bytesOf int64    // bytes of the runs held
	checked []uint32 // per run: seconds from Store.started to its last hashing, plus 1; 0: not in this process
	looks   int      // grows when checks are void, so that one under way does not count

	pending      []int // runs held, written and not in a commit yet
	dropped      []int // runs dropped and not in a commit yet
	pendingBytes int64
	commitBytes  int64 // bytes of the commit under way
	epoch        int   // grows when a sync fails: what was written before is lost
	lost         error // since the last Sync
	stuck        error // why the last commit did not end; nil when it did
	remade       bool  // a store file was made again: its name must be synced
	committing   bool  // the committer runs
	lastCommit   time.Time
	kick         chan struct{} // wakes the committer
}

func newEntry(s *Store, d content.Digest, b []byte, m *content.Manifest) *Entry {
	l := content.NewLayout(m.Files)
	e := &Entry{
		s: s, digest: d, bytes: b, manifest: m, layout: l, place: place.Of(m, l),
		commitSem: make(chan struct{}, 1),
		kick:      make(chan struct{}, 1),
		held:      content.NewBits(l.Runs()),
		left:      l.Runs(),
		checked:   make([]uint32, l.Runs()),
	}
	e.settle(d.String())
	e.commitSem <- struct{}{}
	e.cond = sync.NewCond(&e.mu)
	return e
}

// settle says in which directory the entry lies.
func (e *Entry) settle(dir string) {
	e.dir = dir
	e.files = make([]dataFile, len(e.place.Files))
	for i, f := range e.place.Files {
		e.files[i] = dataFile{Kept: disk.Kept{Name: dir + "/" + f.Name}, size: f.Size, mode: f.Mode}
	}
}

// load reads an entry's directory. The caller holds the digest's lock.
func (s *Store) load(d content.Digest) (*Entry, error) { return s.loadAt(d.String(), d) }

// loadAt reads an entry of that manifest in a directory.
func (s *Store) loadAt(dir string, d content.Digest) (*Entry, error) {
	e, err := s.loadHeader(dir, d)
	if err != nil {
		return nil, fmt.Errorf("store: open entry %s: %w", d.Short(), err)
	}
	if err := errors.Join(e.loadGroups(), e.loadJournal()); err != nil {
		return nil, fmt.Errorf("store: open entry %s: %w", d.Short(), err)
	}
	return e, nil
}

// loadHeader reads manifest and hash file.
func (s *Store) loadHeader(dir string, d content.Digest) (*Entry, error) {
	e, err := s.loadManifest(dir, d)
	if err != nil {
		return nil, err
	}
	raw, err := disk.ReadFile(s.disk, e.dir+"/hashes", int64(e.layout.Pieces())*sha256.Size)
	if err != nil && !errors.Is(err, disk.ErrTooLarge) {
		return nil, err
	}
	if e.hashes, err = parseHashes(raw, e.manifest, e.layout); err != nil {
		return nil, fmt.Errorf("hash file is damaged: %w (%w)", fs.ErrNotExist, err)
	}
	return e, nil
}

// loadManifest reads the manifest d in a directory.
func (s *Store) loadManifest(dir string, d content.Digest) (*Entry, error) {
	if st, err := s.disk.Stat(dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%q is %s, not a directory", dir, disk.KindOf(st))
	}
	b, err := disk.ReadFile(s.disk, dir+"/manifest", content.MaxManifest)
	if err != nil {
		return nil, err
	}
	if content.DigestOf(b) != d {
		return nil, fmt.Errorf("manifest is damaged: %w", fs.ErrNotExist)
	}
	m, err := content.ParseManifest(b)
	if err != nil {
		return nil, err
	}
	e := newEntry(s, d, b, m)
	e.settle(dir)
	return e, nil
}

func parseHashes(raw []byte, m *content.Manifest, l *content.Layout) (*content.HashFile, error) {
	h, err := content.ParseHashFileRaw(raw, m)
	if err != nil {
		return nil, err
	}
	return h, h.Fits(m, l)
}

func (e *Entry) loadGroups() error {
	b, err := disk.ReadFile(e.s.disk, e.dir+"/groups", 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e.groups = parseGroups(b)
	return nil
}

// loadJournal takes over what the journal says is held, but for what lies beyond the end of
// its file. A journal whose header is unusable is begun anew: then nothing is held.
func (e *Entry) loadJournal() error {
	b, err := disk.ReadFile(e.s.disk, e.dir+"/journal", journal.MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	records, valid, err := journal.Parse(b, e.digest, e.layout.Pieces())
	if version := (*disk.VersionError)(nil); errors.As(err, &version) {
		return err
	}
	if err != nil {
		e.s.log.Warn("journal is begun anew", "manifest", e.digest.Short(), "err", err)
	}
	e.tail = int64(valid)
	e.rewrite = err != nil || valid < len(b) || len(records) > 2*e.layout.Runs()+64
	e.durable = len(records) > 0
	e.remade = true // names that an earlier process changed may not be durable yet
	held := journal.Replay(e.layout, records)
	short, err := e.shortFiles()
	if err != nil {
		return err
	}
	for r := range held.All {
		if e.fits(r, short) {
			e.hold(r)
		} else {
			e.dropped = append(e.dropped, r)
		}
	}
	return nil
}

// shortFiles returns, by slot, the bytes of the store files that are missing or too short.
func (e *Entry) shortFiles() (map[int]int64, error) {
	sizes := make(map[string]int64)
	for _, dir := range []string{e.dir, e.dir + "/f"} {
		list, err := e.s.disk.List(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, st := range list {
			if st.Mode().IsRegular() {
				sizes[dir+"/"+st.Name()] = st.Size()
			}
		}
	}
	short := make(map[int]int64)
	for i := range e.files {
		if n := sizes[e.files[i].Name]; n < e.files[i].size {
			short[i] = n
		}
	}
	return short, nil
}

func (e *Entry) fits(run int, short map[int]int64) bool {
	if len(short) == 0 {
		return true
	}
	segs, n := e.place.Segments(e.layout.Run(run))
	for _, s := range segs[:n] {
		if size, ok := short[s.Slot]; ok && s.Off+int64(s.Len) > size {
			return false
		}
	}
	return true
}

// Digest returns the manifest digest.
func (e *Entry) Digest() content.Digest { return e.digest }

// Manifest returns the manifest; it is not changed.
func (e *Entry) Manifest() *content.Manifest { return e.manifest }

// ManifestBytes returns the manifest as received; it is not changed.
func (e *Entry) ManifestBytes() []byte { return e.bytes }

// HashFile returns the hash file; it is not changed.
func (e *Entry) HashFile() *content.HashFile { return e.hashes }

// HashFileRaw returns the raw hash file, which is the caller's.
func (e *Entry) HashFileRaw() []byte { return content.AppendHashFileRaw(nil, e.hashes) }

// Layout returns where pieces and runs lie.
func (e *Entry) Layout() *content.Layout { return e.layout }

// Use counts one more user, who calls Release. The caller must be a user already.
func (e *Entry) Use() {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if e.refs < 1 {
		panic("store: Use of an entry that is not in use")
	}
	e.refs++
}

// Release ends one use, which counts for eviction.
func (e *Entry) Release() {
	e.s.idx.Touch(e.digest, e.s.now())
	e.s.release(e)
}

// Groups returns the groups that the content was got for, in byte order.
func (e *Entry) Groups() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.groups)
}

// Held reports whether a run is held: verified and written, durable or not.
func (e *Entry) Held(run int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held.Has(run)
}

// HeldRuns returns a copy of the set of runs held.
func (e *Entry) HeldRuns() content.Bits {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held.Clone()
}

// HeldBytes returns the bytes of the runs held.
func (e *Entry) HeldBytes() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytesOf
}

// Complete reports whether all runs are held. A content without pieces is complete.
func (e *Entry) Complete() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.left == 0
}

// Verify reports whether b is the bytes of a run: it hashes each of its pieces. It takes no
// lock.
func (e *Entry) Verify(run int, b []byte) bool {
	r := e.layout.Run(run)
	if len(b) != r.Len {
		return false
	}
	for p := r.First; p < r.First+r.Count; p++ {
		n := e.layout.PieceLen(p)
		if sha256.Sum256(b[:n]) != e.hashes.Pieces[p] {
			return false
		}
		b = b[n:]
	}
	return true
}

// hold notes that a run is held. The caller holds e.mu, or nobody else has e.
func (e *Entry) hold(run int) {
	if !e.held.Has(run) {
		e.held.Add(run)
		e.left--
		e.bytesOf += int64(e.layout.Run(run).Len)
	}
}

// unhold notes that a run is not held any more, as hold does.
func (e *Entry) unhold(run int) {
	e.checked[run] = 0
	if e.held.Has(run) {
		e.held.Remove(run)
		e.left++
		e.bytesOf -= int64(e.layout.Run(run).Len)
	}
}

// flush makes everything written durable and brings the index up to date.
func (e *Entry) flush(ctx context.Context) error {
	err := e.commit(ctx)
	if ierr := e.s.idx.SetHeld(context.WithoutCancel(ctx), e.digest, e.HeldBytes(), e.Complete()); ierr != nil {
		e.s.unsound(e.digest, ierr)
	}
	return err
}

// Sync makes everything written so far durable. The error is [ErrLost] when pieces written
// since the last Sync could not be made so: they are not held any more.
func (e *Entry) Sync(ctx context.Context) error {
	if e.s.isClosed() {
		return ErrClosed
	}
	err := e.flush(ctx)
	e.mu.Lock()
	err = errors.Join(err, e.lost)
	e.lost = nil
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store: sync entry %s: %w", e.digest.Short(), err)
	}
	return nil
}
