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
	Settings  catalog.Settings
	SiteOf    func(netip.Addr) string
	DenyList  func() int64 // version of the deny list
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := s.Endpoints
	reply.Site = s.SiteOf(authz.Source(r))
	reply.Group = authz.From(r.Context()).Name.Group
	reply.DenyListVersion = s.DenyList()
	settings, err := s.settings(r.Context())
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	reply.Settings = settings
	web.WriteJSONTag(w, r, reply)
}

func (s *Service) settings(ctx context.Context) ([]api.Setting, error) {
	all, err := s.Settings.Settings(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Setting, 0, len(all))
	for _, set := range all {
		out = append(out, api.Setting{Name: set.Name, Value: set.Value, Provider: string(policy.Fleet)})
	}
	return out, nil
}
