package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"freshet/internal/content"
	"freshet/internal/disk"
	"freshet/internal/store/place"
)

// Write puts the bytes of a run, which the caller verified, into its place. From then on the
// run is held and may be served; a commit makes it durable. Writing a run that is held does
// nothing. It waits while a whole window is not durable yet. b is not kept.
func (e *Entry) Write(run int, b []byte) error {
	r, err := e.run(run)
	if err != nil {
		return err
	}
	if len(b) != r.Len {
		return fmt.Errorf("store: write run %d of %s: %d bytes, want %d", run, e.digest.Short(), len(b), r.Len)
	}
	epoch, held, err := e.admit(run, int64(r.Len))
	if err != nil || held {
		return e.writeError(run, err)
	}
	segs, n := e.place.Segments(r)
	for _, s := range segs[:n] {
		if err := e.writeSegment(s, b[:s.Len]); err != nil {
			return e.writeError(run, err)
		}
		b = b[s.Len:]
	}
	return e.writeError(run, e.wrote(run, epoch))
}

func (e *Entry) run(run int) (content.Run, error) {
	if run < 0 || run >= e.layout.Runs() {
		return content.Run{}, fmt.Errorf("store: run %d of %s: it has %d", run, e.digest.Short(), e.layout.Runs())
	}
	return e.layout.Run(run), nil
}

func (e *Entry) writeError(run int, err error) error {
	if err == nil {
		return nil
	}
	if disk.IsFull(err) {
		free, _ := e.s.disk.Free()
		err = &FullError{Dir: e.s.dir, Needed: int64(e.layout.Run(run).Len), Free: free}
	}
	return fmt.Errorf("store: write run %d of %s: %w", run, e.digest.Short(), err)
}

// admit waits until n more bytes fit into the window. It returns the epoch to write in.
func (e *Entry) admit(run int, n int64) (epoch int, held bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		switch {
		case e.s.isClosed():
			return 0, false, ErrClosed
		case e.held.Has(run):
			return 0, true, nil
		case e.pendingBytes+e.commitBytes+n <= e.s.window || e.pendingBytes+e.commitBytes == 0:
			return e.epoch, false, nil
		case e.stuck != nil:
			return 0, false, e.stuck
		}
		e.wake()
		e.cond.Wait()
	}
}

// writeSegment writes to one store file, which it makes again when it was lost.
func (e *Entry) writeSegment(s place.Segment, b []byte) error {
	df := &e.files[s.Slot]
	df.mu.Lock()
	defer df.mu.Unlock()
	h, err := e.s.handles.Get(&df.Kept)
	if errors.Is(err, fs.ErrNotExist) {
		if err = e.remake(df); err == nil {
			h, err = e.s.handles.Get(&df.Kept)
		}
	}
	if err != nil {
		return err
	}
	defer e.s.handles.Put(h)
	if err := e.look(df, h.File); err != nil {
		return err
	}
	if _, err := h.File.WriteAt(b, s.Off); err != nil {
		return err
	}
	df.stamp, err = h.File.Stat()
	return err
}

// remake makes a store file that is missing. Its name is not durable then.
func (e *Entry) remake(df *dataFile) error {
	e.s.log.Warn("store file is missing and made again", "file", df.Name)
	if err := e.s.disk.Mkdir(e.dir + "/f"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := df.create(e.s.disk, df.Name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	e.mu.Lock()
	e.remade = true
	e.mu.Unlock()
	return nil
}

// look voids all checks of the entry when somebody else wrote the store file. The caller
// holds df.mu.
func (e *Entry) look(df *dataFile, f disk.File) error {
	changed, err := df.changedLocked(f)
	if err != nil || !changed {
		return err
	}
	e.s.log.Info("store file was changed from outside; its pieces are hashed again before use", "file", df.Name)
	e.voidChecks()
	return nil
}

func (e *Entry) voidChecks() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.checked)
	e.looks++
}

// wrote notes a run as held unless a failed sync took its bytes along.
func (e *Entry) wrote(run, epoch int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch != epoch {
		return ErrLost
	}
	if e.held.Has(run) {
		return nil
	}
	e.hold(run)
	e.checked[run] = e.s.stamp()
	e.pending = append(e.pending, run)
	e.pendingBytes += int64(e.layout.Run(run).Len)
	e.wake()
	return nil
}

// stamp returns now as Entry.checked holds it.
func (s *Store) stamp() uint32 { return uint32(max(s.now().Sub(s.started).Seconds(), 0)) + 1 }

