package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is an authority and what it has issued.
type fleet struct {
	ca     *identity.CA
	server *identity.Credentials
	device *identity.Credentials
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	ca, err := identity.CreateCA(filepath.Join(t.TempDir(), "ca"), "acme")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{ca: ca}
	f.server = f.issue(t, identity.Name{Role: identity.RoleServer, Device: wire.DeviceID{1}})
	f.device = f.issue(t, identity.Name{Role: identity.RoleDevice, Group: "lab", Device: wire.DeviceID{2}})
	return f
}

func (f *fleet) issue(t *testing.T, n identity.Name) *identity.Credentials {
	t.Helper()
	c, err := f.ca.IssueCredentials(n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fleet) token(t *testing.T, kind, address string, life time.Duration) identity.Token {
	t.Helper()
	tok, err := f.ca.NewToken(kind, address, time.Now().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// listen serves h as cr at address until the test ends or stop is called; it returns the address.
func listen(t *testing.T, cr *identity.Credentials, address string, h http.Handler) (at string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	cfg := cr.ServerConfig(identity.ServerOptions{Optional: true})
	go func() { done <- web.Server(ctx, tls.NewListener(ln, cfg), h, slog.New(slog.DiscardHandler)) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.Swap(true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func newClient(t *testing.T, opt Options) *Client {
	t.Helper()
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("got %v, want an error with %q", err, p)
		}
	}
}

// enroller enrols whoever shows the secret of tok, with role.
func (f *fleet) enroller(tok *identity.Token, role identity.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q api.EnrolRequest
		if err := web.ReadJSON(w, r, 1<<16, &q); err != nil {
			web.Fail(w, r, err)
			return
		}
		if r.URL.Path != "/v1/enrol" || len(r.TLS.PeerCertificates) != 0 || !identity.HashSecret(tok.Secret).Matches(q.Secret) {
			web.Problem(w, r, api.Problem{Status: 401, Type: "unknown-token", Title: "no such token"})
			return
		}
		n := identity.Name{Fleet: f.ca.Fleet(), Role: role, Device: wire.DeviceID{9}}
		if role == identity.RoleDevice {
			n.Group = "lab"
		}
		chain, err := f.ca.Issue(q.CSR, n)
		if err != nil {
			web.Fail(w, r, err)
			return
		}
		web.WriteJSON(w, api.Enrolment{Fleet: n.Fleet, Device: n.Device.String(), Group: n.Group, Chain: chain, Roots: f.ca.Roots()})
	})
}

func TestEnrol(t *testing.T) {
	f := newFleet(t)
	for _, tt := range []struct {
		kind string
		role identity.Role
	}{{identity.TokenJoin, identity.RoleDevice}, {identity.TokenOrigin, identity.RoleOrigin}} {
		var tok identity.Token
		at, _ := listen(t, f.server, "127.0.0.1:0", f.enroller(&tok, tt.role))
		tok = f.token(t, tt.kind, at, time.Hour)
		dir := filepath.Join(t.TempDir(), "identity")
		cr, e, err := Enrol(t.Context(), tok, "host", dir, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		kept, err := identity.LoadCredentials(dir)
		if err != nil || kept.Name() != cr.Name() || cr.Name().Role != tt.role || e.Device != cr.Name().Device.String() {
			t.Errorf("%s: kept %v, %v; got %v and %+v", tt.kind, kept, err, cr.Name(), e)
		}
	}
}

func TestEnrolFails(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	var good identity.Token
	at, _ := listen(t, f.server, "127.0.0.1:0", f.enroller(&good, identity.RoleDevice))
	good = f.token(t, identity.TokenJoin, at, time.Hour)
	atDevice, _ := listen(t, f.device, "127.0.0.1:0", f.enroller(&good, identity.RoleDevice))
	for _, tt := range []struct {
		name string
		tok  identity.Token
		want []string
	}{
		{"publish token", f.token(t, identity.TokenPublish, at, time.Hour), []string{"this is a publish token; enrolling a device takes a join token"}},
		{"expired", f.token(t, identity.TokenJoin, at, -time.Second), []string{"expired", "freshet token add"}},
		{"unknown secret", f.token(t, identity.TokenJoin, at, time.Hour), []string{at, "no such token"}},
		{"wrong CA", other.token(t, identity.TokenJoin, at, time.Hour), []string{at, "not of this fleet"}},
		{"device poses as server", f.token(t, identity.TokenJoin, atDevice, time.Hour), []string{atDevice, "has not the role"}},
		{"nobody there", f.token(t, identity.TokenJoin, freeAddress(t), time.Hour), []string{"connection refused; is the server running?"}},
		{"another role than the token's", withKind(good, identity.TokenOrigin), []string{`want role "origin"`}},
	} {
		dir := filepath.Join(t.TempDir(), "identity")
		_, _, err := Enrol(t.Context(), tt.tok, "host", dir, netip.Addr{})
		t.Run(tt.name, func(t *testing.T) { wantError(t, err, tt.want...) })
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was left behind: %v", tt.name, err)
		}
	}
}

func withKind(t identity.Token, kind string) identity.Token {
	t.Kind = kind
	return t
}

// freeAddress returns an address that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestRenew(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	var calls atomic.Int32
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 { // a renewal may be tried again
			web.Problem(w, r, api.Problem{Status: 503, Title: "starting"})
			return
		}
		var q api.RenewRequest
		if err := web.ReadJSON(w, r, 1<<16, &q); err != nil {
			web.Fail(w, r, err)
			return
		}
		n, err := f.ca.Renewal(q.CSR, q.Chain)
		if err != nil || r.URL.Path != "/v1/renew" || len(r.TLS.PeerCertificates) != 0 {
			web.Problem(w, r, api.Problem{Status: 403, Title: "no renewal"})
			return
		}
		n.Group = "field"
		chain, err := f.ca.Issue(q.CSR, n)
		if err != nil {
			web.Fail(w, r, err)
			return
		}
		web.WriteJSON(w, api.Enrolment{Chain: chain, Roots: f.ca.Roots()})
	}))
	c := newClient(t, Options{Address: at, Credentials: f.device})
	if _, err := c.Renew(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	kept, err := identity.LoadCredentials(dir)
	if err != nil || kept.Name().Group != "field" || f.device.Name().Group != "field" {
		t.Errorf("kept %v, %v; in memory %v; want group field", kept, err, f.device.Name())
	}
}

