package web

import (
	"context"
	"io"
)

type heardKey struct{}

// WithHeard returns a context whose requests call heard when bytes of the reply's body arrive,
// where the client asks [Heard].
func WithHeard(ctx context.Context, heard func()) context.Context {
	return context.WithValue(ctx, heardKey{}, heard)
}

// Heard returns body, from which a request with this context reads.
func Heard(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if heard, ok := ctx.Value(heardKey{}).(func()); ok {
		return heardBody{body, heard}
	}
	return body
}

type heardBody struct {
	io.ReadCloser
	heard func()
}

func (b heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.heard()
	}
	return n, err
}
