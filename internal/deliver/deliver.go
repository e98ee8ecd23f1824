// Package deliver brings a content's files from the cache to their destination, checked and
// durable, all or none. As files become complete they are staged under their names in a
// hidden directory inside the destination: small ones are copied, large ones linked from
// the cache where the owner is the agent's own user and the file system allows it. When all
// are there and durable, what lies at the top of the staging directory is renamed into the
// destination, which takes few renames however many files there are. Nothing that exists is
// replaced; after a kill in the midst of these renames the next placement goes on.
package deliver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"freshet/internal/content"
	"freshet/internal/store"
)

// Owner is the local user whom delivered files belong to.
type Owner struct{ UID, GID int }

// Order says what goes where.
type Order struct {
	Entry *store.Entry
	Dest  *os.Root // nil: check alone
	Owner Owner
	Sums  *Sums // of Entry, for the whole-file check; nil: the pieces' hashes are the check
}

// Placement is one Order under way. It is used by one goroutine.
type Placement struct {
	Order
	leave func() // tells Stages that the staging directory is used no more

	stage    string   // name of the staging directory in Dest
	root     *os.Root // the same
	dir      *folder  // directory of the file staged last
	dirs     map[string]bool
	buf      []byte
	sha1s    []content.SHA1 // of the files so far, where Sums takes them
	flusher  flusher
	placed   []string // in Dest, for Close
	killed   []string // staging directories of placements that were killed while they placed
	finished bool
}

// StagePrefix begins the name of every staging directory; placingSuffix ends it once its
// files, all of them whole and durable, are being placed.
const (
	StagePrefix   = ".freshet-"
	placingSuffix = "-placing"
)

// folder is a directory below the staging directory, held open while files go into it.
type folder struct {
	name string
	root *os.Root
}

func (f *folder) close() {
	if f != nil {
		f.root.Close()
	}
}

// prepare refuses a destination that has one of the files, and makes the staging directory.
func (p *Placement) prepare(number int) error {
	p.buf = make([]byte, content.PieceSize)
	if p.Dest == nil {
		return nil
	}
	if err := p.vacant(); err != nil {
		return err
	}
	p.stage = fmt.Sprintf("%s%s-%d-%d", StagePrefix, p.Entry.Digest().Short(), os.Getpid(), number)
	if err := p.Dest.Mkdir(p.stage, 0o700); err != nil {
		return fmt.Errorf("deliver: making a staging directory in the destination: %w", err)
	}
	p.dirs = map[string]bool{".": true}
	root, err := p.Dest.OpenRoot(p.stage)
	if err != nil {
		p.Dest.Remove(p.stage)
		return fmt.Errorf("deliver: opening the staging directory: %w", err)
	}
	p.root, p.flusher.root = root, root
	return nil
}

