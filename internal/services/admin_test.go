package services

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// register posts a publication as an origin, with a ticket or without.
func (f *fleet) register(m *machine, q api.PublishRequest, ticket []byte) answer {
	f.Helper()
	h := http.Header{}
	if ticket != nil {
		h.Set(identity.TicketHeader, base64.StdEncoding.EncodeToString(ticket))
	}
	return f.raw(m, "POST", "/v1/contents", h, q)
}

func (f *fleet) ticket(q api.TicketRequest) []byte {
	f.Helper()
	b, err := f.with(identity.TokenPublish).Ticket(f.Context(), q)
	f.want(err)
	return b
}

func (f *fleet) wantAnswer(a answer, status int, kind string) {
	f.Helper()
	if a.status != status || a.problem().Type != kind {
		f.Errorf("status %d %s, want %d %q", a.status, a.body, status, kind)
	}
}

func TestPublishByTicket(t *testing.T) {
	f := startFleet(t)
	dp, other := f.origin(), f.origin()
	id := dp.creds.Name().Device.String()
	ticket := f.ticket(api.TicketRequest{ContentId: "tool", Version: 1, Groups: []string{DefaultGroup}, Origin: id})
	q := sample(t, "tool", 1, "one")
	q.Groups = nil // the ticket's count
	f.wantAnswer(f.register(other, q, ticket), http.StatusForbidden, "bad-ticket")
	f.wantAnswer(f.register(dp, sample(t, "tool", 2, "one"), ticket), http.StatusForbidden, "bad-ticket")
	f.wantAnswer(f.register(dp, q, append([]byte{2}, ticket[1:]...)), http.StatusForbidden, "bad-ticket")
	f.wantAnswer(f.register(dp, q, ticket), http.StatusOK, "")
	f.wantAnswer(f.register(dp, q, ticket), http.StatusOK, "") // its reply may have been lost
	f.wantAnswer(f.register(dp, sample(t, "tool", 1, "two"), ticket), http.StatusForbidden, "bad-ticket")
	all, err := f.with(identity.TokenPublish).Contents(t.Context())
	f.want(err)
	if len(all) != 1 || len(all[0].Groups) != 1 || all[0].Groups[0] != DefaultGroup || all[0].Origins[0] != "https://dp.example:7681" {
		t.Errorf("contents %+v", all)
	}
	_, err = f.with(identity.TokenPublish).Ticket(t.Context(), api.TicketRequest{ContentId: "tool", Version: 1, Groups: []string{"nobody"}})
	f.wantProblem(err, "unknown-group")
	_, err = f.with(identity.TokenPublish).Ticket(t.Context(), api.TicketRequest{ContentId: "../x", Version: 1})
	f.wantProblem(err, "bad-request")
}

