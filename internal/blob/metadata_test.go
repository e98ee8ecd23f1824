package blob

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// fleet is a CA with a grant key, and a server's and a device's credentials.
type fleet struct {
	ca             *identity.CA
	key            ed25519.PrivateKey
	origin, device *identity.Credentials
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.GrantKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{ca: ca, key: key}
	f.origin = f.issue(t, identity.RoleOrigin, "", 1)
	f.device = f.issue(t, identity.RoleDevice, "staff", 2)
	return f
}

func (f *fleet) issue(t *testing.T, role identity.Role, group string, id byte) *identity.Credentials {
	t.Helper()
	c, err := f.ca.IssueCredentials(identity.Name{Fleet: "test", Role: role, Group: group, Device: wire.DeviceID{id}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fleet) keys() []ed25519.PublicKey {
	return []ed25519.PublicKey{f.key.Public().(ed25519.PublicKey)}
}

// grant returns the header value of a grant of device 2 for these digests.
func (f *fleet) grant(change func(*identity.Grant), key ed25519.PrivateKey) string {
	g := identity.Grant{Device: wire.DeviceID{2}, Group: "staff", Ref: testRef, Generation: 5,
		Manifest: content.Digest{1}, HashOfHashes: content.Digest{2}, Expires: time.Now().Add(time.Hour)}
	if change != nil {
		change(&g)
	}
	return base64.StdEncoding.EncodeToString(identity.SignGrant(key, g))
}

func (f *fleet) serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = f.origin.ServerConfig(identity.ServerOptions{Optional: true})
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// client calls as c, or without a certificate.
func (f *fleet) client(t *testing.T, c *identity.Credentials) *http.Client {
	t.Helper()
	cfg := f.device.ClientConfig(identity.RoleOrigin)
	cfg.GetClientCertificate, cfg.ClientSessionCache = nil, nil
	if c != nil {
		cfg = c.ClientConfig(identity.RoleOrigin)
	}
	tr := &http.Transport{TLSClientConfig: cfg, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func TestGate(t *testing.T) {
	f := newFleet(t)
	gate := &Gate{Keys: f.keys}
	srv := f.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := gate.Grant(r); !ok {
			NotFound(w, r)
		}
	}))
	_, wrongKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := f.grant(nil, f.key)
	tests := map[string]struct {
		who   *identity.Credentials
		grant string
		want  int
	}{
		"good":            {f.device, good, 200},
		"no grant":        {f.device, "", 404},
		"no base64":       {f.device, "%%%", 404},
		"no certificate":  {nil, good, 404},
		"another device":  {f.issue(t, identity.RoleDevice, "staff", 3), good, 404},
		"moved to guests": {f.issue(t, identity.RoleDevice, "guests", 2), good, 404},
		"another origin":  {f.issue(t, identity.RoleOrigin, "", 2), good, 404},
		"another key":     {f.device, f.grant(nil, wrongKey), 404},
		"expired":         {f.device, f.grant(func(g *identity.Grant) { g.Expires = time.Now().Add(-time.Minute) }, f.key), 404},
		"another group":   {f.device, f.grant(func(g *identity.Grant) { g.Group = "guests" }, f.key), 404},
	}
	for name, test := range tests {
		resp, _ := get(t, f.client(t, test.who), srv.URL, identity.GrantHeader, test.grant)
		if resp.StatusCode != test.want {
			t.Errorf("%s: status %d, want %d", name, resp.StatusCode, test.want)
		}
	}
	if _, ok := gate.Grant(httptest.NewRequest("GET", "/", nil)); ok {
		t.Error("a request without TLS was let through")
	}
}

// metadataServer serves one manifest and hash file, which compress well and not at all, to
// all who ask for them, and withholds one of each.
func metadataServer(t *testing.T) (url string, manifest, raw []byte, hidden content.Digest) {
	t.Helper()
	files, _ := openFiles(t)
	coder, err := NewCoder()
	if err != nil {
		t.Fatal(err)
	}
	manifest, raw = bytes.Repeat([]byte(`{"name":"a"},`), 4000), bytesOf(1, 32*500)
	if _, err := files.PutManifest(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := files.PutHashFile(raw); err != nil {
		t.Fatal(err)
	}
	if hidden, err = files.PutManifest([]byte("for others")); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	may := func(_ *http.Request, d content.Digest) bool { return d != hidden }
	m := &Metadata{
		Files: files, Coder: coder, MayReadManifest: may, MayReadHashFile: may,
		Length: func(_ context.Context, d content.Digest) (int64, error) {
			if d != content.DigestOf(raw) {
				return 0, fs.ErrNotExist
			}
			return 500 * content.PieceSize, nil
		},
	}
	mux.HandleFunc("GET /metadata/{manifestDigest}", m.ServeManifest)
	mux.HandleFunc("GET /pieceshash/{hashOfHashes}", m.ServeHashFile)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL, manifest, raw, hidden
}

func TestMetadata(t *testing.T) {
	url, manifest, raw, hidden := metadataServer(t)
	md, hd := content.DigestOf(manifest).String(), content.DigestOf(raw).String()
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}

	tests := map[string]struct {
		path, accept string
		status       int
		coding       string
		want         []byte
	}{
		"manifest":          {"/metadata/" + md, "", 200, "", manifest},
		"manifest zstd":     {"/metadata/" + md, "gzip, zstd;q=0.5", 200, "zstd", manifest},
		"manifest not zstd": {"/metadata/" + md, "gzip, zstd;q=0", 200, "", manifest},
		"raw":               {"/pieceshash/" + hd + ".bin", "", 200, "", raw},
		"raw zstd":          {"/pieceshash/" + hd + ".bin", "zstd", 200, "", raw}, // hashes do not compress
		"unknown":           {"/metadata/" + hd, "", 404, "", nil},
		"withheld":          {"/metadata/" + hidden.String(), "", 404, "", nil},
		"no digest":         {"/metadata/x", "", 404, "", nil},
		"upper case":        {"/pieceshash/" + "AB" + hd[2:], "", 404, "", nil},
	}
	for name, test := range tests {
		resp, b := get(t, c, url+test.path, "Accept-Encoding", test.accept)
		if resp.StatusCode != test.status || resp.Header.Get("Content-Encoding") != test.coding {
			t.Errorf("%s: status %d coding %q, want %d %q", name, resp.StatusCode, resp.Header.Get("Content-Encoding"), test.status, test.coding)
			continue
		}
		if test.coding == "zstd" {
			if len(b)*20 > len(manifest) {
				t.Errorf("%s: %d of %d bytes is poorly compressed", name, len(b), len(manifest))
			}
			if b, err = dec.DecodeAll(b, nil); err != nil {
				t.Fatal(err)
			}
		}
		if test.want != nil && !bytes.Equal(b, test.want) {
			t.Errorf("%s: other bytes", name)
		}
		if test.status != 200 {
			continue
		}
		tag := resp.Header.Get("ETag")
		if again, _ := get(t, c, url+test.path, "Accept-Encoding", test.accept, "If-None-Match", tag); again.StatusCode != 304 {
			t.Errorf("%s: status %d for what the client has under %s, want 304", name, again.StatusCode, tag)
		}
	}

	_, b := get(t, c, url+"/pieceshash/"+hd, "Accept-Encoding", "identity")
	h, err := content.ParseHashFile(b)
	if err != nil || h.ContentLength != 500*content.PieceSize || !bytes.Equal(content.AppendHashFileRaw(nil, h), raw) {
		t.Errorf("hash file as JSON: %v", err)
	}
	_, unknown := get(t, c, url+"/metadata/"+hd)
	_, withheld := get(t, c, url+"/metadata/"+hidden.String())
	if !bytes.Equal(unknown, withheld) {
		t.Errorf("unknown %q and withheld %q can be told apart", unknown, withheld)
	}
}

func TestCoderKeepsWithinBounds(t *testing.T) {
	c, err := NewCoder()
	if err != nil {
		t.Fatal(err)
	}
	half := func(seed uint64) []byte { return append(bytesOf(seed, 30<<20), make([]byte, 10<<20)...) }
	a, b, d := half(1), half(2), half(3)
	first := c.Zstd(content.DigestOf(a), a)
	if again := c.Zstd(content.DigestOf(a), nil); &again[0] != &first[0] {
		t.Error("it was compressed twice")
	}
	c.Zstd(content.DigestOf(b), b)
	c.Zstd(content.DigestOf(d), d)
	if c.size > coderHolds || c.used.Len() != 2 || len(c.by) != 2 {
		t.Errorf("%d bytes in %d forms are kept, want at most %d in 2", c.size, c.used.Len(), coderHolds)
	}
	if _, ok := c.by[content.DigestOf(a)]; ok {
		t.Error("the oldest form is still there")
	}
}

func TestUnchanged(t *testing.T) {
	_, m, _, dir := openTree(t, map[string][]byte{"a": {1}, "d/b": {2}})
	_, _, stamps, err := HashTree(t.Context(), dir, HashOptions{Ref: testRef})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := Unchanged(dir, m, stamps); !same || err != nil {
		t.Fatalf("untouched: got %v, %v", same, err)
	}
	extra := stamps
	extra = append(append([]Stamp(nil), extra[:1]...), Stamp{Size: 1})
	if same, _ := Unchanged(dir, m, extra); same {
		t.Error("another stamp was not seen")
	}
	root := openRoot(t, dir)
	if err := root.WriteFile("new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if same, _ := Unchanged(dir, m, stamps); same {
		t.Error("a new file was not seen")
	}
	if err := errors.Join(root.Remove("new"), root.Remove("a")); err != nil {
		t.Fatal(err)
	}
	if same, _ := Unchanged(dir, m, stamps); same {
		t.Error("a missing file was not seen")
	}
}
