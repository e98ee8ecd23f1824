// Package web is the HTTP plumbing that freshet's services share: problem replies, JSON with
// limits and ETags, a request log without query strings, a server and a client with sane
// limits, counters for operators, and listeners that count and shape the bytes of each site.
package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"freshet/internal/api"
)

// bodyTimeout is how long a caller may take to send a JSON body.
const bodyTimeout = 30 * time.Second

// Problem replies with p as application/problem+json. Its status must be set.
func Problem(w http.ResponseWriter, r *http.Request, p api.Problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if e := entryOf(r.Context()); e != nil {
		e.problem = p.Type
	}
	h := w.Header()
	for _, k := range []string{"ETag", "Cache-Control", "Content-Encoding", "Content-Length", "Accept-Ranges"} {
		h.Del(k)
	}
	if p.RetrySecs > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.RetrySecs, 10))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	w.Write(append(api.JSON(p), '\n')) // the caller is gone when this fails
}

// Fail replies with the [api.Problem] in err, else with status 500 and no detail: that goes
// to the request log alone.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *api.Problem
	if errors.As(err, &p) {
		Problem(w, r, *p)
		return
	}
	if e := entryOf(r.Context()); e != nil {
		e.err = err
	}
	Problem(w, r, api.Problem{Status: http.StatusInternalServerError, Type: "internal", Title: "the server could not do this; its log says why"})
}

// ReadJSON reads one JSON value of at most max bytes from the body into v. Unknown fields
// are ignored. The error is an [api.Problem] for [Fail].
func ReadJSON(w http.ResponseWriter, r *http.Request, max int64, v any) error {
	// Not every writer has a deadline to set; the handler's own limits hold then.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return &api.Problem{Status: http.StatusRequestEntityTooLarge, Type: "too-large", Title: "the body is too large", Detail: fmt.Sprintf("at most %d bytes are allowed", max)}
	case err != nil:
		return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the body could not be read", Detail: err.Error()}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err := json.Unmarshal(b, v); err != nil {
		return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the body is not the JSON expected here", Detail: err.Error()}
	}
	return nil
}

// WriteJSON replies with v, which must marshal, and status 200.
func WriteJSON(w http.ResponseWriter, v any) {
	writeBody(w, marshal(v))
}

// WriteJSONTag replies with v under a strong ETag of its bytes, or with 304 when the caller
// has them.
func WriteJSONTag(w http.ResponseWriter, r *http.Request, v any) {
	b := marshal(v)
	tag := ETag(b)
	w.Header().Set("ETag", tag)
	if TagMatches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeBody(w, b)
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("web: reply does not marshal: " + err.Error())
	}
	return append(b, '\n')
}

func writeBody(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b) // the caller is gone when this fails
}

// ETag returns a strong entity tag of b.
func ETag(b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// TagMatches reports whether an If-None-Match header names tag.
func TagMatches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == tag {
			return true
		}
	}
	return false
}

// entry is what the request log learns while a request is served.
type entry struct {
	problem string
	err     error
}

type entryKey struct{}

func entryOf(ctx context.Context) *entry {
	e, _ := ctx.Value(entryKey{}).(*entry)
	return e
}

// Log wraps next with a request log: failures of the server at error, refusals at info, all
// else at debug. Query strings and headers, which may hold secrets, are left out.
func Log(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, e := time.Now(), &entry{}
		lw := &logWriter{ResponseWriter: w}
		r = r.WithContext(context.WithValue(r.Context(), entryKey{}, e))
		defer func() {
			level := slog.LevelDebug
			switch {
			case lw.status >= 500:
				level = slog.LevelError
			case lw.status >= 400:
				level = slog.LevelInfo
			}
			attrs := []slog.Attr{
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", lw.status),
				slog.Int64("bytes", lw.bytes), slog.Duration("took", time.Since(start)), slog.String("from", r.RemoteAddr),
			}
			if e.problem != "" {
				attrs = append(attrs, slog.String("problem", e.problem))
			}
			if e.err != nil {
				attrs = append(attrs, slog.Any("err", e.err))
			}
			log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
		}()
		next.ServeHTTP(lw, r)
	})
}

// logWriter sees status and length of a reply.
type logWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *logWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.begun()
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom keeps the way to sendfile open.
func (w *logWriter) ReadFrom(src io.Reader) (int64, error) {
	w.begun()
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *logWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *logWriter) begun() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}
