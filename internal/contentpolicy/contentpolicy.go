// Package contentpolicy is the service that says what a content is now: its digests and
// generation, whether it may be peered, where metadata and bytes are, and a grant to read it
// (design section 3, step 2).
//
// A content that the caller's group may not read is answered exactly as one that does not
// exist. Without a version the newest that the group may read is meant, so that a version can
// be tried out by one group first.
//
// A device that knows no id names a URL that the content is known by (altCatalogId, in DO's
// words) and any id: it is looked at when the id leads to nothing (see [catalog.Find]).
package contentpolicy

import (
	"context"
	"crypto/ed25519"
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

// Files holds manifests and raw hash files by digest.
type Files interface {
	Manifest(ctx context.Context, digest content.Digest) ([]byte, error)
	HashFile(ctx context.Context, hashOfHashes content.Digest) ([]byte, error)
}

// Service answers GET /content/{contentId}/contentpolicy.
type Service struct {
	Contents catalog.Finder
	Files    Files
	Key      ed25519.PrivateKey // signs grants
	Metadata string             // base URL of the metadata host, without a slash at the end
	Now      func() time.Time
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := authz.From(r.Context()).Name
	asked, err := parse(r, name.Group)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	c, err := catalog.Find(r.Context(), s.Contents, asked)
	if err != nil {
		web.Fail(w, r, asked.Problem(err))
		return
	}
	w.Header().Set("Cache-Control", "private, no-store") // it carries a grant
	web.WriteJSON(w, s.reply(r.Context(), &c, name))
}

// parse reads what is asked for.
func parse(r *http.Request, group string) (catalog.Asked, error) {
	q := r.URL.Query()
	a := catalog.Asked{ID: r.PathValue("contentId"), URL: q.Get("altCatalogId"), Group: group}
	if v := q.Get("version"); v != "" && v != "0" {
		var err error
		if a.Version, err = content.ParseVersion(v); err != nil {
			return a, a.Problem(fmt.Errorf("%w: %w", catalog.ErrBadName, err))
		}
	}
	return a, nil
}

func (s *Service) reply(ctx context.Context, c *catalog.Content, name identity.Name) *api.ContentPolicy {
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
		Signature: c.Signature,
	}
	s.addresses(p, c)
	if c.MetadataSize > InlineMax {
		return p
	}
	// What is lost or damaged here is left out: others have it too, and without a hash file a
	// device can do.
	if b, err := s.Files.Manifest(ctx, c.ManifestDigest); err == nil {
		p.Manifest = b
	}
	if b, err := s.Files.HashFile(ctx, c.HashOfHashes); err == nil {
		p.HashFile = b
	}
	return p
}

// addresses fills in where metadata and bytes are: at the origins, then, metadata alone, here.
func (s *Service) addresses(p *api.ContentPolicy, c *catalog.Content) {
	bases := make([]string, 0, len(c.Origins)+1)
	for _, o := range c.Origins {
		bases = append(bases, o.URL)
		p.ContentCdnUrls = append(p.ContentCdnUrls, o.URL+api.BytesPath(c.ManifestDigest))
	}
	for _, b := range append(bases, s.Metadata) {
		p.ManifestUrls = append(p.ManifestUrls, b+api.ManifestPath(c.ManifestDigest))
		p.PiecesHashFileCdnUrls = append(p.PiecesHashFileCdnUrls, b+api.HashFilePath(c.HashOfHashes))
	}
}
