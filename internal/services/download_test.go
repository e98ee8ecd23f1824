package services

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/contentpolicy"
	"freshet/internal/identity"
)

func clientOptions(t identity.Token) client.Options { return client.Options{Token: &t} }

func TestBootstrap(t *testing.T) {
	f := startFleet(t)
	admin := f.with(identity.TokenAdmin)
	_, err := admin.AddSite(t.Context(), api.Site{Name: "oslo", CIDRs: []string{"127.1.0.0/16"}})
	f.want(err)
	_, err = admin.SetSetting(t.Context(), api.Setting{Name: "DODownloadMode", Value: "2"})
	f.want(err)
	here, there := f.device(), f.enrol(f.token(identity.TokenJoin), "127.1.0.9")
	geo, kv, err := there.Bootstrap(t.Context())
	f.want(err)
	if geo.Site != "oslo" || geo.ExternalIpAddress != "127.1.0.9" || kv.Site != "oslo" || kv.Group != DefaultGroup {
		t.Errorf("geo %+v, keyvalue %+v; want site oslo", geo, kv)
	}
	want := api.Setting{Name: "DODownloadMode", Value: "2", Provider: "fleet"}
	if len(kv.Settings) != 1 || kv.Settings[0] != want {
		t.Errorf("settings %+v, want %+v", kv.Settings, want)
	}
	if geo, _, err = here.Bootstrap(t.Context()); err != nil || geo.Site != "127.0.0.1" {
		t.Errorf("site %q, %v; want the address", geo.Site, err)
	}
	first := f.raw(here, "GET", "/all", nil, nil)
	tag := http.Header{"If-None-Match": {first.header.Get("ETag")}}
	if a := f.raw(here, "GET", "/all", tag, nil); a.status != http.StatusNotModified {
		t.Errorf("status %d with the tag, want 304", a.status)
	}
	f.want(admin.RemoveSetting(t.Context(), "DODownloadMode"))
	if a := f.raw(here, "GET", "/all", tag, nil); a.status != http.StatusOK {
		t.Errorf("status %d after a change, want 200", a.status)
	}
}

func TestContentPolicy(t *testing.T) {
	f := startFleet(t)
	device := f.device()
	q := sample(t, "tool", 1, "one")
	c := f.publish(q)
	p, err := device.ContentPolicy(t.Context(), content.Ref{ID: "tool"})
	f.want(err)
	hoh, err := content.ParseDigestBase64(c.HashOfHashes)
	f.want(err)
	switch {
	case p.Generation != c.Generation || p.ManifestDigest != c.ManifestDigest || p.Version != 1 || p.Size != 3 || !p.Peerable:
		t.Errorf("policy %+v, want %+v", p, c)
	case !bytes.Equal(p.Manifest, q.Manifest) || !bytes.Equal(p.HashFile, q.HashFile):
		t.Error("manifest and hash file are not inline")
	case fmt.Sprint(p.ContentCdnUrls) != "[https://dp.example:7681/bytes/"+c.ManifestDigest+"]":
		t.Errorf("bytes at %q", p.ContentCdnUrls)
	case fmt.Sprint(p.ManifestUrls) != fmt.Sprintf("[https://dp.example:7681/metadata/%s https://%s/metadata/%[1]s]", c.ManifestDigest, f.s.Address()):
		t.Errorf("manifest at %q", p.ManifestUrls)
	case fmt.Sprint(p.PiecesHashFileCdnUrls) != fmt.Sprintf("[https://dp.example:7681/pieceshash/%s.bin https://%s/pieceshash/%[1]s.bin]", hoh, f.s.Address()):
		t.Errorf("hash file at %q", p.PiecesHashFileCdnUrls)
	}
	g, err := identity.VerifyGrant([]ed25519.PublicKey{f.s.public()}, p.Grant, f.s.self.Expires().Add(-identity.CertificateLife), false)
	f.want(err)
	name := device.creds.Name()
	if g.Device != name.Device || g.Group != DefaultGroup || g.Ref.String() != "tool@1" || g.Manifest.String() != c.ManifestDigest || g.HashOfHashes != hoh || g.Generation != c.Generation {
		t.Errorf("grant %+v", g)
	}
	big := sampleOf(t, content.Ref{ID: "big", Version: 1}, make([]string, contentpolicy.InlineMax/100)...)
	f.publish(big)
	if p, err = device.ContentPolicy(t.Context(), content.Ref{ID: "big"}); err != nil || p.Manifest != nil || p.HashFile != nil {
		t.Errorf("a big hash file is inline (%v)", err)
	}
}

