package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRetryAfter = 24 * time.Hour
	maxProblem    = 4 << 10 // bytes of an error reply that are read
)

// checkStatus takes 206, and 200 where everything was asked for.
func checkStatus(resp *http.Response, want span) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		return nil
	case http.StatusOK:
		if want.len() == want.total && resp.ContentLength == want.total {
			return nil
		}
		return fmt.Errorf("%w: it sent all (status 200) where %s was asked for", ErrRange, want)
	case http.StatusConflict, http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", ErrChanged, statusError(resp))
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w (%s was asked for)", unsatisfied(resp.Header, want), statusError(resp), want)
	default:
		return statusError(resp)
	}
}

// unsatisfied tells a source that became shorter from one that cannot do ranges.
func unsatisfied(h http.Header, want span) error {
	total, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes */")
	if n, err := strconv.ParseInt(total, 10, 64); ok && err == nil && n != want.total {
		return ErrChanged
	}
	return ErrRange
}

// checkCoding refuses anything between the bytes of the reply and those of the content.
func checkCoding(h http.Header) error {
	for _, v := range h.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(v), "identity") {
			return fmt.Errorf("%w: it applied the coding %q unasked", ErrRange, v)
		}
	}
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && strings.HasPrefix(t, "multipart/") {
		return fmt.Errorf("%w: it sent several parts (%s)", ErrRange, t)
	}
	return nil
}

// checkContentRange wants exactly one header, exactly the range, and the known total.
func checkContentRange(h http.Header, want span) error {
	values := h.Values("Content-Range")
	if len(values) != 1 {
		return fmt.Errorf("%w: %d Content-Range headers", ErrRange, len(values))
	}
	got, err := parseContentRange(values[0])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrRange, err)
	case got.total != want.total:
		return fmt.Errorf("%w: it has %d bytes, the content %d", ErrChanged, got.total, want.total)
	case got != want:
		return fmt.Errorf("%w: it sent %s where %s was asked for", ErrRange, got, want)
	}
	return nil
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL"; an unknown total is refused.
func parseContentRange(s string) (span, error) {
	bad := fmt.Errorf("Content-Range %q is not bytes FIRST-LAST/TOTAL", s)
	unit, rest, _ := strings.Cut(s, " ")
	ends, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(ends, "-")
	if !strings.EqualFold(unit, "bytes") || !ok || !ok2 {
		return span{}, bad
	}
	var v [3]int64
	for i, digits := range []string{first, last, total} {
		n, err := strconv.ParseUint(digits, 10, 63) // no sign, no blank
		if err != nil {
			return span{}, bad
		}
		v[i] = int64(n)
	}
	if v[0] > v[1] || v[1] >= v[2] {
		return span{}, bad
	}
	return span{v[0], v[1], v[2]}, nil
}

// statusError reads a refusal.
func statusError(resp *http.Response) *StatusError {
	e := &StatusError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || t != "application/problem+json" {
		return e
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return e
	}
	var problem struct{ Title, Detail string }
	if json.Unmarshal(b, &problem) == nil {
		e.Detail = strings.TrimSuffix(problem.Title+": "+problem.Detail, ": ")
	}
	return e
}

// retryAfter reads seconds or a date; a date is taken against the reply's own Date, so that
// a wrong clock here does no harm.
func retryAfter(h http.Header) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 63); err == nil {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// discard reads the little that a refusal may hold, so that the connection can be used
// again, and closes it otherwise.
func discard(resp *http.Response) {
	if resp.StatusCode >= 300 && resp.ContentLength >= 0 && resp.ContentLength <= maxProblem {
		io.CopyN(io.Discard, resp.Body, maxProblem) // whatever fails: the connection is closed
	}
	resp.Body.Close()
}

// withoutURL takes the URL off an error of net/http: Fetch names it once.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
