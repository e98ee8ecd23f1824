package blob

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"freshet/internal/content"
)

// source opens the files of one directory, by names that CheckName took.
type source interface {
	open(name string) (*os.File, error)
	lstat(name string) (fs.FileInfo, error) // of what a walk finds: through links only when they are followed
	close() error
}

// rooted never leaves its directory.
type rooted struct{ root *os.Root }

func (s rooted) open(name string) (*os.File, error) {
	return s.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
}
func (s rooted) lstat(name string) (fs.FileInfo, error) { return s.root.Lstat(name) }
func (s rooted) close() error                           { return s.root.Close() }

// following goes wherever links lead: its user asked for what they point to.
type following struct{ dir string }

func (s following) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }
func (s following) open(name string) (*os.File, error) {
	return os.OpenFile(s.path(name), os.O_RDONLY|openFlags, 0)
}
func (s following) lstat(name string) (fs.FileInfo, error) { return os.Stat(s.path(name)) }
func (s following) close() error                           { return nil }

func openSource(dir string, follow bool) (source, error) {
	if follow {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%q is not a directory", dir)
		}
		return following{dir}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return rooted{root}, nil
}

// found is a regular file that a walk met.
type found struct {
	name string
	info fs.FileInfo
}

// walker lists the regular files of a source.
type walker struct {
	src    source
	follow bool
	files  []found
	size   int64         // bytes of files
	above  []fs.FileInfo // directories from the top to the current one; a link back to one of them is a loop
}

// listFiles returns the files of src in byte order of their names.
func listFiles(src source, follow bool) ([]found, int64, error) {
	w := &walker{src: src, follow: follow}
	top, err := src.lstat(".")
	if err != nil {
		return nil, 0, err
	}
	if err := w.dir(".", top); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(w.files, func(a, b found) int { return strings.Compare(a.name, b.name) })
	return w.files, w.size, nil
}

func (w *walker) dir(name string, info fs.FileInfo) error {
	for _, up := range w.above {
		if os.SameFile(up, info) {
			return fmt.Errorf("%q leads back to a directory above it: remove the link", name)
		}
	}
	w.above = append(w.above, info)
	defer func() { w.above = w.above[:len(w.above)-1] }()

	d, err := w.src.open(name)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return fmt.Errorf("list %q: %w", name, err)
	}
	for _, n := range names {
		if err := w.entry(path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(name string) error {
	if err := content.CheckName(name); err != nil {
		return fmt.Errorf("%w: rename it", err)
	}
	info, err := w.src.lstat(name)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return w.dir(name, info)
	case info.Mode().IsRegular():
		w.files = append(w.files, found{name, info})
		w.size += info.Size()
		if len(w.files) > content.MaxFiles {
			return fmt.Errorf("more than %d files: make several contents of them", content.MaxFiles)
		}
		return nil
	case info.Mode().Type() == fs.ModeSymlink:
		return fmt.Errorf("%q is a link: remove it, or use --follow to take what links point to", name)
	default:
		return fmt.Errorf("%q is a special file (%v): remove it", name, info.Mode().Type())
	}
}

// Unchanged reports whether dir holds exactly the files of m, each with its stamp, so that it
// need not be read again. stamps are in manifest order. Any doubt is false; an error is
// that of listing dir.
func Unchanged(dir string, m *content.Manifest, stamps []Stamp) (bool, error) {
	if len(stamps) != len(m.Files) {
		return false, nil
	}
	src, err := openSource(dir, false)
	if err != nil {
		return false, fmt.Errorf("blob: list %q: %w", dir, err)
	}
	defer src.close()
	files, _, err := listFiles(src, false)
	if err != nil {
		return false, fmt.Errorf("blob: list %q: %w", dir, err)
	}
	if len(files) != len(m.Files) {
		return false, nil
	}
	for i, f := range files {
		if f.name != m.Files[i].Name || StampOf(f.info) != stamps[i] {
			return false, nil
		}
	}
	return true, nil
}

// Dir opens the files of a directory as HashTree does: through links only when they are
// followed, else never out of it.
type Dir struct{ src source }

// OpenDir opens dir.
func OpenDir(dir string, follow bool) (*Dir, error) {
	src, err := openSource(dir, follow)
	if err != nil {
		return nil, fmt.Errorf("blob: open %q: %w", dir, err)
	}
	return &Dir{src}, nil
}

// Open opens the regular file of this name, which CheckName takes.
func (d *Dir) Open(name string) (*os.File, error) {
	f, err := d.src.open(name)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("blob: open %q: %w", name, err)
	}
	return f, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.src.close() }