// TestTicketIsNamed wants the log to name the ticket as the ticket names itself.
func TestTicketIsNamed(t *testing.T) {
	var log bytes.Buffer
	f := startFleetIn(t, t.TempDir(), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	signed := f.ticket(api.TicketRequest{ContentId: "tool", Version: 1})
	ticket, err := identity.VerifyTicket([]ed25519.PublicKey{f.s.public()}, signed, time.Now())
	f.want(err)
	f.stop()
	if want := "id=" + hex.EncodeToString(ticket.Nonce[:]); !strings.Contains(log.String(), want) {
		t.Errorf("no %s in the log:\n%s", want, &log)
	}
}

// TestOriginMoves: a distribution point that comes back on another port has that one alone.
func TestOriginMoves(t *testing.T) {
	f := startFleet(t)
	dp := f.origin()
	q := sample(t, "tool", 1, "one")
	f.wantAnswer(f.register(dp, q, nil), http.StatusOK, "")
	q.Origins = []string{"https://dp.example:7682"}
	f.wantAnswer(f.register(dp, q, nil), http.StatusOK, "")
	all, err := f.with(identity.TokenAdmin).Contents(t.Context())
	f.want(err)
	if len(all) != 1 || !slices.Equal(all[0].Origins, q.Origins) {
		t.Errorf("contents %+v, want the origins %q", all, q.Origins)
	}
}

func TestPublishOwn(t *testing.T) {
	f := startFleet(t)
	dp, other := f.origin(), f.origin()
	q := sample(t, "tool", 1, "one")
	q.Groups = []string{DefaultGroup}
	f.wantAnswer(f.register(dp, q, nil), http.StatusOK, "")
	f.wantAnswer(f.register(other, sample(t, "tool", 1, "bad"), nil), http.StatusForbidden, "not-owner")
	next := sample(t, "tool", 1, "two")
	next.Replaces = content.DigestOf(q.Manifest).String()
	f.wantAnswer(f.register(dp, next, nil), http.StatusOK, "")
	f.wantAnswer(f.register(dp, next, nil), http.StatusConflict, "changed")
	all, err := f.with(identity.TokenAdmin).Contents(t.Context())
	f.want(err)
	if len(all) != 1 || all[0].ManifestDigest != content.DigestOf(next.Manifest).String() || len(all[0].Groups) != 1 {
		t.Errorf("contents %+v, want the new manifest for the old group", all)
	}
	f.want(f.with(identity.TokenAdmin).Recall(t.Context(), content.Ref{ID: "tool", Version: 1}))
	f.wantProblem(f.with(identity.TokenAdmin).Recall(t.Context(), content.Ref{ID: "tool", Version: 1}), "unknown-content")
	next.Replaces = ""
	f.wantAnswer(f.register(dp, next, nil), http.StatusConflict, "recalled")
	_, err = f.with(identity.TokenPublish).Publish(t.Context(), next)
	f.want(err)
}

func TestPublishRefuses(t *testing.T) {
	f := startFleet(t)
	admin := f.with(identity.TokenAdmin)
	for name, change := range map[string]func(*api.PublishRequest){
		"manifest":       func(q *api.PublishRequest) { q.Manifest = append(q.Manifest, ' ') },
		"hash file":      func(q *api.PublishRequest) { q.HashFile[0] ^= 1 },
		"no hash file":   func(q *api.PublishRequest) { q.HashFile = nil },
		"no origin":      func(q *api.PublishRequest) { q.Origins = nil },
		"plain origin":   func(q *api.PublishRequest) { q.Origins = []string{"http://dp"} },
		"origin's user":  func(q *api.PublishRequest) { q.Origins = []string{"https://a:b@dp"} },
		"origin's query": func(q *api.PublishRequest) { q.Origins = []string{"https://dp?sig=1"} },
		"origin twice":   func(q *api.PublishRequest) { q.Origins = []string{"https://dp", "https://dp/"} },
		"group's name":   func(q *api.PublishRequest) { q.Groups = []string{"A B"} },
		"replaces":       func(q *api.PublishRequest) { q.Replaces = "x" },
	} {
		q := sample(t, "tool", 1, "one")
		change(&q)
		_, err := admin.Publish(t.Context(), q)
		if err == nil {
			t.Errorf("%s: published", name)
			continue
		}
		f.wantProblem(err, "bad-request")
		if strings.Contains(err.Error(), "sig=1") || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: the error repeats what may be a secret: %v", name, err)
		}
	}
	q := sample(t, "tool", 1, "one")
	q.Groups = []string{"nobody"}
	_, err := admin.Publish(t.Context(), q)
	f.wantProblem(err, "unknown-group")
	if all, err := admin.Contents(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("contents %+v, %v; want none", all, err)
	}
}

func TestRevoke(t *testing.T) {
	f := startFleet(t)
	admin, m, good := f.with(identity.TokenAdmin), f.device(), f.device()
	if _, _, err := m.Bootstrap(t.Context()); err != nil { // keeps its connection
		t.Fatal(err)
	}
	id := m.creds.Name().Device
	f.want(admin.RevokeDevice(t.Context(), id.String()))
	_, err := m.ContentPolicy(t.Context(), content.Ref{ID: "tool"})
	f.wantProblem(err, "revoked")
	if _, err = f.client(client.Options{Credentials: m.creds}).ContentPolicy(t.Context(), content.Ref{ID: "tool"}); !errors.Is(err, client.ErrRefused) {
		t.Errorf("new connection: %v, want refused", err)
	}
	_, err = m.Renew(t.Context(), m.dir)
	f.wantProblem(err, "not-renewed")
	signed, tag, err := good.DenyList(t.Context(), "")
	f.want(err)
	l, err := identity.VerifyDenyList([]ed25519.PublicKey{f.s.public()}, signed)
	if err != nil || !l.Has(id) || l.Has(good.creds.Name().Device) {
		t.Errorf("deny list %+v, %v", l, err)
	}
	if again, _, err := good.DenyList(t.Context(), tag); err != nil || again != nil {
		t.Errorf("the same list came again (%v)", err)
	}
	_, kv, err := good.Bootstrap(t.Context())
	if err != nil || kv.DenyListVersion != l.Version {
		t.Errorf("version %d in KeyValue (%v), want %d", kv.DenyListVersion, err, l.Version)
	}
	f.wantProblem(admin.RevokeDevice(t.Context(), strings.Repeat("0", 32)), "unknown-device")
	f.wantProblem(admin.RevokeDevice(t.Context(), "pc"), "bad-request")
	devices, err := admin.Devices(t.Context())
	if err != nil || len(devices) != 2 {
		t.Errorf("devices %+v, %v; want two", devices, err)
	}
}