// services answers Geo and KeyValue, and policies by a function.
type fakeServices struct {
	at     string
	status atomic.Int32 // of Geo; 0: good
	policy func(w http.ResponseWriter, r *http.Request)

	origins []string
}

func (s *fakeServices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/geo":
		if status := s.status.Load(); status != 0 {
			web.Problem(w, r, api.Problem{Status: int(status), Title: "not now"})
			return
		}
		web.WriteJSON(w, api.Geo{Site: "north", CountryCode: "DE", KeyValue_EndpointFullUri: "https://" + s.at + "/all"})
	case "/all":
		if n, err := identity.PeerName(*r.TLS); err != nil || n.Role != identity.RoleDevice || r.FormValue("countryCode") != "DE" {
			web.Problem(w, r, api.Problem{Status: 403, Title: "who are you?"})
			return
		}
		web.WriteJSON(w, api.KeyValue{
			Site: "north", Group: "lab", Origins: s.origins,
			ContentPolicy_EndpointFullUri: "https://" + s.at + "/content/{contentId}/contentpolicy",
			DiscoveryV2_EndpointFullUri:   "https://" + s.at + "/v2/content/{contentId}",
		})
	default:
		s.policy(w, r)
	}
}

func TestBootstrapGoesOnWithTheLastKnown(t *testing.T) {
	f, s := newFleet(t), &fakeServices{}
	at, stop := listen(t, f.server, "127.0.0.1:0", s)
	s.at = at
	opt := Options{Address: at, Credentials: f.device, CacheDir: filepath.Join(t.TempDir(), "cache")}
	check := func(step string, c *Client, grace bool) {
		t.Helper()
		geo, kv, err := c.Bootstrap(t.Context())
		if err != nil || geo.Site != "north" || kv.Group != "lab" || f.device.InGrace() != grace {
			t.Errorf("%s: %+v, %+v, %v; grace %v, want %v", step, geo, kv, err, f.device.InGrace(), grace)
		}
	}
	c := newClient(t, opt)
	check("first", c, false)
	s.status.Store(500)
	check("server fails", c, true)
	s.status.Store(0)
	check("server is well", c, false)
	s.status.Store(403)
	if _, _, err := c.Bootstrap(t.Context()); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("a server that says no: got %v, want its problem", err)
	}
	stop()
	check("server is gone", c, true)
	check("after a restart", newClient(t, opt), true)
	opt.CacheDir = ""
	if _, _, err := newClient(t, opt).Bootstrap(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nothing known: got %v, want ErrUnreachable", err)
	}
	s.status.Store(0)
	listen(t, f.server, at, s)
	check("server is back", c, false)
}

