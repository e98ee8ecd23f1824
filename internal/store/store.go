// Package store keeps contents on disk: their manifests, hash files and verified bytes, and
// which pieces are held. The directory is ours alone: mode 0700, marked, locked, opened by
// handle, no link followed.
//
// # Directory
//
//	<cache>/FRESHET-CACHE      marker: "freshet cache 1\n"; a newer number is refused, nothing is wiped
//	<cache>/lock               locked for as long as a store has the cache open
//	<cache>/index              SQLite; what may be lost but for jobs, bans, pins, expiry (see package index)
//	<cache>/tmp/               entries being made or removed; emptied when the store opens
//	<cache>/drafts/            entries whose hash file is not known yet (see [Draft]): each as
//	                           below, by manifest digest, but without hashes
//	<cache>/stock/             entries that were retired (see [Store.Retire]): each as below, by
//	                           manifest digest, and a file "stock": until when it stays (decimal
//	                           Unix seconds), and the content id, a line each
//	<cache>/<manifest digest>/ an entry; 64 lower-case hex digits
//	    manifest               the manifest's bytes as received
//	    hashes                 the raw hash file: 32 bytes a piece
//	    groups                 the groups that it was got for, a line each, in byte order
//	    journal                which pieces are held (see package journal)
//	    f/NNNNNN               a file of a piece or more, by its number in the manifest; its
//	                           mode is 0644, or 0755 when it is executable
//	    small                  all smaller files, back to back in manifest order
//
// # Order of syncs
//
//  1. An entry's manifest, hashes, groups, journal header and names, before its first record
//  2. the bytes of the pieces
//  3. the journal's records of these pieces
//
// A commit does this for all that was written since the last one: a second after it at the
// latest, when half the window (64 MiB) has gathered, and at once when the last one is over a
// second ago or the content is complete. Writers wait when a whole window is not durable. So
// a crash costs at most a window, and pieces are served when verified, not when durable.
//
// A failed sync is never asked again and believed: all that it was to cover is lost and must
// be fetched anew ([ErrLost]).
//
// # Pieces of other entries
//
// A piece that an entry holds is taken from there when another one lacks it, by its hash (see
// [Store.Adopt]). The index says which entries may have it (why so is in package index): eight
// megabytes are looked through for a tebibyte of large files, and at most 128. Only
// entries that were got for the device's group give, and stock gives to its own content alone.
//
// # Locks
//
// Taken in this order: a digest's lock ([keyLocks]), commit of an entry, dataFile.mu,
// Entry.mu, Store.mu, disk.Handles.mu.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/store/index"
)

// Errors that a caller branches on.
var (
	ErrLocked     = disk.ErrLocked
	ErrFull       = errors.New("no room in the cache")
	ErrInUse      = errors.New("entry is in use")
	ErrNotHeld    = errors.New("piece is not held")
	ErrCorrupt    = errors.New("bytes on disk do not fit the hash file")
	ErrLost       = errors.New("pieces were lost before they were durable")
	ErrIncomplete = errors.New("file is not complete")
	ErrNoLink     = errors.New("file has no store file of its own")
	ErrClosed     = errors.New("store is closed")
)

// FullError is an [ErrFull].
type FullError struct {
	Dir    string
	Needed int64 // bytes
	Free   int64 // bytes, after everything evictable was evicted
	Limit  int64 // bytes that the cache may take, when that is the obstacle; else 0
}

func (e *FullError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("cache %q: %d bytes needed, %d of its limit of %d left; unpin or remove contents, or raise the limit", e.Dir, e.Needed, e.Free, e.Limit)
	}
	return fmt.Sprintf("cache %q: %d bytes needed, %d free on its disk; free some or move the cache", e.Dir, e.Needed, e.Free)
}

// Is makes errors.Is(err, ErrFull) true.
func (e *FullError) Is(target error) bool { return target == ErrFull }

const (
	window      = 64 << 20        // bytes written and not yet durable, at most
	commitEvery = time.Second     // between commits while pieces arrive
	checkedFor  = 24 * time.Hour  // a hash taken over a piece counts this long
	maxIdle     = 32              // entries that stay in memory unused
	maxHandles  = 128             // files that stay open
	spareBytes  = int64(16 << 20) // left free on the disk
)

// Options say how to open a store.
type Options struct {
	Dir      string                       // made when missing; its parent must be trusted
	Log      *slog.Logger                 // nil: silent
	MaxBytes int64                        // of all entries; 0: what the disk has
	Limit    func(free, used int64) int64 // instead of MaxBytes, asked when room is needed; may be nil
	MaxAge   time.Duration                // an entry unused for longer is expired; 0: never
	Now      func() time.Time             // nil: time.Now

	disk   disk.Disk // tests: instead of the directory
	index  string    // tests: where the index is, when disk is given
	window int64     // tests: instead of window
}

