package client

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
)

// Enrol makes a key, has the server that the token names sign a certificate for it, and
// saves both in dir. name is the machine's, for people. The token is a join token, or an
// origin token for a distribution point. The call is made once: each success counts as a use
// of the token.
func Enrol(ctx context.Context, token identity.Token, name, dir string, local netip.Addr) (*identity.Credentials, api.Enrolment, error) {
	role, kind := identity.RoleDevice, identity.TokenJoin
	if token.Kind == identity.TokenOrigin {
		role, kind = identity.RoleOrigin, identity.TokenOrigin
	}
	if err := token.Require(kind, time.Now()); err != nil {
		return nil, api.Enrolment{}, fmt.Errorf("enrol: %w", err)
	}
	c, err := New(Options{Token: &token, Local: local, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, api.Enrolment{}, err
	}
	defer c.CloseIdle()
	cr, e, err := c.enrol(ctx, token, name)
	if err != nil {
		return nil, api.Enrolment{}, err
	}
	if n := cr.Name(); n.Role != role || n.Fleet != token.Fleet {
		return nil, api.Enrolment{}, fmt.Errorf("client: enrol at %s: the certificate is for %s, want role %q in fleet %q", token.Address, n, role, token.Fleet)
	}
	if err := cr.Save(dir); err != nil {
		return nil, api.Enrolment{}, fmt.Errorf("enrol: %w", err)
	}
	return cr, e, nil
}

func (c *Client) enrol(ctx context.Context, token identity.Token, name string) (*identity.Credentials, api.Enrolment, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, api.Enrolment{}, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return nil, api.Enrolment{}, err
	}
	e, err := c.enrolment(ctx, request{what: "enrol", url: c.serverURL("/v1/enrol"),
		body: api.EnrolRequest{Secret: token.Secret, CSR: csr, Name: name}})
	if err != nil {
		return nil, e, err
	}
	cr, err := identity.NewCredentials(key, e.Chain, withRoot(e.Roots, token.Root))
	if err != nil {
		return nil, e, fmt.Errorf("client: enrol at %s: %w", token.Address, err)
	}
	return cr, e, nil
}

// withRoot returns roots with the token's among them, which is trusted in any case.
func withRoot(roots [][]byte, root []byte) [][]byte {
	for _, r := range roots {
		if string(r) == string(root) {
			return roots
		}
	}
	return append(roots[:len(roots):len(roots)], root)
}

func (c *Client) enrolment(ctx context.Context, q request) (api.Enrolment, error) {
	q.method, q.max, q.http = http.MethodPost, maxReply, c.anyone
	var e api.Enrolment
	r, err := c.call(ctx, q)
	if err != nil {
		return e, err
	}
	if err := decode(q.what, r, &e); err != nil {
		return e, err
	}
	if _, err := identity.ParseGrantKeys(e.GrantKeys); err != nil {
		return e, fmt.Errorf("client: %s at %s: %w", q.what, c.opt.Address, err)
	}
	return e, nil
}

// Renew gets a new certificate for the key of the client's credentials, also when the old
// one has expired, puts it into them and saves them in dir. Configurations that were made of
// the credentials use it from the next handshake on.
func (c *Client) Renew(ctx context.Context, dir string) (api.Enrolment, error) {
	cr := c.opt.Credentials
	if cr == nil {
		return api.Enrolment{}, fmt.Errorf("client: renew at %s: there is no certificate, only a token", c.opt.Address)
	}
	csr, err := cr.CSR()
	if err != nil {
		return api.Enrolment{}, err
	}
	e, err := c.enrolment(ctx, request{what: "renew", url: c.serverURL("/v1/renew"), again: true,
		body: api.RenewRequest{CSR: csr, Chain: cr.Chain()}})
	if err != nil {
		return e, err
	}
	if err := cr.Replace(e.Chain, e.Roots); err != nil {
		return e, fmt.Errorf("client: renew at %s: %w", c.opt.Address, err)
	}
	if err := cr.Save(dir); err != nil {
		return e, fmt.Errorf("renew: %w", err)
	}
	return e, nil
}