func TestRefusedCertificate(t *testing.T) {
	f, s := newFleet(t), &fakeServices{}
	s.at, _ = listen(t, f.server, "127.0.0.1:0", s)
	opt := Options{Address: s.at, Credentials: f.device, CacheDir: t.TempDir()}
	if _, _, err := newClient(t, opt).Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.server.SetDenied(func(id wire.DeviceID) bool { return id == f.device.Name().Device })
	_, _, err := newClient(t, opt).Bootstrap(t.Context()) // over a connection of its own
	if !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnreachable) || f.device.InGrace() {
		t.Errorf("got %v, grace %v; want ErrRefused and no last known services", err, f.device.InGrace())
	}
	wantError(t, err, s.at, "enrol again")
}

func TestContentPolicyAndDiscovery(t *testing.T) {
	f := newFleet(t)
	d := content.DigestOf([]byte("x"))
	good := api.ContentPolicy{ContentId: "a=b", Version: 3, ManifestDigest: d.String(), HashOfHashes: d.Base64()}
	reply := good
	s := &fakeServices{policy: func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/content/a=b" && r.FormValue("hashOfHashes") == d.Base64():
			web.WriteJSON(w, []api.Array{{CollectiveArray: "https://x/"}})
		case r.URL.Path == "/content/a=b/contentpolicy":
			web.WriteJSON(w, reply)
		case r.URL.Path == "/content/-/contentpolicy" && r.FormValue("altCatalogId") == "https://x/y?z=a&b":
			web.WriteJSON(w, reply)
		default:
			web.Problem(w, r, api.Problem{Status: 404, Type: "unknown-content", Title: "no such content", Detail: r.URL.String()})
		}
	}}
	s.at, _ = listen(t, f.server, "127.0.0.1:0", s)
	c := newClient(t, Options{Address: s.at, Credentials: f.device})
	ref := content.Ref{ID: "a=b", Version: 3}
	if p, err := c.ContentPolicy(t.Context(), ref); err != nil || p.Version != 3 {
		t.Errorf("got %+v, %v", p, err)
	}
	if a, err := c.Discovery(t.Context(), ref.ID, d); err != nil || len(a) != 1 {
		t.Errorf("arrays %v, %v", a, err)
	}
	if p, err := c.ContentPolicyByURL(t.Context(), "https://x/y?z=a&b"); err != nil || p.ContentId != "a=b" {
		t.Errorf("by URL: %+v, %v", p, err)
	}
	reply.ContentId = "../x"
	if p, err := c.ContentPolicyByURL(t.Context(), "https://x/y?z=a&b"); err == nil {
		t.Errorf("by URL: %+v was taken", p)
	}
	reply = good
	_, err := c.ContentPolicy(t.Context(), content.Ref{ID: "nosuch", Version: 1})
	var p *api.Problem
	if !errors.As(err, &p) || p.Type != "unknown-content" || p.Status != 404 {
		t.Errorf("unknown content: got %v, want the problem", err)
	}
	for name, spoil := range map[string]func(*api.ContentPolicy){
		"version":      func(p *api.ContentPolicy) { p.Version = 4 },
		"id":           func(p *api.ContentPolicy) { p.ContentId = "other" },
		"manifest":     func(p *api.ContentPolicy) { p.ManifestDigest = "00" },
		"HashOfHashes": func(p *api.ContentPolicy) { p.HashOfHashes = d.String() },
	} {
		reply = good
		spoil(&reply)
		if _, err := c.ContentPolicy(t.Context(), ref); err == nil {
			t.Errorf("a reply with a wrong %s was taken", name)
		}
	}
}

// What may be made twice is tried three times, all else once.
func TestRetries(t *testing.T) {
	f := newFleet(t)
	for _, tt := range []struct {
		name   string
		status int
		after  string
		again  bool
		want   int32 // calls
	}{
		{"unavailable", 503, "", true, 3},
		{"unavailable soon again", 503, "0", true, 3},
		{"too many, for long", 429, "600", true, 1},
		{"a refusal", 403, "", true, 1},
		{"not to be made twice", 503, "", false, 1},
	} {
		var calls atomic.Int32
		at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			if tt.after != "" {
				w.Header().Set("Retry-After", tt.after)
			}
			web.Problem(w, r, api.Problem{Status: tt.status, Title: "no"})
		}))
		c := newClient(t, Options{Address: at, Credentials: f.device})
		var err error
		if tt.again {
			_, err = c.Join(t.Context(), "https://"+at, api.JoinRequest{})
		} else {
			_, err = c.AddSite(t.Context(), api.Site{})
		}
		if calls.Load() != tt.want {
			t.Errorf("%s: %d calls, want %d", tt.name, calls.Load(), tt.want)
		}
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != tt.status {
			t.Errorf("%s: got %v, want the problem", tt.name, err)
		}
	}
}

