package fetch

import (
	"net/http"

	"freshet/internal/web"
)

// Hearing lets a request's context hear of each part of the body that arrives ([web.WithHeard]):
// the brain must know that a slow origin is alive.
func Hearing(c *http.Client) *http.Client {
	own := *c
	own.Transport = heardTransport{c.Transport}
	return &own
}

type heardTransport struct{ http.RoundTripper }

func (t heardTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = web.Heard(r.Context(), resp.Body)
	}
	return resp, err
}

// CloseIdleConnections is what http.Client looks for.
func (t heardTransport) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
