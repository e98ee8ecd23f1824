package admin

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Limits of a publication.
const (
	maxRaw         = content.MaxPieces * len(content.Digest{}) // bytes of a raw hash file
	maxPublication = (content.MaxManifest+maxRaw)/3*4 + 1<<20  // bytes of the JSON
	maxOrigins     = 16
)

// ListContents answers GET /v1/contents.
func (s *Service) ListContents(w http.ResponseWriter, r *http.Request) {
	all, err := s.Contents.Contents(r.Context())
	v, err := listed(all, err, func(c *catalog.Content) api.Content { return showContent(c) })
	reply(w, r, v, err)
}

func showContent(c *catalog.Content) api.Content {
	out := api.Content{
		ContentId: string(c.Ref.ID), Version: c.Ref.Version, Generation: c.Generation,
		ManifestDigest: c.ManifestDigest.String(), HashOfHashes: c.HashOfHashes.Base64(),
		Size: c.Size, Files: c.Files, Groups: append([]string{}, c.Groups...), Origins: []string{},
		URLs: append([]string{}, c.URLs...), Published: c.Published.Unix(),
		Signed: len(c.Signature) > 0, Differs: c.Differs,
	}
	for _, o := range c.Origins {
		out.Origins = append(out.Origins, o.URL)
	}
	return out
}

// Recall answers DELETE /v1/contents/{name}, a name being ID@VERSION.
func (s *Service) Recall(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	ref, err := parseVersioned(name)
	if err != nil {
		reply(w, r, nil, err)
		return
	}
	if err = s.Contents.Recall(r.Context(), ref, s.Now()); err == nil {
		s.Log.Info("recalled", "content", ref.String())
	}
	reply(w, r, nil, problemOf(err, "content", name))
}

// Publish answers POST /v1/contents. Three may do it:
//
//   - an administrator or publisher by token, for any content and groups;
//   - a distribution point with a ticket that such a token bought: for the ticket's content
//     and groups;
//   - a distribution point for itself: a content that is new, or that it is a current origin
//     of, whose groups then stay; other bytes only for what it registered itself, and nothing
//     that was recalled.
//
// In all cases the manifest must be well formed, and the hash file be the manifest's. Where the
// fleet pins a publisher's key for the content, the manifest must be signed.
func (s *Service) Publish(w http.ResponseWriter, r *http.Request) {
	var q api.PublishRequest
	if err := web.ReadJSON(w, r, int64(maxPublication), &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	out, err := s.publish(r.Context(), authz.From(r.Context()), r.Header.Get(identity.TicketHeader), &q)
	reply(w, r, out, err)
}

func (s *Service) publish(ctx context.Context, by authz.Caller, ticket string, q *api.PublishRequest) (*api.Content, error) {
	p, err := s.publication(by.Name.Device, q)
	if err != nil {
		return nil, err
	}
	if by.Token == "" {
		if err := s.restrict(&p, by.Name.Device, ticket); err != nil {
			return nil, err
		}
	}
	if err := s.checkGroups(ctx, p.Content.Groups); err != nil {
		return nil, err
	}
	if err := s.sign(ctx, &p, q); err != nil {
		return nil, err
	}
	if _, err := s.Files.PutManifest(q.Manifest); err != nil {
		return nil, err
	}
	if _, err := s.Files.PutHashFile(q.HashFile); err != nil {
		return nil, err
	}
	c, err := s.Contents.Publish(ctx, p, s.Now())
	if err != nil {
		return nil, publishProblem(err, p.Content.Ref)
	}
	s.Log.Info("published", "content", c.Ref.String(), "manifest", c.ManifestDigest.Short(), "generation", c.Generation,
		"size", c.Size, "origins", q.Origins, "groups", c.Groups, "origin", by.Name.Device, "token", by.Token)
	out := showContent(&c)
	out.Signature = c.Signature // a distribution point may have got the bytes alone
	return &out, nil
}

// publication checks manifest, hash file and origins.
func (s *Service) publication(device wire.DeviceID, q *api.PublishRequest) (catalog.Publication, error) {
	m, err := content.ParseManifest(q.Manifest)
	if err != nil {
		return catalog.Publication{}, badRequest("the manifest is not well formed", err)
	}
	if _, err := content.ParseHashFileRaw(q.HashFile, m); err != nil {
		return catalog.Publication{}, badRequest("the hash file is not the manifest's", err)
	}
	p := catalog.Publication{Content: catalog.Content{
		Ref: m.Ref, ManifestDigest: content.DigestOf(q.Manifest), HashOfHashes: m.HashOfHashes,
		Size: m.Size, Files: len(m.Files), MetadataSize: int64(len(q.Manifest) + len(q.HashFile)), Groups: q.Groups,
	}}
	if p.Content.Origins, err = originsOf(device, q.Origins); err != nil {
		return p, badRequest("the origins are not good", err)
	}
	if q.Replaces != "" {
		if p.Replaces, err = content.ParseDigest(q.Replaces); err != nil {
			return p, badRequest("the digest to replace is not well formed", err)
		}
	}
	return p, nil
}

func originsOf(device wire.DeviceID, urls []string) ([]catalog.Origin, error) {
	if len(urls) == 0 || len(urls) > maxOrigins {
		return nil, fmt.Errorf("%d origins, want 1 to %d", len(urls), maxOrigins)
	}
	out := make([]catalog.Origin, 0, len(urls))
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("an origin is not of the form https://HOST:PORT") // it may hold a secret
		}
		base := strings.TrimRight(text, "/")
		for _, o := range out {
			if o.URL == base {
				return nil, fmt.Errorf("origin %q is there twice", base)
			}
		}
		out = append(out, catalog.Origin{URL: base, Device: device})
	}
	return out, nil
}

