package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"freshet/internal/content"
	"freshet/internal/store"
)

// placer checks a content's files and brings them to their destination. Small files are
// copied, as they become complete, into a staging directory inside the destination, under
// their numbers; when all are there, every file is renamed once. Large files are linked from
// the cache where the owner is the agent's own user and the file system allows it, else
// copied like small ones.
type placer struct {
	entry *store.Entry
	dest  *os.Root // nil: check alone
	owner Owner
	check bool

	stageName string
	stageDir  *os.Root
	buf       []byte
	made      []string // directories and files made in dest, for clean
	finished  bool
}

const stagePrefix = ".freshet-"

// prepare refuses a destination that has one of the files, and makes the staging directory.
func (p *placer) prepare() error {
	p.buf = make([]byte, 256<<10)
	if p.dest == nil {
		return nil
	}
	if err := p.vacant(); err != nil {
		return err
	}
	p.stageName = stagePrefix + p.entry.Digest().Short() + "-" + strconv.Itoa(os.Getpid()) + "-" + stageNumber()
	if err := p.dest.Mkdir(p.stageName, 0o700); err != nil {
		return fmt.Errorf("agent: making a staging directory in the destination: %w", err)
	}
	var err error
	p.stageDir, err = p.dest.OpenRoot(p.stageName)
	return err
}

// vacant reports an error when a file of the content exists in the destination.
func (p *placer) vacant() error {
	root, err := p.dest.Open(".")
	if err != nil {
		return fmt.Errorf("agent: opening the destination: %w", err)
	}
	defer root.Close()
	if names, err := root.Readdirnames(1); len(names) == 0 && err == io.EOF {
		return nil
	}
	for _, f := range p.entry.Manifest().Files {
		if _, err := p.dest.Lstat(f.Name); err == nil {
			return fmt.Errorf("agent: %q exists in the destination; remove it, or choose another directory", f.Name)
		}
	}
	return nil
}

// stage waits for file i, checks it, and copies it into the staging directory unless it
// can be linked. wait waits until a run is held.
func (p *placer) stage(i int, wait func(run int) error) error {
	l, f := p.entry.Layout(), &p.entry.Manifest().Files[i]
	r, err := p.entry.OpenFile(i)
	if err != nil {
		return err
	}
	defer r.Close()
	var out *os.File // nil: nothing to copy
	if p.dest != nil && !p.links(i) {
		if out, err = p.create(i); err != nil {
			return err
		}
		defer out.Close()
	}
	first, count := l.FilePieces(i)
	hash := sha256.New()
	check := p.check && count > 1 // the only piece's hash is the file's
	for at, piece := int64(0), first; at < f.Size; at, piece = at+content.PieceSize, piece+1 {
		if err := wait(l.RunOf(piece)); err != nil {
			return err
		}
		if !check && out == nil {
			continue
		}
		to := []io.Writer{}
		if check {
			to = append(to, hash)
		}
		if out != nil {
			to = append(to, out)
		}
		if err := p.copy(to, r, at, int64(l.PieceLen(piece))); err != nil {
			return fmt.Errorf("agent: copying %q: %w", f.Name, err)
		}
	}
	if check && [sha256.Size]byte(hash.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("agent: the SHA-256 of %q is not what the manifest says, though its pieces fit the hash file: the content was published wrongly; publish it anew", f.Name)
	}
	if out == nil {
		return p.link(i, r)
	}
	return out.Close()
}

// link stages a complete large file without copying it, where that can be done.
func (p *placer) link(i int, r io.ReaderAt) error {
	if p.dest == nil {
		return nil
	}
	if err := p.entry.LinkTo(i, p.stageDir, strconv.Itoa(i)); err == nil {
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
	for n > 0 {
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

// links reports whether file i may be linked from the cache.
func (p *placer) links(i int) bool {
	return p.owner.UID == os.Geteuid() && p.entry.Layout().FileSize(i) >= content.PieceSize
}

// create makes the staging file of file i.
func (p *placer) create(i int) (*os.File, error) {
	mode := fs.FileMode(0o644)
	if p.entry.Manifest().Files[i].Executable {
		mode = 0o755
	}
	f, err := p.stageDir.OpenFile(strconv.Itoa(i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("agent: making a file in the destination: %w", err)
	}
	if err := p.chown(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (p *placer) chown(f *os.File) error {
	if p.owner.UID == os.Geteuid() {
		return nil
	}
	if err := f.Chown(p.owner.UID, p.owner.GID); err != nil {
		return fmt.Errorf("agent: giving a file to its caller: %w", err)
	}
	return nil
}

// finish makes the staged files durable and gives every file its final name. It returns
// their number.
func (p *placer) finish() (int, error) {
	if p.dest == nil {
		return 0, nil
	}
	if err := syncTree(p.stageDir); err != nil {
		return 0, fmt.Errorf("agent: making files durable: %w", err)
	}
	files := p.entry.Manifest().Files
	dirs := map[string]bool{".": true}
	for i := range files {
		if err := p.makeDirs(dirs, path.Dir(files[i].Name)); err != nil {
			return 0, err
		}
		if err := p.name(i, files[i].Name); err != nil {
			return 0, err
		}
	}
	p.finished = true
	for d := range dirs {
		if err := syncDir(p.dest, d); err != nil {
			return 0, fmt.Errorf("agent: making the directory %q durable: %w", d, err)
		}
	}
	return len(files), nil
}

// makeDirs makes directory d and those above it.
func (p *placer) makeDirs(have map[string]bool, d string) error {
	if have[d] {
		return nil
	}
	if err := p.makeDirs(have, path.Dir(d)); err != nil {
		return err
	}
	have[d] = true
	err := p.dest.Mkdir(d, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("agent: making the directory %q: %w", d, err)
	}
	p.made = append(p.made, d)
	if p.owner.UID == os.Geteuid() {
		return nil
	}
	return p.dest.Lchown(d, p.owner.UID, p.owner.GID)
}

// name gives file i its final name. One that exists is not replaced.
func (p *placer) name(i int, name string) error {
	if _, err := p.dest.Lstat(name); err == nil {
		return fmt.Errorf("agent: %q exists in the destination; remove it, or choose another directory", name)
	}
	if err := p.dest.Rename(path.Join(p.stageName, strconv.Itoa(i)), name); err != nil {
		return fmt.Errorf("agent: naming %q: %w", name, err)
	}
	p.made = append(p.made, name)
	return nil
}

// clean removes the staging directory, and what was placed unless all was.
func (p *placer) clean() {
	if p.stageDir == nil {
		return
	}
	p.stageDir.Close()
	p.dest.RemoveAll(p.stageName)
	if p.finished {
		return
	}
	for i := len(p.made) - 1; i >= 0; i-- {
		p.dest.Remove(p.made[i]) // fails when it is not empty, as it should
	}
}
