package services

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// fleet is a running server and what a test needs to talk to it.
type fleet struct {
	*testing.T
	s     *Server
	state string
	stop  func()
}

// startFleet starts a server in a new directory; it stops with the test.
func startFleet(t *testing.T) *fleet { return startFleetIn(t, t.TempDir(), Options{}) }

func startFleetIn(t *testing.T, state string, opt Options) *fleet {
	t.Helper()
	opt.State = state
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:0"
	}
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(s.Run(ctx), s.Close()) }()
	f := &fleet{T: t, s: s, state: state}
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *fleet) token(kind string) identity.Token {
	f.Helper()
	t, err := identity.ReadToken(TokenFile(f.state, kind))
	if err != nil {
		f.Fatal(err)
	}
	return t
}

func (f *fleet) client(o client.Options) *client.Client {
	f.Helper()
	if o.Address == "" {
		o.Address = f.s.Address()
	}
	c, err := client.New(o)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.CloseIdle)
	return c
}

// with returns a client that shows the token of this kind.
func (f *fleet) with(kind string) *client.Client {
	t := f.token(kind)
	return f.client(client.Options{Token: &t})
}

// machine is an enrolled device or origin.
type machine struct {
	*client.Client
	creds *identity.Credentials
	local netip.Addr
	dir   string
}

// enrol enrols with this token, calling from 127.0.0.1 or the given address.
func (f *fleet) enrol(t identity.Token, local string) *machine {
	f.Helper()
	m := &machine{dir: filepath.Join(f.TempDir(), "id")}
	if local != "" {
		m.local = netip.MustParseAddr(local)
	}
	var err error
	if m.creds, _, err = client.Enrol(f.Context(), t, "pc", m.dir, m.local); err != nil {
		f.Fatal(err)
	}
	m.Client = f.client(client.Options{Credentials: m.creds, Local: m.local})
	return m
}

func (m *machine) peerID() string { return m.creds.Name().Device.String() + "00000000" }

// device enrols a device of the default group.
func (f *fleet) device() *machine { f.Helper(); return f.enrol(f.token(identity.TokenJoin), "") }

// deviceOf enrols a device of this group, which it makes.
func (f *fleet) deviceOf(group string) *machine {
	f.Helper()
	if _, err := f.with(identity.TokenAdmin).AddGroup(f.Context(), api.Group{Name: group}); err != nil {
		f.Fatal(err)
	}
	return f.enrol(f.newToken(api.Token{Kind: identity.TokenJoin, Group: group}), "")
}

func (f *fleet) newToken(t api.Token) identity.Token {
	f.Helper()
	made, err := f.with(identity.TokenAdmin).AddToken(f.Context(), t)
	if err != nil {
		f.Fatal(err)
	}
	text, err := identity.ParseToken(made.Text)
	if err != nil {
		f.Fatal(err)
	}
	return text
}

func (f *fleet) origin() *machine { f.Helper(); return f.enrol(f.token(identity.TokenOrigin), "") }

// sample returns the publication of id@version with one file of these bytes.
func sample(t *testing.T, id string, version uint64, body string) api.PublishRequest {
	t.Helper()
	return sampleOf(t, content.Ref{ID: content.ID(id), Version: version}, body)
}

// sampleOf returns the publication of ref with a file for each of these bodies.
func sampleOf(t *testing.T, ref content.Ref, bodies ...string) api.PublishRequest {
	t.Helper()
	var files []content.File
	var pieces [][]content.Digest
	for i, body := range bodies {
		h := content.NewFileHasher()
		if _, err := h.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		file, p := h.Sum(fmt.Sprintf("%04d.bin", i), false)
		files, pieces = append(files, file), append(pieces, p)
	}
	m, hf, err := content.BuildManifest(ref, files, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return api.PublishRequest{
		Manifest: content.AppendManifest(nil, m), HashFile: content.AppendHashFileRaw(nil, hf), Origins: []string{"https://dp.example:7681/"},
	}
}

// publish registers as an administrator.
func (f *fleet) publish(q api.PublishRequest) api.Content {
	f.Helper()
	c, err := f.with(identity.TokenAdmin).Publish(f.Context(), q)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// wantProblem wants an error that is a problem of this type, with a remedy.
func (f *fleet) wantProblem(err error, kind string) {
	f.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Type != kind {
		f.Errorf("error %v, want a problem %q", err, kind)
		return
	}
	if p.Detail == "" || p.Status < 400 {
		f.Errorf("problem %+v has no remedy or status", p)
	}
}

func (f *fleet) want(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// answer is a raw reply.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem() api.Problem {
	var p api.Problem
	if json.Unmarshal(a.body, &p) != nil {
		return api.Problem{}
	}
	return p
}

// raw makes one call with what package client would not send. who may be nil.
func (f *fleet) raw(who *machine, method, path string, header http.Header, body any) answer {
	f.Helper()
	cfg, err := identity.BearerConfig(f.token(identity.TokenAdmin), identity.RoleServer)
	f.want(err)
	local := netip.Addr{}
	if who != nil {
		cfg, local = who.creds.ClientConfig(identity.RoleServer), who.local
	}
	h := web.Client(cfg, local)
	defer h.CloseIdleConnections()
	req, err := http.NewRequestWithContext(f.Context(), method, "https://"+f.s.Address()+path, bytes.NewReader(api.JSON(body)))
	f.want(err)
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := h.Do(req)
	f.want(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	f.want(err)
	return answer{res.StatusCode, res.Header, b}
}

// bearer returns the header that shows a token.
func bearer(t identity.Token) http.Header { return http.Header{"Authorization": {t.Authorization()}} }

// refusals are the problems of package authz.
var refusals = []string{"not-authorized", "bad-certificate", "wrong-role", "wrong-token", "unknown-token", "expired-token", "revoked"}

func (a answer) refused() bool {
	return (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden) && strings.Contains(strings.Join(refusals, " "), a.problem().Type)
}

// soon is a time at which nothing has expired yet.
func soon() int64 { return time.Now().Add(time.Hour).Unix() }