// TestOtherGroup: a content of another group looks exactly as one that does not exist.
func TestOtherGroup(t *testing.T) {
	f := startFleet(t)
	outsider := f.deviceOf("office")
	q := sample(t, "secret", 1, "one")
	q.Groups = []string{DefaultGroup}
	f.publish(q)
	newer := sample(t, "secret", 2, "two")
	newer.Groups = []string{"office"}
	f.publish(newer)
	device := f.device()
	if p, err := device.ContentPolicy(t.Context(), content.Ref{ID: "secret"}); err != nil || p.Version != 1 {
		t.Errorf("the group's newest: %+v, %v; want version 1", p, err)
	}
	ask := func(id string) answer {
		return f.raw(outsider, "GET", "/content/"+id+"/contentpolicy?version=1", nil, nil)
	}
	there, not := ask("secret"), ask("absent")
	if there.status != http.StatusNotFound || there.problem().Type != "unknown-content" || there.problem().Detail == "" {
		t.Errorf("status %d %s, want unknown-content with a remedy", there.status, there.body)
	}
	if !bytes.Equal(bytes.ReplaceAll(there.body, []byte("secret"), []byte("absent")), not.body) {
		t.Errorf("replies differ:\n%s\n%s", there.body, not.body)
	}
	there.header.Del("Date")
	not.header.Del("Date")
	if fmt.Sprint(there.header) != fmt.Sprint(not.header) {
		t.Errorf("headers differ:\n%s\n%s", there.header, not.header)
	}
}

func TestMetadata(t *testing.T) {
	f := startFleet(t)
	device, other := f.device(), f.device()
	q := sample(t, "tool", 1, "one")
	f.publish(q)
	f.publish(sample(t, "else", 1, "two"))
	p, err := device.ContentPolicy(t.Context(), content.Ref{ID: "tool", Version: 1})
	f.want(err)
	wrong, err := device.ContentPolicy(t.Context(), content.Ref{ID: "else", Version: 1})
	f.want(err)
	_, _, err = device.Bootstrap(t.Context())
	f.want(err)
	digest, err := content.ParseDigest(p.ManifestDigest)
	f.want(err)
	m, b, err := device.Manifest(t.Context(), p.ManifestUrls[1], p.Grant, digest)
	if err != nil || !bytes.Equal(b, q.Manifest) {
		t.Fatalf("manifest %q, %v", b, err)
	}
	if _, err := device.HashFile(t.Context(), p.PiecesHashFileCdnUrls[1], p.Grant, m); err != nil {
		t.Error(err)
	}
	path := "/pieceshash/" + m.HashOfHashes.String()
	grant := func(g []byte) http.Header {
		return http.Header{identity.GrantHeader: {base64.StdEncoding.EncodeToString(g)}}
	}
	a := f.raw(device, "GET", path, grant(p.Grant), nil)
	if h, err := content.ParseHashFile(a.body); err != nil || h.HashOfHashes != m.HashOfHashes || h.ContentLength != 3 {
		t.Errorf("hash file as JSON: %s, %v", a.body, err)
	}
	if c := a.header.Get("Cache-Control"); !strings.Contains(c, "immutable") {
		t.Errorf("Cache-Control %q, want immutable", c)
	}
	for name, a := range map[string]answer{
		"no grant":         f.raw(device, "GET", path, nil, nil),
		"another device":   f.raw(other, "GET", path, grant(p.Grant), nil),
		"another content":  f.raw(device, "GET", path, grant(wrong.Grant), nil),
		"altered":          f.raw(device, "GET", path, grant(append([]byte{p.Grant[0] ^ 1}, p.Grant[1:]...)), nil),
		"manifest, other":  f.raw(device, "GET", "/metadata/"+p.ManifestDigest, grant(wrong.Grant), nil),
		"manifest, absent": f.raw(device, "GET", "/metadata/"+strings.Repeat("0", 64), grant(p.Grant), nil),
	} {
		if a.status != http.StatusNotFound {
			t.Errorf("%s: status %d %s, want 404", name, a.status, a.body)
		}
	}
}

// joining returns device's join of these bytes, half-way, mode 1.
func joining(m *machine, body string) api.JoinRequest {
	hoh := content.HashOfHashes([]content.Digest{content.DigestOf([]byte(body))})
	return api.JoinRequest{
		ContentId: "tool", Version: 1, HashOfHashes: hoh.Base64(), PeerId: m.peerID(), Port: 7680, Scope: 1, Left: 1, WantLease: true,
	}
}

// TestArrayStalled: beside a complete device the lease is for one that gets nothing of it.
func TestArrayStalled(t *testing.T) {
	f := startFleet(t)
	a, b := f.device(), f.device()
	f.publish(sample(t, "tool", 1, "one"))
	arrays, err := a.Discovery(t.Context(), "tool", content.DigestOf(nil))
	f.want(err)
	at := arrays[0].CollectiveArray
	done := joining(a, "one")
	done.Left = 0
	_, err = a.Join(t.Context(), at, done)
	f.want(err)
	for _, stalled := range []bool{false, true} {
		q := joining(b, "one")
		q.Stalled = stalled
		r, err := b.Join(t.Context(), at, q)
		f.want(err)
		if r.Lease.Mine != stalled || len(r.Peers) != 1 {
			t.Errorf("stalled %v: %+v, want the lease: %v", stalled, r, stalled)
		}
	}
}