func TestRetryStopsWithTheContext(t *testing.T) {
	f := newFleet(t)
	ctx, cancel := context.WithCancel(t.Context())
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "5")
		web.Problem(w, r, api.Problem{Status: 503, Title: "no"})
		cancel()
	}))
	start := time.Now()
	if _, err := newClient(t, Options{Address: at, Credentials: f.device}).Join(ctx, "https://"+at, api.JoinRequest{}); err == nil {
		t.Error("joined")
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

func TestAdministration(t *testing.T) {
	f := newFleet(t)
	var tok identity.Token
	var seen []string
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.EscapedPath())
		if secret, err := identity.ParseAuthorization(r.Header.Get("Authorization")); err != nil || !identity.HashSecret(tok.Secret).Matches(secret) {
			web.Problem(w, r, api.Problem{Status: 401, Title: "no token"})
			return
		}
		switch r.Method {
		case http.MethodGet:
			web.WriteJSON(w, []api.Site{{Name: "north"}})
		case http.MethodPost:
			io.Copy(w, r.Body) // what was asked for, as made
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	tok = f.token(t, identity.TokenAdmin, at, time.Hour)
	c := newClient(t, Options{Token: &tok})
	if sites, err := c.Sites(t.Context()); err != nil || len(sites) != 1 || sites[0].Name != "north" {
		t.Errorf("sites %v, %v", sites, err)
	}
	if s, err := c.AddSite(t.Context(), api.Site{Name: "south", CIDRs: []string{"10.0.0.0/8"}}); err != nil || s.Name != "south" {
		t.Errorf("added %v, %v", s, err)
	}
	if err := c.RemoveSite(t.Context(), "a/../b"); err != nil {
		t.Error(err)
	}
	want := []string{"GET /v1/sites", "POST /v1/sites", "DELETE /v1/sites/a%2F..%2Fb"}
	if !slices.Equal(seen, want) {
		t.Errorf("calls %q, want %q", seen, want)
	}
}

func TestDenyListIsAskedForByTag(t *testing.T) {
	f := newFleet(t)
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"7"`)
		if web.TagMatches(r.Header.Get("If-None-Match"), `"7"`) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, "signed")
	}))
	c := newClient(t, Options{Address: at, Credentials: f.device})
	b, tag, err := c.DenyList(t.Context(), "")
	if err != nil || string(b) != "signed" || tag != `"7"` {
		t.Fatalf("got %q, %q, %v", b, tag, err)
	}
	if b, tag, err := c.DenyList(t.Context(), tag); err != nil || b != nil || tag != `"7"` {
		t.Errorf("unchanged: got %q, %q, %v", b, tag, err)
	}
}

func TestStrangeReplies(t *testing.T) {
	f := newFleet(t)
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/sites":
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>please log in</html>")
		case "/v1/groups":
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(404)
			io.WriteString(w, "<html>not here</html>")
		case "/v1/devices":
			w.Header().Set("Content-Encoding", "br")
		case "/geo":
			for r.Context().Err() == nil {
				w.Write(make([]byte, 64<<10))
			}
		}
	}))
	c := newClient(t, Options{Address: at, Credentials: f.device})
	_, err := c.Sites(t.Context())
	wantError(t, err, "text/html", "is this the address of a freshet server?")
	_, err = c.Groups(t.Context())
	wantError(t, err, "404", "is this the address of a freshet server?")
	_, err = c.Devices(t.Context())
	wantError(t, err, `content encoding "br"`)
	_, _, err = c.Bootstrap(t.Context())
	wantError(t, err, at, "more than 1048576 bytes")
}

func TestNewRefuses(t *testing.T) {
	f := newFleet(t)
	if _, err := New(Options{Credentials: f.device}); err == nil {
		t.Error("no address was taken")
	}
	if _, err := New(Options{Address: "a:1"}); err == nil {
		t.Error("neither credentials nor token were taken")
	}
	c := newClient(t, Options{Address: "a:1", Credentials: f.device})
	_, err := c.Join(t.Context(), "http://a:1/", api.JoinRequest{})
	wantError(t, err, "not an https address")
}
