package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync/atomic"

	"freshet/internal/content"
	"freshet/internal/store"
)

// placer checks a content's files and brings them to their destination. As they become
// complete they are staged under their names in a hidden directory inside the destination:
// small files are copied, large ones linked from the cache where the owner is the agent's
// own user and the file system allows it. When all are there and durable, what lies at the
// top of the staging directory is renamed into the destination, which takes few renames
// however many files there are.
type placer struct {
	entry *store.Entry
	dest  *os.Root // nil: check alone
	owner Owner
	check bool

	stage    string   // name of the staging directory in dest
	root     *os.Root // the same
	dir      *folder  // directory of the file staged last
	dirs     map[string]bool
	buf      []byte
	flusher  flusher
	placed   []string // in dest, for clean
	finished bool
}

const stagePrefix = ".freshet-"

// stages tells staging directories of one process apart.
var stages atomic.Int64

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
func (p *placer) prepare() error {
	p.buf = make([]byte, 256<<10)
	if p.dest == nil {
		return nil
	}
	if err := p.vacant(); err != nil {
		return err
	}
	p.stage = fmt.Sprintf("%s%s-%d-%d", stagePrefix, p.entry.Digest().Short(), os.Getpid(), stages.Add(1))
	if err := p.dest.Mkdir(p.stage, 0o700); err != nil {
		return fmt.Errorf("agent: making a staging directory in the destination: %w", err)
	}
	p.dirs = map[string]bool{".": true}
	var err error
	p.root, err = p.dest.OpenRoot(p.stage)
	p.flusher.root = p.root
	return err
}

