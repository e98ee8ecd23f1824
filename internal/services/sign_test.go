package services

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/policy"
)

// signer is a publisher whose key the fleet pins for contents that begin with "tool".
type signer struct {
	f   *fleet
	key minisign.PrivateKey
}

func (f *fleet) signer() signer {
	f.Helper()
	public, key, err := minisign.GenerateKey(nil)
	f.want(err)
	_, err = f.with(identity.TokenAdmin).SetSetting(f.Context(), api.Setting{Name: "publisherKeys", Value: "tool*=" + public.String()})
	f.want(err)
	return signer{f, key}
}

// sign signs the manifest of q under this generation, for all groups.
func (s signer) sign(q api.PublishRequest, generation int64, expires time.Time) api.PublishRequest {
	s.f.Helper()
	sig, err := identity.SignFor(s.key, q.Manifest, identity.Terms{Generation: generation, Groups: []string{identity.AllGroups}, Expires: expires})
	s.f.want(err)
	q.Signature = sig
	return q
}

func TestSignedPublishing(t *testing.T) {
	f := startFleet(t)
	unpinned := f.signer()
	s := f.signer() // in its place
	admin := bearer(f.token(identity.TokenAdmin))
	post := func(q api.PublishRequest) answer { return f.raw(nil, "POST", "/v1/contents", admin, q) }
	now, later := time.Now().Unix(), time.Now().Add(time.Hour)
	one := sample(t, "tools", 1, "one")
	f.wantAnswer(post(one), http.StatusForbidden, "unsigned")
	f.wantAnswer(post(unpinned.sign(one, now, later)), http.StatusForbidden, "unsigned")
	f.wantAnswer(post(s.sign(one, now, time.Now().Add(-time.Hour))), http.StatusForbidden, "unsigned")
	f.wantAnswer(post(s.sign(one, now+7*24*3600, later)), http.StatusBadRequest, "bad-request")
	mixed := s.sign(one, now, later)
	mixed.Manifest = sample(t, "tools", 2, "one").Manifest
	f.wantAnswer(post(mixed), http.StatusForbidden, "unsigned")
	narrow := s.sign(one, now, later)
	narrow.Groups = []string{DefaultGroup}
	f.wantAnswer(post(narrow), http.StatusBadRequest, "bad-request") // signed for all groups
	signed := s.sign(one, now+100, later)
	f.wantAnswer(post(signed), http.StatusOK, "")
	f.wantAnswer(post(one), http.StatusOK, "") // the same bytes: the catalog has the signature
	narrow.Signature = nil
	f.wantAnswer(post(narrow), http.StatusBadRequest, "bad-request")
	f.wantAnswer(post(s.sign(sample(t, "tools", 1, "two"), now+100, later)), http.StatusConflict, "older-generation")
	f.wantAnswer(post(sample(t, "other", 1, "one")), http.StatusOK, "") // nothing is pinned for it

	p, err := f.device().ContentPolicy(t.Context(), content.Ref{ID: "tools"})
	f.want(err)
	if string(p.Signature) != string(signed.Signature) || p.Generation != now+100 {
		t.Errorf("generation %d, signature %q; want %d, %q", p.Generation, p.Signature, now+100, signed.Signature)
	}
	device := f.device()
	c := device
	p, err = c.ContentPolicy(t.Context(), content.Ref{ID: "tools"})
	f.want(err)
	_, b, err := c.Manifest(t.Context(), p.ManifestUrls[len(p.ManifestUrls)-1], p.Grant, content.DigestOf(one.Manifest))
	f.want(err)
	settings, err := policy.Resolve(policy.Layer{Provider: policy.Fleet, Entries: f.fleetSettings()})
	f.want(err)
	terms, ok, err := identity.PublishersOf(settings).VerifyFor(identity.Reader{Group: device.creds.Name().Group, Now: time.Now()},
		identity.Signed{ID: "tools", Manifest: b, Signature: p.Signature})
	if err != nil || !ok || terms.Generation != now+100 {
		t.Errorf("the device's own check: %v, %v, %v", terms, ok, err)
	}

	_, err = f.with(identity.TokenAdmin).SetSetting(t.Context(), api.Setting{Name: "requireSignature", Value: "true"})
	f.want(err)
	f.wantAnswer(post(sample(t, "other", 2, "one")), http.StatusForbidden, "unsigned")
}

