package agent

import (
	"context"

	"freshet/internal/buffers"
	"freshet/internal/store"
)

// verifyJob is a run that arrived. done is called with what came of it, after the buffer
// went back.
type verifyJob struct {
	entry *store.Entry
	run   int
	buf   []byte
	done  func(ok bool, err error)
}

// verifier hashes and writes runs. There is one a processor; a run is hashed by one.
func verifier(ctx context.Context, jobs <-chan verifyJob, pool *buffers.Pool) {
	for {
		select {
		case j := <-jobs:
			ok, err := keep(j.entry, j.run, j.buf)
			pool.Put(j.buf)
			j.done(ok, err)
		case <-ctx.Done():
			return
		}
	}
}

// keep writes a run that verifies. An error is the store's.
func keep(e *store.Entry, run int, b []byte) (ok bool, err error) {
	if !e.Verify(run, b) {
		return false, nil
	}
	return true, e.Write(run, b)
}
