package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// Pauses of asking a distribution point to make sure.
const (
	lszPause    = 5 * time.Second
	maxLszPause = 10 * time.Minute
)

// OriginStale says that a distribution point's own bytes are not what is expected.
type OriginStale struct {
	Origin     string        // its base URL
	RetryAfter time.Duration // when asking again may help; 0: it did not say
	Problem    *api.Problem
}

// Error implements error.
func (e *OriginStale) Error() string { return fmt.Sprintf("client: %s: %v", e.Origin, e.Problem) }

// Unwrap returns what the distribution point said.
func (e *OriginStale) Unwrap() error { return e.Problem }

// MakeSure asks the distribution point at this base URL for the manifest that fits, and waits
// while it reads its files; reading, if not nil, is told how far that is, in bytes. The error
// is an [*OriginStale] where its files do not fit. The reply is for ref, or for the newest
// version where ref names none, and its digests are well formed; who signed it is the caller's
// to check. A client with a token, which must be an administrator's, gets the permission first;
// then ref names a version.
func (c *Client) MakeSure(ctx context.Context, base string, ref content.Ref, q api.LszRequest, reading func(done, total int64)) (*api.LszReply, error) {
	at := fmt.Sprintf("%s/lsz/%s/%d", trimSlash(base), url.PathEscape(string(ref.ID)), ref.Version)
	header := http.Header{}
	if c.opt.Credentials == nil {
		p, err := add[api.TicketReply](ctx, c, "inquiries", api.InquiryRequest{ContentId: string(ref.ID), Version: ref.Version})
		if err != nil {
			return nil, err
		}
		header.Set(identity.TicketHeader, base64.StdEncoding.EncodeToString(p.Ticket))
	}
	for {
		out := &api.LszReply{}
		r, err := c.call(ctx, request{what: "make sure", method: http.MethodPost, url: at, header: header, body: q, max: maxReply, again: true, wait: makeSureTime, http: c.origins})
		if err != nil {
			return nil, stale(base, err)
		}
		if err := decode("make sure", r, out); err != nil {
			return nil, err
		}
		if out.Outcome != api.LszReading {
			return out, checkLsz(out, ref)
		}
		if reading != nil {
			reading(out.Done, out.Total)
		}
		if err := pause(ctx, out.RetrySecs); err != nil {
			return nil, fmt.Errorf("client: make sure of %s at %s: %w", ref, base, err)
		}
	}
}

// stale turns a distribution point's word that its files do not fit into an OriginStale.
func stale(base string, err error) error {
	var p *api.Problem
	if !errors.As(err, &p) || p.Type != api.LszStale {
		return err
	}
	return &OriginStale{Origin: base, RetryAfter: min(time.Duration(max(p.RetrySecs, 0))*time.Second, maxLszPause), Problem: p}
}

func pause(ctx context.Context, secs int64) error {
	t := time.NewTimer(min(max(time.Duration(secs)*time.Second, time.Second), lszPause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func checkLsz(r *api.LszReply, ref content.Ref) error {
	fail := func(err error) error { return fmt.Errorf("client: make sure of %s: the reply: %w", ref, err) }
	if r.ContentId != string(ref.ID) || r.Version == 0 || ref.Version != 0 && r.Version != ref.Version {
		return fail(fmt.Errorf("it is for %s@%d", r.ContentId, r.Version))
	}
	if r.Outcome != api.LszFits && r.Outcome != api.LszDiffers {
		return fail(fmt.Errorf("the outcome %q is not known", r.Outcome))
	}
	if _, err := content.ParseDigest(r.ManifestDigest); err != nil {
		return fail(err)
	}
	if _, err := content.ParseDigestBase64(r.HashOfHashes); err != nil {
		return fail(err)
	}
	return nil
}

func trimSlash(base string) string {
	for len(base) > 0 && base[len(base)-1] == '/' {
		base = base[:len(base)-1]
	}
	return base
}

// ReportDiffers tells the catalog that its manifest is not what is expected.
func (c *Client) ReportDiffers(ctx context.Context, id content.ID, d api.Differs) error {
	k, err := c.endpoints(ctx)
	if err != nil {
		return err
	}
	// Discovery's endpoint is /content/{contentId}, and what is said of a content lies below it.
	at := expand(k.Discovery_EndpointFullUri, "contentId", string(id)) + "/differs"
	_, err = c.call(ctx, c.ask("differs", at, d))
	return err
}