// vacant reports an error when a file of the content exists in the destination.
func (p *placer) vacant() error {
	d, err := p.dest.Open(".")
	if err != nil {
		return fmt.Errorf("agent: opening the destination: %w", err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(1); len(names) == 0 && err == io.EOF {
		return nil
	}
	for _, f := range p.entry.Manifest().Files {
		if _, err := p.dest.Lstat(f.Name); err == nil {
			return errExists(f.Name)
		}
	}
	return nil
}

func errExists(name string) error {
	return fmt.Errorf("agent: %q exists in the destination; remove it, or choose another directory", name)
}

// file stages file i as its runs become held, and checks it. wait waits until a run is held.
func (p *placer) file(i int, wait func(run int) error) error {
	l, f := p.entry.Layout(), &p.entry.Manifest().Files[i]
	r, err := p.entry.OpenFile(i)
	if err != nil {
		return err
	}
	defer r.Close()
	first, count := l.FilePieces(i)
	hash := sha256.New()
	var to []io.Writer
	if p.check && count > 1 { // the only piece's hash is the file's
		to = append(to, hash)
	}
	link := p.links(i)
	var out *os.File
	if p.dest != nil && !link {
		if out, err = p.create(i); err != nil {
			return err
		}
		defer out.Close()
		to = append(to, out)
	}
	for n := range count {
		if err := wait(l.RunOf(first + n)); err != nil {
			return err
		}
		if err := p.copy(to, r, int64(n)*content.PieceSize, int64(l.PieceLen(first+n))); err != nil {
			return fmt.Errorf("agent: copying %q: %w", f.Name, err)
		}
	}
	if p.check && count > 1 && [sha256.Size]byte(hash.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("agent: the SHA-256 of %q is not what the manifest says, though its pieces fit the hash file: the content was published wrongly; publish it anew", f.Name)
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

// links reports whether file i may be linked from the cache.
func (p *placer) links(i int) bool {
	return p.dest != nil && p.owner.UID == os.Geteuid() && p.entry.Layout().FileSize(i) >= content.PieceSize
}

// link stages a complete large file without copying it, where that can be done.
func (p *placer) link(i int, r io.ReaderAt) error {
	dir, base, err := p.folder(i)
	if err != nil {
		return err
	}
	if err := p.entry.LinkTo(i, dir, base); err == nil {
		return nil
	}
	f, err := p.create(i)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.copy([]io.Writer{f}, r, 0, p.entry.Layout().FileSize(i)); err != nil {
		return fmt.Errorf("agent: copying %q: %w", p.entry.Manifest().Files[i].Name, err)
	}
	return f.Close()
}

// copy writes n bytes of r from off on to all of to.
func (p *placer) copy(to []io.Writer, r io.ReaderAt, off, n int64) error {
	for n > 0 && len(to) > 0 {
		b := p.buf[:min(n, int64(len(p.buf)))]
		if _, err := r.ReadAt(b, off); err != nil && err != io.EOF {
			return err
		}
		for _, w := range to {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// create makes the staged file i.
func (p *placer) create(i int) (*os.File, error) {
	dir, base, err := p.folder(i)
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o644)
	if p.entry.Manifest().Files[i].Executable {
		mode = 0o755
	}
	f, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("agent: making a file in the destination: %w", err)
	}
	if p.owner.UID == os.Geteuid() {
		return f, nil
	}
	if err := f.Chown(p.owner.UID, p.owner.GID); err != nil {
		f.Close()
		return nil, fmt.Errorf("agent: giving a file to its caller: %w", err)
	}
	return f, nil
}

// folder returns the staged directory of file i, made when it is missing, and the file's
// name in it. Files come in the order of their names, so that a directory is opened once
// for most of its files.
func (p *placer) folder(i int) (*os.Root, string, error) {
	dir, base := path.Split(p.entry.Manifest().Files[i].Name)
	dir = path.Clean(dir)
	if p.dir != nil && p.dir.name == dir {
		return p.dir.root, base, nil
	}
	if err := p.makeDirs(dir); err != nil {
		return nil, "", err
	}
	root, err := p.root.OpenRoot(dir)
	if err != nil {
		return nil, "", fmt.Errorf("agent: opening the directory %q: %w", dir, err)
	}
	p.dir.close()
	p.dir = &folder{dir, root}
	return root, base, nil
}

// makeDirs makes the staged directory d and those above it.
func (p *placer) makeDirs(d string) error {
	if p.dirs[d] {
		return nil
	}
	if err := p.makeDirs(path.Dir(d)); err != nil {
		return err
	}
	p.dirs[d] = true
	if err := p.root.Mkdir(d, 0o755); err != nil {
		return fmt.Errorf("agent: making the directory %q: %w", d, err)
	}
	if p.owner.UID == os.Geteuid() {
		return nil
	}
	return p.root.Lchown(d, p.owner.UID, p.owner.GID)
}

// finish makes the staged files durable and gives them their final names. It returns their
// number.
func (p *placer) finish() (int, error) {
	if p.dest == nil {
		return 0, nil
	}
	files := p.entry.Manifest().Files
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name
	}
	p.flusher.wait()
	if err := syncTree(p.root, names); err != nil {
		return 0, fmt.Errorf("agent: making files durable: %w", err)
	}
	if err := p.merge("."); err != nil {
		return 0, err
	}
	if err := syncNames(p.dest, p.dirs); err != nil {
		return 0, fmt.Errorf("agent: making names durable: %w", err)
	}
	p.finished = true
	return len(files), nil
}

// merge moves what the staged directory d holds to its final place: whole where the
// destination has nothing of that name, else, if both are directories, one level below.
func (p *placer) merge(d string) error {
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
		err := renameNew(p.dest, path.Join(p.stage, name), name)
		switch {
		case err == nil:
			p.placed = append(p.placed, name)
		case !errors.Is(err, fs.ErrExist):
			return fmt.Errorf("agent: naming %q: %w", name, err)
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

func (p *placer) isDir(name string) bool {
	st, err := p.dest.Lstat(name)
	return err == nil && st.IsDir()
}

// renameVacant is renameNew in two steps, where the system has no better.
func renameVacant(root *os.Root, from, to string) error {
	if _, err := root.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return root.Rename(from, to)
}

// clean removes the staging directory, and what was placed unless all was.
func (p *placer) clean() {
	p.flusher.wait()
	p.dir.close()
	if p.root == nil {
		return
	}
	p.root.Close()
	p.dest.RemoveAll(p.stage)
	if p.finished {
		return
	}
	for _, name := range p.placed {
		p.dest.RemoveAll(name)
	}
}
