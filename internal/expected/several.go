package expected

import (
	"context"
	"errors"

	"freshet/internal/content"
)

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
