package services

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
)

func (f *fleet) lanKeys(m *machine) []api.LANKey {
	f.Helper()
	_, kv, err := m.Bootstrap(f.Context())
	f.want(err)
	return kv.LANKeys
}

// TestLANKeysStayInTheGroup: devices of one group get the same keys, all others other ones,
// origins none, and what comes next changes when a device was revoked.
func TestLANKeysStayInTheGroup(t *testing.T) {
	f := startFleet(t)
	a, b, other := f.device(), f.device(), f.deviceOf("field")
	keys := f.lanKeys(a)
	if len(keys) != 2 {
		t.Fatalf("%d keys, want the current and the next one", len(keys))
	}
	same := func(x, y api.LANKey) bool {
		return bytes.Equal(x.ID, y.ID) && bytes.Equal(x.Secret, y.Secret) && x.Starts == y.Starts
	}
	for i, k := range f.lanKeys(b) {
		if !same(k, keys[i]) {
			t.Errorf("key %d of another device of the group is another one", i)
		}
	}
	for _, k := range f.lanKeys(other) {
		for _, mine := range keys {
			if bytes.Equal(k.ID, mine.ID) || bytes.Equal(k.Secret, mine.Secret) {
				t.Error("a device of another group has a key of the group")
			}
		}
	}
	if k := f.lanKeys(f.origin()); len(k) != 0 {
		t.Errorf("an origin has %d keys", len(k))
	}
	f.want(f.with(identity.TokenAdmin).RevokeDevice(t.Context(), b.creds.Name().Device.String()))
	after := f.lanKeys(a)
	if len(after) != 2 || !same(after[0], keys[0]) || same(after[1], keys[1]) {
		t.Fatalf("after a revocation: %d keys, the current %v and the next %v as before", len(after), same(after[0], keys[0]), same(after[1], keys[1]))
	}
	if in := time.Until(time.Unix(after[1].Starts, 0)); in < 2*time.Minute || in > 3*time.Minute {
		t.Errorf("the new key begins in %v, want about three minutes", in)
	}
}

func TestLANPass(t *testing.T) {
	f := startFleet(t)
	m := f.device()
	s, err := m.Speaker(t.Context(), m.dir)
	f.want(err)
	p, err := identity.VerifyPass([]ed25519.PublicKey{f.s.public()}, s.Signed, time.Now(), false)
	if err != nil || !p.Fits(s.Public(), m.creds.Name()) {
		t.Errorf("got %+v, %v; want a pass of %s for its key", p, err, m.creds.Name())
	}
	if _, err := identity.LoadSpeaker(m.dir); err != nil {
		t.Error(err)
	}
	if a := f.raw(m, "POST", "/v1/lanpass", nil, api.LANPassRequest{Key: make([]byte, 31)}); a.status != 400 || a.problem().Type != "bad-request" {
		t.Errorf("a short key: %d %s", a.status, a.body)
	}
	if a := f.raw(f.origin(), "POST", "/v1/lanpass", nil, api.LANPassRequest{Key: s.Public()}); !a.refused() {
		t.Errorf("an origin: %d %s", a.status, a.body)
	}
	f.want(f.with(identity.TokenAdmin).RevokeDevice(t.Context(), m.creds.Name().Device.String()))
	expired, err := s.With(identity.SignPass(f.s.key, identity.Pass{Device: p.Device, Key: p.Key, Group: p.Group, Expires: time.Now()}))
	f.want(err)
	f.want(expired.Save(m.dir))
	if _, err := m.Speaker(t.Context(), m.dir); err == nil {
		t.Error("a revoked device has a new pass")
	}
}

// TestSettingsOfASite: they reach the devices of that site, after the fleet's, and no others.
func TestSettingsOfASite(t *testing.T) {
	f := startFleet(t)
	admin, here, there := f.with(identity.TokenAdmin), f.enrol(f.token(identity.TokenJoin), "127.0.0.1"), f.enrol(f.token(identity.TokenJoin), "127.1.0.1")
	for site, cidr := range map[string]string{"oslo": "127.0.0.0/16", "bergen": "127.1.0.0/16"} {
		_, err := admin.AddSite(t.Context(), api.Site{Name: site, CIDRs: []string{cidr}})
		f.want(err)
	}
	_, err := admin.SetSetting(t.Context(), api.Setting{Name: "lanDatagrams", Value: "true"})
	f.want(err)
	got, err := admin.SetSetting(t.Context(), api.Setting{Name: "lanDatagrams", Value: "false", Site: "oslo"})
	if want := (api.Setting{Name: "lanDatagrams", Value: "false", Provider: "site", Site: "oslo"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for m, want := range map[*machine]string{here: "fleet true, site false, ", there: "fleet true, "} {
		_, kv, err := m.Bootstrap(t.Context())
		f.want(err)
		said := ""
		for _, s := range kv.Settings {
			said += s.Provider + " " + s.Value + ", "
		}
		if said != want {
			t.Errorf("site %s: %q, want %q", kv.Site, said, want)
		}
	}
	if all, err := admin.Settings(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("listed %+v, %v; want both", all, err)
	}
	f.want(admin.RemoveSiteSetting(t.Context(), "oslo", "lanDatagrams"))
	f.wantProblem(admin.RemoveSiteSetting(t.Context(), "oslo", "lanDatagrams"), "unknown-setting")
}
