package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"freshet/internal/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func checkContains(t *testing.T, s, want string) {
	t.Helper()
	if !strings.Contains(s, want) {
		t.Errorf("got %q, want it to contain %q", s, want)
	}
}

// serve answers one request with h, logged.
func serve(h http.HandlerFunc, r *http.Request) (*httptest.ResponseRecorder, string) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := httptest.NewRecorder()
	Log(h, log).ServeHTTP(w, r)
	return w, b.String()
}

func TestFail(t *testing.T) {
	unknown := &api.Problem{Type: "unknown-content", Title: "no such content", Status: 404, Detail: `"x"`}
	for _, tt := range []struct {
		name   string
		err    error
		status int
		body   string // in the reply
		log    string // in the log
	}{
		{"problem", fmt.Errorf("policy: %w", unknown), 404, `"detail":"\"x\""`, "level=INFO msg=request method=GET path=/a status=404"},
		{"other", errors.New("disk on fire"), 500, "its log says why", "disk on fire"},
	} {
		w, log := serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"stale"`)
			w.Header().Set("Content-Length", "999999")
			Fail(w, r, tt.err)
		}, httptest.NewRequest("GET", "/a?secret=hunter2", nil))
		if w.Code != tt.status || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("ETag") != "" || w.Header().Get("Content-Length") != "" {
			t.Errorf("%s: status %d, header %v", tt.name, w.Code, w.Header())
		}
		checkContains(t, w.Body.String(), tt.body)
		checkContains(t, log, tt.log)
		if strings.Contains(log, "hunter2") || strings.Contains(w.Body.String(), "fire") {
			t.Errorf("%s: a secret is out: log %q, reply %q", tt.name, log, w.Body)
		}
	}
}

func TestReadJSON(t *testing.T) {
	for _, tt := range []struct {
		body   string
		status int // of the problem; 0: none
	}{
		{`{"Name":"a","Unknown":1}`, 0},
		{` {"Name":"a"} `, 0},
		{``, 400}, {`{`, 400}, {`{"Name":1}`, 400}, {`{"Name":"a"}{}`, 400},
		{`{"Name":"` + strings.Repeat("a", 100) + `"}`, 413},
	} {
		var v struct{ Name string }
		w := httptest.NewRecorder()
		err := ReadJSON(w, httptest.NewRequest("POST", "/", strings.NewReader(tt.body)), 64, &v)
		var p *api.Problem
		switch {
		case tt.status == 0 && (err != nil || v.Name != "a"):
			t.Errorf("%q: got %+v, %v", tt.body, v, err)
		case tt.status != 0 && (!errors.As(err, &p) || p.Status != tt.status):
			t.Errorf("%q: got %v, want status %d", tt.body, err, tt.status)
		}
	}
}

func TestWriteJSONTag(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) { WriteJSONTag(w, r, map[string]int{"a": 1}) }
	first, log := serve(h, httptest.NewRequest("GET", "/", nil))
	tag := first.Header().Get("ETag")
	if first.Code != 200 || first.Body.String() != "{\"a\":1}\n" || len(tag) < 10 {
		t.Errorf("status %d, tag %q, body %q", first.Code, tag, first.Body)
	}
	checkContains(t, log, "level=DEBUG msg=request method=GET path=/ status=200 bytes=8")
	for header, want := range map[string]int{
		tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200, strings.Trim(tag, `"`): 200,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("If-None-Match", header)
		if w, _ := serve(h, r); w.Code != want || want == 304 && w.Body.Len() != 0 {
			t.Errorf("If-None-Match %s: status %d with %d bytes, want %d", header, w.Code, w.Body.Len(), want)
		}
	}
}

func TestMetricsText(t *testing.T) {
	m := NewMetrics()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "b_total", Help: "Things."}, []string{"site"})
	m.MustRegister(c)
	c.WithLabelValues("z").Add(5)
	c.WithLabelValues(`a"\` + "\n").Add(1 << 40)
	want := "# HELP b_total Things.\n# TYPE b_total counter\n" +
		"b_total{site=\"a\\\"\\\\\\n\"} 1.099511627776e+12\nb_total{site=\"z\"} 5\n"
	if got := metricsText(t, m); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// metricsText returns what /metrics tells.
func metricsText(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	Health(m, nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if kind := w.Header().Get("Content-Type"); w.Code != 200 || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("status %d, type %q, want 200 and text of version 0.0.4", w.Code, kind)
	}
	return w.Body.String()
}

func TestHealth(t *testing.T) {
	var broken error
	h := Health(NewMetrics(), func(context.Context) error { return broken })
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	if w := get("/readyz"); w.Code != 200 {
		t.Errorf("ready: %d", w.Code)
	}
	broken = errors.New("catalog: locked")
	if w := get("/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "catalog: locked") {
		t.Errorf("not ready: %d %q", w.Code, w.Body)
	}
	if w := get("/healthz"); w.Code != 200 {
		t.Errorf("healthz: %d", w.Code)
	}
}

// A stop lets the request under way finish, and only then returns.
func TestServerStopsGracefully(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		io.WriteString(w, "done")
	})
	stopped := make(chan error, 1)
	go func() { stopped <- Server(ctx, ln, handler, slog.New(slog.DiscardHandler)) }()
	client := Client(nil, netip.MustParseAddr("127.0.0.1"))
	defer client.CloseIdleConnections()
	body := make(chan string, 1)
	go func() {
		res, err := client.Get("http://" + ln.Addr().String())
		if err != nil {
			body <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		body <- string(b)
	}()
	<-entered
	cancel()
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request under way: %v", err)
	default:
	}
	close(leave)
	if got := <-body; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Server = %v", err)
	}
}

// One who never ends the header, or the body of a call, is cut off.
func TestServerCutsOffTheSlow(t *testing.T) {
	for name, tt := range map[string]struct {
		send string
		want time.Duration
	}{
		"header": {"GET / HTTP/1.1\r\nHost: a\r\n", headerTimeout},
		"body":   {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{", bodyTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					done <- Server(ctx, newFakeListener(a), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						var v any
						if err := ReadJSON(w, r, 100, &v); err != nil {
							Fail(w, r, err)
						}
					}), slog.New(slog.DiscardHandler))
				}()
				start := time.Now()
				go io.WriteString(b, tt.send)
				if _, err := io.ReadAll(b); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took < tt.want || took > tt.want+time.Second {
					t.Errorf("cut off after %v, want %v", took, tt.want)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestClientRedirects(t *testing.T) {
	request := func(url string, header ...string) *http.Request {
		r := httptest.NewRequest("GET", url, nil)
		for _, h := range header {
			r.Header.Set(h, "x")
		}
		return r
	}
	for _, tt := range []struct {
		name string
		from *http.Request
		to   string
		hops int
		want string // in the error; empty: none
	}{
		{"same host", request("https://a/x", "Authorization"), "https://a/y", 1, ""},
		{"other host", request("https://a/x"), "https://b/y", 1, ""},
		{"other host with a token", request("https://a/x", "Authorization"), "https://b/y", 1, "credentials"},
		{"other host with a grant", request("https://a/x", "Freshet-Grant"), "https://b/y", 1, "credentials"},
		{"other port with a grant", request("https://a/x", "Freshet-Grant"), "https://a:81/y", 1, "credentials"},
		{"downgrade", request("https://a/x"), "http://a/x", 1, "refused"},
		{"upgrade", request("http://a/x"), "https://a/x", 1, ""},
		{"five", request("https://a/x"), "https://a/y", 5, ""},
		{"six", request("https://a/x"), "https://a/y", 6, "more than 5"},
	} {
		via := make([]*http.Request, tt.hops)
		for i := range via {
			via[i] = tt.from
		}
		err := checkRedirect(request(tt.to), via)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestClientBindsItsAddress(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, r.RemoteAddr) }))
	defer srv.Close()
	c := Client(nil, netip.MustParseAddr("127.0.0.9"))
	defer c.CloseIdleConnections()
	res, err := c.Get(srv.URL)
	if err != nil {
		t.Skipf("this system has no 127.0.0.9: %v", err)
	}
	defer res.Body.Close()
	var from string
	if err := json.NewDecoder(res.Body).Decode(&from); err != nil || !strings.HasPrefix(from, "127.0.0.9:") {
		t.Errorf("the server saw %q, %v", from, err)
	}
}
