// Package devices is the service that lets devices and origins into the fleet and keeps them
// there: enrolment by token, renewal, the deny list, what devices report, and whether they are
// reached from outside (design sections 5, 8 and 9).
//
// The server decides role, group and id; of a request's certificate request only the key is
// used. Revocation is for good: a revoked machine enrols anew, with another id.
package devices

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Limits.
const (
	maxBody    = 64 << 10 // bytes of an enrolment or renewal
	maxName    = 255      // bytes of a machine's name
	maxReports = 1 << 20  // bytes of one call
	maxJob     = 64       // bytes of a job's id
)

// Catalog is what this service keeps.
type Catalog interface {
	catalog.Devices
	Token(ctx context.Context, secret content.Digest) (catalog.Token, error)
	UseToken(ctx context.Context, secret content.Digest, now time.Time) (catalog.Token, error)
	AddReport(ctx context.Context, r catalog.Report) error
}

// Service answers the calls of machines that join, stay and report.
type Service struct {
	Catalog   Catalog
	CA        *identity.CA
	GrantKeys []ed25519.PublicKey
	Key       ed25519.PrivateKey // signs LAN passes; one of GrantKeys
	Denied    *Denied
	Now       func() time.Time
	Log       *slog.Logger
}

// Enrol answers POST /v1/enrol.
func (s *Service) Enrol(w http.ResponseWriter, r *http.Request) {
	var q api.EnrolRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	reply, err := s.enrol(r.Context(), &q)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	web.WriteJSON(w, reply)
}

func (s *Service) enrol(ctx context.Context, q *api.EnrolRequest) (*api.Enrolment, error) {
	key, err := keyOf(q.CSR)
	if err != nil {
		return nil, badRequest("the certificate request is not good", err)
	}
	if len(q.Name) > maxName || !utf8.ValidString(q.Name) || strings.ContainsFunc(q.Name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil, badRequest("the name is not good", fmt.Errorf("%q must have at most %d bytes, without control characters", q.Name, maxName))
	}
	secret := content.Digest(identity.HashSecret(q.Secret))
	t, err := s.Catalog.Token(ctx, secret)
	if err != nil {
		return nil, tokenProblem(err)
	}
	role, err := roleFor(t.Kind)
	if err != nil {
		return nil, err
	}
	name := identity.Name{Fleet: s.CA.Fleet(), Role: role, Group: t.Group}
	rand.Read(name.Device[:]) // never fails
	chain, err := s.CA.Issue(q.CSR, name)
	if err != nil {
		return nil, badRequest("the certificate request is not good", err)
	}
	now := s.Now()
	if _, err := s.Catalog.UseToken(ctx, secret, now); err != nil {
		return nil, tokenProblem(err)
	}
	d := catalog.Device{ID: name.Device, Name: q.Name, Role: string(role), Group: name.Group, Key: key, Enrolled: now, Renewed: now}
	if err := s.Catalog.AddDevice(ctx, d); err != nil {
		return nil, err
	}
	s.Log.Info("enrolled", "role", role, "device", name.Device, "name", q.Name, "group", name.Group, "token", t.ID)
	return s.enrolment(name, chain), nil
}

// roleFor returns what a kind of token makes of its bearer.
func roleFor(kind string) (identity.Role, error) {
	switch kind {
	case identity.TokenJoin:
		return identity.RoleDevice, nil
	case identity.TokenOrigin:
		return identity.RoleOrigin, nil
	}
	return "", &api.Problem{Status: http.StatusForbidden, Type: "wrong-token", Title: "a token of kind " + kind + " enrols nothing",
		Detail: "a device enrols with the server's join.token, a distribution point with its origin.token"}
}

// tokenProblem says why a token buys nothing.
func tokenProblem(err error) error {
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return &api.Problem{Status: http.StatusUnauthorized, Type: "unknown-token", Title: "the token is not known here",
			Detail: "it was removed, or is of another fleet; take a current token file, or make one with \"freshet token add\""}
	case errors.Is(err, catalog.ErrUsed):
		return &api.Problem{Status: http.StatusUnauthorized, Type: "expired-token", Title: "the token has expired or is used up",
			Detail: "make another one with \"freshet token add\""}
	}
	return err
}