func TestRenew(t *testing.T) {
	f := startFleet(t)
	for _, m := range []*machine{f.device(), f.origin()} {
		before := m.creds.Name()
		e, err := m.Renew(t.Context(), m.dir)
		f.want(err)
		if m.creds.Name() != before || e.Device != before.Device.String() || e.Group != before.Group {
			t.Errorf("renewed as %v, %+v; want %v", m.creds.Name(), e, before)
		}
	}
	stranger, err := f.s.ca.IssueCredentials(identity.Name{Role: identity.RoleOrigin}) // never enrolled
	f.want(err)
	_, err = f.client(client.Options{Credentials: stranger}).Renew(t.Context(), t.TempDir())
	f.wantProblem(err, "not-renewed")
}

func TestReports(t *testing.T) {
	f := startFleet(t)
	m := f.device()
	send := func(size int64) {
		t.Helper()
		a := f.raw(m, "POST", "/v1/reports", nil, api.Reports{Reports: []api.Report{{Job: "j1", Size: size}, {Job: "j2"}}})
		if a.status != http.StatusNoContent {
			t.Fatalf("status %d %s", a.status, a.body)
		}
	}
	send(1)
	send(2)
	all, err := f.s.catalog.Reports(t.Context(), m.creds.Name().Device)
	f.want(err)
	if len(all) != 2 || !strings.Contains(string(all[0].Body), `"Size":1,`) {
		t.Errorf("reports %+v, want the first words of two jobs", all)
	}
	f.wantAnswer(f.raw(m, "POST", "/v1/reports", nil, api.Reports{Reports: []api.Report{{}}}), http.StatusBadRequest, "bad-request")
}

func TestAdministration(t *testing.T) {
	f := startFleet(t)
	admin := f.with(identity.TokenAdmin)
	add := func(name string, cidrs ...string) error {
		_, err := admin.AddSite(t.Context(), api.Site{Name: name, CIDRs: cidrs})
		return err
	}
	f.want(add("oslo", "10.1.2.3/16"))
	f.wantProblem(add("bergen", "10.1.0.0/16"), "exists")
	f.wantProblem(add("Oslo", "10.2.0.0/16"), "bad-request")
	f.wantProblem(add("oslo", "10.2.0.0"), "bad-request")
	sites, err := admin.Sites(t.Context())
	if err != nil || len(sites) != 1 || sites[0].CIDRs[0] != "10.1.0.0/16" {
		t.Errorf("sites %+v, %v; want oslo, masked", sites, err)
	}
	f.want(admin.RemoveSite(t.Context(), "oslo"))
	f.wantProblem(admin.RemoveSite(t.Context(), "oslo"), "unknown-site")

	_, err = admin.AddGroup(t.Context(), api.Group{Name: DefaultGroup})
	f.wantProblem(err, "exists")
	f.device()
	f.wantProblem(admin.RemoveGroup(t.Context(), DefaultGroup), "in-use")

	for name, q := range map[string]api.Token{
		"kind": {Kind: "root"}, "no group": {Kind: "join"}, "group of an admin": {Kind: "admin", Group: DefaultGroup},
		"past": {Kind: "admin", Expires: 1}, "counted admin": {Kind: "admin", Left: 2},
	} {
		if _, err := admin.AddToken(t.Context(), q); err == nil {
			t.Errorf("%s: made", name)
		} else {
			f.wantProblem(err, "bad-request")
		}
	}
	_, err = admin.AddToken(t.Context(), api.Token{Kind: "join", Group: "nobody"})
	f.wantProblem(err, "unknown-group")
	tokens, err := admin.Tokens(t.Context())
	if err != nil || len(tokens) != len(tokenKinds) {
		t.Fatalf("tokens %+v, %v", tokens, err)
	}
	for _, tok := range tokens {
		if tok.Text != "" {
			t.Errorf("token %s is listed with its secret", tok.ID)
		}
	}
	_, err = admin.SetSetting(t.Context(), api.Setting{Name: "DODownloadMode", Value: "1", Provider: "site"})
	f.wantProblem(err, "bad-request")
	_, err = admin.SetSetting(t.Context(), api.Setting{Name: "DODownloadMode", Value: "9"})
	f.wantProblem(err, "bad-request")
	f.wantProblem(admin.RemoveSetting(t.Context(), "DODownloadMode"), "unknown-setting")
}

