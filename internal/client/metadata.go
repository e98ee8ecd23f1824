package client

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/content"
	"freshet/internal/identity"
)

const maxWindow = 8 << 20 // bytes of a zstd frame's window

// Manifest fetches a manifest and checks that it is the one that digest names. It returns
// what the manifest says, and its bytes.
func (c *Client) Manifest(ctx context.Context, url string, grant []byte, digest content.Digest) (*content.Manifest, []byte, error) {
	b, err := c.metadata(ctx, "manifest", url, grant, content.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	if got := content.DigestOf(b); got != digest {
		return nil, nil, fmt.Errorf("client: manifest from %q: its digest is %s, want %s", url, got, digest)
	}
	m, err := content.ParseManifest(b)
	if err != nil {
		return nil, nil, fmt.Errorf("client: manifest from %q: %w", url, err)
	}
	return m, b, nil
}

// HashFile fetches the raw hash file of a manifest and checks that it fits.
func (c *Client) HashFile(ctx context.Context, url string, grant []byte, m *content.Manifest) (*content.HashFile, error) {
	b, err := c.metadata(ctx, "hash file", url, grant, int64(m.Pieces())*int64(len(content.Digest{})))
	if err != nil {
		return nil, err
	}
	h, err := content.ParseHashFileRaw(b, m)
	if err != nil {
		return nil, fmt.Errorf("client: hash file from %q: %w", url, err)
	}
	return h, nil
}

func (c *Client) metadata(ctx context.Context, what, url string, grant []byte, limit int64) ([]byte, error) {
	h, err := c.httpFor(url)
	if err != nil {
		return nil, err
	}
	head := http.Header{"Accept-Encoding": {"zstd"}}
	if len(grant) > 0 {
		head.Set(identity.GrantHeader, base64.StdEncoding.EncodeToString(grant))
	}
	r, err := c.call(ctx, request{what: what, method: http.MethodGet, url: url, header: head, max: limit, again: true, wait: metadataTime, http: h})
	return r.body, err
}

// readBody reads a reply's body, decompressed, of at most limit bytes.
func readBody(res *http.Response, limit int64) ([]byte, error) {
	wire := &errorReader{r: res.Body}
	body, done, err := decoded(wire, res.Header.Get("Content-Encoding"))
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case wire.err != nil:
		return nil, fmt.Errorf("read the reply: %w", wire.err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errBadReply, err)
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("%w: it has more than %d bytes", errBadReply, limit)
	}
	return b, nil
}

// decoded returns what r holds under an encoding, and what frees it. A zstd decoder gives its
// output window by window, so its own limit is the window's.
func decoded(r io.Reader, encoding string) (io.Reader, func(), error) {
	switch encoding {
	case "", "identity":
		return r, func() {}, nil
	case "zstd":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: zstd: %w", errBadReply, err)
		}
		return d, d.Close, nil
	default:
		return nil, nil, fmt.Errorf("%w: content encoding %q was not asked for", errBadReply, encoding)
	}
}

// errorReader keeps the error of what it reads from, to tell it from a decoder's.
type errorReader struct {
	r   io.Reader
	err error // other than io.EOF
}

func (r *errorReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// withoutCertificate makes cfg show none, for the calls that an expired one would spoil.
func withoutCertificate(cfg *tls.Config) *tls.Config {
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	return cfg
}