// fleetSettings returns the settings as a device gets them.
func (f *fleet) fleetSettings() []policy.Entry {
	f.Helper()
	_, kv, err := f.device().Bootstrap(f.Context())
	f.want(err)
	var out []policy.Entry
	for _, s := range kv.Settings {
		out = append(out, policy.Entry{Name: s.Name, Value: s.Value})
	}
	return out
}

// TestOriginRenewsItsOwn: a distribution point changes what it registered itself, by
// compare-and-set, and nothing that was published.
func TestOriginRenewsItsOwn(t *testing.T) {
	f := startFleet(t)
	dp := f.origin()
	one, two, three := sample(t, "tool", 1, "one"), sample(t, "tool", 1, "two"), sample(t, "tool", 1, "three")
	f.wantAnswer(f.register(dp, one, nil), http.StatusOK, "")
	two.Replaces = content.DigestOf(one.Manifest).String()
	f.wantAnswer(f.register(dp, two, nil), http.StatusOK, "")
	f.wantAnswer(f.register(dp, two, nil), http.StatusConflict, "changed")
	f.wantAnswer(f.register(dp, three, f.ticket(api.TicketRequest{ContentId: "tool", Version: 1})), http.StatusOK, "")
	one.Replaces = content.DigestOf(three.Manifest).String()
	f.wantAnswer(f.register(dp, one, nil), http.StatusForbidden, "not-owner")
	f.wantAnswer(f.register(dp, three, nil), http.StatusOK, "") // it holds the same
}

// TestExpectedDiffers: what a device says is kept until the content is another.
func TestExpectedDiffers(t *testing.T) {
	f := startFleet(t)
	one := sample(t, "tool", 1, "one")
	f.publish(one)
	device := f.device()
	c := device
	_, _, err := c.Bootstrap(t.Context())
	f.want(err)
	d := api.Differs{Version: 1, ManifestDigest: content.DigestOf(one.Manifest).String(), MetadataHash: content.Digest{7}.String(), Summary: "1 changed"}
	f.want(c.ReportDiffers(t.Context(), "tool", d))
	f.want(c.ReportDiffers(t.Context(), "tool", api.Differs{Version: 1, ManifestDigest: content.Digest{1}.String()})) // of the past
	got, err := f.with(identity.TokenPublish).Differs(t.Context(), content.Ref{ID: "tool", Version: 1})
	f.want(err)
	if len(got) != 1 || got[0].Summary != "1 changed" || got[0].Device != device.creds.Name().Device.String() || got[0].MetadataHash != d.MetadataHash {
		t.Errorf("got %+v", got)
	}
	all, err := f.with(identity.TokenAdmin).Contents(t.Context())
	f.want(err)
	if len(all) != 1 || all[0].Differs != 1 {
		t.Errorf("listed %+v, want one device that expects other files", all)
	}
	for name, bad := range map[string]api.Differs{
		"no version":     {ManifestDigest: d.ManifestDigest},
		"no digest":      {Version: 1},
		"bad hash":       {Version: 1, ManifestDigest: d.ManifestDigest, MetadataHash: "00"},
		"two lines":      {Version: 1, ManifestDigest: d.ManifestDigest, Summary: "a\nb"},
		"a long summary": {Version: 1, ManifestDigest: d.ManifestDigest, Summary: strings.Repeat("a", 2000)},
	} {
		if err := c.ReportDiffers(t.Context(), "tool", bad); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	f.wantProblem(c.ReportDiffers(t.Context(), "none", d), "unknown-content")
	f.publish(sample(t, "tool", 1, "two"))
	got, err = f.with(identity.TokenPublish).Differs(t.Context(), content.Ref{ID: "tool", Version: 1})
	f.want(err)
	if len(got) != 0 {
		t.Errorf("after a re-issue: %+v", got)
	}
}