// Store is a cache directory. Its methods may be called from any goroutine.
type Store struct {
	dir     string
	disk    disk.Disk
	idx     *index.Index
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	limit   func(free, used int64) int64 // most bytes of all entries; 0 or less: no limit
	maxAge  time.Duration
	window  int64

	locks   keyLocks
	handles *disk.Handles
	scratch chan []byte // buffers for hashing again
	closing chan struct{}
	wg      sync.WaitGroup // committers and the rebuilding of the index

	mu     sync.Mutex // guards the following
	loaded map[content.Digest]*Entry
	idle   []*Entry // loaded and not in use, the one used last at the end
	drafts map[content.Digest]*draftState
	stock  map[content.Digest]stock
	used   int64 // bytes of all entries, drafts and stock by their manifests
	closed bool
	sound  bool // the index agrees with the directories
}

// Open opens the cache directory, reading the index alone. An index that is missing or was
// not closed well is set right in the background.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Limit == nil {
		o.Limit = func(int64, int64) int64 { return o.MaxBytes }
	}
	s := &Store{
		dir: o.Dir, disk: o.disk, log: o.Log, now: o.Now, limit: o.Limit, maxAge: o.MaxAge,
		window:  max(o.window, 0),
		scratch: make(chan []byte, 2),
		closing: make(chan struct{}),
		loaded:  make(map[content.Digest]*Entry),
		drafts:  make(map[content.Digest]*draftState),
		stock:   make(map[content.Digest]stock),
	}
	indexName := o.index
	if s.disk == nil {
		d, err := disk.Open(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		s.disk, indexName = d, filepath.Join(o.Dir, "index")
	}
	s.defaults()
	if err := s.open(ctx, indexName); err != nil {
		err = s.explain(err, spareBytes)
		s.disk.Close()
		return nil, fmt.Errorf("store: open cache %q: %w", o.Dir, err)
	}
	return s, nil
}

func (s *Store) defaults() {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.window == 0 {
		s.window = window
	}
	s.started = s.now()
	s.handles = disk.NewHandles(s.disk, maxHandles)
	for range cap(s.scratch) {
		s.scratch <- nil
	}
}

func (s *Store) open(ctx context.Context, indexName string) error {
	if err := s.emptyTmp(); err != nil {
		return err
	}
	idx, sound, err := index.Open(ctx, indexName, s.log)
	if err != nil {
		return err
	}
	s.idx = idx
	if s.used, err = idx.TotalSize(ctx); err != nil {
		idx.Close(false)
		return err
	}
	if err := errors.Join(s.findDrafts(), s.findStock()); err != nil {
		idx.Close(false)
		return err
	}
	if s.sound = sound || s.bare(ctx); !s.sound {
		s.wg.Go(s.reconcile)
	}
	return nil
}

// bare reports whether the cache is known to have no entries, so that a new index is right.
func (s *Store) bare(ctx context.Context) bool {
	list, err := s.disk.List(".")
	if err != nil || slices.ContainsFunc(list, isEntry) {
		return false
	}
	known, err := s.idx.Known(ctx)
	return err == nil && len(known) == 0
}

// isEntry reports whether a file in the cache is the directory of an entry.
func isEntry(st fs.FileInfo) bool {
	_, err := content.ParseDigest(st.Name())
	return err == nil && st.IsDir()
}

// Close makes everything durable and gives the directory back. Entries are unusable then.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	entries := make([]*Entry, 0, len(s.loaded))
	for _, e := range s.loaded {
		entries = append(entries, e)
	}
	for _, d := range s.drafts {
		if d.open != nil {
			entries = append(entries, d.open.e)
		}
	}
	s.mu.Unlock()
	close(s.closing)
	s.wg.Wait()
	var errs []error
	for _, e := range entries {
		errs = append(errs, e.flush(context.Background()))
	}
	s.handles.CloseAll()
	sound := s.sound && errors.Join(errs...) == nil
	errs = append(errs, s.idx.Close(sound), s.disk.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("store: close cache %q: %w", s.dir, err)
	}
	return nil
}

// isClosed reports whether Close was called.
func (s *Store) isClosed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// Get returns the entry d, in use by the caller until [Entry.Release]. The error is
// fs.ErrNotExist when there is none, or none whose manifest and hash file are intact:
// [Store.Create] then mends it.
func (s *Store) Get(d content.Digest) (*Entry, error) {
	if e, err := s.use(d); e != nil || err != nil {
		return e, err
	}
	defer s.locks.lock(d)()
	return s.getLocked(d)
}

// use returns a loaded entry, or nil.
func (s *Store) use(d content.Digest) (*Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	e := s.loaded[d]
	if e != nil {
		s.useLocked(e)
	}
	return e, nil
}