func TestArray(t *testing.T) {
	f := startFleet(t)
	for site, cidr := range map[string]string{"oslo": "127.1.0.0/16", "bergen": "127.2.0.0/16"} {
		_, err := f.with(identity.TokenAdmin).AddSite(t.Context(), api.Site{Name: site, CIDRs: []string{cidr}})
		f.want(err)
	}
	c := f.publish(sample(t, "tool", 1, "one"))
	outsider := f.deviceOf("office")
	join := f.token(identity.TokenJoin)
	a, b, far := f.enrol(join, "127.1.0.1"), f.enrol(join, "127.1.0.2"), f.enrol(join, "127.2.0.1")
	arrays, err := a.Discovery(t.Context(), "tool", content.DigestOf(nil))
	f.want(err)
	at := arrays[0].CollectiveArray

	first, err := a.Join(t.Context(), at, joining(a, "one"))
	f.want(err)
	if !first.Lease.Mine || first.Lease.Holder != a.peerID() || first.Generation != c.Generation || len(first.Peers) != 0 || first.NextMillis != 3000 {
		t.Errorf("first join: %+v", first)
	}
	q := joining(b, "one")
	q.ReportedIp = "127.1.7.7"
	second, err := b.Join(t.Context(), at, q)
	f.want(err)
	want := api.Peer{PeerId: a.peerID(), Address: "127.1.0.1:7680", Type: "LAN", Left: 1}
	if second.Lease.Mine || second.Lease.Holder != a.peerID() || len(second.Peers) != 1 || second.Peers[0] != want {
		t.Errorf("second join: %+v, want peer %+v", second, want)
	}
	q = joining(far, "one")
	q.Scope, q.ReportedIp = 2, "127.1.0.1" // another site's address
	away, err := far.Join(t.Context(), at, q)
	f.want(err)
	if !away.Lease.Mine || len(away.Peers) != 0 {
		t.Errorf("join at another site: %+v, want a lease of its own and no peers of mode 1", away)
	}
	q = joining(a, "one")
	q.Scope = 3
	if first, err = a.Join(t.Context(), at, q); err != nil || len(first.Peers) != 2 {
		t.Fatalf("peers %+v, %v; want two", first.Peers, err)
	}
	for _, p := range first.Peers {
		want := map[string]string{b.peerID(): "127.1.7.7:7680 LAN", far.peerID(): "127.2.0.1:7680 Group"}[p.PeerId]
		if got := p.Address + " " + p.Type; got != want {
			t.Errorf("peer %s, want %s", got, want)
		}
	}
	none, err := outsider.Join(t.Context(), at, joining(outsider, "one"))
	if err != nil || len(none.Peers) != 0 || !none.Lease.Mine {
		t.Errorf("join of another group: %+v, %v", none, err)
	}
	f.want(a.Leave(t.Context(), at, api.LeaveRequest{HashOfHashes: q.HashOfHashes, PeerId: a.peerID()}))
	if second, err = b.Join(t.Context(), at, joining(b, "one")); err != nil || !second.Lease.Mine || second.Lease.Epoch <= first.Lease.Epoch {
		t.Errorf("after the holder left: %+v, %v; want the lease", second, err)
	}
}

func TestArrayRefuses(t *testing.T) {
	f := startFleet(t)
	m := f.device()
	at := "https://" + f.s.Address() + "/"
	for name, change := range map[string]func(*api.JoinRequest){
		"another device's id": func(q *api.JoinRequest) { q.PeerId = strings.Repeat("0", 40) },
		"no HashOfHashes":     func(q *api.JoinRequest) { q.HashOfHashes = "" },
		"port 0":              func(q *api.JoinRequest) { q.Port = 0 },
		"port 65536":          func(q *api.JoinRequest) { q.Port = 65536 },
		"negative":            func(q *api.JoinRequest) { q.Left = -1 },
		"no address":          func(q *api.JoinRequest) { q.ReportedIp = "here" },
	} {
		q := joining(m, "one")
		change(&q)
		_, err := m.Join(t.Context(), at, q)
		if err == nil {
			t.Errorf("%s: joined", name)
			continue
		}
		f.wantProblem(err, "bad-request")
		many := api.JoinRequest{Contents: []api.JoinRequest{q, joining(m, "two")}}
		r, err := m.Join(t.Context(), at, many)
		if err != nil || len(r.Replies) != 2 || r.Replies[0].Error == nil || r.Replies[1].Error != nil || !r.Replies[1].Lease.Mine || r.NextMillis != 3000 {
			t.Errorf("%s: of two: %+v, %v; want the second alone joined", name, r, err)
		}
	}
	f.wantProblem(m.Leave(t.Context(), at, api.LeaveRequest{HashOfHashes: "x", PeerId: m.peerID()}), "bad-request")
}
