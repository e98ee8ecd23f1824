package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// ListSites answers GET /v1/sites.
func (s *Service) ListSites(w http.ResponseWriter, r *http.Request) {
	all, err := s.Sites.Sites(r.Context())
	v, err := listed(all, err, showSite)
	reply(w, r, v, err)
}

func showSite(c *catalog.Site) api.Site {
	out := api.Site{Name: c.Name, CIDRs: make([]string, 0, len(c.CIDRs))}
	for _, p := range c.CIDRs {
		out.CIDRs = append(out.CIDRs, p.String())
	}
	return out
}

// AddSite answers POST /v1/sites: a new site, or more prefixes for one.
func (s *Service) AddSite(w http.ResponseWriter, r *http.Request) {
	var q api.Site
	err := web.ReadJSON(w, r, maxBody, &q)
	if err == nil {
		err = s.addSite(r.Context(), &q)
	}
	reply(w, r, q, err)
}

func (s *Service) addSite(ctx context.Context, q *api.Site) error {
	if err := identity.CheckLabel(q.Name); err != nil {
		return badRequest("the site is not well named", err)
	}
	site := catalog.Site{Name: q.Name}
	for _, text := range q.CIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return badRequest("the prefix is not well formed", fmt.Errorf("%q is not like 10.1.0.0/16 or 2001:db8::/48", text))
		}
		if p.Addr().Is4In6() {
			return badRequest("the prefix is not well formed", fmt.Errorf("%q: write an IPv4 prefix as such", text))
		}
		site.CIDRs = append(site.CIDRs, p.Masked())
	}
	if err := s.Sites.AddSite(ctx, site); err != nil {
		return problemOf(err, "site", q.Name)
	}
	*q = showSite(&site)
	return s.Changed(ctx)
}

// RemoveSite answers DELETE /v1/sites/{name}.
func (s *Service) RemoveSite(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	err := s.Sites.RemoveSite(r.Context(), name)
	if err == nil {
		err = s.Changed(r.Context())
	}
	reply(w, r, nil, problemOf(err, "site", name))
}

// ListGroups answers GET /v1/groups.
func (s *Service) ListGroups(w http.ResponseWriter, r *http.Request) {
	all, err := s.Groups.Groups(r.Context())
	v, err := listed(all, err, func(g *catalog.Group) api.Group { return api.Group{Name: g.Name, Devices: g.Devices} })
	reply(w, r, v, err)
}

// AddGroup answers POST /v1/groups.
func (s *Service) AddGroup(w http.ResponseWriter, r *http.Request) {
	var q api.Group
	err := web.ReadJSON(w, r, maxBody, &q)
	if err == nil {
		if err = identity.CheckLabel(q.Name); err != nil {
			err = badRequest("the group is not well named", err)
		} else {
			err = problemOf(s.Groups.AddGroup(r.Context(), q.Name, s.Now()), "group", q.Name)
		}
	}
	reply(w, r, api.Group{Name: q.Name}, err)
}

// RemoveGroup answers DELETE /v1/groups/{name}.
func (s *Service) RemoveGroup(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	reply(w, r, nil, problemOf(s.Groups.RemoveGroup(r.Context(), name), "group", name))
}

// ListDevices answers GET /v1/devices.
func (s *Service) ListDevices(w http.ResponseWriter, r *http.Request) {
	all, err := s.Devices.Devices(r.Context())
	v, err := listed(all, err, func(d *catalog.Device) api.Device {
		return api.Device{ID: d.ID.String(), Name: d.Name, Role: d.Role, Group: d.Group, Enrolled: d.Enrolled.Unix(), Revoked: !d.Revoked.IsZero()}
	})
	reply(w, r, v, err)
}

// RevokeDevice answers DELETE /v1/devices/{name}: the device goes on the deny list.
func (s *Service) RevokeDevice(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	id, err := wire.ParseDeviceID(name)
	if err != nil {
		reply(w, r, nil, badRequest("the device is not well named", err))
		return
	}
	if err = s.Devices.RevokeDevice(r.Context(), id, s.Now()); err == nil {
		s.Log.Info("revoked", "device", id)
		err = s.Changed(r.Context())
	}
	reply(w, r, nil, problemOf(err, "device", name))
}
