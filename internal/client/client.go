// Package client calls the fleet's services: enrolment and renewal, the calls of a download
// (Geo, KeyValue, Content Policy, Discovery, arrays, metadata), and administration by token.
//
// Every reply has a limit. A failure names the call, the address, the cause and, where a user
// can do something, the remedy; it is an [api.Problem] when the service said no, and wraps
// [ErrUnreachable] when no service answered. Calls that may be made twice are tried up to
// three times; all others once. A host that answers nothing costs a caller a few seconds, and
// those that follow nothing: it is left alone for a moment.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// Limits of replies, bytes.
const (
	maxProblem = 64 << 10
	maxReply   = 1 << 20  // of a call that answers one thing
	maxList    = 64 << 20 // of a call that lists
)

// Attempts at a call that may be made twice.
const (
	attempts   = 3
	firstPause = 200 * time.Millisecond // before the second attempt, then doubled; ± half at random
	maxPause   = 5 * time.Second        // of a Retry-After that is waited for
)

// Options say whom to call, and as whom. Credentials or Token are needed.
type Options struct {
	Address     string                // of the server, host:port; empty: the token's
	Credentials *identity.Credentials // of a device or origin
	Token       *identity.Token       // of an administrator or publisher
	Local       netip.Addr            // address to call from; zero: the system's choice
	CacheDir    string                // where the last known services are kept; empty: nowhere
	Log         *slog.Logger
}

// Client calls the services of one fleet. It is safe for concurrent use.
type Client struct {
	opt     Options
	servers *http.Client // the other end has role server
	origins *http.Client // the other end has role origin
	anyone  *http.Client // as servers, and shows no certificate
	clock   clock
	silence silence

	mu       sync.Mutex // guards the following
	services *services  // last known; nil before the first Bootstrap
	hosts    map[string]bool
}

// New returns a client. It makes no call.
func New(opt Options) (*Client, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Address == "" && opt.Token != nil {
		opt.Address = opt.Token.Address
	}
	if opt.Address == "" {
		return nil, errors.New("client: no server address")
	}
	c := &Client{opt: opt, hosts: map[string]bool{opt.Address: true}, silence: newSilence()}
	switch {
	case opt.Credentials != nil:
		c.withCredentials(opt.Credentials)
	case opt.Token != nil:
		if err := c.withToken(*opt.Token); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("client: neither credentials nor a token")
	}
	return c, nil
}

// Address returns the server's address, host:port.
func (c *Client) Address() string { return c.opt.Address }

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() {
	for _, h := range []*http.Client{c.servers, c.origins, c.anyone} {
		h.CloseIdleConnections()
	}
}

// request is one call.
type request struct {
	what   string // for errors: "join", "manifest"
	method string
	url    string
	header http.Header
	body   any // marshalled when not nil
	max    int64
	again  bool          // may be made twice
	wait   time.Duration // for the reply's head, and for each part of its body; 0: web.Client's times
	http   *http.Client
}

// reply is a reply of status 200 to 299, or 304.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call makes a request, again where that is safe.
func (c *Client) call(ctx context.Context, q request) (reply, error) {
	tries := 1
	if q.again {
		tries = attempts
	}
	for i := 1; ; i++ {
		r, after, err := c.once(ctx, q)
		if err == nil || i == tries || after < 0 || ctx.Err() != nil {
			return r, err
		}
		pause := max(after, web.Jitter(firstPause<<(i-1)))
		c.opt.Log.Debug("call again", "what", q.what, "in", pause, "err", err)
		select {
		case <-ctx.Done():
			return r, err
		case <-time.After(pause):
		}
	}
}

