package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// testContent returns the manifest and raw hash file of one file of two pieces.
func testContent(t *testing.T) (m *content.Manifest, manifest, hashes []byte) {
	t.Helper()
	data := make([]byte, content.PieceSize+7)
	file := content.File{Name: "a.bin", Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	pieces := [][]content.Digest{{content.DigestOf(data[:content.PieceSize]), content.DigestOf(data[content.PieceSize:])}}
	m, h, err := content.BuildManifest(content.Ref{ID: "app", Version: 1}, []content.File{file}, pieces)
	if err != nil {
		t.Fatal(err)
	}
	return m, content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, h)
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll(b, nil)
}

// giver serves bytes by path, compressed under /z/, to those with the grant.
type giver struct {
	grant []byte
	files map[string][]byte
}

func (g *giver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(identity.GrantHeader) != base64.StdEncoding.EncodeToString(g.grant) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if len(r.URL.Path) > 3 && r.URL.Path[:3] == "/z/" {
		w.Header().Set("Content-Encoding", "zstd")
	}
	w.Write(g.files[r.URL.Path])
}

func TestMetadata(t *testing.T) {
	f := newFleet(t)
	m, manifest, hashes := testContent(t)
	digest := content.DigestOf(manifest)
	g := &giver{grant: []byte("granted"), files: map[string][]byte{
		"/m": manifest, "/z/m": compress(t, manifest), "/h": hashes, "/z/h": compress(t, hashes),
		"/z/bomb": compress(t, make([]byte, 1<<20)), "/z/junk": hashes, "/long": append(bytes.Clone(hashes), 0), "/short": hashes[:40],
		"/wrong": make([]byte, len(hashes)),
	}}
	origin := f.issue(t, identity.Name{Role: identity.RoleOrigin, Device: wire.DeviceID{5}})
	server, _ := listen(t, f.server, "127.0.0.1:0", g)
	dp, _ := listen(t, origin, "127.0.0.1:0", g)
	liar, _ := listen(t, f.device, "127.0.0.1:0", g)
	c := newClient(t, Options{Address: server, Credentials: f.device})

	for _, at := range []string{server, dp} {
		for _, path := range []string{"/m", "/z/m"} {
			got, raw, err := c.Manifest(t.Context(), "https://"+at+path, g.grant, digest)
			if err != nil || !bytes.Equal(raw, manifest) || got.HashOfHashes != m.HashOfHashes {
				t.Errorf("manifest from %s%s: %d bytes, %v", at, path, len(raw), err)
			}
		}
		for _, path := range []string{"/h", "/z/h"} {
			if h, err := c.HashFile(t.Context(), "https://"+at+path, g.grant, m); err != nil || len(h.Pieces) != 2 {
				t.Errorf("hash file from %s%s: %v, %v", at, path, h, err)
			}
		}
	}
	for path, want := range map[string]string{
		"/z/bomb": "more than 64 bytes", "/z/junk": "magic", "/long": "more than 64 bytes", "/short": "hash file", "/wrong": "hash file",
	} {
		_, err := c.HashFile(t.Context(), "https://"+dp+path, g.grant, m)
		t.Run(path, func(t *testing.T) { wantError(t, err, dp, want) })
	}
	_, _, err := c.Manifest(t.Context(), "https://"+dp+"/h", g.grant, digest)
	wantError(t, err, "digest", digest.String())
	_, _, err = c.Manifest(t.Context(), "https://"+dp+"/m", nil, digest)
	wantError(t, err, "403")
	_, _, err = c.Manifest(t.Context(), "https://"+liar+"/m", g.grant, digest)
	wantError(t, err, liar, "has not the role")
}
