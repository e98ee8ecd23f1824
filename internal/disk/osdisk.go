package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	markerName    = "FRESHET-CACHE"
	markerText    = "freshet cache "
	markerVersion = 1
	lockName      = "lock"
)

// ErrLocked says that another process has the directory.
var ErrLocked = errors.New("cache is in use by another process")

// Dir is a locked directory of the operating system, opened by handle.
type Dir struct {
	root *os.Root
	lock *os.File
}

var _ Disk = (*Dir)(nil)

// Open opens the cache directory dir: made with mode 0700 when it is missing, marked as
// ours, locked. It refuses a link, another user's directory, one that others may write to,
// and one that holds anything but a cache. The error is [ErrLocked] when another process has it.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	root, err := openRealDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	d := &Dir{root: root}
	if err := d.claim(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open cache %q: %w", dir, err)
	}
	return d, nil
}

// openRealDir opens a directory that is not a link.
func openRealDir(dir string) (*os.Root, error) {
	named, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !named.IsDir() {
		return nil, fmt.Errorf("%q is %s, not a directory; name the directory itself", dir, KindOf(named))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		err = fmt.Errorf("%q was exchanged while it was opened", dir)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// claim checks owner, mode and marker, takes the lock and marks a new directory.
func (d *Dir) claim() error {
	st, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	marked, err := d.marked()
	if err != nil {
		return err
	}
	if err := checkOwner(st, marked); err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := d.root.Chmod(".", 0o700); err != nil {
			return err
		}
	}
	lock, err := d.Open(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	d.lock = lock.(OSFile).File
	if err := lockFile(d.lock); err != nil {
		return fmt.Errorf("%w (%v); stop the other agent, or give this one a directory of its own", ErrLocked, err)
	}
	if marked {
		return nil
	}
	return ReplaceFile(d, markerName, appendMarker(nil))
}

// marked reports whether the directory bears a marker that we understand. Without one it
// must be empty but for what an interrupted first opening leaves.
func (d *Dir) marked() (bool, error) {
	b, err := ReadFile(d, markerName, 256)
	if err == nil {
		return true, parseMarker(b)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	names, err := d.List(".")
	if err != nil {
		return false, err
	}
	for _, n := range names {
		switch n.Name() {
		case lockName, "lost+found", markerName + ".new":
		default:
			return false, fmt.Errorf("it holds %q and no %s: not a cache of freshet; choose an empty directory", n.Name(), markerName)
		}
	}
	return false, nil
}

func appendMarker(b []byte) []byte {
	b = append(b, markerText...)
	b = strconv.AppendInt(b, markerVersion, 10)
	return append(b, '\n')
}

// parseMarker reads the marker: its text, a version of at least 1, a line feed. A newer
// version is a [VersionError].
func parseMarker(b []byte) error {
	digits, ok := strings.CutPrefix(string(b), markerText)
	digits, end := strings.CutSuffix(digits, "\n")
	v, err := strconv.ParseUint(digits, 10, 31)
	if !ok || !end || err != nil || v == 0 || digits[0] == '0' {
		return fmt.Errorf("%s holds %q, not %q; restore it or choose another directory", markerName, b, appendMarker(nil))
	}
	if v > markerVersion {
		return &VersionError{What: "cache", Version: int(v)}
	}
	return nil
}

// KindOf names what lies at a name, for messages.
func KindOf(st fs.FileInfo) string {
	switch m := st.Mode(); {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsRegular():
		return "a file"
	case m.IsDir():
		return "a directory"
	default:
		return "a special file"
	}
}

func (d *Dir) Mkdir(name string) error { return d.root.Mkdir(name, 0o700) }

// Open opens a regular file, never through a link.
func (d *Dir) Open(name string, flag int, perm fs.FileMode) (File, error) {
	if st, err := d.root.Lstat(name); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %q: it is %s, not a file", name, KindOf(st))
	}
	f, err := d.root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	named, err := d.root.Lstat(name)
	if err == nil {
		var opened fs.FileInfo
		opened, err = f.Stat()
		if err == nil && !os.SameFile(named, opened) {
			err = fmt.Errorf("open %q: it was exchanged while it was opened", name)
		}
	}
	if err == nil && flag&os.O_CREATE != 0 && named.Mode().Perm() != perm {
		err = f.Chmod(perm) // whatever the umask
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return OSFile{f}, nil
}

func (d *Dir) Stat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

func (d *Dir) List(name string) ([]fs.FileInfo, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []fs.FileInfo
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			st, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			out = append(out, st)
		}
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (d *Dir) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d *Dir) Link(from, to string) error   { return d.root.Link(from, to) }
func (d *Dir) RemoveAll(name string) error  { return d.root.RemoveAll(name) }

func (d *Dir) SyncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncDirectory(f)
}

// LinkOut gives the file from another name in the directory dir, a hard link.
func (d *Dir) LinkOut(from string, dir *os.Root, name string) error {
	return linkOut(d.root, from, dir, name)
}

func (d *Dir) Free() (int64, error) { return freeBytes(d.root) }

// Close gives the lock back.
func (d *Dir) Close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}