// Read puts n bytes of a run, from its byte off, into b. The run is hashed first when it was
// last hashed in an earlier process, over a day ago, or before its file was changed; one that
// fails is dropped and the error is [ErrCorrupt].
func (e *Entry) Read(run, off, n int, b []byte) error {
	r, err := e.run(run)
	if err != nil {
		return err
	}
	if off < 0 || n < 0 || n > r.Len-off || n > len(b) {
		return fmt.Errorf("store: read run %d of %s: bytes %d to %d of %d into a buffer of %d", run, e.digest.Short(), off, off+n, r.Len, len(b))
	}
	whole := off == 0 && n == r.Len
	fresh, err := e.fresh(run, r)
	switch {
	case err != nil:
	case fresh:
		err = e.readAt(r.Offset+int64(off), b[:n])
	case whole:
		err = e.check(run, r, b[:n])
	default:
		err = e.checkPart(run, r, off, b[:n])
	}
	return e.readError(run, err)
}

func (e *Entry) readError(run int, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errUnreadable) {
		e.drop(run)
		err = fmt.Errorf("%w (%w)", ErrCorrupt, err)
	}
	return fmt.Errorf("store: read run %d of %s: %w", run, e.digest.Short(), err)
}

// errUnreadable marks bytes that the disk does not give back, or gives back wrong.
var errUnreadable = errors.New("unreadable")

