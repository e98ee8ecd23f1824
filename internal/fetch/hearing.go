package fetch

import (
	"context"
	"io"
	"net/http"
)

// Hearing lets a request's context hear of each part of the body that arrives: the brain
// must know that a slow origin is alive.
func Hearing(c *http.Client) *http.Client {
	own := *c
	own.Transport = heardTransport{c.Transport}
	return &own
}

type heardKey struct{}

// WithHeard returns a context whose requests call heard when bytes arrive.
func WithHeard(ctx context.Context, heard func()) context.Context {
	return context.WithValue(ctx, heardKey{}, heard)
}

type heardTransport struct{ http.RoundTripper }

func (t heardTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if heard, ok := r.Context().Value(heardKey{}).(func()); ok && err == nil {
		resp.Body = heardBody{resp.Body, heard}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client looks for.
func (t heardTransport) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
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
