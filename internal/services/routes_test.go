package services

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/admin"
	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/identity"
)

// permitted says again, apart from the table, who may call what: a change there is a decision
// that is made twice.
const permitted = `
public: GET /geo; POST /v1/enrol; POST /v1/renew; GET /healthz; GET /readyz; GET /metrics
device: GET /content/{contentId}/contentpolicy; POST /content/{contentId}/differs; GET /content/{contentId}; GET /v2/content/{contentId}; POST /join/{$}; POST /leave/{$}; GET /metadata/{manifestDigest}; GET /pieceshash/{hashOfHashes}; POST /v1/reports; POST /v1/probe; POST /v1/lanpass
device origin: GET /all; GET /v1/revoked
admin: GET /v1/sites; POST /v1/sites; DELETE /v1/sites/{name}; GET /v1/groups; POST /v1/groups; DELETE /v1/groups/{name}; GET /v1/devices; DELETE /v1/devices/{name}; GET /v1/tokens; POST /v1/tokens; DELETE /v1/tokens/{name}; GET /v1/settings; POST /v1/settings; DELETE /v1/settings/{name}; DELETE /v1/contents/{name}; POST /v1/inquiries
admin publish: GET /v1/contents; GET /v1/contents/{name}/differs; POST /v1/tickets; POST /v1/contents/{name}/urls
origin admin publish: POST /v1/contents
`

func TestTable(t *testing.T) {
	want := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(permitted)) {
		who, patterns, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for pattern := range strings.SplitSeq(patterns, "; ") {
			want[pattern] = who
		}
	}
	for _, rt := range startFleet(t).s.routes() {
		var who []string
		if rt.permission.Public {
			who = append(who, "public")
		}
		for _, r := range rt.permission.Roles {
			who = append(who, string(r))
		}
		who = append(who, rt.permission.Tokens...)
		if got := strings.Join(who, " "); got != want[rt.pattern] {
			t.Errorf("%s is open to %q, want %q", rt.pattern, got, want[rt.pattern])
		}
		delete(want, rt.pattern)
		if rt.service != health && !slices.Contains(Names(), rt.service) {
			t.Errorf("%s belongs to service %q, which has no name", rt.pattern, rt.service)
		}
	}
	for pattern := range want {
		t.Errorf("%s is not in the table", pattern)
	}
}

// TestPermissions calls every route as everyone: only whom the table names comes through.
func TestPermissions(t *testing.T) {
	f := startFleet(t)
	device, origin := f.device(), f.origin()
	unknown := f.token(identity.TokenAdmin)
	unknown.Secret = make([]byte, len(unknown.Secret))
	for _, rt := range f.s.routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		for from, to := range map[string]string{"{contentId}": "tool", "{name}": "nothing", "{manifestDigest}": "00", "{hashOfHashes}": "00", "{$}": ""} {
			path = strings.ReplaceAll(path, from, to)
		}
		check := func(who string, a answer, allowed bool) {
			t.Helper()
			if a.refused() == allowed || a.status == http.StatusInternalServerError {
				t.Errorf("%s as %s: status %d %s, allowed %v", rt.pattern, who, a.status, a.body, allowed)
			}
			if a.refused() && a.problem().Detail == "" {
				t.Errorf("%s as %s: the refusal has no remedy: %s", rt.pattern, who, a.body)
			}
		}
		p, body := rt.permission, struct{}{}
		if rt.pattern == "POST /v1/enrol" || rt.pattern == "POST /v1/renew" {
			continue // what the body holds is checked there: TestEmptySealedCalls
		}
		check("nobody", f.raw(nil, method, path, nil, body), p.Public)
		check("device", f.raw(device, method, path, nil, body), p.Public || slices.Contains(p.Roles, identity.RoleDevice))
		check("origin", f.raw(origin, method, path, nil, body), p.Public || slices.Contains(p.Roles, identity.RoleOrigin))
		check("unknown token", f.raw(nil, method, path, bearer(unknown), body), p.Public)
		for _, kind := range tokenKinds {
			check(kind+" token", f.raw(nil, method, path, bearer(f.token(kind)), body), p.Public || slices.Contains(p.Tokens, kind))
		}
		check("device with a join token", f.raw(device, method, path, bearer(f.token(identity.TokenJoin)), body),
			p.Public || slices.Contains(p.Roles, identity.RoleDevice))
	}
}

