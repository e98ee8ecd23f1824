package fetch

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"freshet/internal/web"
)

// TestHearing: a request whose context wants to know hears of the body while it comes, others
// are as before.
func TestHearing(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 100_000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	defer s.Close()
	c := Hearing(s.Client())
	defer c.CloseIdleConnections()
	heard := 0
	for ctx, least := range map[string]int{"wants": 2, "does not": 0} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		heard = 0
		if ctx == "wants" {
			r = r.WithContext(web.WithHeard(t.Context(), func() { heard++ }))
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body) || heard < least || least == 0 && heard != 0 {
			t.Errorf("who %s: %d bytes, %v; heard %d times", ctx, len(got), err, heard)
		}
	}
}
