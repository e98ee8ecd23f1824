package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/disk"
)

const (
	draftsDir = "drafts"
	draftIdle = 24 * time.Hour // a draft that nobody opened for this long is removed
)

// Draft is a content whose hash file is not known. Its bytes come in order, so that each
// file's SHA-256 can be taken on the way and compared with the manifest's; what is in a draft
// is neither served nor delivered. It lies on disk as an entry does, journal included, but
// for the hash file, and so becomes one by a rename as soon as there is a hash file: a good
// one that came meanwhile, or its own when it is whole.
//
// A draft is used by one goroutine, between [Store.Draft] and [Draft.Close] or a successful
// [Draft.Become]; Held may be called from any.
type Draft struct {
	e      *Entry           // in draftsDir; the runs before next, and no others, are written
	pieces []content.Digest // of the runs before next, and of files found right
	next   int              // the run that is written next
	sure   int              // pieces of files found right; those behind are of the file under way
	hash   hash.Hash        // SHA-256 of the file under way, up to next
	broken error            // of a write: nothing more can be written
}

// draftState is what the store knows of a draft on disk.
type draftState struct {
	size int64 // bytes reserved
	used time.Time
	open *Draft // nil while nobody uses it
}

// WrongFileError says that a file's bytes do not have the SHA-256 that the manifest names.
type WrongFileError struct {
	File int // its number in the manifest
	Name string
}

func (e *WrongFileError) Error() string {
	return fmt.Sprintf("the SHA-256 of %q is not what the manifest says", e.Name)
}

