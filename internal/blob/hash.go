package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"freshet/internal/content"
)

// ErrChanged says that a file is not what was hashed: its size, mtime or ctime differ, or it
// is gone.
var ErrChanged = errors.New("the file has changed")

// HashOptions say how HashTree works.
type HashOptions struct {
	Ref     content.Ref // both parts are required
	Follow  bool        // take what links point to; otherwise a link is an error
	Workers int         // 0: one for each processor, two at least
	Known   *Hashed     // what was hashed of the directory before; nil: nothing

	// Progress, if not nil, is told how many bytes of how many are hashed, from any worker,
	// one call at a time, done never falling.
	Progress func(done, total int64)
}

const (
	readSize = 256 << 10 // bytes of one read
	bigFile  = 4 << 20   // bytes; files from this size are begun first, so that none is begun last
)

// HashTree hashes all files under dir in one read each and returns the manifest, the hash
// file and the files' stamps in manifest order. Nothing but regular files and directories
// may lie there (see HashOptions.Follow); a file that changes meanwhile is an error. The
// result depends on names, bytes and executable bits alone.
func HashTree(ctx context.Context, dir string, o HashOptions) (*content.Manifest, *content.HashFile, []Stamp, error) {
	m, h, stamps, err := hashTree(ctx, dir, o)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("blob: hash %q: %w", dir, err)
	}
	return m, h, stamps, nil
}

func hashTree(ctx context.Context, dir string, o HashOptions) (*content.Manifest, *content.HashFile, []Stamp, error) {
	src, err := openSource(dir, o.Follow)
	if err != nil {
		return nil, nil, nil, err
	}
	defer src.close()
	files, total, err := listFiles(src, o.Follow)
	if err != nil {
		return nil, nil, nil, err
	}
	t := &hashing{
		src: src, found: files, order: hashOrder(files),
		files:  make([]content.File, len(files)),
		pieces: make([][]content.Digest, len(files)),
		stamps: make([]Stamp, len(files)),
		total:  total, progress: o.Progress,
	}
	if t.known, err = o.Known.indexed(); err != nil {
		return nil, nil, nil, err
	}
	if err := t.run(ctx, o.Workers); err != nil {
		return nil, nil, nil, err
	}
	m, h, err := content.BuildManifest(o.Ref, t.files, t.pieces)
	if err != nil {
		return nil, nil, nil, err
	}
	return m, h, t.stamps, nil
}

// hashOrder puts big files first, the biggest before all, then the small ones as they lie.
func hashOrder(files []found) []int {
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	weight := func(i int) int64 {
		if n := files[i].info.Size(); n >= bigFile {
			return n
		}
		return 0
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(weight(b), weight(a)) })
	return order
}

// hashing is one run of HashTree. Element i of files, pieces and stamps is written by the
// worker that took i from next.
type hashing struct {
	src    source
	found  []found
	order  []int
	next   atomic.Int64 // index into order
	files  []content.File
	pieces [][]content.Digest
	stamps []Stamp
	known  *knownFiles

	mu       sync.Mutex // guards the following, and calls of progress
	done     int64      // bytes
	total    int64      // bytes
	progress func(done, total int64)
}

func (t *hashing) run(ctx context.Context, workers int) error {
	if workers == 0 {
		workers = max(2, runtime.NumCPU())
	}
	t.advance(0)
	g, ctx := errgroup.WithContext(ctx)
	for range min(workers, len(t.found)) {
		g.Go(func() error { return t.work(ctx) })
	}
	return g.Wait()
}

// work hashes files until none is left.
func (t *hashing) work(ctx context.Context) error {
	w := &hasher{hashing: t, h: content.NewFileHasher(), buf: make([]byte, readSize)}
	for {
		n := int(t.next.Add(1)) - 1
		if n >= len(t.order) {
			return nil
		}
		if err := w.file(ctx, t.order[n]); err != nil {
			return err
		}
	}
}

// hasher is what one worker owns.
type hasher struct {
	*hashing
	h   *content.FileHasher
	buf []byte
}

func (w *hasher) file(ctx context.Context, i int) error {
	name := w.found[i].name
	f, err := w.src.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	stamp := StampOf(before)
	if !before.Mode().IsRegular() || !os.SameFile(before, w.found[i].info) || stamp != StampOf(w.found[i].info) {
		return changedWhileHashed(name)
	}
	executable := before.Mode().Perm()&0o111 != 0
	if file, pieces, ok := w.known.find(name, stamp); ok {
		file.Executable = executable
		w.files[i], w.pieces[i], w.stamps[i] = file, pieces, stamp
		w.advance(stamp.Size)
		return nil
	}
	if err := settle(ctx, stamp); err != nil {
		return err
	}
	if err := w.read(ctx, f, stamp.Size); err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	after, err := f.Stat()
	if err != nil {
		return err
	}
	w.files[i], w.pieces[i] = w.h.Sum(name, executable)
	if StampOf(after) != stamp || w.files[i].Size != stamp.Size {
		return changedWhileHashed(name)
	}
	w.stamps[i] = stamp
	return nil
}

func changedWhileHashed(name string) error {
	return fmt.Errorf("%q: %w while it was hashed: try again when nothing writes to it", name, ErrChanged)
}

// read feeds f to the hasher until its end, which comes after at most size bytes.
func (w *hasher) read(ctx context.Context, f *os.File, size int64) error {
	for left := size; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(w.buf)
		if left -= int64(n); left < 0 { // it grows, maybe for ever
			return fmt.Errorf("%w while it was hashed", ErrChanged)
		}
		w.h.Write(w.buf[:n])
		w.advance(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *hashing) advance(n int64) {
	if t.progress == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	t.progress(t.done, t.total)
}
