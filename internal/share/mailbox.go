package share

import "sync"

// mailbox holds the events of a share in order. Whoever posts never waits, so that a share
// may post to itself; readers of connections wait in throttle while too many events wait.
type mailbox struct {
	mu    sync.Mutex
	room  sync.Cond
	queue []func()
	ready chan struct{} // capacity 1: there may be events
	done  bool
}

const fullMailbox = 4096 // events at which readers wait

func newMailbox() *mailbox {
	m := &mailbox{ready: make(chan struct{}, 1)}
	m.room.L = &m.mu
	return m
}

// post adds an event. After close it is dropped, and post reports false.
func (m *mailbox) post(f func()) bool {
	m.mu.Lock()
	done := m.done
	if !done {
		m.queue = append(m.queue, f)
	}
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return !done
}

// throttle waits until the mailbox has room.
func (m *mailbox) throttle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) >= fullMailbox && !m.done {
		m.room.Wait()
	}
}

// take returns the events that wait.
func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue
	m.queue = nil
	m.room.Broadcast()
	return q
}

// close drops all events and lets nobody wait any more.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.queue = true, nil
	m.room.Broadcast()
}
