// Package admin is the service behind the administrator's commands and behind publishing:
// sites, groups, devices, tokens, settings, contents, and tickets for a publish at a
// distribution point (design sections 5 and 8).
//
// Who may call what is decided before a handler runs; here only a publication's rights are
// looked at again, since they depend on the content (see [Service.Publish]).
package admin

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/web"
)

const maxBody = 1 << 20 // bytes of a request, but for a publication

// Files keeps manifests and raw hash files.
type Files interface {
	PutManifest(b []byte) (content.Digest, error)
	PutHashFile(raw []byte) (content.Digest, error)
}

// Service answers the administrator's calls.
type Service struct {
	Contents catalog.Contents
	URLs     catalog.URLs
	Sites    catalog.Sites
	Groups   catalog.Groups
	Devices  catalog.Devices
	Tokens   catalog.Tokens
	Settings catalog.Settings
	OfSites  catalog.SiteSettings
	Files    Files

	Differences catalog.Differences

	CA      *identity.CA
	Key     ed25519.PrivateKey              // signs tickets
	Address string                          // host:port that tokens carry
	Changed func(ctx context.Context) error // sites or the deny list have changed
	Now     func() time.Time
	Log     *slog.Logger
}

// problemOf says what a catalog's error means for this kind of thing.
func problemOf(err error, kind, name string) error {
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return &api.Problem{Status: http.StatusNotFound, Type: "unknown-" + kind, Title: "there is no " + kind + " " + name,
			Detail: "\"freshet " + kind + " list\" shows what there is"}
	case errors.Is(err, catalog.ErrExists):
		return &api.Problem{Status: http.StatusConflict, Type: "exists", Title: kind + " " + name + " exists already", Detail: err.Error()}
	case errors.Is(err, catalog.ErrInUse):
		return &api.Problem{Status: http.StatusConflict, Type: "in-use", Title: kind + " " + name + " is still in use",
			Detail: err.Error() + "; revoke or recall those first"}
	}
	return err
}

func badRequest(title string, err error) error {
	return &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: title, Detail: err.Error()}
}

// reply sends v, or what went wrong.
func reply(w http.ResponseWriter, r *http.Request, v any, err error) {
	switch {
	case err != nil:
		web.Fail(w, r, err)
	case v == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		web.WriteJSON(w, v)
	}
}

// listed converts what a catalog lists; nothing is an empty list, not null.
func listed[T, U any](all []T, err error, show func(*T) U) (any, error) {
	if err != nil {
		return nil, err
	}
	out := make([]U, 0, len(all))
	for i := range all {
		out = append(out, show(&all[i]))
	}
	return out, nil
}

// checkGroups makes sure that all of these groups exist.
func (s *Service) checkGroups(ctx context.Context, names []string) error {
	for _, g := range names {
		if err := identity.CheckLabel(g); err != nil {
			return badRequest("the group is not well named", err)
		}
		if _, err := s.Groups.Group(ctx, g); err != nil {
			return problemOf(err, "group", g)
		}
	}
	return nil
}