func badRequest(title string, err error) error {
	return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: title, Detail: err.Error()}
}

// keyOf returns the digest of a certificate request's public key.
func keyOf(csr []byte) (content.Digest, error) {
	q, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return content.Digest{}, err
	}
	return content.DigestOf(q.RawSubjectPublicKeyInfo), nil
}

func (s *Service) enrolment(n identity.Name, chain [][]byte) *api.Enrolment {
	e := &api.Enrolment{Fleet: n.Fleet, Device: n.Device.String(), Group: n.Group, Chain: chain, Roots: s.CA.Roots()}
	for _, k := range s.GrantKeys {
		e.GrantKeys = append(e.GrantKeys, k)
	}
	return e
}

// Renew answers POST /v1/renew. The group is the catalog's: a device that was moved learns it
// here.
func (s *Service) Renew(w http.ResponseWriter, r *http.Request) {
	var q api.RenewRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	reply, err := s.renew(r.Context(), &q)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	web.WriteJSON(w, reply)
}

func (s *Service) renew(ctx context.Context, q *api.RenewRequest) (*api.Enrolment, error) {
	refused := func(detail string) error {
		return &api.Problem{Status: http.StatusForbidden, Type: "not-renewed", Title: "the certificate is not renewed", Detail: detail}
	}
	name, err := s.CA.Renewal(q.CSR, q.Chain)
	if err != nil {
		return nil, refused(err.Error())
	}
	key, err := keyOf(q.CSR)
	if err != nil {
		return nil, refused(err.Error())
	}
	d, err := s.Catalog.Device(ctx, name.Device)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return nil, refused("this server never enrolled " + name.Device.String() + "; enrol it anew")
	case err != nil:
		return nil, err
	case d.Key != key || d.Role != string(name.Role):
		return nil, refused("the key is not the one that " + name.Device.String() + " enrolled with")
	}
	name.Group = d.Group
	chain, err := s.CA.Issue(q.CSR, name)
	if err != nil {
		return nil, err
	}
	if err := s.Catalog.RenewDevice(ctx, d.ID, s.Now()); err != nil { // revoked, by now or before
		if errors.Is(err, catalog.ErrNotFound) {
			return nil, refused(name.Device.String() + " is on the deny list; enrol it anew if that is wrong")
		}
		return nil, err
	}
	return s.enrolment(name, chain), nil
}

// Revoked answers GET /v1/revoked with the signed deny list.
func (s *Service) Revoked(w http.ResponseWriter, r *http.Request) {
	l := s.Denied.list.Load()
	w.Header().Set("ETag", l.tag)
	if web.TagMatches(r.Header.Get("If-None-Match"), l.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(l.signed) // the caller is gone when this fails
}

// Reports answers POST /v1/reports.
func (s *Service) Reports(w http.ResponseWriter, r *http.Request) {
	var q api.Reports
	if err := web.ReadJSON(w, r, maxReports, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	device := authz.From(r.Context()).Name.Device
	for i := range q.Reports {
		if n := len(q.Reports[i].Job); n == 0 || n > maxJob {
			web.Fail(w, r, badRequest("a report is not well formed", fmt.Errorf("job %q must have 1 to %d bytes", q.Reports[i].Job, maxJob)))
			return
		}
	}
	for i := range q.Reports {
		if err := s.report(r.Context(), device, &q.Reports[i]); err != nil {
			web.Fail(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) report(ctx context.Context, device wire.DeviceID, rep *api.Report) error {
	b, err := json.Marshal(rep)
	if err != nil {
		return fmt.Errorf("devices: report %q: %w", rep.Job, err)
	}
	return s.Catalog.AddReport(ctx, catalog.Report{Device: device, Job: rep.Job, Body: b, At: s.Now()})
}