// TestRestart goes on with the same fleet at another address.
func TestRestart(t *testing.T) {
	state := t.TempDir()
	first := startFleetIn(t, state, Options{Fleet: "acme"})
	m := first.device()
	before := first.token(identity.TokenAdmin)
	f := first.with(identity.TokenAdmin)
	join := first.token(identity.TokenJoin)
	first.want(f.RemoveToken(t.Context(), identity.HashSecret(join.Secret).ID()))
	if _, err := Open(t.Context(), Options{State: state, Listen: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "is a server running") {
		t.Errorf("a second server on the directory: %v", err)
	}
	first.stop()
	if _, err := Open(t.Context(), Options{State: state, Listen: "127.0.0.1:0", Fleet: "other"}); err == nil {
		t.Error("opened as another fleet")
	}

	second := startFleetIn(t, state, Options{Listen: "0.0.0.0:0", Advertise: "127.0.0.1"})
	after := second.token(identity.TokenAdmin)
	if after.Address != second.s.Address() || !strings.HasPrefix(after.Address, "127.0.0.1:") || string(after.Secret) != string(before.Secret) {
		t.Errorf("token for %q after %q, want the same secret for %q", after.Address, before.Address, second.s.Address())
	}
	if second.s.Fleet() != "acme" || after.CAFingerprint() != before.CAFingerprint() {
		t.Error("the restart made another fleet")
	}
	b, err := os.ReadFile(second.s.path(AddressFile))
	if err != nil || strings.TrimSpace(string(b)) != second.s.ln.Addr().String() {
		t.Errorf("%s holds %q, %v; want %s", AddressFile, b, err, second.s.ln.Addr())
	}
	tokens, err := second.with(identity.TokenAdmin).Tokens(t.Context())
	if err != nil || len(tokens) != len(tokenKinds)-1 {
		t.Errorf("tokens %+v, %v; want the removed one gone for good", tokens, err)
	}
	known := second.client(client.Options{Credentials: m.creds})
	if _, _, err := known.Bootstrap(t.Context()); err != nil {
		t.Errorf("a device of before: %v", err)
	}
	admins := identity.HashSecret(after.Secret).ID()
	second.want(second.with(identity.TokenAdmin).RemoveToken(t.Context(), admins))
	second.stop()
	third := startFleetIn(t, state, Options{})
	if _, err := third.with(identity.TokenAdmin).Groups(t.Context()); err != nil {
		t.Errorf("no way back in without an admin token: %v", err)
	}
}

func TestOwnCertificateIsRenewed(t *testing.T) {
	f := startFleet(t)
	before := f.s.self.Chain()[0]
	f.want(f.s.renew(time.Now()))
	if string(f.s.self.Chain()[0]) != string(before) {
		t.Error("renewed before its time")
	}
	f.want(f.s.renew(f.s.self.RenewAt()))
	if string(f.s.self.Chain()[0]) == string(before) {
		t.Error("not renewed at half its life")
	}
}

func TestMetrics(t *testing.T) {
	f := startFleet(t)
	_, err := f.with(identity.TokenAdmin).AddSite(t.Context(), api.Site{Name: "oslo", CIDRs: []string{"127.1.0.0/16"}})
	f.want(err)
	f.enrol(f.token(identity.TokenJoin), "127.1.0.1")
	a := f.raw(nil, "GET", "/metrics", nil, nil)
	if !strings.Contains(string(a.body), `freshet_wan_sent_bytes_total{site="oslo"} `) {
		t.Errorf("metrics:\n%s", a.body)
	}
}
