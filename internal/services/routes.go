package services

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"slices"
	"time"

	"freshet/internal/admin"
	"freshet/internal/api"
	"freshet/internal/arrays"
	"freshet/internal/authz"
	"freshet/internal/blob"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/contentpolicy"
	"freshet/internal/devices"
	"freshet/internal/discovery"
	"freshet/internal/geo"
	"freshet/internal/identity"
	"freshet/internal/keyvalue"
	"freshet/internal/web"
)

// Permissions of the routes.
var (
	public     = authz.Permission{Public: true}
	device     = authz.Permission{Roles: []identity.Role{identity.RoleDevice}}
	member     = authz.Permission{Roles: []identity.Role{identity.RoleDevice, identity.RoleOrigin}}
	byAdmin    = authz.Permission{Tokens: []string{identity.TokenAdmin}}
	byReader   = authz.Permission{Tokens: []string{identity.TokenAdmin, identity.TokenPublish}}
	bySealed   = authz.Permission{Public: true} // the body holds a token or certificate that is checked there
	byProducer = authz.Permission{Roles: []identity.Role{identity.RoleOrigin}, Tokens: []string{identity.TokenAdmin, identity.TokenPublish}}
)

// route is one call of a service and who may make it.
type route struct {
	service    string
	pattern    string
	permission authz.Permission
	handler    http.HandlerFunc
}

// health is the service that is always there.
const health = "health"

// routes is the one table of what the server answers.
func (s *Server) routes() []route {
	g, kv, cp, disc, arr := s.download()
	dev, adm := s.devices(), s.admin()
	meta := s.metadata()
	live := web.Health(s.metrics, s.catalog.Ping).ServeHTTP
	return []route{
		{"geo", "GET /geo", public, g.ServeHTTP},
		{"keyvalue", "GET /all", member, kv.ServeHTTP},
		{"contentpolicy", "GET /content/{contentId}/contentpolicy", device, cp.ServeHTTP},
		{"contentpolicy", "POST /content/{contentId}/differs", device, s.differs().ServeHTTP},
		{"discovery", "GET /content/{contentId}", device, disc.ServeV1},
		{"discovery", "GET /v2/content/{contentId}", device, disc.ServeV2},
		{"arrays", "POST /join/{$}", device, arr.Join},
		{"arrays", "POST /leave/{$}", device, arr.Leave},
		{"metadata", "GET /metadata/{manifestDigest}", device, meta.ServeManifest},
		{"metadata", "GET /pieceshash/{hashOfHashes}", device, meta.ServeHashFile},

		{"devices", "POST /v1/enrol", bySealed, dev.Enrol},
		{"devices", "POST /v1/renew", bySealed, dev.Renew},
		{"devices", "POST /v1/lanpass", device, dev.LANPass},
		{"devices", "GET /v1/revoked", member, dev.Revoked},
		{"devices", "POST /v1/reports", device, dev.Reports},
		{"devices", "POST /v1/probe", device, s.prober.ServeHTTP},

		{"admin", "GET /v1/sites", byAdmin, adm.ListSites},
		{"admin", "POST /v1/sites", byAdmin, adm.AddSite},
		{"admin", "DELETE /v1/sites/{name}", byAdmin, adm.RemoveSite},
		{"admin", "GET /v1/groups", byAdmin, adm.ListGroups},
		{"admin", "POST /v1/groups", byAdmin, adm.AddGroup},
		{"admin", "DELETE /v1/groups/{name}", byAdmin, adm.RemoveGroup},
		{"admin", "GET /v1/devices", byAdmin, adm.ListDevices},
		{"admin", "DELETE /v1/devices/{name}", byAdmin, adm.RevokeDevice},
		{"admin", "GET /v1/tokens", byAdmin, adm.ListTokens},
		{"admin", "POST /v1/tokens", byAdmin, adm.AddToken},
		{"admin", "DELETE /v1/tokens/{name}", byAdmin, adm.RemoveToken},
		{"admin", "GET /v1/settings", byAdmin, adm.ListSettings},
		{"admin", "POST /v1/settings", byAdmin, adm.SetSetting},
		{"admin", "DELETE /v1/settings/{name}", byAdmin, adm.RemoveSetting},
		{"admin", "GET /v1/contents", byReader, adm.ListContents},
		{"admin", "POST /v1/contents", byProducer, adm.Publish},
		{"admin", "POST /v1/contents/{name}/urls", byReader, adm.SetURLs},
		{"admin", "GET /v1/contents/{name}/differs", byReader, adm.ListDiffers},
		{"admin", "DELETE /v1/contents/{name}", byAdmin, adm.Recall},
		{"admin", "POST /v1/tickets", byReader, adm.AddTicket},
		{"admin", "POST /v1/inquiries", byAdmin, adm.AddInquiry},

		{health, "GET /healthz", public, live},
		{health, "GET /readyz", public, live},
		{health, "GET /metrics", public, live},
	}
}