// Draft opens the draft of a manifest, in use by the caller alone, or makes one; all its bytes
// are reserved at once, as by [Store.Create]. What an earlier process wrote is hashed again,
// which takes its time and ends with ctx. The error is [ErrInUse] while somebody has it open,
// fs.ErrExist when there is an entry of the manifest.
func (s *Store) Draft(ctx context.Context, manifest []byte, groups []string) (*Draft, error) {
	digest := content.DigestOf(manifest)
	d, err := s.openDraft(ctx, digest, manifest, groups)
	if err == nil {
		if err = d.recover(ctx); err != nil {
			err = errors.Join(err, d.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store: draft %s: %w", digest.Short(), err)
	}
	return d, nil
}

func (s *Store) openDraft(ctx context.Context, digest content.Digest, manifest []byte, groups []string) (*Draft, error) {
	defer s.locks.lock(digest)()
	if e, err := s.getLocked(digest); err == nil {
		e.Release()
		return nil, fmt.Errorf("there is an entry of it: %w", fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.draftOpen(digest) {
		return nil, ErrInUse
	}
	e, err := s.loadDraft(digest)
	if errors.Is(err, fs.ErrNotExist) {
		e, err = s.makeDraft(ctx, manifest, groups)
	} else if err == nil {
		err = e.addGroups(ctx, groups)
	}
	if err != nil {
		return nil, err
	}
	d := &Draft{e: e, pieces: make([]content.Digest, e.layout.Pieces()), hash: sha256.New()}
	return d, s.register(d)
}

// register notes an open draft.
func (s *Store) register(d *Draft) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	st := s.drafts[d.e.digest]
	if st == nil {
		st = &draftState{size: d.e.layout.Size()}
		s.drafts[d.e.digest] = st
		s.used += st.size
	}
	st.open, st.used = d, s.now()
	return nil
}

func draftDir(d content.Digest) string { return draftsDir + "/" + d.String() }

// loadDraft reads a draft's directory; one that is not intact is removed and the error is
// fs.ErrNotExist. The caller holds the digest's lock.
func (s *Store) loadDraft(d content.Digest) (*Entry, error) {
	e, err := s.loadManifest(draftDir(d), d)
	if err == nil {
		err = errors.Join(e.loadGroups(), e.loadJournal())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, s.removeDraftLocked(d))
	}
	return e, err
}

// makeDraft makes a draft's directory. An entry of it that cannot be opened leaves: it cannot
// be mended without a hash file. The caller holds the digest's lock.
func (s *Store) makeDraft(ctx context.Context, manifest []byte, groups []string) (*Entry, error) {
	m, err := content.ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	e := newEntry(s, content.DigestOf(manifest), slices.Clone(manifest), m)
	if _, err := s.removeLocked(ctx, e.digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = s.disk.Mkdir(draftsDir)
	if err == nil {
		err = s.disk.SyncDir(".")
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	e.settle(draftDir(e.digest))
	e.groups = slices.Compact(slices.Sorted(slices.Values(groups)))
	return e, s.make(ctx, e)
}

// recover hashes what is there, and cuts off what does not fit or lies behind a gap.
func (d *Draft) recover(ctx context.Context) error {
	buf := make([]byte, content.PieceSize)
	for d.next < d.e.layout.Runs() && d.e.Held(d.next) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		r := d.e.layout.Run(d.next)
		err := d.e.readAt(r.Offset, buf[:r.Len])
		if errors.Is(err, errUnreadable) {
			break
		}
		if err != nil {
			return err
		}
		if wrong := d.take(r, buf); wrong != nil {
			d.e.s.log.Warn("draft is cut back", "manifest", d.e.digest.Short(), "err", wrong)
			d.next = d.back(wrong.File)
			break
		}
		d.next++
	}
	d.cut(d.next)
	return nil
}

// back returns the run from which a wrong file is to be written again: that in which it begins,
// or the next one when its bytes were right the first time.
func (d *Draft) back(file int) int {
	first, count := d.e.layout.FilePieces(file)
	if first+count <= d.sure {
		return d.next
	}
	return d.e.layout.RunOf(first)
}

// take hashes the run r that comes next. What is returned is a file that is wrong.
func (d *Draft) take(r content.Run, b []byte) *WrongFileError {
	l := d.e.layout
	for p := r.First; p < r.First+r.Count; p++ {
		f := l.PieceFile(p)
		sum := content.Digest(sha256.Sum256(b[:l.PieceLen(p)]))
		if p < d.sure && sum != d.pieces[p] || p >= d.sure && !d.takePiece(p, f, sum, b) {
			return &WrongFileError{File: f, Name: d.e.manifest.Files[f].Name}
		}
		d.pieces[p] = sum
		b = b[l.PieceLen(p):]
	}
	return nil
}

// takePiece takes piece p of file f, which begins b, and reports false when it ends the file
// wrongly. The only piece of a file has the file's own hash.
func (d *Draft) takePiece(p, f int, sum content.Digest, b []byte) bool {
	l, want := d.e.layout, d.e.manifest.Files[f].SHA256
	first, count := l.FilePieces(f)
	if count > 1 {
		if p == first {
			d.hash.Reset()
		}
		d.hash.Write(b[:l.PieceLen(p)])
		if p < first+count-1 {
			return true
		}
		sum = content.Digest(d.hash.Sum(nil))
	}
	if sum != want {
		return false
	}
	d.sure = p + 1
	return true
}

// cut takes the runs from to on out of the draft.
func (d *Draft) cut(to int) {
	e := d.e
	e.mu.Lock()
	defer e.mu.Unlock()
	d.next = to
	for run := to; run < e.layout.Runs(); run++ {
		if !e.held.Has(run) {
			continue
		}
		e.unhold(run)
		e.unqueue(run)
		e.dropped = append(e.dropped, run)
	}
	if len(e.dropped) > 0 {
		e.wake()
	}
}

// Layout returns where pieces and runs lie.
func (d *Draft) Layout() *content.Layout { return d.e.layout }

// Held returns the bytes of the runs written.
func (d *Draft) Held() int64 { return d.e.HeldBytes() }

// Next returns the run that is to be written next.
func (d *Draft) Next() int { return d.next }

// Whole reports whether every byte is there and every file has the right SHA-256.
func (d *Draft) Whole() bool { return d.next == d.e.layout.Runs() }

// Write takes the run [Draft.Next]. When it ends a file whose SHA-256 is wrong, the draft is
// cut back to the run in which that file begins and the error is a [WrongFileError]: Next goes
// back. After any other error the draft must be opened again. b is not kept.
func (d *Draft) Write(b []byte) error {
	if d.broken != nil || d.Whole() {
		return fmt.Errorf("store: draft %s takes no more: %w", d.e.digest.Short(), errors.Join(d.broken, fs.ErrClosed))
	}
	r := d.e.layout.Run(d.next)
	if len(b) != r.Len {
		return fmt.Errorf("store: write run %d of draft %s: %d bytes, want %d", d.next, d.e.digest.Short(), len(b), r.Len)
	}
	if wrong := d.take(r, b); wrong != nil {
		d.cut(d.back(wrong.File))
		return wrong
	}
	if err := d.e.Write(d.next, b); err != nil {
		d.broken = err
		return err
	}
	d.next++
	return nil
}

// HashFile returns the raw hash file of a draft that is whole.
func (d *Draft) HashFile() ([]byte, error) {
	if !d.Whole() {
		return nil, fmt.Errorf("store: hash file of draft %s: %w", d.e.digest.Short(), ErrIncomplete)
	}
	want := d.e.manifest.HashOfHashes
	if got := content.HashOfHashes(d.pieces); got != want {
		return nil, fmt.Errorf("store: draft %s: every file is right, but their HashOfHashes is %s and the manifest says %s: the content was published wrongly; publish it anew",
			d.e.digest.Short(), got.Short(), want.Short())
	}
	return content.AppendHashFileRaw(nil, &content.HashFile{Pieces: d.pieces}), nil
}

// Become makes the draft an entry, which is in use by the caller: what fits the hash file is
// kept. After an error the draft is still the caller's to close.
func (d *Draft) Become(ctx context.Context, hashFile []byte) (*Entry, error) {
	e, err := d.become(ctx, hashFile)
	if err != nil {
		return nil, fmt.Errorf("store: draft %s becomes an entry: %w", d.e.digest.Short(), err)
	}
	return e, nil
}

func (d *Draft) become(ctx context.Context, hashFile []byte) (*Entry, error) {
	s, digest := d.e.s, d.e.digest
	h, err := parseHashes(hashFile, d.e.manifest, d.e.layout)
	if err != nil {
		return nil, err
	}
	defer s.locks.lock(digest)()
	if e, err := s.getLocked(digest); err == nil { // it came by another way
		d.e.discard()
		d.e.closeFiles()
		return e, s.removeDraftLocked(digest)
	}
	d.fit(h)
	if err := d.establish(ctx, hashFile); err != nil {
		return nil, err
	}
	d.e.closeFiles()
	if err := s.disk.Rename(d.e.dir, digest.String()); err != nil {
		return nil, err
	}
	s.unregister(digest)
	if err := errors.Join(s.disk.SyncDir("."), s.disk.SyncDir(draftsDir)); err != nil {
		return nil, err
	}
	e, err := s.getLocked(digest)
	if err != nil {
		return nil, err
	}
	if err := s.enlist(context.WithoutCancel(ctx), e); err != nil {
		s.unsound(digest, err)
	}
	return e, nil
}

// fit drops the runs that do not fit a hash file.
func (d *Draft) fit(h *content.HashFile) {
	e := d.e
	e.mu.Lock()
	defer e.mu.Unlock()
	for run := range d.next {
		r := e.layout.Run(run)
		if end := r.First + r.Count; e.held.Has(run) && !slices.Equal(d.pieces[r.First:end], h.Pieces[r.First:end]) {
			e.unhold(run)
			e.unqueue(run)
			e.dropped = append(e.dropped, run)
		}
	}
}

// establish makes all of the draft durable, and the hash file with it.
func (d *Draft) establish(ctx context.Context, hashFile []byte) error {
	e := d.e
	if err := e.commit(ctx); err != nil {
		return err
	}
	if err := disk.ReplaceFile(e.s.disk, e.dir+"/hashes", hashFile); err != nil {
		return err
	}
	select {
	case <-e.commitSem:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { e.commitSem <- struct{}{} }()
	return e.establish(true)
}

// Close makes durable what was written and gives the draft back; it stays on disk.
func (d *Draft) Close() error {
	s := d.e.s
	s.mu.Lock()
	st := s.drafts[d.e.digest]
	mine := st != nil && st.open == d
	s.mu.Unlock()
	if !mine {
		return nil // it is an entry now
	}
	err := d.e.commit(context.Background())
	d.e.mu.Lock()
	err = errors.Join(err, d.e.lost)
	d.e.mu.Unlock()
	d.e.discard()
	d.e.closeFiles()
	s.mu.Lock()
	st.open, st.used = nil, s.now()
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("store: close draft %s: %w", d.e.digest.Short(), err)
	}
	return nil
}
