package blob

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"

	"freshet/internal/content"
)

const (
	keepOpen    = 32       // files that a Tree keeps open
	keepMinimum = readSize // bytes; smaller files are read in one go and closed
)

// Tree reads ranges of a content's concatenation from its directory. Bytes are given out
// only while the file that they come from has the stamp it had when it was hashed, before
// and after the read; else the error is [ErrChanged]. No file is mapped, no link leaves the
// directory. Its methods may be called from many goroutines.
type Tree struct {
	root   *os.Root
	files  []content.File // the manifest's, not changed
	layout *content.Layout
	stamps []Stamp

	hadRead func() // for tests: called after each read of a file, before its second check; nil: nothing

	mu   sync.Mutex // guards the following
	open map[int]*list.Element
	used *list.List // of *openFile, the most recently used first; those of open and no others
}

// openFile is a file that a Tree keeps open. The Tree's mu guards users and kept.
type openFile struct {
	index int
	f     *os.File
	users int  // readers at work
	kept  bool // in the Tree's map; otherwise the last user closes f
}

// OpenTree serves the content of m from dir. stamps are in manifest order, as HashTree gave
// them; that the files still have them is checked by each read, not here.
func OpenTree(dir string, m *content.Manifest, stamps []Stamp) (*Tree, error) {
	if len(stamps) != len(m.Files) {
		return nil, fmt.Errorf("blob: open tree %q: %d stamps for %d files", dir, len(stamps), len(m.Files))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob: open tree %q: %w", dir, err)
	}
	return &Tree{
		root: root, files: m.Files, layout: content.NewLayout(m.Files), stamps: stamps,
		open: map[int]*list.Element{}, used: list.New(),
	}, nil
}

// Close closes what no reader is using and lets the readers close the rest.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	for t.used.Len() > 0 {
		err = errors.Join(err, t.dropLocked(t.used.Back()))
	}
	return errors.Join(err, t.root.Close())
}

// Size returns the bytes of the concatenation.
func (t *Tree) Size() int64 { return t.layout.Size() }

// Span returns where the file of this name lies in the concatenation, in bytes.
func (t *Tree) Span(name string) (off, size int64, ok bool) {
	i := sort.Search(len(t.files), func(i int) bool { return t.files[i].Name >= name })
	if i == len(t.files) || t.files[i].Name != name {
		return 0, 0, false
	}
	return t.layout.FileOffset(i), t.layout.FileSize(i), true
}

// ReadAt fills p from the concatenation at off (io.ReaderAt). A file that no longer fits
// gives an error that is ErrChanged and names it.
func (t *Tree) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("blob: read at %d: the offset is negative", off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= t.Size() {
			return n, io.EOF
		}
		i := t.layout.FileAt(at)
		start := at - t.layout.FileOffset(i)
		part := p[n : n+int(min(int64(len(p)-n), t.layout.FileSize(i)-start))]
		if err := t.readFile(i, part, start); err != nil {
			return n, fmt.Errorf("blob: read %q: %w", t.files[i].Name, err)
		}
		n += len(part)
	}
	return n, nil
}

// Check compares the stamps of all files with the disk, without reading them.
func (t *Tree) Check() error {
	for i := range t.files {
		info, err := t.root.Lstat(t.files[i].Name)
		if err != nil {
			err = t.changed(i, err)
		} else if !info.Mode().IsRegular() || StampOf(info) != t.stamps[i] {
			err = ErrChanged
		}
		if err != nil {
			return fmt.Errorf("blob: check %q: %w", t.files[i].Name, err)
		}
	}
	return nil
}

// readFile fills p from file i at off, guarded by its stamp.
func (t *Tree) readFile(i int, p []byte, off int64) error {
	o, err := t.acquire(i)
	if err != nil {
		return err
	}
	defer t.release(o)
	if err := t.checkStamp(i, o.f); err != nil {
		return err
	}
	if _, err := io.ReadFull(io.NewSectionReader(o.f, off, int64(len(p))), p); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrChanged // it shrank between the two
		}
		return err
	}
	if t.hadRead != nil {
		t.hadRead()
	}
	return t.checkStamp(i, o.f)
}

func (t *Tree) checkStamp(i int, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || StampOf(info) != t.stamps[i] {
		return ErrChanged
	}
	return nil
}

// changed turns the error of opening file i into ErrChanged when the file is gone or another.
func (t *Tree) changed(i int, err error) error {
	info, statErr := t.root.Lstat(t.files[i].Name)
	if errors.Is(statErr, fs.ErrNotExist) || statErr == nil && (!info.Mode().IsRegular() || StampOf(info) != t.stamps[i]) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

// acquire opens file i, or takes it open.
func (t *Tree) acquire(i int) (*openFile, error) {
	t.mu.Lock()
	if e, ok := t.open[i]; ok {
		defer t.mu.Unlock()
		t.used.MoveToFront(e)
		o := e.Value.(*openFile)
		o.users++
		return o, nil
	}
	t.mu.Unlock()

	f, err := t.root.OpenFile(t.files[i].Name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, t.changed(i, err)
	}
	o := &openFile{index: i, f: f, users: 1}
	if t.files[i].Size < keepMinimum {
		return o, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[i]; ok { // another reader was faster
		return o, nil
	}
	o.kept = true
	t.open[i] = t.used.PushFront(o)
	if t.used.Len() > keepOpen {
		t.dropLocked(t.used.Back())
	}
	return o, nil
}

// release ends one use of o.
func (t *Tree) release(o *openFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.users--; o.users == 0 && !o.kept {
		o.f.Close() // it was only read
	}
}

// dropLocked forgets a kept file and closes it unless a reader is using it.
func (t *Tree) dropLocked(e *list.Element) error {
	o := t.used.Remove(e).(*openFile)
	delete(t.open, o.index)
	o.kept = false
	if o.users == 0 {
		return o.f.Close()
	}
	return nil
}
