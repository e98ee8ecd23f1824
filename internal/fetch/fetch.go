// Package fetch takes runs of a content's concatenation from an HTTP source: a distribution
// point, a cache host, or any server that knows byte ranges.
//
// One Fetch is one GET with one range. Before a byte of the reply is used, its status,
// Content-Range, length and coding are compared with what was asked for; a reply to another
// question is an error, never bytes at the wrong place. A source whose total length or
// entity tag differs from before has changed, and nothing of it is joined to older bytes.
// Whether the bytes are right is decided by their hashes, elsewhere.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
)

// What the caller branches on. All are wrapped with the URL and the cause.
var (
	// ErrChanged: the source says that it holds other bytes than it should (409, 412, another
	// total length, another entity tag).
	ErrChanged = errors.New("the source has changed")
	// ErrRange: the reply does not answer the question (200 for a part, another range, a
	// coding, several parts); the source is of no use for ranges.
	ErrRange = errors.New("the source does not answer ranges rightly")
	// ErrShort: the body ended, or the connection broke, before the last byte asked for.
	ErrShort = errors.New("the body is too short")
)

// StatusError is any other refusal of the source.
type StatusError struct {
	Status     int           // HTTP status
	RetryAfter time.Duration // what the source asks for, 0 to 24 h; 0: nothing
	Detail     string        // title of the reply's problem, if it has one
}

// Error names the status and what the source said.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("status %d %s", e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		s += fmt.Sprintf(": %q", e.Detail)
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (again after %s)", e.RetryAfter)
	}
	return s
}

// Buffers lends buffers of content.PieceSize bytes. Get waits until one is free.
type Buffers interface {
	Get(ctx context.Context) ([]byte, error)
	Put(b []byte)
}

// Source is one URL that the concatenation of a content is read from. Its methods may be
// called from several goroutines; each Fetch under way uses a connection of its own.
type Source struct {
	client *http.Client
	url    string
	name   string // url without what may be a secret in it
	header func() http.Header

	mu     sync.Mutex // guards the following
	tag    string     // strong entity tag of the first good reply, or empty
	spared bool       // a second connection was opened
	stub   stub
}

// stub is the beginning of a run whose reply broke off: the next Fetch that begins with the run goes
// on from there (design section 6, rules of the flow, 3).
type stub struct {
	run   int
	bytes []byte
}

const (
	maxRedirects = 5
	longRange    = 16 << 20 // bytes of a range during which a second connection is opened
)

// New returns a source at url, …/bytes/{manifestDigest} of a distribution point. header gives
// what each request carries besides, the grant above all; nil: nothing. Redirects are
// followed within the scheme and host of url only, so that header goes nowhere else.
func New(client *http.Client, url string, header func() http.Header) *Source {
	own := *client
	own.CheckRedirect = sameHost
	return &Source{client: &own, url: url, name: api.ShownURL(url), header: header}
}

// Name returns the URL for messages and logs, without what may be a secret in it.
func (s *Source) Name() string { return s.name }

// At reports whether the source is at a URL.
func (s *Source) At(url string) bool { return s.url == url }

func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return fmt.Errorf("redirect to another host %q is not followed", r.URL.Scheme+"://"+r.URL.Host)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// span is a range of the concatenation in bytes; last is included, as in HTTP.
type span struct{ first, last, total int64 }

func (s span) String() string { return fmt.Sprintf("bytes %d-%d/%d", s.first, s.last, s.total) }
func (s span) len() int64     { return s.last - s.first + 1 }

