package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

var errDead = errors.New("the machine is off")

// memDisk is a disk in memory that is strict: a power cut forgets bytes whose file was not
// synced and names whose directory was not synced, or keeps any part of them. After a failed
// datasync the bytes read as before, but no later datasync brings them to the medium.
type memDisk struct {
	mu       sync.Mutex
	root     *node
	clock    int64
	step     int // durable steps done: whatever changes the medium or a cache of it
	killAt   int // the step at which the machine goes off; 0: never
	syncs    int // datasyncs and syncDirs done
	failSync int // the one that fails with EIO; 0: none
	room     int64
	dead     bool
	syncLog  []string // names in the order they were synced
	moves    []move   // of directories
}

// move is the renaming of a directory, which a power cut finds done or not done, never half.
type move struct {
	from, to         *node
	fromName, toName string
	n                *node
}

// settle does or undoes a move. It is done when one of the two directories was synced after it.
func (m move) settle(kept bool) {
	durable := m.to.durableNames[m.toName] == m.n || m.from.durableNames[m.fromName] != m.n
	if durable || kept {
		if m.from.durableNames[m.fromName] == m.n {
			delete(m.from.durableNames, m.fromName)
		}
		if m.to.names[m.toName] == m.n {
			m.to.durableNames[m.toName] = m.n
		}
		return
	}
	if m.to.names[m.toName] == m.n {
		delete(m.to.names, m.toName)
	}
	m.from.names[m.fromName] = m.n
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

func newMemDisk() *memDisk { return &memDisk{root: newDir(), room: 1 << 40} }

func newDir() *node {
	return &node{isDir: true, mode: fs.ModeDir | 0o700, names: map[string]*node{}, durableNames: map[string]*node{}}
}

// take does a step, or dies.
func (d *memDisk) take() error {
	if d.dead {
		return errDead
	}
	d.step++
	if d.step == d.killAt {
		d.dead = true
		return errDead
	}
	return nil
}

func (d *memDisk) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

func (d *memDisk) find(name string) (*node, error) {
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
func (d *memDisk) at(name string) (*node, string, error) {
	n, err := d.find(path.Dir(name))
	return n, path.Base(name), err
}

func (d *memDisk) mkdir(name string) error {
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

func (d *memDisk) open(name string, flag int, perm fs.FileMode) (file, error) {
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

func (d *memDisk) stat(name string) (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return n.info(name), nil
}

func (d *memDisk) list(name string) ([]fs.FileInfo, error) {
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

func (d *memDisk) rename(from, to string) error {
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

func (d *memDisk) link(from, to string) error {
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

func (d *memDisk) removeAll(name string) error {
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

func (d *memDisk) removeNode(dir *node, base string) error {
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
func (d *memDisk) sync(name string) error {
	if err := d.take(); err != nil {
		return err
	}
	d.syncs++
	d.syncLog = append(d.syncLog, name)
	if d.syncs == d.failSync {
		return syscall.EIO
	}
	return nil
}

func (d *memDisk) syncDir(name string) error {
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

func (d *memDisk) free() (int64, error) {
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

func (d *memDisk) close() error { return nil }

// loss says what a power cut leaves of what was not synced.
type loss int

const (
	losesAll  loss = iota
	losesNone      // a killed process, not a power cut
	losesSome
)

// crash returns the disk as the next boot finds it.
func (d *memDisk) crash(how loss, seed uint64) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := crasher{how: how, rng: rand.New(rand.NewPCG(seed, 1)), done: map[*node]*node{}}
	for _, m := range slices.Backward(d.moves) {
		m.settle(c.kept())
	}
	d.moves = nil
	return &memDisk{root: c.node(d.root), clock: d.clock, room: d.room}
}

type crasher struct {
	how  loss
	rng  *rand.Rand
	done map[*node]*node
}

// kept decides for one sector or name.
func (c *crasher) kept() bool {
	return c.how == losesNone || c.how == losesSome && c.rng.IntN(2) == 0
}

func (c *crasher) node(n *node) *node {
	if out := c.done[n]; out != nil {
		return out
	}
	out := &node{isDir: n.isDir, mode: n.mode, mtime: n.mtime}
	c.done[n] = out
	if !n.isDir {
		c.bytes(n, out)
		return out
	}
	out.names = map[string]*node{}
	all := maps.Clone(n.durableNames)
	maps.Copy(all, n.names)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sub := n.durableNames[name]
		if now := n.names[name]; now != sub && c.kept() {
			sub = now
		}
		if sub != nil {
			out.names[name] = c.node(sub)
		}
	}
	out.durableNames = maps.Clone(out.names)
	return out
}

// bytes keeps any sectors of what was not synced; the size is the old or the new one.
func (c *crasher) bytes(n, out *node) {
	const sector = 512
	out.data = slices.Clone(n.durable)
	if len(n.data) != len(n.durable) && c.kept() {
		out.data = append(out.data, make([]byte, max(len(n.data)-len(out.data), 0))...)[:len(n.data)]
	}
	for at := 0; at < min(len(out.data), len(n.data)); at += sector {
		end := min(at+sector, len(out.data), len(n.data))
		if c.kept() {
			copy(out.data[at:end], n.data[at:end])
		}
	}
	out.durable = slices.Clone(out.data)
}

type memFile struct {
	d    *memDisk
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

func (f *memFile) allocate(size int64) error {
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

func (f *memFile) datasync() error {
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

func (l loss) String() string { return fmt.Sprint([]string{"all", "none", "some"}[l]) }

var _ disk = (*memDisk)(nil)
