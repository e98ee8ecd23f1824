// Package memdisk is a disk in memory for tests, which goes off at a chosen step, lets a chosen
// sync fail, and after a power cut holds no more than what a real one must.
package memdisk

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"freshet/internal/disk"
)

var errDead = errors.New("the machine is off")

// Disk is strict: a power cut forgets bytes whose file was not synced and names whose directory
// was not synced, or keeps any part of them. After a failed datasync the bytes read as before,
// but no later datasync brings them to the medium.
type Disk struct {
	KillAt   int // the step at which the machine goes off; 0: never. Set before the first use
	FailSync int // the sync that fails with EIO; 0: none. Set before the first use

	mu      sync.Mutex // guards the following
	root    *node
	clock   int64
	step    int // durable steps done: whatever changes the medium or a cache of it
	room    int64
	dead    bool
	syncLog []string // names in the order they were synced
	moves   []move   // of directories
}

var _ disk.Disk = (*Disk)(nil)

// Size is the bytes of a new disk.
const Size = 1 << 40

// New returns an empty disk.
func New() *Disk { return &Disk{root: newDir(), room: Size} }

// Dead reports whether the machine went off.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Synced returns the names of all files and, with a / at their end, directories that were
// synced or whose sync failed, in that order.
func (d *Disk) Synced() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.syncLog)
}

// Resize makes the disk one of n bytes.
func (d *Disk) Resize(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = n
}

// node is a file or a directory.
type node struct {
	isDir bool
	mode  fs.FileMode
	mtime int64

	names, durableNames map[string]*node // of a directory

	data, durable []byte     // of a file
	dirty         [][2]int64 // spans of data that a datasync brings to durable
}

func newDir() *node {
	return &node{isDir: true, mode: fs.ModeDir | 0o700, names: map[string]*node{}, durableNames: map[string]*node{}}
}

// take does a step, or dies.
func (d *Disk) take() error {
	if d.dead {
		return errDead
	}
	d.step++
	if d.step == d.KillAt {
		d.dead = true
		return errDead
	}
	return nil
}

func (d *Disk) find(name string) (*node, error) {
	if d.dead {
		return nil, errDead
	}
	n := d.root
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if part == "." {
			continue
		}
		if n = n.names[part]; n == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	return n, nil
}

// at returns the directory of a name and the last part of it.
func (d *Disk) at(name string) (*node, string, error) {
	n, err := d.find(path.Dir(name))
	return n, path.Base(name), err
}

func (d *Disk) Mkdir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	if dir.names[base] != nil {
		return fs.ErrExist
	}
	if err := d.take(); err != nil {
		return err
	}
	dir.names[base] = newDir()
	return nil
}

func (d *Disk) Open(name string, flag int, perm fs.FileMode) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.at(name)
	if err != nil {
		return nil, err
	}
	n := dir.names[base]
	switch {
	case n != nil && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n == nil:
		if err := d.take(); err != nil {
			return nil, err
		}
		n = &node{mode: perm}
		dir.names[base] = n
	}
	return &memFile{d: d, n: n, name: name}, nil
}

func (d *Disk) Stat(name string) (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return n.info(name), nil
}

func (d *Disk) List(name string) ([]fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return nil, err
	}
	var out []fs.FileInfo
	for _, base := range slices.Sorted(maps.Keys(n.names)) {
		out = append(out, n.names[base].info(base))
	}
	return out, nil
}

func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, fb, err := d.at(from)
	if err != nil {
		return err
	}
	td, tb, err := d.at(to)
	if err != nil {
		return err
	}
	n := fd.names[fb]
	if n == nil {
		return fs.ErrNotExist
	}
	if old := td.names[tb]; old != nil && old.isDir {
		return fs.ErrExist
	}
	if err := d.take(); err != nil {
		return err
	}
	delete(fd.names, fb)
	td.names[tb] = n
	if n.isDir && fd.durableNames[fb] == n {
		d.moves = append(d.moves, move{fd, td, fb, tb, n})
	}
	return nil
}

