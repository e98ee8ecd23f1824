package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

// pool is a small pool that knows what is out.
type pool struct {
	free chan []byte
}

func newPool(n int) *pool {
	p := &pool{free: make(chan []byte, n)}
	for range n {
		p.free <- make([]byte, content.PieceSize)
	}
	return p
}

func (p *pool) Get(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.free:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pool) Put(b []byte) { p.free <- b[:cap(b)] }

// testBytes is a content of three files and its layout: 3 full pieces, short ones, small ones.
func testBytes() ([]byte, *content.Layout) {
	sizes := []int64{3*content.PieceSize + 11, 5, 0, 700_000, 900_000, 1}
	var files []content.File
	var total int64
	for i, n := range sizes {
		files = append(files, content.File{Name: fmt.Sprint(i), Size: n})
		total += n
	}
	b := make([]byte, total)
	rand.NewChaCha8([32]byte{4}).Read(b)
	return b, content.NewLayout(files)
}

// serveBytes serves b with ranges over TLS, as http.ServeContent does.
func serveBytes(t testing.TB, b []byte) *httptest.Server {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding is %q, want identity", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("ETag", `"d"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestFetchRuns(t *testing.T) {
	all, layout := testBytes()
	srv := serveBytes(t, all)
	src := New(srv.Client(), srv.URL, nil)
	p := newPool(1)
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(0, layout.Runs()-1).Draw(t, "first")
		last := rapid.IntRange(first+1, layout.Runs()).Draw(t, "last")
		next := first
		err := src.Fetch(context.Background(), layout, first, last, p, func(run int, b []byte) error {
			defer p.Put(b)
			r := layout.Run(run)
			if run != next || !bytes.Equal(b, all[r.Offset:r.Offset+int64(r.Len)]) {
				t.Fatalf("run %d where %d was next, or other bytes", run, next)
			}
			next++
			return nil
		})
		if err != nil || next != last {
			t.Fatalf("runs %d to %d: got up to %d, %v", first, last, next, err)
		}
	})
	if len(p.free) != 1 {
		t.Error("the buffer did not come back")
	}
}

// TestFetchGoesOnInsideRun: after a reply that broke off, the next one begins with the first byte that
// did not come; when the beginning was wrong, all of the run is read anew.
func TestFetchGoesOnInsideRun(t *testing.T) {
	all, layout := testBytes()
	const half = content.PieceSize/2 + 7
	var ranges []string
	var breaks, spoils atomic.Bool
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return
		}
		ranges = append(ranges, r.Header.Get("Range"))
		b := all
		if spoils.Load() {
			b = make([]byte, len(all))
		}
		if !breaks.Load() {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
		var from, to int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(all)))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(b[from : from+half])
	}))
	t.Cleanup(srv.Close)
	src, p := New(srv.Client(), srv.URL, nil), newPool(1)
	get := func(breaking, spoiling bool) (right bool, err error) {
		breaks.Store(breaking)
		spoils.Store(spoiling)
		err = src.Fetch(t.Context(), layout, 1, 3, p, func(run int, b []byte) error {
			defer p.Put(b)
			r := layout.Run(run)
			right = bytes.Equal(b, all[r.Offset:r.Offset+int64(r.Len)])
			return nil
		})
		return right, err
	}
	for _, c := range []struct {
		breaking, spoiling, right bool
		ask                       int64 // the first byte asked for
	}{
		{true, false, false, content.PieceSize},
		{false, false, true, content.PieceSize + half},
		{true, true, false, content.PieceSize},
		{true, false, true, content.PieceSize + half}, // run 1 is whole with this, and wrong; run 2 begins
		{false, false, true, content.PieceSize},
	} {
		right, err := get(c.breaking, c.spoiling)
		want := fmt.Sprintf("bytes=%d-%d", c.ask, 3*content.PieceSize-1)
		if got := ranges[len(ranges)-1]; got != want || (err != nil) != c.breaking || !c.breaking && right != c.right {
			t.Errorf("%+v: asked for %s, %v, right bytes: %v", c, got, err, right)
		}
	}
	if len(p.free) != 1 {
		t.Error("the buffer did not come back")
	}
}

