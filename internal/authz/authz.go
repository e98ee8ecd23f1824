// Package authz decides who may call a route: by the certificate that the connection showed,
// or by the bearer token in the Authorization header. What a request claims in its body is
// never looked at.
package authz

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Permission says who may call a route. The zero value lets nobody in.
type Permission struct {
	Public bool            // anyone; nothing is looked at
	Roles  []identity.Role // holders of a certificate with one of these roles
	Tokens []string        // bearers of a token of one of these kinds
}

// Caller is who calls.
type Caller struct {
	Name  identity.Name // of the certificate that let it in; zero when a token did
	Token string        // kind of the token that let it in; empty when a certificate did
}

type callerKey struct{}

// From returns the caller that [Checker.Require] let in; the zero Caller on a public route.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Source returns the address that the request's connection comes from; headers are not
// believed. It is the zero Addr when there is no connection.
func Source(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// Errors of [Tokens].
var (
	ErrUnknown = errors.New("unknown token")
	ErrExpired = errors.New("expired token")
)

// Tokens knows the tokens that were given out.
type Tokens interface {
	// TokenKind returns the kind of the token with this secret. ErrUnknown, ErrExpired.
	TokenKind(ctx context.Context, secret []byte) (string, error)
}

// Checker holds routes to their permissions.
type Checker struct {
	Tokens Tokens
	Denied func(wire.DeviceID) bool // the deny list: connections may be older than an entry
}

// Require returns next for those whom p lets in; others get a problem with its remedy.
func (c *Checker) Require(p Permission, next http.Handler) http.Handler {
	if p.Public {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := c.check(p, r)
		if err != nil {
			var problem *api.Problem
			if errors.As(err, &problem) && problem.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			web.Fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

// check tries the certificate, then the token; when neither will do, it says why of the one
// that was shown.
func (c *Checker) check(p Permission, r *http.Request) (Caller, error) {
	name, certErr := c.byCertificate(p, r)
	if certErr == nil {
		return Caller{Name: name}, nil
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return Caller{}, certErr
	}
	kind, err := c.byToken(p, r.Context(), header)
	return Caller{Token: kind}, err
}

func (c *Checker) byCertificate(p Permission, r *http.Request) (identity.Name, error) {
	missing := &api.Problem{Status: http.StatusUnauthorized, Type: "not-authorized", Title: "this call is not open to everyone", Detail: p.remedy()}
	if r.TLS == nil {
		return identity.Name{}, missing
	}
	name, err := identity.PeerName(*r.TLS)
	if errors.Is(err, identity.ErrNoCertificate) {
		return identity.Name{}, missing
	}
	if err != nil {
		return identity.Name{}, &api.Problem{Status: http.StatusForbidden, Type: "bad-certificate", Title: "the certificate is not good", Detail: err.Error()}
	}
	if !slices.Contains(p.Roles, name.Role) {
		return name, &api.Problem{Status: http.StatusForbidden, Type: "wrong-role",
			Title: "a certificate with role " + string(name.Role) + " does not open this call", Detail: p.remedy()}
	}
	if c.Denied != nil && c.Denied(name.Device) {
		return name, &api.Problem{Status: http.StatusForbidden, Type: "revoked",
			Title: string(name.Role) + " " + name.Device.String() + " is on the deny list", Detail: "remove its state directory and enrol it anew if that is wrong"}
	}
	return name, nil
}

func (c *Checker) byToken(p Permission, ctx context.Context, header string) (string, error) {
	secret, err := identity.ParseAuthorization(header)
	if err != nil {
		return "", unknownToken(err.Error())
	}
	kind, err := c.Tokens.TokenKind(ctx, secret)
	switch {
	case errors.Is(err, ErrUnknown):
		return "", unknownToken("it was removed, or is of another fleet; take a current token file, or make one with \"freshet token add\"")
	case errors.Is(err, ErrExpired):
		return "", &api.Problem{Status: http.StatusUnauthorized, Type: "expired-token", Title: "the token has expired or is used up",
			Detail: "make another one with \"freshet token add\""}
	case err != nil:
		return "", err
	case !slices.Contains(p.Tokens, kind):
		return "", &api.Problem{Status: http.StatusForbidden, Type: "wrong-token", Title: "a token of kind " + kind + " does not open this call", Detail: p.remedy()}
	}
	return kind, nil
}

func unknownToken(detail string) error {
	return &api.Problem{Status: http.StatusUnauthorized, Type: "unknown-token", Title: "the token is not known here", Detail: detail}
}

// remedy says what opens the call.
func (p Permission) remedy() string {
	var ways []string
	for _, k := range p.Tokens {
		ways = append(ways, "--token with the server's "+k+".token")
	}
	for _, r := range p.Roles {
		ways = append(ways, "a certificate with role "+string(r))
	}
	if len(ways) == 0 {
		return "nothing opens it"
	}
	return "it takes " + strings.Join(ways, ", or ")
}