func (d *Disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(from)
	if err != nil {
		return err
	}
	dir, base, err := d.at(to)
	if err != nil {
		return err
	}
	if dir.names[base] != nil {
		return fs.ErrExist
	}
	if err := d.take(); err != nil {
		return err
	}
	dir.names[base] = n
	return nil
}

func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.at(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return d.removeNode(dir, base)
}

func (d *Disk) removeNode(dir *node, base string) error {
	n := dir.names[base]
	if n == nil {
		return nil
	}
	for _, sub := range slices.Sorted(maps.Keys(n.names)) {
		if err := d.removeNode(n, sub); err != nil {
			return err
		}
	}
	if err := d.take(); err != nil {
		return err
	}
	delete(dir.names, base)
	return nil
}

// sync does one sync, or fails it.
func (d *Disk) sync(name string) error {
	if err := d.take(); err != nil {
		return err
	}
	d.syncLog = append(d.syncLog, name)
	if len(d.syncLog) == d.FailSync {
		return syscall.EIO
	}
	return nil
}

func (d *Disk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return err
	}
	if err := d.sync(name + "/"); err != nil {
		return err
	}
	n.durableNames = maps.Clone(n.names)
	return nil
}

func (d *Disk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return 0, errDead
	}
	return max(d.room-d.root.allocated(map[*node]bool{}), 0), nil
}

func (n *node) allocated(seen map[*node]bool) int64 {
	if seen[n] {
		return 0
	}
	seen[n] = true
	total := int64(len(n.data))
	for _, sub := range n.names {
		total += sub.allocated(seen)
	}
	return total
}

func (d *Disk) Close() error { return nil }

type memFile struct {
	d    *Disk
	n    *node
	name string
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return 0, errDead
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.d.take()
	if err != nil {
		b = b[:len(b)/2] // the write under way may be half done
	} else if more := off + int64(len(b)) - int64(len(f.n.data)); more > 0 && f.d.root.allocated(map[*node]bool{})+more > f.d.room {
		return 0, syscall.ENOSPC
	}
	end := off + int64(len(b))
	if more := end - int64(len(f.n.data)); more > 0 {
		f.n.data = append(f.n.data, make([]byte, more)...)
	}
	copy(f.n.data[off:], b)
	f.n.dirty = append(f.n.dirty, [2]int64{off, end})
	f.d.clock++
	f.n.mtime = f.d.clock
	return len(b), err
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return nil, errDead
	}
	return f.n.info(f.name), nil
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.take(); err != nil {
		return err
	}
	f.n.resize(size)
	return nil
}

func (n *node) resize(size int64) {
	if more := size - int64(len(n.data)); more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
	n.data = n.data[:size]
}

func (f *memFile) Allocate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.take(); err != nil {
		return err
	}
	if f.d.root.allocated(map[*node]bool{})+size > f.d.room {
		return syscall.ENOSPC
	}
	f.n.resize(size)
	return nil
}

func (f *memFile) Datasync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	dirty := f.n.dirty
	if err := f.d.sync(f.name); err != nil {
		if !errors.Is(err, errDead) {
			f.n.dirty = nil // the kernel forgets that they were never written
		}
		return err
	}
	f.n.dirty = nil
	size := len(f.n.data)
	if size > len(f.n.durable) {
		f.n.durable = append(f.n.durable, make([]byte, size-len(f.n.durable))...)
	}
	f.n.durable = f.n.durable[:size]
	for _, s := range dirty {
		copy(f.n.durable[s[0]:min(s[1], int64(size))], f.n.data[s[0]:min(s[1], int64(size))])
	}
	return nil
}

func (f *memFile) Close() error { return nil }

type memInfo struct {
	name string
	n    node
}

func (n *node) info(name string) fs.FileInfo {
	return memInfo{path.Base(name), node{isDir: n.isDir, mode: n.mode, mtime: n.mtime, data: n.data}}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return int64(len(i.n.data)) }
func (i memInfo) Mode() fs.FileMode  { return i.n.mode }
func (i memInfo) ModTime() time.Time { return time.Unix(0, i.n.mtime) }
func (i memInfo) IsDir() bool        { return i.n.isDir }
func (i memInfo) Sys() any           { return nil }
