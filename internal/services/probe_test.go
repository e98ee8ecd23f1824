package services

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"freshet/internal/api"
	"freshet/internal/identity"
)

// swarmPort answers at an address of the device's as its swarm port does, with these
// credentials, until the test ends. nil: as something else.
func (f *fleet) swarmPort(at string, c *identity.Credentials) int {
	f.Helper()
	ln, err := net.Listen("tcp", at+":0")
	f.want(err)
	f.Cleanup(func() { ln.Close() })
	go func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				if c == nil {
					io.WriteString(raw, "220 mail.example ESMTP\r\n")
					return
				}
				// The prober shows no certificate: it is turned away, after its own end is done.
				tls.Server(raw, c.ServerConfig(identity.ServerOptions{Roles: []identity.Role{identity.RoleDevice}})).HandshakeContext(f.Context())
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestProbe(t *testing.T) {
	f := startFleet(t)
	join := f.token(identity.TokenJoin)
	other := f.device()
	taken, err := net.Dial("tcp", f.s.Address()) // its port is nobody else's while it is open, and nobody listens there
	f.want(err)
	defer taken.Close()
	nobody := taken.LocalAddr().(*net.TCPAddr).Port
	for what, test := range map[string]struct {
		at   string // of the device
		port func(m *machine) int
		why  string // empty: it is reached
	}{
		"itself":            {"127.0.0.1", func(m *machine) int { return f.swarmPort("127.0.0.1", m.creds) }, ""},
		"another device":    {"127.0.0.1", func(*machine) int { return f.swarmPort("127.0.0.1", other.creds) }, "something else"},
		"something else":    {"127.0.0.1", func(*machine) int { return f.swarmPort("127.0.0.1", nil) }, "something else"},
		"nobody":            {"127.0.0.1", func(*machine) int { return nobody }, "nobody answers"},
		"at another source": {"127.0.0.3", func(m *machine) int { return f.swarmPort("127.0.0.1", m.creds) }, "nobody answers"},
	} {
		m := f.enrol(join, test.at)
		r, err := m.Probe(t.Context(), test.port(m))
		if err != nil || r.Reached != (test.why == "") || !strings.HasPrefix(r.Reason, test.why) || r.Reason == "" && test.why != "" || r.ExpiresMillis <= 0 || !strings.HasPrefix(r.Address, test.at+":") {
			t.Errorf("%s: %+v, %v; want %q", what, r, err, test.why)
		}
	}
}

func TestProbeRefuses(t *testing.T) {
	f := startFleet(t)
	m := f.device()
	for _, port := range []int{0, -1, 65536} {
		_, err := m.Probe(t.Context(), port)
		f.wantProblem(err, "bad-request")
	}
	port := f.swarmPort("127.0.0.1", m.creds)
	_, err := m.Probe(t.Context(), port)
	f.want(err)
	_, err = m.Probe(t.Context(), port)
	f.wantProblem(err, "too-many-probes")
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusTooManyRequests {
		t.Errorf("error %v, want status 429", err)
	}
	if a := f.raw(m, "POST", "/v1/probe", nil, api.ProbeRequest{Port: api.Number(port)}); a.header.Get("Retry-After") == "" {
		t.Errorf("status %d without Retry-After", a.status)
	}
}

// TestAcrossNATs: in mode 3 other sites hear of a device once a probe has reached it.
func TestAcrossNATs(t *testing.T) {
	f := startFleet(t)
	for site, cidr := range map[string]string{"oslo": "127.1.0.0/16", "bergen": "127.2.0.0/16"} {
		_, err := f.with(identity.TokenAdmin).AddSite(t.Context(), api.Site{Name: site, CIDRs: []string{cidr}})
		f.want(err)
	}
	join := f.token(identity.TokenJoin)
	a, near, far := f.enrol(join, "127.1.0.1"), f.enrol(join, "127.1.0.2"), f.enrol(join, "127.2.0.1")
	at := "https://" + f.s.Address() + "/"
	port := f.swarmPort("127.1.0.1", a.creds)
	joins := func(m *machine, scope api.Number) []api.Peer {
		t.Helper()
		q := joining(m, "one")
		q.Scope = scope
		if m == a {
			q.Port, q.ReportedIp = api.Number(port), "127.1.7.7"
		}
		r, err := m.Join(t.Context(), at, q)
		f.want(err)
		return r.Peers
	}
	joins(a, 3)
	if p := joins(far, 3); len(p) != 0 {
		t.Errorf("before the probe another site hears of %+v", p)
	}
	if p := joins(near, 1); len(p) != 1 {
		t.Errorf("the same site hears of %+v, want the device", p)
	}
	r, err := a.Probe(t.Context(), port)
	if err != nil || !r.Reached {
		t.Fatalf("probe: %+v, %v", r, err)
	}
	joins(a, 3)
	if p := joins(far, 3); len(p) != 1 || p[0].PeerId != a.peerID() || p[0].Address != r.Address || p[0].Type != "Group" {
		t.Errorf("after the probe another site hears of %+v, want %s", p, r.Address)
	}
	joins(a, 2)
	if p := joins(far, 2); len(p) != 1 || !strings.HasPrefix(p[0].Address, "127.1.7.7:") {
		t.Errorf("in mode 2 another site hears of %+v, want the address reported", p)
	}
}