// TestFetchKeepsConnection counts the connections of several requests in a row, a refused
// one among them, and looks at what each carries.
func TestFetchKeepsConnection(t *testing.T) {
	all, layout := testBytes()
	var conns, asked atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Freshet-Grant") != "g" {
			t.Error("the request has no grant")
		}
		if asked.Add(1) == 2 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"title":"slow down"}`)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(all))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	src := New(srv.Client(), srv.URL, func() http.Header { return http.Header{"Freshet-Grant": {"g"}} })
	p := newPool(1)
	for i := range 4 {
		err := src.Fetch(t.Context(), layout, 0, 2, p, func(_ int, b []byte) error { p.Put(b); return nil })
		var status *StatusError
		switch {
		case i != 1 && err != nil:
			t.Fatal(err)
		case i == 1 && (!errors.As(err, &status) || *status != StatusError{429, 7 * time.Second, "slow down"}):
			t.Errorf("got %v, want status 429, 7 s, slow down", err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestFetchEndsWithTheCaller(t *testing.T) {
	all, layout := testBytes()
	stop := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(all)-1, len(all)))
		w.Header().Set("Content-Length", fmt.Sprint(len(all)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(all[:content.PieceSize+5])
		w.(http.Flusher).Flush()
		<-stop
	}))
	defer srv.Close()
	defer close(stop)
	ctx, cancel := context.WithCancelCause(t.Context())
	slow := errors.New("too slow")
	p, runs := newPool(2), 0
	err := New(srv.Client(), srv.URL, nil).Fetch(ctx, layout, 0, layout.Runs(), p, func(_ int, b []byte) error {
		runs++
		p.Put(b)
		cancel(slow)
		return nil
	})
	if !errors.Is(err, slow) || runs != 1 || len(p.free) != 2 {
		t.Errorf("got %v after %d runs, %d buffers back; want the caller's cause, 1 run, 2 buffers", err, runs, len(p.free))
	}
}

func TestFetchGivesSinkErrorBack(t *testing.T) {
	all, layout := testBytes()
	srv := serveBytes(t, all)
	full, p := errors.New("disk full"), newPool(1)
	err := New(srv.Client(), strings.Replace(srv.URL, "://", "://name:secret@", 1)+"/bytes?sig=secret", nil).Fetch(t.Context(), layout, 0, layout.Runs(), p, func(_ int, b []byte) error {
		p.Put(b)
		return full
	})
	if !errors.Is(err, full) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "/bytes") {
		t.Errorf("got %v, want the sink's error with the URL but not its query", err)
	}
	if err := New(srv.Client(), srv.URL, nil).Fetch(t.Context(), layout, 2, 2, p, nil); err == nil {
		t.Error("an empty range of runs was taken")
	}
}

func TestFetchRedirects(t *testing.T) {
	all, layout := testBytes()
	other := serveBytes(t, all)
	var wrong atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { wrong.Add(1) }))
	defer evil.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) })
	mux.HandleFunc("/there", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(all))
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, evil.URL, http.StatusFound) })
	mux.HandleFunc("/sibling", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	for path, ok := range map[string]bool{"/here": true, "/away": false, "/sibling": false, "/loop": false} {
		p := newPool(1)
		err := New(srv.Client(), srv.URL+path, nil).Fetch(t.Context(), layout, 0, 1, p, func(_ int, b []byte) error { p.Put(b); return nil })
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want success %v", path, err, ok)
		}
	}
	if wrong.Load() != 0 {
		t.Error("a redirect to another host was followed")
	}
}

// TestFetchTwoAtOnce uses one Source for two requests under way, as a caller does that sends
// the next before the end of the last.
func TestFetchTwoAtOnce(t *testing.T) {
	all, layout := testBytes()
	srv := serveBytes(t, all)
	src, p := New(srv.Client(), srv.URL, nil), newPool(3)
	var wg sync.WaitGroup
	for _, at := range []int{0, 2} {
		wg.Go(func() {
			err := src.Fetch(t.Context(), layout, at, at+2, p, func(run int, b []byte) error {
				defer p.Put(b)
				if r := layout.Run(run); !bytes.Equal(b, all[r.Offset:r.Offset+int64(r.Len)]) {
					return fmt.Errorf("run %d has other bytes", run)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestRetryAfter(t *testing.T) {
	const date = "Sun, 06 Nov 2044 08:49:37 GMT"
	tests := map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"120":                           2 * time.Minute,
		" 5 ":                           5 * time.Second,
		"-1":                            0,
		"1.5":                           0,
		"soon":                          0,
		"9223372036854775807":           maxRetryAfter,
		"99999999999999999999999":       0,
		"Sun, 06 Nov 2044 08:50:37 GMT": time.Minute,
		"Sun, 06 Nov 2044 08:49:00 GMT": 0,
		"Sun, 06 Nov 2050 08:49:00 GMT": maxRetryAfter,
	}
	for in, want := range tests {
		if got := retryAfter(http.Header{"Retry-After": {in}, "Date": {date}}); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

// FuzzContentRange checks that what parses is the one spelling of a sound range.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 0-9/10", "bytes */10", "bytes 1-0/5", "Bytes 00-1/2", "bytes 0-9/*", "bytes -1-2/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseContentRange(s)
		if err != nil {
			return
		}
		if got.first < 0 || got.first > got.last || got.last >= got.total {
			t.Errorf("%q gives %+v", s, got)
		}
		if again, err := parseContentRange(got.String()); err != nil || again != got {
			t.Errorf("%q gives %v, which reads as %v, %v", s, got, again, err)
		}
	})
}
