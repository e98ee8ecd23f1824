package expected

import (
	"context"
	"errors"
	"testing"

	"freshet/internal/content"
)

var appRef = content.Ref{ID: "app", Version: 1}

// fixed is a provider that always says the same.
type fixed struct {
	c   Content
	err error
}

func (f fixed) Lookup(context.Context, content.Ref) (Content, error) { return f.c, f.err }

func TestSeveral(t *testing.T) {
	broken := errors.New("cannot be read")
	one, two := fixed{c: Content{Ref: appRef}}, fixed{c: Content{Ref: content.Ref{ID: "other", Version: 1}}}
	for _, tt := range []struct {
		s    Several
		want content.ID
		err  error
	}{
		{nil, "", ErrNone},
		{Several{fixed{err: ErrNone}, fixed{err: ErrNone}}, "", ErrNone},
		{Several{one, two}, "app", nil},
		{Several{fixed{err: ErrNone}, two}, "other", nil},
		{Several{fixed{err: broken}, one}, "app", nil},
		{Several{fixed{err: ErrNone}, fixed{err: broken}}, "", broken},
		{Several{fixed{err: broken}, fixed{err: ErrNone}}, "", broken},
	} {
		c, err := tt.s.Lookup(t.Context(), appRef)
		if c.Ref.ID != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%+v: %q, %v; want %q, %v", tt.s, c.Ref.ID, err, tt.want, tt.err)
		}
	}
}