// Fetch asks for runs first to last-1 of l in one request. Each run's bytes go to sink in
// order, in a buffer from pool that sink then owns, also when it returns an error, which
// ends the Fetch. ctx bounds the whole, but that a range of which little is to come still is
// let come, for at most a second: its bytes are paid for, and its connection can be used
// again. A source that is too slow is the caller's to end.
// On an error, the runs that sink was not given are not fetched; the error is, besides those
// of ctx, pool and sink, ErrChanged, ErrRange, ErrShort, a *StatusError, or what the
// network said.
func (s *Source) Fetch(ctx context.Context, l *content.Layout, first, last int, pool Buffers, sink func(run int, b []byte) error) error {
	if first < 0 || last > l.Runs() || first >= last {
		return fmt.Errorf("fetch %q: runs %d to %d of %d cannot be asked for", s.name, first, last-1, l.Runs())
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("fetch %q: %w", s.name, cause)
	}
	final := l.Run(last - 1)
	body := &reply{begun: s.begun(first)}
	want := span{l.Run(first).Offset + int64(len(body.begun)), final.Offset + int64(final.Len) - 1, l.Size()}
	body.left.Store(want.len())
	ctx, end := body.outlive(ctx)
	defer end()
	resp, err := s.ask(ctx, want)
	if err != nil {
		if !errors.Is(err, ErrChanged) && !errors.Is(err, ErrRange) {
			s.keep(first, body.begun)
		}
		return fmt.Errorf("fetch %q: %w", s.name, err)
	}
	defer resp.Body.Close()
	body.body = resp.Body
	if want.len() >= longRange && last < l.Runs() {
		defer s.openSpare(ctx)()
	}
	for run := first; run < last; run++ {
		if err := body.run(ctx, l.Run(run).Len, pool, func(b []byte) error { return sink(run, b) }); err != nil {
			if resp.StatusCode == http.StatusPartialContent { // else it knows no ranges
				s.keep(run, body.begun)
			}
			return fmt.Errorf("fetch %q: run %d: %w", s.name, run, err)
		}
	}
	if err := body.end(ctx); err != nil {
		return fmt.Errorf("fetch %q: %w", s.name, err)
	}
	return nil
}

// minStub is how much of a run is worth to go on from, in bytes.
const minStub = 64 << 10

// keep remembers the beginning of a run.
func (s *Source) keep(run int, b []byte) {
	if len(b) < minStub {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stub = stub{run, b}
}

// begun returns what is remembered of a run, once: a beginning that is wrong is read anew.
func (s *Source) begun(run int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stub.run != run {
		return nil
	}
	b := s.stub.bytes
	s.stub = stub{}
	return b
}

// ask sends the request and returns a reply that answers it.
func (s *Source) ask(ctx context.Context, want span) (*http.Response, error) {
	resp, err := s.do(ctx, http.MethodGet, fmt.Sprintf("bytes=%d-%d", want.first, want.last))
	if err != nil {
		return nil, err
	}
	if err := s.check(resp, want); err != nil {
		discard(resp)
		return nil, err
	}
	return resp, nil
}

// do sends a request; ranges: none when empty.
func (s *Source) do(ctx context.Context, method, ranges string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url, nil)
	if err != nil {
		return nil, err
	}
	if s.header != nil {
		for k, v := range s.header() {
			r.Header[k] = v
		}
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	r.Header.Set("Accept-Encoding", "identity")
	resp, err := s.client.Do(r)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, withoutURL(err)
	}
	return resp, nil
}

// check compares the head of a reply with what was asked for.
func (s *Source) check(resp *http.Response, want span) error {
	if err := checkStatus(resp, want); err != nil {
		return err
	}
	if err := checkCoding(resp.Header); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusPartialContent {
		if err := checkContentRange(resp.Header, want); err != nil {
			return err
		}
	}
	if n := resp.ContentLength; n >= 0 && n != want.len() {
		return fmt.Errorf("%w: Content-Length %d where %s was asked for", ErrRange, n, want)
	}
	return s.checkTag(resp.Header)
}

// checkTag compares a strong entity tag with the first one.
func (s *Source) checkTag(h http.Header) error {
	tag := h.Get("Etag")
	if tag == "" || strings.HasPrefix(tag, "W/") {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tag == "" {
		s.tag = tag
	}
	if s.tag != tag {
		return fmt.Errorf("%w: its entity tag was %q and is %q", ErrChanged, s.tag, tag)
	}
	return nil
}
