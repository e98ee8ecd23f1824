package agent

import (
	"context"

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

// verifier hashes and writes runs. There is one a processor; a run is hashed by one.
func verifier(ctx context.Context, jobs <-chan verifyJob, pool *buffers.Pool) {
	for {
		select {
		case j := <-jobs:
			j.done(j.keep(pool))
		case <-ctx.Done():
			return
		}
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
