package share

import (
	"context"
	"runtime"
	"sync"

	"freshet/internal/buffers"
	"freshet/internal/deliver"
	"freshet/internal/store"
)

// verifyJob is a run that arrived. done is called with what came of it, after the buffer
// went back.
type verifyJob struct {
	entry *store.Entry
	sums  *deliver.Sums // of entry, or nil
	run   int
	buf   []byte
	done  func(ok bool, err error)
}

// Verifiers hash and write the runs that peers send. There is one a processor; a run is hashed
// by one. All shares of a device have them in common.
type Verifiers struct {
	jobs  chan verifyJob
	pool  *buffers.Pool
	ended chan struct{} // closed when Run has returned
}

// NewVerifiers returns the verifiers of runs in buffers of a pool.
func NewVerifiers(pool *buffers.Pool) *Verifiers {
	return &Verifiers{jobs: make(chan verifyJob), pool: pool, ended: make(chan struct{})}
}

// Run works until ctx ends. It is called once.
func (v *Verifiers) Run(ctx context.Context) {
	defer close(v.ended)
	var all sync.WaitGroup
	defer all.Wait()
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() { v.work(ctx) })
	}
}

func (v *Verifiers) work(ctx context.Context) {
	for {
		select {
		case j := <-v.jobs:
			j.done(j.keep(v.pool))
		case <-ctx.Done():
			return
		}
	}
}

// take gives a job to the next verifier that is free. It reports false when they have ended;
// the job's buffer is still its caller's then.
func (v *Verifiers) take(j verifyJob) bool {
	select {
	case v.jobs <- j:
		return true
	case <-v.ended:
		return false
	}
}

// keep writes the run if it verifies, lets its bytes count for the whole-file check, and
// gives the buffer back. An error is the store's.
func (j *verifyJob) keep(pool *buffers.Pool) (ok bool, err error) {
	kept := false
	if ok = j.entry.Verify(j.run, j.buf); ok {
		if err = j.entry.Write(j.run, j.buf); err == nil && j.sums != nil {
			kept = j.sums.Offer(j.run, j.buf)
		}
	}
	if !kept {
		pool.Put(j.buf)
	}
	return ok, err
}