// TestEmptySealedCalls: what needs a token or certificate in its body gets nowhere without.
func TestEmptySealedCalls(t *testing.T) {
	f := startFleet(t)
	for path, status := range map[string]int{"/v1/enrol": http.StatusBadRequest, "/v1/renew": http.StatusForbidden} {
		if a := f.raw(nil, "POST", path, nil, struct{}{}); a.status != status {
			t.Errorf("%s: status %d %s, want %d", path, a.status, a.body, status)
		}
	}
}

func TestUnknownCall(t *testing.T) {
	f := startFleet(t)
	for _, call := range []string{"GET /", "GET /nothing", "PUT /geo", "GET /join/", "POST /join/more", "GET /metadata/"} {
		method, path, _ := strings.Cut(call, " ")
		if a := f.raw(nil, method, path, nil, nil); a.status != http.StatusNotFound || a.problem().Type != "unknown-call" {
			t.Errorf("%s: status %d %s, want unknown-call", call, a.status, a.body)
		}
	}
}

func TestServicesSubset(t *testing.T) {
	f := startFleetIn(t, t.TempDir(), Options{Services: []string{"geo"}})
	if a := f.raw(nil, "GET", "/geo", nil, nil); a.status != http.StatusOK {
		t.Errorf("/geo: status %d", a.status)
	}
	if a := f.raw(nil, "GET", "/healthz", nil, nil); a.status != http.StatusOK {
		t.Errorf("/healthz: status %d", a.status)
	}
	_, err := f.with(identity.TokenAdmin).Groups(t.Context())
	f.wantProblem(err, "unknown-call")
	if _, err := Open(t.Context(), Options{State: t.TempDir(), Listen: "127.0.0.1:0", Services: []string{"geography"}}); err == nil {
		t.Error("an unknown service was taken")
	}
}

// TestTokenCases: unknown, of another kind, expired, used up, of another fleet.
func TestTokenCases(t *testing.T) {
	f := startFleet(t)
	once := f.newToken(api.Token{Kind: identity.TokenJoin, Group: DefaultGroup, Left: 1, Expires: soon()})
	f.enrol(once, "")
	enrol := func(secret []byte) answer {
		key, err := identity.NewKey()
		f.want(err)
		csr, err := identity.NewCSR(key)
		f.want(err)
		return f.raw(nil, "POST", "/v1/enrol", nil, api.EnrolRequest{Secret: secret, CSR: csr, Name: "pc"})
	}
	removed := f.newToken(api.Token{Kind: identity.TokenAdmin, Expires: soon()})
	f.want(f.with(identity.TokenAdmin).RemoveToken(t.Context(), identity.HashSecret(removed.Secret).ID()))
	expired, _, err := admin.NewToken(t.Context(), f.s.ca, f.s.catalog, f.s.Address(),
		admin.TokenSpec{Kind: identity.TokenAdmin, Expires: time.Now().Add(-time.Second), Left: catalog.Unlimited}, time.Now())
	f.want(err)
	for name, c := range map[string]struct {
		a    answer
		want string
	}{
		"used up":      {enrol(once.Secret), "expired-token"},
		"unknown":      {enrol(make([]byte, 32)), "unknown-token"},
		"other kind":   {enrol(f.token(identity.TokenAdmin).Secret), "wrong-token"},
		"expired":      {f.raw(nil, "GET", "/v1/sites", bearer(expired), nil), "expired-token"},
		"removed":      {f.raw(nil, "GET", "/v1/sites", bearer(removed), nil), "unknown-token"},
		"not a token":  {f.raw(nil, "GET", "/v1/sites", http.Header{"Authorization": {"Bearer x"}}, nil), "unknown-token"},
		"basic scheme": {f.raw(nil, "GET", "/v1/sites", http.Header{"Authorization": {"Basic eDp5"}}, nil), "unknown-token"},
	} {
		if p := c.a.problem(); p.Type != c.want || p.Detail == "" {
			t.Errorf("%s: %d %s, want %s with a remedy", name, c.a.status, c.a.body, c.want)
		}
	}
	other := startFleet(t).token(identity.TokenAdmin)
	other.Address = f.s.Address()
	_, err = f.client(clientOptions(other)).Sites(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not of this fleet") {
		t.Errorf("a token of another fleet: %v, want a word on the fleet", err)
	}
}
