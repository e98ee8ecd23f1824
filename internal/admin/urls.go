package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/web"
)

const maxURLs = 64 // of one version

// SetURLs answers POST /v1/contents/{name}/urls, a name being ID@VERSION: the version is then
// known by these URLs, and by no others.
func (s *Service) SetURLs(w http.ResponseWriter, r *http.Request) {
	var q api.ContentURLs
	err := web.ReadJSON(w, r, maxBody, &q)
	var out *api.Content
	if err == nil {
		out, err = s.setURLs(r.Context(), r.PathValue("name"), q.Urls)
	}
	reply(w, r, out, err)
}

func (s *Service) setURLs(ctx context.Context, name string, urls []string) (*api.Content, error) {
	ref, err := parseVersioned(name)
	if err != nil {
		return nil, err
	}
	normal, err := s.freeURLs(ctx, ref.ID, urls)
	if err != nil {
		return nil, err
	}
	c, err := s.URLs.SetURLs(ctx, ref, normal)
	if err != nil {
		return nil, problemOf(err, "content", name)
	}
	s.Log.Info("URLs set", "content", name, "urls", len(normal))
	out := showContent(&c)
	return &out, nil
}

// parseVersioned reads ID@VERSION.
func parseVersioned(name string) (content.Ref, error) {
	ref, err := content.ParseRef(name)
	if err == nil && ref.Version == 0 {
		err = fmt.Errorf("%q has no version; write %s@1", name, name)
	}
	if err != nil {
		return ref, badRequest("the content is not well named", err)
	}
	return ref, nil
}

func normalURLs(urls []string) ([]string, error) {
	if len(urls) > maxURLs {
		return nil, badRequest("these are too many URLs", fmt.Errorf("%d URLs of one version, at most %d are taken", len(urls), maxURLs))
	}
	out := make([]string, 0, len(urls))
	for _, u := range urls {
		n, err := api.NormalURL(u)
		if err != nil {
			return nil, badRequest("a URL of the content is not good", err)
		}
		out = append(out, n)
	}
	return out, nil
}

// freeURLs returns the URLs in normal form when no other content has one of them.
func (s *Service) freeURLs(ctx context.Context, id content.ID, urls []string) ([]string, error) {
	normal, err := normalURLs(urls)
	if err != nil {
		return nil, err
	}
	for _, u := range normal {
		holder, err := s.URLs.URLHolder(ctx, u)
		switch {
		case errors.Is(err, catalog.ErrNotFound) || err == nil && holder == id:
		case err != nil:
			return nil, err
		default:
			return nil, &api.Problem{Status: http.StatusConflict, Type: "url-taken",
				Title:  fmt.Sprintf("the URL %q is content %q's", api.ShownURL(u), holder),
				Detail: fmt.Sprintf("publish under the id %q, or take the URL from all versions of that content first, with \"freshet content set %s@VERSION --url URL …\" or \"freshet content rm\"", holder, holder)}
		}
	}
	return normal, nil
}
