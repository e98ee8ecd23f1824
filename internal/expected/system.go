package expected

import (
	"context"
	"errors"
	"fmt"

	"freshet/internal/content"
)

// System is the provider of this device's management client, where there is one: a Windows
// device with Configuration Manager's. Elsewhere it knows nothing, and is no error.
type System struct {
	rows   Rows
	probed chan struct{} // closed when Probe has ended; guards the following
	ccm    *CCM          // nil: there is no client
}

// NewSystem returns the provider over rows, [SystemRows]. Nothing is known of it before Probe.
func NewSystem(rows Rows) *System { return &System{rows: rows, probed: make(chan struct{})} }

// Probe sees whether there is a client, and reports it. It is called once.
func (s *System) Probe(ctx context.Context) bool {
	defer close(s.probed)
	if _, err := s.rows(ctx); err != nil {
		return false
	}
	s.ccm = NewCCM(s.rows)
	return true
}

// Lookup returns what the client expects of ref. It waits for Probe.
func (s *System) Lookup(ctx context.Context, ref content.Ref) (Content, error) {
	select {
	case <-s.probed:
	case <-ctx.Done():
		return Content{}, fmt.Errorf("expected: look up %s: %w", ref, ctx.Err())
	}
	if s.ccm == nil {
		return Content{}, ErrNone
	}
	return s.ccm.Lookup(ctx, ref)
}

// Provider says what the files of a content must be; [ErrNone] when it says nothing.
type Provider interface {
	Lookup(ctx context.Context, ref content.Ref) (Content, error)
}

// Several asks providers in their order; the first that knows the content decides. One that
// cannot be read is an error only where no other knows.
type Several []Provider

// Lookup returns what the first provider that knows says of ref; [ErrNone] when none does.
func (s Several) Lookup(ctx context.Context, ref content.Ref) (Content, error) {
	unread := ErrNone
	for _, p := range s {
		c, err := p.Lookup(ctx, ref)
		switch {
		case err == nil:
			return c, nil
		case errors.Is(unread, ErrNone):
			unread = err
		}
	}
	return Content{}, unread
}