// fresh reports whether a run may be handed out as it is.
func (e *Entry) fresh(run int, r content.Run) (bool, error) {
	if e.s.isClosed() {
		return false, ErrClosed
	}
	segs, n := e.place.Segments(r)
	for _, s := range segs[:n] {
		if err := e.lookAt(&e.files[s.Slot]); err != nil {
			return false, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.held.Has(run) {
		return false, ErrNotHeld
	}
	at := e.checked[run]
	return at != 0 && e.s.stamp()-at < uint32(checkedFor.Seconds()), nil
}

func (e *Entry) lookAt(df *dataFile) error {
	df.mu.Lock()
	defer df.mu.Unlock()
	h, err := e.openHeld(df)
	if err != nil {
		return err
	}
	defer e.s.handles.Put(h)
	return e.look(df, h.File)
}

// openHeld opens a store file that should be there.
func (e *Entry) openHeld(df *dataFile) (*disk.Handle, error) {
	h, err := e.s.handles.Get(&df.Kept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return h, err
}

// readAt reads from an offset of the concatenation, within one run.
func (e *Entry) readAt(off int64, b []byte) error {
	segs, n := e.place.Segments(content.Run{Offset: off, Len: len(b)})
	for _, s := range segs[:n] {
		h, err := e.openHeld(&e.files[s.Slot])
		if err != nil {
			return err
		}
		_, err = h.File.ReadAt(b[:s.Len], s.Off)
		e.s.handles.Put(h)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnreadable, err)
		}
		b = b[s.Len:]
	}
	return nil
}

// check reads a whole run into b and hashes it.
func (e *Entry) check(run int, r content.Run, b []byte) error {
	e.mu.Lock()
	looks := e.looks
	e.mu.Unlock()
	if err := e.readAt(r.Offset, b); err != nil {
		return err
	}
	if !e.Verify(run, b) {
		return fmt.Errorf("%w: wrong hash", errUnreadable)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.looks == looks && e.held.Has(run) {
		e.checked[run] = e.s.stamp()
	}
	return nil
}

// checkPart hashes a run and puts the part of it from off into b.
func (e *Entry) checkPart(run int, r content.Run, off int, b []byte) error {
	buf := <-e.s.scratch
	defer func() { e.s.scratch <- buf }()
	if buf == nil {
		buf = make([]byte, content.PieceSize)
	}
	fresh, err := e.fresh(run, r) // another reader may have hashed it meanwhile
	if err != nil {
		return err
	}
	if fresh {
		return e.readAt(r.Offset+int64(off), b)
	}
	if err := e.check(run, r, buf[:r.Len]); err != nil {
		return err
	}
	copy(b, buf[off:])
	return nil
}

// drop notes that a run is not held: its bytes on disk are wrong.
func (e *Entry) drop(run int) {
	e.mu.Lock()
	if !e.held.Has(run) {
		e.mu.Unlock()
		return
	}
	e.unhold(run)
	e.unqueue(run)
	e.dropped = append(e.dropped, run)
	e.mu.Unlock()
	e.s.log.Warn("piece on disk is wrong and dropped", "manifest", e.digest.Short(), "run", run)
	if err := e.commit(context.Background()); err != nil {
		e.s.log.Warn("dropped piece not journalled", "manifest", e.digest.Short(), "run", run, "err", err)
	}
}

// Recheck hashes every run that is held and returns how many were wrong and dropped. Until a
// run's turn comes, reading it hashes it: nothing unchecked is served meanwhile.
func (e *Entry) Recheck(ctx context.Context) (bad int, err error) {
	e.voidChecks()
	buf := make([]byte, content.PieceSize)
	for run := range e.HeldRuns().All {
		if err := context.Cause(ctx); err != nil {
			return bad, err
		}
		n := e.layout.Run(run).Len
		switch err := e.Read(run, 0, n, buf); {
		case errors.Is(err, ErrCorrupt):
			bad++
		case err != nil && !errors.Is(err, ErrNotHeld):
			return bad, err
		}
	}
	return bad, nil
}

// Span is a run as adjoining bytes of one open file.
type Span struct {
	File *os.File // read at offsets only; neither written nor closed by the caller
	Off  int64    // of the run's first byte
	Len  int      // bytes

	c *disk.Handles
	h *disk.Handle
}

// Release gives the file back; Span is not used after it.
func (s Span) Release() { s.c.Put(s.h) }

// File returns a run as one span of one file, for sendfile, after the checks of Read; the
// caller releases it. It is false when the run lies in two files, is not held or is found
// wrong: Read then tells which.
func (e *Entry) File(run int) (Span, bool) {
	r, err := e.run(run)
	if err != nil {
		return Span{}, false
	}
	segs, n := e.place.Segments(r)
	if n != 1 {
		return Span{}, false
	}
	if e.assureRun(run) != nil {
		return Span{}, false
	}
	h, err := e.openHeld(&e.files[segs[0].Slot])
	if err != nil {
		return Span{}, false
	}
	f, ok := h.File.(disk.OSFile)
	if !ok {
		e.s.handles.Put(h)
		return Span{}, false
	}
	return Span{File: f.File, Off: segs[0].Off, Len: r.Len, c: e.s.handles, h: h}, true
}

// FileReader reads one file of a content.
type FileReader struct {
	*io.SectionReader
	c *disk.Handles
	h *disk.Handle // nil for an empty file
}

// OSFile returns the operating system's file that holds this one and the offset of its first
// byte, for copying by reflink; nil when there is none.
func (r *FileReader) OSFile() (*os.File, int64) {
	if r.h == nil {
		return nil, 0
	}
	f, ok := r.h.File.(disk.OSFile)
	if !ok {
		return nil, 0
	}
	_, off, _ := r.Outer()
	return f.File, off
}

// Close gives the file back.
func (r *FileReader) Close() error {
	if r.h != nil {
		r.c.Put(r.h)
	}
	return nil
}

// OpenFile opens file i of the manifest for delivery and for the check of the whole file,
// whatever it is stored in. Bytes that are not held yet read as anything.
func (e *Entry) OpenFile(i int) (*FileReader, error) {
	if i < 0 || i >= e.layout.Files() {
		return nil, fmt.Errorf("store: open file %d of %s: it has %d", i, e.digest.Short(), e.layout.Files())
	}
	size := e.layout.FileSize(i)
	if size == 0 {
		return &FileReader{SectionReader: io.NewSectionReader(nil, 0, 0)}, nil
	}
	slot, off := e.place.Slot(i)
	h, err := e.s.handles.Get(&e.files[slot].Kept)
	if err != nil {
		return nil, fmt.Errorf("store: open file %q of %s: %w", e.manifest.Files[i].Name, e.digest.Short(), err)
	}
	return &FileReader{SectionReader: io.NewSectionReader(h.File, off, size), c: e.s.handles, h: h}, nil
}

// FileHeld reports whether all of file i is held.
func (e *Entry) FileHeld(i int) bool {
	first, end := e.runsOf(i)
	e.mu.Lock()
	defer e.mu.Unlock()
	for r := first; r < end; r++ {
		if !e.held.Has(r) {
			return false
		}
	}
	return true
}

// LinkTo gives file i another name in dir, a hard link to its store file: whoever may write
// there changes the store's copy, which is then found by hashing. The error is [ErrNoLink]
// when it lies among small files, and [ErrIncomplete] when it is not all held.
func (e *Entry) LinkTo(i int, dir *os.Root, name string) error {
	if i < 0 || i >= e.layout.Files() {
		return fmt.Errorf("store: link file %d of %s: it has %d", i, e.digest.Short(), e.layout.Files())
	}
	err := ErrNoLink
	d, ok := e.s.disk.(*disk.Dir)
	switch {
	case !ok || !place.IsLarge(e.layout, i):
	case !e.FileHeld(i):
		err = ErrIncomplete
	default:
		slot, _ := e.place.Slot(i)
		err = d.LinkOut(e.files[slot].Name, dir, name)
	}
	if err != nil {
		return fmt.Errorf("store: link file %q of %s: %w", e.manifest.Files[i].Name, e.digest.Short(), err)
	}
	return nil
}
