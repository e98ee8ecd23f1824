package disk

import (
	"container/list"
	"os"
	"sync"
)

// Handles keeps files of a disk open, at most max of them unused.
type Handles struct {
	disk Disk
	max  int

	mu   sync.Mutex
	idle *list.List // of *Handle, the one used last in front; guarded by mu
}

// Kept is a file that [Handles] may keep open. It is not copied once it was opened.
type Kept struct {
	Name string

	h *Handle // guarded by Handles.mu
}

// Handle is an open file. It stays open while it has users, who do not close it.
type Handle struct {
	File File

	of   *Kept
	refs int           // guarded by Handles.mu
	elem *list.Element // in Handles.idle when refs is 0; guarded by Handles.mu
	dead bool          // closed as soon as refs is 0; guarded by Handles.mu
}

// NewHandles returns an empty Handles.
func NewHandles(d Disk, max int) *Handles {
	return &Handles{disk: d, max: max, idle: list.New()}
}

// Get returns the open file of k, which the caller gives back with [Handles.Put].
func (c *Handles) Get(k *Kept) (*Handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := k.h; h != nil {
		h.refs++
		if h.elem != nil {
			c.idle.Remove(h.elem)
			h.elem = nil
		}
		return h, nil
	}
	f, err := c.openLocked(k)
	if err != nil {
		return nil, err
	}
	k.h = &Handle{File: f, of: k, refs: 1}
	return k.h, nil
}

// openLocked opens k to read and write, or only to read where no more is allowed. It makes
// room when the process has too many files open.
func (c *Handles) openLocked(k *Kept) (File, error) {
	f, err := c.disk.Open(k.Name, os.O_RDWR, 0)
	for isTooManyFiles(err) && c.closeOldestLocked() {
		f, err = c.disk.Open(k.Name, os.O_RDWR, 0)
	}
	if isReadOnly(err) {
		f, err = c.disk.Open(k.Name, os.O_RDONLY, 0)
	}
	return f, err
}

// Put ends one use of a file.
func (c *Handles) Put(h *Handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.refs--
	if h.refs > 0 {
		return
	}
	if h.dead {
		h.File.Close()
		return
	}
	h.elem = c.idle.PushFront(h)
	for c.idle.Len() > c.max {
		c.closeOldestLocked()
	}
}

func (c *Handles) closeOldestLocked() bool {
	el := c.idle.Back()
	if el == nil {
		return false
	}
	c.closeLocked(el.Value.(*Handle))
	return true
}

// closeLocked closes h now or when its last user is done.
func (c *Handles) closeLocked(h *Handle) {
	if h.of.h == h {
		h.of.h = nil
	}
	if h.refs > 0 {
		h.dead = true
		return
	}
	c.idle.Remove(h.elem)
	h.elem = nil
	h.File.Close() // its bytes are synced by commits; nothing is left to report
}

// Renew makes the next Get open the name of k anew.
func (c *Handles) Renew(k *Kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.h != nil {
		c.closeLocked(k.h)
	}
}

// CloseAll closes all files, those in use with their last user.
func (c *Handles) CloseAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = 0
	for c.closeOldestLocked() {
	}
}
