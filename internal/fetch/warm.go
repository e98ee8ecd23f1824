package fetch

import (
	"context"
	"fmt"
	"net/http"
)

// Warm sees to it that a connection to the source is open and free, so that the next Fetch need
// not wait for one: a HEAD request over one that is free, or a new one. What the source says is
// for the Fetch to judge.
func (s *Source) Warm(ctx context.Context) error {
	resp, err := s.do(ctx, http.MethodHead, "")
	if err != nil {
		return fmt.Errorf("opening a connection to %q: %w", s.name, err)
	}
	discard(resp)
	return nil
}

// openSpare opens a second connection while the first is busy with a long range, for the next
// range is asked for before this one ends; once for each source. end waits for it, and must be
// called.
func (s *Source) openSpare(ctx context.Context) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spared {
		return func() {}
	}
	s.spared = true
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Warm(ctx) // without it, the next range opens one
	}()
	return func() {
		cancel()
		<-done
	}
}