// restrict holds a distribution point's publication to its ticket, or to what is its own.
func (s *Service) restrict(p *catalog.Publication, device wire.DeviceID, header string) error {
	if header == "" {
		p.OwnedBy = device
		return nil
	}
	bad := func(why string) error {
		return &api.Problem{Status: http.StatusForbidden, Type: "bad-ticket", Title: "the ticket does not allow this publication", Detail: why}
	}
	signed, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return bad("it is not base64")
	}
	t, err := identity.VerifyTicket([]ed25519.PublicKey{s.Key.Public().(ed25519.PublicKey)}, signed, s.Now())
	switch {
	case err != nil:
		return bad(err.Error())
	case !t.Origin.IsZero() && t.Origin != device:
		return bad("it is for another distribution point")
	case t.Ref != p.Content.Ref:
		return bad(fmt.Sprintf("it is for %q, not for %q", t.Ref, p.Content.Ref))
	}
	p.Content.Groups = t.Groups
	p.Ticket = catalog.Ticket{Nonce: t.Nonce, Expires: t.Expires}
	return nil
}

func publishProblem(err error, ref content.Ref) error {
	switch {
	case errors.Is(err, catalog.ErrChanged):
		return &api.Problem{Status: http.StatusConflict, Type: "changed", Title: fmt.Sprintf("content %q has changed meanwhile", ref), Detail: err.Error()}
	case errors.Is(err, catalog.ErrNotOwner):
		return &api.Problem{Status: http.StatusForbidden, Type: "not-owner", Title: fmt.Sprintf("content %q has other origins", ref),
			Detail: "publish it there with \"freshet publish\" and the server's publish.token"}
	case errors.Is(err, catalog.ErrRecalled):
		return &api.Problem{Status: http.StatusConflict, Type: "recalled", Title: fmt.Sprintf("content %q was recalled", ref),
			Detail: "remove its directory from the distribution point, or have it again with \"freshet publish --in-place\""}
	case errors.Is(err, catalog.ErrUsed):
		return &api.Problem{Status: http.StatusForbidden, Type: "bad-ticket", Title: "the ticket was used already", Detail: "publish again for a new one"}
	}
	return older(err, ref)
}
