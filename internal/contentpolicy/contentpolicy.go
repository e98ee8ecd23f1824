// Package contentpolicy is the service that says what a content is now: its digests and
// generation, whether it may be peered, where metadata and bytes are, and a grant to read it
// (design section 3, step 2).
//
// A content that the caller's group may not read is answered exactly as one that does not
// exist. Without a version the newest that the group may read is meant, so that a version can
// be tried out by one group first.
package contentpolicy

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// InlineMax is the most bytes of manifest and raw hash file together that a reply carries.
const InlineMax = 16 << 10

// Quality-of-service numbers of contents that have none of their own; those of Delivery
// Optimization, but for the age, which is design section 9's.
const (
	ForegroundQosBps = 6_710_886 // bytes a second
	BackgroundQosBps = 2_621_440 // bytes a second
	MaxCacheAge      = 30 * 24 * time.Hour
)

// Contents is what this service asks of the catalog.
type Contents interface {
	Readable(ctx context.Context, ref content.Ref, group string) (catalog.Content, error)
}

// Files holds manifests and raw hash files by digest.
type Files interface {
	Manifest(ctx context.Context, digest content.Digest) ([]byte, error)
	HashFile(ctx context.Context, hashOfHashes content.Digest) ([]byte, error)
}

// Service answers GET /content/{contentId}/contentpolicy.
type Service struct {
	Contents Contents
	Files    Files
	Key      ed25519.PrivateKey // signs grants
	Metadata string             // base URL of the metadata host, without a slash at the end
	Now      func() time.Time
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ref, err := parseRef(r)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	name := authz.From(r.Context()).Name
	c, err := s.Contents.Readable(r.Context(), ref, name.Group)
	if errors.Is(err, catalog.ErrNotFound) {
		web.Problem(w, r, unknown(ref))
		return
	}
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	reply, err := s.reply(r.Context(), &c, name)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "private, no-store") // it carries a grant
	web.WriteJSON(w, reply)
}

// unknown is the problem of a content that there is not, or that is not for the caller.
func unknown(ref content.Ref) api.Problem {
	return api.Problem{
		Status: http.StatusNotFound, Type: "unknown-content",
		Title:  fmt.Sprintf("content %q is not published for this device's group", ref),
		Detail: "check id and version against \"freshet content list\", or publish it with \"freshet publish\"",
	}
}

func parseRef(r *http.Request) (content.Ref, error) {
	id, err := content.ParseID(r.PathValue("contentId"))
	if err != nil {
		return content.Ref{}, badRequest(err)
	}
	ref := content.Ref{ID: id}
	if v := r.URL.Query().Get("version"); v != "" && v != "0" {
		if ref.Version, err = content.ParseVersion(v); err != nil {
			return ref, badRequest(err)
		}
	}
	return ref, nil
}

func badRequest(err error) error {
	return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the content is not well named", Detail: err.Error()}
}

func (s *Service) reply(ctx context.Context, c *catalog.Content, name identity.Name) (*api.ContentPolicy, error) {
	p := &api.ContentPolicy{
		ContentId:      string(c.Ref.ID),
		Version:        c.Ref.Version,
		Generation:     c.Generation,
		ManifestDigest: c.ManifestDigest.String(),
		HashOfHashes:   c.HashOfHashes.Base64(),
		Size:           c.Size,
		Peerable:       c.Size > 0, // content without pieces joins no swarm
		Policies: api.Policies{
			ForegroundQosBps: ForegroundQosBps, BackgroundQosBps: BackgroundQosBps,
			MaxCacheAgeSecs: int64(MaxCacheAge / time.Second),
		},
		Grant: identity.SignGrant(s.Key, identity.Grant{
			Device: name.Device, Group: name.Group, Ref: c.Ref, Generation: c.Generation,
			Manifest: c.ManifestDigest, HashOfHashes: c.HashOfHashes, Expires: s.Now().Add(identity.GrantLife),
		}),
	}
	s.addresses(p, c)
	if c.MetadataSize > InlineMax {
		return p, nil
	}
	var err error
	if p.Manifest, err = s.Files.Manifest(ctx, c.ManifestDigest); err != nil {
		return nil, fmt.Errorf("contentpolicy: %q: %w", c.Ref, err)
	}
	if p.HashFile, err = s.Files.HashFile(ctx, c.HashOfHashes); err != nil {
		return nil, fmt.Errorf("contentpolicy: %q: %w", c.Ref, err)
	}
	return p, nil
}

// addresses fills in where metadata and bytes are: at the origins, then, metadata alone, here.
func (s *Service) addresses(p *api.ContentPolicy, c *catalog.Content) {
	bases := make([]string, 0, len(c.Origins)+1)
	for _, o := range c.Origins {
		bases = append(bases, o.URL)
		p.ContentCdnUrls = append(p.ContentCdnUrls, o.URL+"/bytes/"+p.ManifestDigest)
	}
	for _, b := range append(bases, s.Metadata) {
		p.ManifestUrls = append(p.ManifestUrls, b+"/metadata/"+p.ManifestDigest)
		p.PiecesHashFileCdnUrls = append(p.PiecesHashFileCdnUrls, b+"/pieceshash/"+c.HashOfHashes.String()+".bin")
	}
}
