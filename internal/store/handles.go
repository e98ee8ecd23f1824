package store

import (
	"container/list"
	"os"
	"sync"
)

// handles keeps the files of all entries open, at most max of them unused.
type handles struct {
	disk disk
	max  int

	mu   sync.Mutex
	idle *list.List // of *handle, the one used last in front; guarded by mu
}

// handle is an open store file. It stays open while it has users.
type handle struct {
	f    file
	df   *dataFile
	refs int           // guarded by handles.mu
	elem *list.Element // in handles.idle when refs is 0; guarded by handles.mu
	dead bool          // closed as soon as refs is 0; guarded by handles.mu
}

func newHandles(d disk, max int) *handles {
	return &handles{disk: d, max: max, idle: list.New()}
}

// get returns df's open file, which the caller gives back with put.
func (c *handles) get(df *dataFile) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := df.h; h != nil {
		h.refs++
		if h.elem != nil {
			c.idle.Remove(h.elem)
			h.elem = nil
		}
		return h, nil
	}
	f, err := c.openLocked(df)
	if err != nil {
		return nil, err
	}
	df.h = &handle{f: f, df: df, refs: 1}
	return df.h, nil
}

// openLocked opens df to read and write, or only to read where no more is allowed. It makes
// room when the process has too many files open.
func (c *handles) openLocked(df *dataFile) (file, error) {
	f, err := c.disk.open(df.name, os.O_RDWR, 0)
	for isTooManyFiles(err) && c.closeOldestLocked() {
		f, err = c.disk.open(df.name, os.O_RDWR, 0)
	}
	if isReadOnly(err) {
		f, err = c.disk.open(df.name, os.O_RDONLY, 0)
	}
	return f, err
}

func (c *handles) put(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.refs--
	if h.refs > 0 {
		return
	}
	if h.dead {
		h.f.Close()
		return
	}
	h.elem = c.idle.PushFront(h)
	for c.idle.Len() > c.max {
		c.closeOldestLocked()
	}
}

func (c *handles) closeOldestLocked() bool {
	el := c.idle.Back()
	if el == nil {
		return false
	}
	c.closeLocked(el.Value.(*handle))
	return true
}

// closeLocked closes h now or when its last user is done.
func (c *handles) closeLocked(h *handle) {
	if h.df.h == h {
		h.df.h = nil
	}
	if h.refs > 0 {
		h.dead = true
		return
	}
	c.idle.Remove(h.elem)
	h.elem = nil
	h.f.Close() // its bytes are synced by commits; nothing is left to report
}

// renew makes the next get open df's name anew.
func (c *handles) renew(df *dataFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if df.h != nil {
		c.closeLocked(df.h)
	}
}

// drop closes the files of an entry.
func (c *handles) drop(e *Entry) {
	for i := range e.files {
		c.renew(&e.files[i])
	}
}

func (c *handles) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = 0 // files in use close with their last user
	for c.closeOldestLocked() {
	}
}