// Names returns the names of the services, in the order of the table.
func Names() []string {
	return []string{"geo", "keyvalue", "contentpolicy", "discovery", "arrays", "metadata", "devices", "admin"}
}

// Handler answers the services that were asked for, each route behind its permission.
func (s *Server) Handler() http.Handler {
	check := &authz.Checker{Tokens: tokens{s.catalog}, Denied: s.denied.Has}
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		if rt.service == health || len(s.opt.Services) == 0 || slices.Contains(s.opt.Services, rt.service) {
			mux.Handle(rt.pattern, check.Require(rt.permission, rt.handler))
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		web.Problem(w, r, api.Problem{Status: http.StatusNotFound, Type: "unknown-call", Title: "this server has no such call",
			Detail: "the address may be of an older version, or of a server that runs other services"})
	})
	return web.Log(mux, s.log)
}

func (s *Server) base() string { return "https://" + s.address }

// download returns the services of a download.
func (s *Server) download() (*geo.Service, *keyvalue.Service, *contentpolicy.Service, *discovery.Service, *arrays.Service) {
	base := s.base()
	return &geo.Service{Locator: s.locator, KeyValue: base + "/all"},
		&keyvalue.Service{
			Endpoints: api.KeyValue{
				ContentPolicy_EndpointFullUri: base + "/content/{contentId}/contentpolicy",
				Discovery_EndpointFullUri:     base + "/content/{contentId}",
				DiscoveryV2_EndpointFullUri:   base + "/v2/content/{contentId}",
				Metadata_EndpointFullUri:      base + "/metadata/{manifestDigest}",
				PiecesHash_EndpointFullUri:    base + "/pieceshash/{hashOfHashes}.bin",
				GrantKeys:                     [][]byte{s.public()},
			},
			Settings: s.catalog, SiteOf: s.locator.Site, DenyList: s.denied.Version,
			LANKeys: &keyvalue.LANKeys{Store: s.catalog, Now: time.Now}, Origins: &keyvalue.Origins{Store: s.catalog, Now: time.Now},
		},
		&contentpolicy.Service{Contents: s.catalog, Files: s.files, Key: s.key, Metadata: base, Now: time.Now},
		&discovery.Service{Array: base + "/", Contents: s.catalog},
		arrays.New(s.swarms, s.locator, s.catalog, time.Now)
}

func (s *Server) public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

func (s *Server) devices() *devices.Service {
	return &devices.Service{
		Catalog: s.catalog, CA: s.ca, GrantKeys: []ed25519.PublicKey{s.public()}, Key: s.key, Denied: s.denied, Now: time.Now, Log: s.log,
	}
}

func (s *Server) admin() *admin.Service {
	return &admin.Service{
		Contents: s.catalog, URLs: s.catalog, Sites: s.catalog, Groups: s.catalog, Devices: s.catalog, Tokens: s.catalog, Settings: s.catalog, OfSites: s.catalog,
		Files: s.files, CA: s.ca, Key: s.key, Address: s.address, Changed: s.reload, Now: time.Now, Log: s.log,
		Differences: s.catalog,
	}
}

// differs keeps what devices expect that a manifest is not.
func (s *Server) differs() *contentpolicy.Differs {
	return &contentpolicy.Differs{Contents: s.catalog, Differences: s.catalog, Now: time.Now, Log: s.log}
}

// metadata serves manifests and hash files to those whose grant names them.
func (s *Server) metadata() *blob.Metadata {
	gate := &blob.Gate{Keys: func() []ed25519.PublicKey { return []ed25519.PublicKey{s.public()} }}
	return &blob.Metadata{
		Files: s.files, Coder: s.coder, Length: s.length,
		MayReadManifest: func(r *http.Request, d content.Digest) bool {
			g, ok := gate.Grant(r)
			return ok && g.Manifest == d
		},
		MayReadHashFile: func(r *http.Request, d content.Digest) bool {
			g, ok := gate.Grant(r)
			return ok && g.HashOfHashes == d
		},
	}
}

// tokens shows the catalog's tokens to package authz.
type tokens struct{ catalog catalog.Tokens }

// TokenKind implements authz.Tokens. The secret is looked up by its hash, so the time that it
// takes says nothing of the secret, and compared again in constant time.
func (t tokens) TokenKind(ctx context.Context, secret []byte) (string, error) {
	found, err := t.catalog.Token(ctx, content.Digest(identity.HashSecret(secret)))
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return "", authz.ErrUnknown
	case err != nil:
		return "", err
	case !identity.TokenHash(found.Secret).Matches(secret):
		return "", authz.ErrUnknown
	case !found.Usable(time.Now()):
		return "", authz.ErrExpired
	}
	return found.Kind, nil
}
