package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"freshet/internal/content"
)

// The content of the hostile replies: runs 0 and 1 are full, run 2 has 10 bytes.
const (
	hostileSize = 2*content.PieceSize + 10
	full        = content.PieceSize
)

// head is a reply's status line and headers.
func head(status string, headers ...string) string {
	return "HTTP/1.1 " + status + "\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

// hostile are replies to a request for run 1: what stands on the wire before n bytes of body.
var hostile = map[string]struct {
	head    string
	body    int // bytes sent before the connection is closed; -1: without end
	want    error
	status  int  // of the StatusError, if any
	partial bool // run 1 may be handed on: the reply is right up to its end
}{
	"200 with everything":       {head("200 OK", "Content-Length: 2097162"), hostileSize, ErrRange, 0, false},
	"200 with the range":        {head("200 OK", "Content-Length: 1048576"), full, ErrRange, 0, false},
	"200 with Content-Range":    {head("200 OK", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), full, ErrRange, 0, false},
	"200 portal page":           {head("200 OK", "Content-Type: text/html", "Content-Length: 12"), 12, ErrRange, 0, false},
	"206 without Content-Range": {head("206 Partial Content", "Content-Length: 1048576"), full, ErrRange, 0, false},
	"206 with everything":       {head("206 Partial Content", "Content-Length: 2097162", "Content-Range: bytes 0-2097161/2097162"), hostileSize, ErrRange, 0, false},
	"206 from the start":        {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 0-1048575/2097162"), full, ErrRange, 0, false},
	"206 one byte later":        {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048577-2097152/2097162"), full, ErrRange, 0, false},
	"206 a shorter range":       {head("206 Partial Content", "Content-Length: 1048575", "Content-Range: bytes 1048576-2097150/2097162"), full, ErrRange, 0, false},
	"206 a longer range":        {head("206 Partial Content", "Content-Length: 1048577", "Content-Range: bytes 1048576-2097152/2097162"), full + 1, ErrRange, 0, false},
	"206 another total":         {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097163"), full, ErrChanged, 0, false},
	"206 unknown total":         {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/*"), full, ErrRange, 0, false},
	"206 another unit":          {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: items 1048576-2097151/2097162"), full, ErrRange, 0, false},
	"206 signs":                 {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes +1048576-2097151/2097162"), full, ErrRange, 0, false},
	"206 overflow":              {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/18446744073711648778"), full, ErrRange, 0, false},
	"206 last before first":     {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 2097151-1048576/2097162"), full, ErrRange, 0, false},
	"206 two Content-Ranges":    {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162", "Content-Range: bytes 0-1048575/2097162"), full, ErrRange, 0, false},
	"206 length too small":      {head("206 Partial Content", "Content-Length: 5", "Content-Range: bytes 1048576-2097151/2097162"), 5, ErrRange, 0, false},
	"206 length too big":        {head("206 Partial Content", "Content-Length: 2097162", "Content-Range: bytes 1048576-2097151/2097162"), hostileSize, ErrRange, 0, false},
	"multipart":                 {head("206 Partial Content", "Content-Type: multipart/byteranges; boundary=x", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), full, ErrRange, 0, false},
	"gzip":                      {head("206 Partial Content", "Content-Encoding: gzip", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), full, ErrRange, 0, false},
	"identity then zstd":        {head("206 Partial Content", "Content-Encoding: identity", "Content-Encoding: zstd", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), full, ErrRange, 0, false},
	"ends early":                {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), full - 1, ErrShort, 0, false},
	"ends at once":              {head("206 Partial Content", "Content-Length: 1048576", "Content-Range: bytes 1048576-2097151/2097162"), 0, ErrShort, 0, false},
	"ends early, no length":     {head("206 Partial Content", "Connection: close", "Content-Range: bytes 1048576-2097151/2097162"), 99, ErrShort, 0, false},
	"endless, no length":        {head("206 Partial Content", "Connection: close", "Content-Range: bytes 1048576-2097151/2097162"), -1, ErrRange, 0, true},
	"bad chunk":                 {head("206 Partial Content", "Transfer-Encoding: chunked", "Content-Range: bytes 1048576-2097151/2097162") + "zz\r\n", 50, ErrShort, 0, false},
	"409":                       {head("409 Conflict", "Content-Length: 0"), 0, ErrChanged, 409, false},
	"412":                       {head("412 Precondition Failed", "Content-Length: 0"), 0, ErrChanged, 412, false},
	"416":                       {head("416 Range Not Satisfiable", "Content-Length: 0", "Content-Range: bytes */2097162"), 0, ErrRange, 416, false},
	"416 of a shorter one":      {head("416 Range Not Satisfiable", "Content-Length: 0", "Content-Range: bytes */7"), 0, ErrChanged, 416, false},
	"404":                       {head("404 Not Found", "Content-Length: 0"), 0, nil, 404, false},
	"503 with an endless body":  {head("503 Service Unavailable", "Connection: close", "Retry-After: 3"), -1, nil, 503, false},
	"an endless problem":        {head("500 Oops", "Connection: close", "Content-Type: application/problem+json") + `{"title":"`, -1, nil, 500, false},
	"204":                       {head("204 No Content"), 0, nil, 204, false},
	"redirect away":             {head("302 Found", "Location: https://192.0.2.1/bytes", "Content-Length: 0"), 0, nil, 0, false},
	"redirect to plain":         {head("302 Found", "Location: http://127.0.0.1:1/", "Content-Length: 0"), 0, nil, 0, false},
	"no HTTP":                   {"SSH-2.0-OpenSSH\r\n\r\n", 0, nil, 0, false},
	"nothing":                   {"", 0, nil, 0, false},
	"endless header":            {"HTTP/1.1 206 Partial Content\r\nX: ", -1, nil, 0, false},
}

// hostileServer writes raw replies over TLS.
func hostileServer(t *testing.T, head string, body []byte, endless bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.Write([]byte(head))
		for {
			if _, err := conn.Write(body); err != nil || !endless {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestFetchHostileReplies(t *testing.T) {
	if len(hostile) < 25 {
		t.Fatalf("only %d replies", len(hostile))
	}
	layout := content.NewLayout([]content.File{{Name: "a", Size: hostileSize}})
	for name, test := range hostile {
		t.Run(name, func(t *testing.T) {
			body := bytes.Repeat([]byte{'x'}, 64<<10)
			if test.body >= 0 {
				body = bytes.Repeat([]byte{'x'}, test.body)
			}
			srv := hostileServer(t, test.head, body, test.body < 0)
			p, runs := newPool(2), 0
			err := New(srv.Client(), srv.URL, nil).Fetch(t.Context(), layout, 1, 2, p, func(_ int, b []byte) error {
				runs++
				p.Put(b)
				return nil
			})
			if err == nil {
				t.Fatal("it was taken")
			}
			if test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			var status *StatusError
			if errors.As(err, &status) != (test.status != 0) || test.status != 0 && status.Status != test.status {
				t.Errorf("got %v, want status %d", err, test.status)
			}
			if runs != 0 && !test.partial {
				t.Errorf("%d runs were handed on", runs)
			}
			if len(p.free) != 2 {
				t.Errorf("%d of 2 buffers came back", len(p.free))
			}
		})
	}
}

// TestFetchChangingSource changes the entity tag between two requests: the second is refused
// though its Content-Range fits.
func TestFetchChangingSource(t *testing.T) {
	all, layout := testBytes()
	var asked atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		run := layout.Run(0)
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, asked.Add(1)))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", run.Len-1, len(all)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(all[:run.Len])
	}))
	defer srv.Close()
	src, p, runs := New(srv.Client(), srv.URL, nil), newPool(1), 0
	sink := func(_ int, b []byte) error { runs++; p.Put(b); return nil }
	if err := src.Fetch(t.Context(), layout, 0, 1, p, sink); err != nil {
		t.Fatal(err)
	}
	if err := src.Fetch(t.Context(), layout, 0, 1, p, sink); !errors.Is(err, ErrChanged) || runs != 1 {
		t.Errorf("got %v after %d runs, want ErrChanged after 1", err, runs)
	}
}

// TestFetchWholeFromServerWithoutRanges takes a 200 where everything was asked for.
func TestFetchWholeFromServerWithoutRanges(t *testing.T) {
	all, layout := testBytes()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(all)))
		w.Write(all)
	}))
	defer srv.Close()
	p, n := newPool(1), 0
	err := New(srv.Client(), srv.URL, nil).Fetch(t.Context(), layout, 0, layout.Runs(), p, func(_ int, b []byte) error {
		n += len(b)
		p.Put(b)
		return nil
	})
	if err != nil || n != len(all) {
		t.Errorf("got %d of %d bytes, %v", n, len(all), err)
	}
}
