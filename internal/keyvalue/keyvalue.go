// Package keyvalue is the service that tells a device where the other services are and what
// the fleet's administrator has set (design section 5).
package keyvalue

import (
	"context"
	"net/http"
	"net/netip"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/policy"
	"freshet/internal/web"
)

// Service answers GET /all.
type Service struct {
	Endpoints api.KeyValue // endpoints and grant keys; the other fields are filled in for each caller
	Settings  interface {
		catalog.Settings
		catalog.SiteSettings
	}
	SiteOf   func(netip.Addr) string
	DenyList func() int64 // version of the deny list
	LANKeys  *LANKeys
	Origins  *Origins
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := s.Endpoints
	reply.Site = s.SiteOf(authz.Source(r))
	reply.Group = authz.From(r.Context()).Name.Group
	reply.DenyListVersion = s.DenyList()
	settings, err := s.settings(r.Context(), reply.Site)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	reply.Settings = settings
	if reply.LANKeys, err = s.LANKeys.Of(r.Context(), reply.Group); err != nil {
		web.Fail(w, r, err)
		return
	}
	if reply.Origins, err = s.Origins.For(r.Context(), reply.Site, s.SiteOf); err != nil {
		web.Fail(w, r, err)
		return
	}
	web.WriteJSONTag(w, r, reply)
}

// settings returns what is set for the fleet, then for the site; the later wins.
func (s *Service) settings(ctx context.Context, site string) ([]api.Setting, error) {
	all, err := s.Settings.Settings(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Setting, 0, len(all))
	for _, set := range all {
		out = append(out, api.Setting{Name: set.Name, Value: set.Value, Provider: string(policy.Fleet)})
	}
	ofSites, err := s.Settings.SiteSettings(ctx)
	if err != nil {
		return nil, err
	}
	for _, set := range ofSites {
		if set.Site == site {
			out = append(out, api.Setting{Name: set.Name, Value: set.Value, Provider: string(policy.Site), Site: site})
		}
	}
	return out, nil
}