// getLocked loads an entry whose digest lock the caller holds.
func (s *Store) getLocked(d content.Digest) (*Entry, error) {
	if e, err := s.use(d); e != nil || err != nil {
		return e, err
	}
	e, err := s.load(d)
	if err != nil {
		return nil, err
	}
	return e, s.adoptLoaded(e)
}

// adoptLoaded puts a freshly loaded entry among the others, in use once.
func (s *Store) adoptLoaded(e *Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.loaded[e.digest] = e
	s.useLocked(e)
	return nil
}

// ByHashOfHashes returns the entries of these bytes, whatever their names, each in use by
// the caller until [Entry.Release].
func (s *Store) ByHashOfHashes(h content.Digest) []*Entry {
	digests, err := s.idx.ByHashOfHashes(context.Background(), h)
	if err != nil {
		s.log.Warn("index of the cache not read", "hashOfHashes", h.Short(), "err", err)
	}
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

// maxIssues bounds how many entries of one version of a content are told.
const maxIssues = 32

// ByRef returns the manifests of the entries of one version of a content.
func (s *Store) ByRef(ctx context.Context, ref content.Ref) ([]content.Digest, error) {
	digests, err := s.idx.ByRef(ctx, ref, maxIssues)
	if err != nil {
		return nil, fmt.Errorf("store: entries of %s: %w", ref, err)
	}
	return digests, nil
}

// useLocked counts one more user of e. The caller holds s.mu.
func (s *Store) useLocked(e *Entry) {
	if e.refs++; e.refs == 1 {
		s.idle = slices.DeleteFunc(s.idle, func(o *Entry) bool { return o == e })
	}
}

// release ends one use of e; the entry that is idle for longest leaves memory.
func (s *Store) release(e *Entry) {
	s.mu.Lock()
	e.refs--
	if e.refs < 0 {
		s.mu.Unlock()
		panic("store: Release of an entry that is not in use")
	}
	var out *Entry
	if e.refs == 0 && s.loaded[e.digest] == e {
		s.idle = append(s.idle, e)
		if len(s.idle) > maxIdle {
			out = s.idle[0]
		}
	}
	closed := s.closed
	s.mu.Unlock()
	if out != nil && !closed {
		s.unload(out)
	}
}

// unsound notes that the index could not be kept in line with the directories: it is set
// right when the cache is opened the next time.
func (s *Store) unsound(d content.Digest, err error) {
	s.log.Warn("index not written; it is set right at the next start", "manifest", d.Short(), "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sound = false
}

// unload takes an idle entry out of memory, after what it holds is durable.
func (s *Store) unload(e *Entry) {
	unlock := s.locks.tryLock(e.digest)
	if unlock == nil {
		return // somebody is about to use it
	}
	defer unlock()
	if err := e.flush(context.Background()); err != nil {
		s.log.Warn("entry not made durable", "manifest", e.digest.Short(), "err", err)
	}
	e.mu.Lock()
	quiet := !e.committing && len(e.pending) == 0 && len(e.dropped) == 0
	out := quiet && s.forget(e)
	e.mu.Unlock()
	if out {
		e.closeFiles()
	}
}

// forget takes e off the loaded ones unless it is in use.
func (s *Store) forget(e *Entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.refs > 0 || s.loaded[e.digest] != e {
		return false
	}
	delete(s.loaded, e.digest)
	s.idle = slices.DeleteFunc(s.idle, func(o *Entry) bool { return o == e })
	return true
}

// keyLocks is a lock for each digest: whoever makes, loads or removes an entry holds its.
type keyLocks struct {
	mu    sync.Mutex
	locks map[content.Digest]*keyLock // guarded by mu
}

type keyLock struct {
	ch    chan struct{} // holds one token when free
	users int           // guarded by keyLocks.mu
}

func (k *keyLocks) get(d content.Digest) *keyLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.locks[d]
	if l == nil {
		if k.locks == nil {
			k.locks = make(map[content.Digest]*keyLock)
		}
		l = &keyLock{ch: make(chan struct{}, 1)}
		l.ch <- struct{}{}
		k.locks[d] = l
	}
	l.users++
	return l
}

func (k *keyLocks) put(d content.Digest, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, d)
	}
}

// lock waits for d's lock and returns what gives it back.
func (k *keyLocks) lock(d content.Digest) func() {
	l := k.get(d)
	<-l.ch
	return func() { l.ch <- struct{}{}; k.put(d, l) }
}

// tryLock takes d's lock when it is free; else it returns nil.
func (k *keyLocks) tryLock(d content.Digest) func() {
	l := k.get(d)
	select {
	case <-l.ch:
		return func() { l.ch <- struct{}{}; k.put(d, l) }
	default:
		k.put(d, l)
		return nil
	}
}
