package admin

import (
	"context"
	"fmt"
	"net/http"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/policy"
	"freshet/internal/web"
)

// ListSettings answers GET /v1/settings: those of the fleet, then those of sites.
func (s *Service) ListSettings(w http.ResponseWriter, r *http.Request) {
	all, err := s.listSettings(r.Context())
	reply(w, r, all, err)
}

func (s *Service) listSettings(ctx context.Context) ([]api.Setting, error) {
	fleet, err := s.Settings.Settings(ctx)
	if err != nil {
		return nil, err
	}
	sites, err := s.OfSites.SiteSettings(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Setting, 0, len(fleet)+len(sites))
	for _, c := range fleet {
		out = append(out, api.Setting{Name: c.Name, Value: c.Value, Provider: string(policy.Fleet)})
	}
	for _, c := range sites {
		out = append(out, api.Setting{Name: c.Name, Value: c.Value, Provider: string(policy.Site), Site: c.Site})
	}
	return out, nil
}

// SetSetting answers POST /v1/settings.
func (s *Service) SetSetting(w http.ResponseWriter, r *http.Request) {
	var q api.Setting
	err := web.ReadJSON(w, r, maxBody, &q)
	if err == nil {
		err = s.setSetting(r.Context(), &q)
	}
	reply(w, r, q, err)
}

// setSetting keeps a setting for the fleet, or for the site that it names. That need not be one
// of the table: Geo names others by their address.
func (s *Service) setSetting(ctx context.Context, q *api.Setting) error {
	scope := policy.Fleet
	if q.Site != "" {
		scope = policy.Site
	}
	if q.Provider == "" {
		q.Provider = string(scope)
	}
	if q.Provider != string(scope) {
		return badRequest("the setting's scope is not known", fmt.Errorf("%q: settings are kept for the whole fleet, or for a site that is named", q.Provider))
	}
	if err := policy.Check(scope, q.Name, q.Value); err != nil {
		return badRequest("the setting is not good", err)
	}
	set := catalog.Setting{Name: q.Name, Value: q.Value}
	if scope == policy.Fleet {
		return s.Settings.PutSetting(ctx, set, s.Now())
	}
	if len(q.Site) > maxSite {
		return badRequest("the site is not well named", fmt.Errorf("%d characters, at most %d are allowed", len(q.Site), maxSite))
	}
	return s.OfSites.PutSiteSetting(ctx, catalog.SiteSetting{Site: q.Site, Setting: set}, s.Now())
}

const maxSite = 255 // bytes of a site's name

// RemoveSetting answers DELETE /v1/settings/{name}; the query's site says of which site, none
// that it is the fleet's.
func (s *Service) RemoveSetting(w http.ResponseWriter, r *http.Request) {
	name, site := r.PathValue("name"), r.FormValue("site")
	var err error
	if site == "" {
		err = s.Settings.RemoveSetting(r.Context(), name)
	} else {
		err = s.OfSites.RemoveSiteSetting(r.Context(), site, name)
	}
	reply(w, r, nil, problemOf(err, "setting", name))
}