// vacant reports an error when a file of the content exists in the destination. After a kill
// it may: merge looks at each.
func (p *Placement) vacant() error {
	if len(p.killed) > 0 {
		return nil
	}
	d, err := p.Dest.Open(".")
	if err != nil {
		return fmt.Errorf("deliver: opening the destination: %w", err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(1); len(names) == 0 && err == io.EOF {
		return nil
	}
	for _, f := range p.Entry.Manifest().Files {
		if _, err := p.Dest.Lstat(f.Name); err == nil {
			return errExists(f.Name)
		}
	}
	return nil
}

func errExists(name string) error {
	return fmt.Errorf("deliver: %q exists in the destination; remove it, or choose another directory", name)
}

// File stages file i as its runs become held, and checks it. wait waits until a run is held.
// Files are staged in order.
func (p *Placement) File(i int, wait func(run int) error) error {
	l, f := p.Entry.Layout(), &p.Entry.Manifest().Files[i]
	r, err := p.Entry.OpenFile(i)
	if err != nil {
		return err
	}
	defer r.Close()
	first, count := l.FilePieces(i)
	link := p.links(i)
	var out *os.File
	if p.Dest != nil && !link {
		if out, err = p.create(i); err != nil {
			return err
		}
		defer out.Close()
	}
	read := p.reader(i, r)
	for n := range count {
		if err := wait(l.RunOf(first + n)); err != nil {
			return err
		}
		if p.Sums != nil && count > 1 {
			if err := p.Sums.reach(i, n-lag, read); err != nil {
				return err
			}
		}
		if out == nil {
			continue
		}
		if err := p.copy(out, r, int64(n)*content.PieceSize, int64(l.PieceLen(first+n))); err != nil {
			return fmt.Errorf("deliver: copying %q: %w", f.Name, err)
		}
	}
	if err := p.sum(i, read); err != nil {
		return err
	}
	if link {
		return p.link(i, r)
	}
	if out == nil {
		return nil
	}
	p.flusher.kick()
	return out.Close()
}

// sum checks the whole file i, which is read where it was not hashed as it came.
func (p *Placement) sum(i int, read func(n int) ([]byte, error)) error {
	if p.Sums == nil {
		return nil
	}
	sum, err := p.Sums.check(i, read)
	if p.Sums.SHA1() {
		p.sha1s = append(p.sha1s, sum)
	}
	return err
}

// SHA1s returns the SHA-1 of each file that was staged, in the manifest's order, taken of its
// bytes; nil where Sums takes none.
func (p *Placement) SHA1s() []content.SHA1 { return p.sha1s }

// links reports whether file i may be linked from the cache.
func (p *Placement) links(i int) bool {
	return p.Dest != nil && p.Owner.UID == os.Geteuid() && p.Entry.Layout().FileSize(i) >= content.PieceSize
}

// link stages a complete large file without copying it, where that can be done.
func (p *Placement) link(i int, r io.ReaderAt) error {
	dir, base, err := p.folder(i)
	if err != nil {
		return err
	}
	if err := p.Entry.LinkTo(i, dir, base); err == nil {
		return nil
	}
	f, err := p.create(i)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.copy(f, r, 0, p.Entry.Layout().FileSize(i)); err != nil {
		return fmt.Errorf("deliver: copying %q: %w", p.Entry.Manifest().Files[i].Name, err)
	}
	return f.Close()
}

// reader returns how a piece of file i, n of the file, is read for its sum.
func (p *Placement) reader(i int, r io.ReaderAt) func(n int) ([]byte, error) {
	l := p.Entry.Layout()
	first, _ := l.FilePieces(i)
	return func(n int) ([]byte, error) {
		b := p.buf[:l.PieceLen(first+n)]
		if _, err := r.ReadAt(b, int64(n)*content.PieceSize); err != nil && err != io.EOF {
			return nil, fmt.Errorf("deliver: reading %q: %w", p.Entry.Manifest().Files[i].Name, err)
		}
		return b, nil
	}
}

// copySize is how many bytes are copied at once: few enough to stay in a processor's cache.
const copySize = 256 << 10

// copy writes n bytes of r from off on to w.
func (p *Placement) copy(w io.Writer, r io.ReaderAt, off, n int64) error {
	for n > 0 {
		b := p.buf[:min(n, copySize)]
		if _, err := r.ReadAt(b, off); err != nil && err != io.EOF {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// create makes the staged file i.
func (p *Placement) create(i int) (*os.File, error) {
	dir, base, err := p.folder(i)
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o644)
	if p.Entry.Manifest().Files[i].Executable {
		mode = 0o755
	}
	f, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("deliver: making a file in the destination: %w", err)
	}
	if p.Owner.UID == os.Geteuid() {
		return f, nil
	}
	if err := f.Chown(p.Owner.UID, p.Owner.GID); err != nil {
		f.Close()
		return nil, fmt.Errorf("deliver: giving a file to its caller: %w", err)
	}
	return f, nil
}

// folder returns the staged directory of file i, made when it is missing, and the file's
// name in it. Files come in the order of their names, so that a directory is opened once
// for most of its files.
func (p *Placement) folder(i int) (*os.Root, string, error) {
	dir, base := path.Split(p.Entry.Manifest().Files[i].Name)
	dir = path.Clean(dir)
	if p.dir != nil && p.dir.name == dir {
		return p.dir.root, base, nil
	}
	if err := p.makeDirs(dir); err != nil {
		return nil, "", err
	}
	root, err := p.root.OpenRoot(dir)
	if err != nil {
		return nil, "", fmt.Errorf("deliver: opening the directory %q: %w", dir, err)
	}
	p.dir.close()
	p.dir = &folder{dir, root}
	return root, base, nil
}

// makeDirs makes the staged directory d and those above it.
func (p *Placement) makeDirs(d string) error {
	if p.dirs[d] {
		return nil
	}
	if err := p.makeDirs(path.Dir(d)); err != nil {
		return err
	}
	p.dirs[d] = true
	if err := p.root.Mkdir(d, 0o755); err != nil {
		return fmt.Errorf("deliver: making the directory %q: %w", d, err)
	}
	if p.Owner.UID == os.Geteuid() {
		return nil
	}
	return p.root.Lchown(d, p.Owner.UID, p.Owner.GID)
}

// Finish makes the staged files durable and gives them their final names. It returns their
// number.
func (p *Placement) Finish() (int, error) {
	if p.Dest == nil {
		return 0, nil
	}
	files := p.Entry.Manifest().Files
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name
	}
	p.flusher.wait()
	if err := syncTree(p.root, names); err != nil {
		return 0, fmt.Errorf("deliver: making files durable: %w", err)
	}
	if err := p.Dest.Rename(p.stage, p.stage+placingSuffix); err != nil {
		return 0, fmt.Errorf("deliver: naming the staging directory: %w", err)
	}
	p.stage += placingSuffix
	if err := p.merge("."); err != nil {
		return 0, err
	}
	if err := syncNames(p.Dest, p.dirs); err != nil {
		return 0, fmt.Errorf("deliver: making names durable: %w", err)
	}
	p.finished = true
	return len(files), nil
}

// merge moves what the staged directory d holds to its final place: whole where the
// destination has nothing of that name, else, if both are directories, one level below.
func (p *Placement) merge(d string) error {
	f, err := p.root.Open(d)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(d, e.Name())
		err := renameNew(p.Dest, path.Join(p.stage, name), name)
		switch {
		case err == nil:
			p.placed = append(p.placed, name)
		case !errors.Is(err, fs.ErrExist):
			return fmt.Errorf("deliver: naming %q: %w", name, err)
		case !e.IsDir() && len(p.killed) > 0 && p.isOurs(name):
		case !e.IsDir() || !p.isDir(name):
			return errExists(name)
		default:
			if err := p.merge(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Placement) isDir(name string) bool {
	st, err := p.Dest.Lstat(name)
	return err == nil && st.IsDir()
}

// isOurs reports whether a file in the destination has the bytes that the content's file of
// that name has: a placement that was killed put it there.
func (p *Placement) isOurs(name string) bool {
	files := p.Entry.Manifest().Files
	i, ok := slices.BinarySearchFunc(files, name, func(f content.File, name string) int { return strings.Compare(f.Name, name) })
	if st, err := p.Dest.Lstat(name); !ok || err != nil || !st.Mode().IsRegular() {
		return false
	}
	f, err := p.Dest.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, p.buf); err != nil {
		return false
	}
	return content.Digest(h.Sum(nil)) == files[i].SHA256
}

// renameVacant is renameNew in two steps, where the system has no better.
func renameVacant(root *os.Root, from, to string) error {
	if _, err := root.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return root.Rename(from, to)
}

// Close removes the staging directory, and what was placed unless all was.
func (p *Placement) Close() {
	defer p.leave()
	p.flusher.wait()
	p.dir.close()
	if p.root == nil {
		return
	}
	p.root.Close()
	p.Dest.RemoveAll(p.stage)
	if p.finished {
		for _, name := range p.killed {
			p.Dest.RemoveAll(name)
		}
		return
	}
	for _, name := range p.placed {
		p.Dest.RemoveAll(name)
	}
}
