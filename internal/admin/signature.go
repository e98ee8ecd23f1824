package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/policy"
)

// signedAhead is how far a signed generation, which counts Unix seconds, may lie in the
// future: one far ahead would keep all later ones out.
const signedAhead = 24 * time.Hour

// publishers returns the keys that the fleet pins.
func (s *Service) publishers(ctx context.Context) (identity.Publishers, error) {
	all, err := s.Settings.Settings(ctx)
	if err != nil {
		return identity.Publishers{}, err
	}
	l := policy.Layer{Provider: policy.Fleet}
	for _, set := range all {
		l.Entries = append(l.Entries, policy.Entry{Name: set.Name, Value: set.Value})
	}
	resolved, err := policy.Resolve(l)
	if err != nil {
		return identity.Publishers{}, fmt.Errorf("admin: the fleet's settings: %w", err)
	}
	return identity.PublishersOf(resolved), nil
}

// sign holds a publication to the keys that are pinned for its content. What comes unsigned is
// refused where a key is pinned, but for the same bytes again, whose signature the catalog has.
func (s *Service) sign(ctx context.Context, p *catalog.Publication, q *api.PublishRequest) error {
	pinned, err := s.publishers(ctx)
	if err != nil {
		return err
	}
	ref := p.Content.Ref
	if len(q.Signature) == 0 && pinned.Covers(ref.ID) {
		if before := s.signedBefore(ctx, p); before != nil {
			p.Replaces = p.Content.ManifestDigest
			return checkTerms(p, before)
		}
	}
	t, ok, err := pinned.Verify(identity.Signed{ID: ref.ID, Manifest: q.Manifest, Signature: q.Signature})
	switch {
	case err != nil:
		return unsigned(ref, err)
	case !ok: // nobody asked for the signature that there may be, and nothing is known of it
		return nil
	}
	if err := t.Check(0, s.Now()); err != nil {
		return unsigned(ref, err)
	}
	if ahead := time.Unix(t.Generation, 0).Sub(s.Now()); ahead > signedAhead {
		return badRequest("the signed generation is too far ahead", fmt.Errorf("generation %d counts Unix seconds and lies %v in the future; check the signer's clock", t.Generation, ahead.Round(time.Hour)))
	}
	if err := checkTerms(p, q.Signature); err != nil {
		return err
	}
	p.Content.Signature, p.Generation = q.Signature, t.Generation
	return nil
}

// signedBefore returns the catalog's signature of these bytes, when they are the current ones.
func (s *Service) signedBefore(ctx context.Context, p *catalog.Publication) []byte {
	now, err := s.Contents.Content(ctx, p.Content.Ref)
	if err != nil || now.ManifestDigest != p.Content.ManifestDigest || !p.Replaces.IsZero() && p.Replaces != now.ManifestDigest {
		return nil
	}
	return now.Signature
}

// checkTerms: the groups that the publisher signed are those that the content is published
// for, since devices take the signature for a grant. What a distribution point registers for
// itself keeps the groups that the catalog has.
func checkTerms(p *catalog.Publication, signature []byte) error {
	t, err := identity.TermsOf(signature)
	if err != nil {
		return badRequest("the signature is not good", err)
	}
	groups := slices.Compact(slices.Sorted(slices.Values(p.Content.Groups)))
	if len(groups) == 0 {
		groups = []string{identity.AllGroups}
	}
	if signed := slices.Compact(slices.Sorted(slices.Values(t.Groups))); p.OwnedBy.IsZero() && !slices.Equal(signed, groups) {
		return badRequest("the signature is for other groups", fmt.Errorf("it names %q, and the content is published for %q; sign and publish again", signed, groups))
	}
	return nil
}

func unsigned(ref content.Ref, err error) error {
	return &api.Problem{Status: http.StatusForbidden, Type: "unsigned", Title: fmt.Sprintf("content %q needs its publisher's signature", ref),
		Detail: err.Error() + "; publish with --sign KEY, the secret key of one that the setting publisherKeys pins for it"}
}

// ListDiffers answers GET /v1/contents/{name}/differs, a name being ID@VERSION.
func (s *Service) ListDiffers(w http.ResponseWriter, r *http.Request) {
	ref, err := parseVersioned(r.PathValue("name"))
	if err != nil {
		reply(w, r, nil, err)
		return
	}
	if _, err := s.Contents.Content(r.Context(), ref); err != nil {
		reply(w, r, nil, problemOf(err, "content", ref.String()))
		return
	}
	all, err := s.Differences.Differences(r.Context(), ref)
	v, err := listed(all, err, func(d *catalog.Difference) api.ExpectedDiffers {
		out := api.ExpectedDiffers{Device: d.Device.String(), ManifestDigest: d.Manifest.String(), Summary: d.Summary, At: d.At.Unix()}
		if !d.MetadataHash.IsZero() {
			out.MetadataHash = d.MetadataHash.String()
		}
		return out
	})
	reply(w, r, v, err)
}

// older says what to do when a signature's generation has been overtaken.
func older(err error, ref content.Ref) error {
	if !errors.Is(err, catalog.ErrOlder) {
		return err
	}
	return &api.Problem{Status: http.StatusConflict, Type: "older-generation", Title: fmt.Sprintf("content %q was published meanwhile", ref),
		Detail: err.Error() + "; sign and publish again"}
}
