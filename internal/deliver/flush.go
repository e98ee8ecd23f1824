package deliver

import (
	"os"
	"time"
)

// flusher makes what was staged durable now and then, so that little is left to write when
// the last piece has come. What goes wrong, the sync at the end finds.
type flusher struct {
	root  *os.Root
	begun time.Time
	done  chan struct{} // closed when the flush under way ended; nil: none was begun
}

const flushEvery = time.Second

// kick begins a flush unless one is under way or was begun a short time ago.
func (f *flusher) kick() {
	if time.Since(f.begun) < flushEvery || f.running() {
		return
	}
	f.begun = time.Now()
	done := make(chan struct{})
	f.done = done
	go func() {
		defer close(done)
		startSync(f.root)
	}()
}

func (f *flusher) running() bool {
	if f.done == nil {
		return false
	}
	select {
	case <-f.done:
		return false
	default:
		return true
	}
}

// wait waits for the flush under way.
func (f *flusher) wait() {
	if f.done != nil {
		<-f.done
	}
}