// once makes one attempt. after is how long to wait before another, -1 when none would help.
func (c *Client) once(ctx context.Context, q request) (r reply, after time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := newRequest(ctx, q)
	if err != nil {
		return reply{}, -1, err
	}
	sent := time.Now()
	res, err := c.do(q, req, cancel)
	if err != nil {
		return reply{}, retryAfterFailure(err), callError(q.what, req.URL.Host, err)
	}
	defer res.Body.Close()
	if q.http != c.origins {
		c.clock.learn(res.Header, sent, time.Now())
	}
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotModified {
		p := readProblem(res)
		return reply{}, retryAfterStatus(res), fmt.Errorf("client: %s at %s: %w", q.what, req.URL.Host, p)
	}
	res.Body = web.Heard(ctx, res.Body)
	body, err := readBody(res, q.max)
	if err != nil {
		err = slowness(ctx, err)
		return reply{}, retryAfterFailure(err), callError(q.what, req.URL.Host, err)
	}
	return reply{res.StatusCode, res.Header, body}, 0, nil
}

// do sends a request and waits for the head of its reply; where that does not come in time,
// cancel, which ends the request's context, is called.
func (c *Client) do(q request, req *http.Request, cancel context.CancelCauseFunc) (*http.Response, error) {
	heard, err := c.silence.ask(req.URL.Host)
	if err != nil {
		return nil, err
	}
	wait := q.wait
	if wait == 0 {
		wait = math.MaxInt64
	}
	slow := time.AfterFunc(wait, func() { cancel(slowError{wait}) })
	res, err := q.http.Do(req)
	if err != nil {
		slow.Stop()
		err = slowness(req.Context(), err)
	} else {
		res.Body = &patient{res.Body, slow, wait}
	}
	if heard(req.Context(), err) {
		q.http.CloseIdleConnections() // to the same silence, maybe
	}
	return res, err
}

func newRequest(ctx context.Context, q request) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("client: %s: %w", q.what, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, body)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", q.what, err)
	}
	if req.URL.Scheme != "https" || req.URL.Host == "" || req.URL.User != nil {
		return nil, fmt.Errorf("client: %s: %q is not an https address", q.what, req.URL.Redacted())
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// readProblem makes a problem of any error reply; web pages of something in between too.
func readProblem(res *http.Response) *api.Problem {
	p := &api.Problem{}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(b, p) != nil || p.Title == "" {
		*p = api.Problem{Title: "unexpected reply " + strconv.Quote(res.Status), Detail: "is this the address of a freshet server?"}
	}
	p.Status = res.StatusCode
	return p
}

func retryAfterStatus(res *http.Response) time.Duration {
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return -1
	}
	s, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 32)
	if err != nil || s < 0 {
		return 0
	}
	if after := time.Duration(s) * time.Second; after <= maxPause {
		return after
	}
	return -1
}

// decode reads the JSON of a reply into v.
func decode(what string, r reply, v any) error {
	if err := json.Unmarshal(r.body, v); err != nil {
		return fmt.Errorf("client: %s: the reply (%q) is not the JSON expected: %w; is this the address of a freshet server?",
			what, r.header.Get("Content-Type"), err)
	}
	return nil
}

// serverURL returns the URL of a path at the server.
func (c *Client) serverURL(path string) string {
	return (&url.URL{Scheme: "https", Host: c.opt.Address, Path: path}).String()
}

// httpFor returns the client that wants the role that the host has: a server when it is the
// server's address or one that a server named as a service, else an origin.
func (c *Client) httpFor(rawURL string) (*http.Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("client: address %q: %w", rawURL, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts[u.Host] {
		return c.servers, nil
	}
	return c.origins, nil
}

func (c *Client) withCredentials(cr *identity.Credentials) {
	c.servers = web.Client(cr.ClientConfig(identity.RoleServer), c.opt.Local)
	c.origins = web.Client(cr.ClientConfig(identity.RoleOrigin), c.opt.Local)
	c.anyone = web.Client(withoutCertificate(cr.ClientConfig(identity.RoleServer)), c.opt.Local)
}

func (c *Client) withToken(t identity.Token) error {
	server, err := identity.BearerConfig(t, identity.RoleServer)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	origin, err := identity.BearerConfig(t, identity.RoleOrigin)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.servers, c.origins = web.Client(server, c.opt.Local), web.Client(origin, c.opt.Local)
	c.anyone = c.servers
	return nil
}
