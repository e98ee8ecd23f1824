package blob

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"freshet/internal/content"
	"freshet/internal/web"
)

// Metadata serves manifests and hash files, which never change under their names:
//
//	GET /metadata/{manifestDigest}      the manifest's bytes
//	GET /pieceshash/{hashOfHashes}      the hash file as DO's JSON
//	GET /pieceshash/{hashOfHashes}.bin  the hash file's raw form
//
// Digests are lower-case hex. A client that accepts the content coding zstd gets it where it
// spares something; the compressed form is made once.
type Metadata struct {
	Files *Files
	Coder *Coder

	// MayReadManifest and MayReadHashFile decide by certificate and grant, see Gate.
	MayReadManifest, MayReadHashFile func(*http.Request, content.Digest) bool

	// Length returns the bytes of the content with this HashOfHashes, for DO's JSON, or an
	// error that is fs.ErrNotExist.
	Length func(ctx context.Context, hashOfHashes content.Digest) (int64, error)
}

// ServeManifest serves the manifest that the path's manifestDigest names.
func (m *Metadata) ServeManifest(w http.ResponseWriter, r *http.Request) {
	d, err := content.ParseDigest(r.PathValue("manifestDigest"))
	if err != nil || !m.MayReadManifest(r, d) {
		NotFound(w, r)
		return
	}
	b, err := m.Files.Manifest(r.Context(), d)
	m.reply(w, r, document{d, d.String(), "application/json", b}, err)
}

// ServeHashFile serves the hash file that the path's hashOfHashes names, raw with .bin.
func (m *Metadata) ServeHashFile(w http.ResponseWriter, r *http.Request) {
	name, raw := strings.CutSuffix(r.PathValue("hashOfHashes"), ".bin")
	d, err := content.ParseDigest(name)
	if err != nil || !m.MayReadHashFile(r, d) {
		NotFound(w, r)
		return
	}
	b, err := m.Files.HashFile(r.Context(), d)
	doc := document{d, d.String(), "application/octet-stream", b}
	if err == nil && !raw {
		doc, err = m.hashFileJSON(r.Context(), d, b)
	}
	m.reply(w, r, doc, err)
}

func (m *Metadata) hashFileJSON(ctx context.Context, d content.Digest, raw []byte) (document, error) {
	n, err := m.Length(ctx, d)
	if err != nil {
		return document{}, err
	}
	h := content.HashFile{HashOfHashes: d, ContentLength: n, PieceSize: content.PieceSize}
	for at := 0; at < len(raw); at += len(d) {
		h.Pieces = append(h.Pieces, content.Digest(raw[at:]))
	}
	b := content.AppendHashFile(nil, &h)
	return document{content.DigestOf(b), d.String() + "-json", "application/json", b}, nil
}

// document is what goes out under a name that always means the same bytes.
type document struct {
	digest content.Digest // of b
	tag    string
	kind   string // media type
	b      []byte
}

func (m *Metadata) reply(w http.ResponseWriter, r *http.Request, d document, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		NotFound(w, r)
		return
	case err != nil:
		web.Fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", d.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "private, immutable, max-age=31536000")
	if acceptsZstd(r.Header) {
		if z := m.Coder.Zstd(d.digest, d.b); z != nil {
			h.Set("Content-Encoding", codingName)
			d.tag, d.b = d.tag+"-zstd", z
		}
	}
	h.Set("ETag", `"`+d.tag+`"`)
	if web.TagMatches(r.Header.Get("If-None-Match"), h.Get("ETag")) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(d.b)))
	w.Write(d.b) // the caller is gone when this fails
}

// acceptsZstd reports whether Accept-Encoding names zstd with a weight above zero.
func acceptsZstd(h http.Header) bool {
	for _, v := range h.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			coding, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(coding), codingName) {
				continue
			}
			weight, found := strings.CutPrefix(strings.TrimSpace(params), "q=")
			q, err := strconv.ParseFloat(weight, 64)
			return !found || err == nil && q > 0
		}
	}
	return false
}
