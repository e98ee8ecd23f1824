package fetch

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/content"
)

// counted is a source that counts connections and requests by method.
type counted struct {
	*httptest.Server
	conns, heads, gets atomic.Int32
	headed             chan struct{} // closed by the first HEAD
}

// serveCounted serves b; before the byte at wait it waits for a HEAD, if wait is not 0.
func serveCounted(t *testing.T, b []byte, wait int) *counted {
	t.Helper()
	c := &counted{headed: make(chan struct{})}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Freshet-Grant") != "g" {
			t.Errorf("the %s request has no grant", r.Method)
		}
		body := &gated{Reader: bytes.NewReader(b), at: len(b), gate: c.headed}
		if r.Method == http.MethodHead {
			if c.heads.Add(1) == 1 {
				close(c.headed)
			}
		} else if c.gets.Add(1) == 1 && wait > 0 {
			body.at = wait
		}
		http.ServeContent(w, r, "", time.Time{}, body)
	}))
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.conns.Add(1)
		}
	}
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

// gated is a reader that waits at a byte until its gate is closed.
type gated struct {
	*bytes.Reader
	at   int
	gate <-chan struct{}
}

func (g *gated) Read(b []byte) (int, error) {
	at := int(g.Size()) - g.Len()
	if at < g.at {
		b = b[:min(len(b), g.at-at)]
	} else if g.at < int(g.Size()) {
		select {
		case <-g.gate:
		case <-time.After(10 * time.Second):
			return 0, errors.New("nobody opened the gate")
		}
	}
	return g.Reader.Read(b)
}

func (c *counted) source() *Source {
	return New(c.Client(), c.URL, func() http.Header { return http.Header{"Freshet-Grant": {"g"}} })
}

func layoutOf(sizes ...int64) ([]byte, *content.Layout) {
	var files []content.File
	var total int64
	for i, n := range sizes {
		files = append(files, content.File{Name: string(rune('a' + i)), Size: n})
		total += n
	}
	b := make([]byte, total)
	rand.NewChaCha8([32]byte{5}).Read(b)
	return b, content.NewLayout(files)
}

// TestWarm: the connection that a fetch uses was opened ahead of it.
func TestWarm(t *testing.T) {
	b, l := layoutOf(content.PieceSize)
	srv := serveCounted(t, b, 0)
	src, p := srv.source(), newPool(1)
	for range 3 {
		if err := src.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := srv.conns.Load(); n != 1 {
		t.Fatalf("%d connections are open before the fetch, want 1", n)
	}
	if err := src.Fetch(t.Context(), l, 0, 1, p, func(_ int, b []byte) error { p.Put(b); return nil }); err != nil {
		t.Fatal(err)
	}
	if n, heads := srv.conns.Load(), srv.heads.Load(); n != 1 || heads != 3 {
		t.Errorf("%d connections, %d HEADs; want 1, 3", n, heads)
	}
	srv.Close()
	if err := src.Warm(t.Context()); err == nil {
		t.Error("a source that is gone was warmed")
	}
}

// TestSpareConnection: during a long range with more to come a second connection is opened,
// once; nothing of that during others.
func TestSpareConnection(t *testing.T) {
	b, l := layoutOf(20 * content.PieceSize)
	p := newPool(1)
	put := func(_ int, b []byte) error { p.Put(b); return nil }
	srv := serveCounted(t, b, 10*content.PieceSize)
	src := srv.source()
	for _, runs := range [][2]int{{0, 17}, {17, 20}, {0, 17}} {
		if err := src.Fetch(t.Context(), l, runs[0], runs[1], p, put); err != nil {
			t.Fatal(err)
		}
	}
	if n, heads := srv.conns.Load(), srv.heads.Load(); n != 2 || heads != 1 {
		t.Errorf("%d connections, %d HEADs; want 2, 1", n, heads)
	}
	srv = serveCounted(t, b, 0)
	src = srv.source()
	for _, runs := range [][2]int{{0, 20}, {4, 20}, {0, 4}} { // to the end, and a short one
		if err := src.Fetch(t.Context(), l, runs[0], runs[1], p, put); err != nil {
			t.Fatal(err)
		}
	}
	if n, heads := srv.conns.Load(), srv.heads.Load(); n != 1 || heads != 0 {
		t.Errorf("%d connections, %d HEADs; want 1, 0", n, heads)
	}
}

// TestNearlyEndedRangeEnds: a caller who gives up shortly before the end gets it all the same.
func TestNearlyEndedRangeEnds(t *testing.T) {
	b, l := layoutOf(content.PieceSize, 100_000)
	stop := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, &gated{bytes.NewReader(b), content.PieceSize, stop})
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	p, runs := newPool(1), 0
	err := New(srv.Client(), srv.URL, nil).Fetch(ctx, l, 0, 2, p, func(run int, b []byte) error {
		p.Put(b)
		if runs++; runs == 1 {
			cancel()
			close(stop)
		}
		return nil
	})
	if err != nil || runs != 2 || ctx.Err() == nil {
		t.Errorf("got %d runs, %v; want 2 though the caller gave up after one", runs, err)
	}
}

// TestOutlive: when the context of a reply ends after its caller's did.
func TestOutlive(t *testing.T) {
	gaveUp := errors.New("gave up")
	for name, test := range map[string]struct {
		left  int64
		quiet time.Duration // since bytes came last
		after time.Duration // the fetch ends by itself after this; 0: it does not
		want  time.Duration
	}{
		"nearly ended":   {left: drainBytes, want: drainTime},
		"all read":       {quiet: drainQuiet - 1, want: drainTime},
		"far from it":    {left: drainBytes + 1},
		"silent":         {left: 10, quiet: drainQuiet},
		"nothing yet":    {left: 10, quiet: 1e5 * time.Hour},
		"ends by itself": {left: 10, after: time.Millisecond, want: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p reply
				p.left.Store(test.left)
				p.heard.Store(time.Now().Add(-test.quiet).UnixNano())
				ctx, cancel := context.WithCancelCause(t.Context())
				longer, end := p.outlive(ctx)
				begun := time.Now()
				if test.after > 0 {
					time.AfterFunc(test.after, end)
				}
				cancel(gaveUp)
				<-longer.Done()
				if took := time.Since(begun); took != test.want {
					t.Errorf("ended after %v, want %v", took, test.want)
				}
				if cause := context.Cause(longer); test.after == 0 && cause != gaveUp {
					t.Errorf("ended for %v, want the caller's cause", cause)
				}
				end()
				synctest.Wait()
			})
		})
	}
}
