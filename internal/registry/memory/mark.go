package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// mark is the one bit that outlives the process: a file that exists while leases may be
// running.
//
// Invariant: running > 0 ⇒ set, once grant has returned.
type mark struct {
	path    string // empty: nothing is written
	log     *slog.Logger
	running atomic.Int64 // leases granted and neither released nor swept
	set     atomic.Bool

	mu sync.Mutex // held while the file changes
}

// find reports whether the file is there.
func (m *mark) find() (bool, error) {
	if m.path == "" {
		return false, nil
	}
	_, err := os.Lstat(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("registry: look for the mark of running leases: %w", err)
	}
	m.set.Store(true)
	return true, nil
}

// grant counts a lease and sees to it that the file is there. A file that cannot be written
// is told and does not stop the download.
func (m *mark) grant() {
	m.running.Add(1)
	if m.path == "" || m.set.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set.Load() {
		return
	}
	if err := writeMark(m.path); err != nil {
		m.log.Warn("leases are granted without a mark on disk: a restart may grant one twice", "error", err)
		return
	}
	m.set.Store(true)
}

// release counts a lease that ended.
func (m *mark) release() { m.running.Add(-1) }

// settle removes the file when no lease is running.
func (m *mark) settle() {
	if m.path == "" || !m.set.Load() || m.running.Load() > 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// First the flag, then the count: a grant in between sees the flag down and waits for mu,
	// or is seen by the count.
	m.set.Store(false)
	if m.running.Load() > 0 {
		m.set.Store(true)
		return
	}
	if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.set.Store(true)
		m.log.Warn("the mark of running leases stays", "error", err)
	}
}

func writeMark(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("registry: mark running leases: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("registry: mark running leases: %w", err)
	}
	return nil
}
