package simple

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestNextOrigin: the nearest origin that need not be waited for is asked, then the one that
// is ready first; one that has changed never.
func TestNextOrigin(t *testing.T) {
	now := time.Unix(1e9, 0)
	origins := []*origin{{url: "a"}, {url: "b"}, {url: "c"}}
	draft := &Draft{origins: origins}
	next := func(want string, wait time.Duration) {
		t.Helper()
		o, d := draft.next(now)
		if got := slices.Index(append(origins, nil), o); got < 3 && origins[got].url != want || got == 3 && want != "" || d != wait {
			t.Errorf("origin %d after %s, want %q after %s", got, d, want, wait)
		}
	}
	next("a", 0)
	origins[0].after = now.Add(3 * time.Second)
	next("b", 0)
	origins[1].after, origins[2].after = now.Add(2*time.Second), now.Add(time.Second)
	next("c", time.Second)
	origins[2].out = http.ErrAbortHandler
	next("b", 2*time.Second)
	origins[0].out, origins[1].out = http.ErrAbortHandler, http.ErrAbortHandler
	next("", 0)
}
