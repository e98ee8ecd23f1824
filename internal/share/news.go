package share

import "sync"

// news lets goroutines wait for changes of a share.
type news struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next ring
}

func newNews() *news { return &news{ch: make(chan struct{})} }

// wait returns a channel that is closed at the next change.
func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) ring() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
