package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
)

const servicesFile = "services.json" // in CacheDir

// services is what Geo and KeyValue said last.
type services struct {
	Geo      api.Geo
	KeyValue api.KeyValue
}

// Bootstrap asks Geo and then KeyValue. When they do not answer, it returns what they said
// last, from memory or from CacheDir, and tells the credentials that certificates of peers
// may be past their expiry (see [identity.Credentials.SetGrace]) until they answer again.
func (c *Client) Bootstrap(ctx context.Context) (api.Geo, api.KeyValue, error) {
	s, err := c.askServices(ctx)
	switch {
	case err == nil:
		c.remember(s)
		c.setGrace(false)
		if err := c.store(s); err != nil {
			c.opt.Log.Warn("the services' addresses could not be kept for a start without services", "err", err)
		}
		return s.Geo, s.KeyValue, nil
	case ctx.Err() != nil || !Unavailable(err):
		return api.Geo{}, api.KeyValue{}, err
	}
	last, ok := c.known()
	if !ok {
		return api.Geo{}, api.KeyValue{}, err
	}
	c.setGrace(true)
	c.opt.Log.Info("services do not answer; going on with the last ones known", "err", err)
	return last.Geo, last.KeyValue, nil
}

func (c *Client) setGrace(on bool) {
	if c.opt.Credentials != nil {
		c.opt.Credentials.SetGrace(on)
	}
}

func (c *Client) askServices(ctx context.Context) (*services, error) {
	s := &services{}
	if err := c.get(ctx, "geo", c.serverURL("/geo"), &s.Geo); err != nil {
		return nil, err
	}
	if s.Geo.KeyValue_EndpointFullUri == "" {
		return nil, fmt.Errorf("client: geo at %s: the reply names no KeyValue endpoint", c.opt.Address)
	}
	at, err := url.Parse(s.Geo.KeyValue_EndpointFullUri)
	if err != nil {
		return nil, fmt.Errorf("client: geo at %s: KeyValue endpoint: %w", c.opt.Address, err)
	}
	if s.Geo.CountryCode != "" {
		q := at.Query()
		q.Set("countryCode", s.Geo.CountryCode)
		at.RawQuery = q.Encode()
	}
	if err := c.get(ctx, "keyvalue", at.String(), &s.KeyValue); err != nil {
		return nil, err
	}
	if _, err := identity.ParseGrantKeys(s.KeyValue.GrantKeys); err != nil {
		return nil, fmt.Errorf("client: keyvalue at %s: %w", at.Host, err)
	}
	return s, nil
}

// get makes a call to a server that answers one JSON value and may be made twice.
func (c *Client) get(ctx context.Context, what, url string, v any) error {
	r, err := c.call(ctx, request{what: what, method: http.MethodGet, url: url, header: c.authorization(), max: maxReply, again: true, wait: serviceTime, http: c.servers})
	if err != nil {
		return err
	}
	return decode(what, r, v)
}

// remember takes s as last known, and the hosts of its endpoints as servers.
func (c *Client) remember(s *services) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services = s
	k := &s.KeyValue
	for _, endpoint := range []string{
		s.Geo.KeyValue_EndpointFullUri, k.ContentPolicy_EndpointFullUri, k.Discovery_EndpointFullUri,
		k.DiscoveryV2_EndpointFullUri, k.Metadata_EndpointFullUri, k.PiecesHash_EndpointFullUri,
	} {
		if u, err := url.Parse(expand(endpoint, "", "")); err == nil && u.Host != "" {
			c.hosts[u.Host] = true
		}
	}
}

// known returns the last known services, from memory, else from CacheDir.
func (c *Client) known() (*services, bool) {
	c.mu.Lock()
	s := c.services
	c.mu.Unlock()
	if s != nil {
		return s, true
	}
	if c.opt.CacheDir == "" {
		return nil, false
	}
	path := filepath.Join(c.opt.CacheDir, servicesFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	s = &services{}
	if err := json.Unmarshal(b, s); err != nil {
		c.opt.Log.Warn("the services' last known addresses are unreadable", "path", path, "err", err)
		return nil, false
	}
	c.remember(s)
	return s, true
}

// store keeps s for the next start. It is a cache: written whole or not at all, not synced.
func (c *Client) store(s *services) error {
	if c.opt.CacheDir == "" {
		return nil
	}
	if err := os.MkdirAll(c.opt.CacheDir, 0o700); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	f, err := os.CreateTemp(c.opt.CacheDir, "."+servicesFile+".*")
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	_, err = f.Write(api.JSON(s))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.opt.CacheDir, servicesFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("client: keep the services' addresses: %w", err)
	}
	return nil
}

// Origins returns the base URLs of the distribution points that KeyValue named last, those of
// this device's site first. It makes no call: they are where contents are asked for when no
// service answers.
func (c *Client) Origins() []string {
	s, ok := c.known()
	if !ok {
		return nil
	}
	return slices.Clone(s.KeyValue.Origins)
}

// endpoints returns the last known services, asking for them when there are none.
func (c *Client) endpoints(ctx context.Context) (api.KeyValue, error) {
	if s, ok := c.known(); ok {
		return s.KeyValue, nil
	}
	_, k, err := c.Bootstrap(ctx)
	return k, err
}

// expand fills in the placeholder {name} of an endpoint's template.
func expand(template, name, value string) string {
	if name == "" { // any placeholder, to see the host
		return strings.NewReplacer("{", "", "}", "").Replace(template)
	}
	return strings.ReplaceAll(template, "{"+name+"}", url.PathEscape(value))
}

// ContentPolicy asks what ref is now: its digests, where its bytes are, and a grant. The
// reply is for the content asked for, and its digests are well formed.
func (c *Client) ContentPolicy(ctx context.Context, ref content.Ref) (*api.ContentPolicy, error) {
	q := url.Values{}
	if ref.Version != 0 {
		q.Set("version", strconv.FormatUint(ref.Version, 10))
	}
	p, err := c.policy(ctx, string(ref.ID), q)
	if err != nil {
		return nil, err
	}
	return p, checkPolicy(p, ref)
}

// dummyID stands for the ContentID of a content that is known by its URL; none has it.
const dummyID = "-"

// ContentPolicyByURL asks the same of the content that is known by a URL.
func (c *Client) ContentPolicyByURL(ctx context.Context, normalURL string) (*api.ContentPolicy, error) {
	p, err := c.policy(ctx, dummyID, url.Values{"altCatalogId": {normalURL}})
	if err != nil {
		return nil, err
	}
	id, err := content.ParseID(p.ContentId)
	if err != nil {
		return nil, fmt.Errorf("client: content policy for %q: the reply names no content: %w", api.ShownURL(normalURL), err)
	}
	return p, checkPolicy(p, content.Ref{ID: id})
}

func (c *Client) policy(ctx context.Context, id string, q url.Values) (*api.ContentPolicy, error) {
	k, err := c.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	at := expand(k.ContentPolicy_EndpointFullUri, "contentId", id)
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	p := &api.ContentPolicy{}
	return p, c.get(ctx, "content policy", at, p)
}

func checkPolicy(p *api.ContentPolicy, ref content.Ref) error {
	if p.ContentId != string(ref.ID) || p.Version == 0 || ref.Version != 0 && p.Version != ref.Version {
		return fmt.Errorf("client: content policy for %s: the reply is for %s@%d", ref, p.ContentId, p.Version)
	}
	if _, err := content.ParseDigest(p.ManifestDigest); err != nil {
		return fmt.Errorf("client: content policy for %s: manifest digest: %w", ref, err)
	}
	if _, err := content.ParseDigestBase64(p.HashOfHashes); err != nil {
		return fmt.Errorf("client: content policy for %s: HashOfHashes: %w", ref, err)
	}
	return nil
}

// Discovery returns the arrays for these bytes, the best first.
func (c *Client) Discovery(ctx context.Context, id content.ID, hashOfHashes content.Digest) ([]api.Array, error) {
	k, err := c.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	at := expand(k.DiscoveryV2_EndpointFullUri, "contentId", string(id)) +
		"?" + url.Values{"hashOfHashes": {hashOfHashes.Base64()}}.Encode()
	var arrays []api.Array
	if err := c.get(ctx, "discovery", at, &arrays); err != nil {
		return nil, err
	}
	return arrays, nil
}

// Join tells the array at this base URL (see [api.Array]) what the device holds, and gets
// peers. Joining twice is as joining once.
func (c *Client) Join(ctx context.Context, array string, join api.JoinRequest) (api.JoinReply, error) {
	var out api.JoinReply
	r, err := c.call(ctx, c.ask("join", arrayURL(array, "join/"), join))
	if err != nil {
		return out, err
	}
	return out, decode("join", r, &out)
}

// Leave tells an array that the device no longer holds these bytes.
func (c *Client) Leave(ctx context.Context, array string, leave api.LeaveRequest) error {
	_, err := c.call(ctx, c.ask("leave", arrayURL(array, "leave/"), leave))
	return err
}

func arrayURL(array, call string) string { return strings.TrimSuffix(array, "/") + "/" + call }

// Probe has the server dial this device's swarm port, at the address that the call comes from.
func (c *Client) Probe(ctx context.Context, port int) (api.ProbeReply, error) {
	var out api.ProbeReply
	r, err := c.call(ctx, c.post("probe", c.serverURL("/v1/probe"), api.ProbeRequest{Port: api.Number(port)}, false))
	if err != nil {
		return out, err
	}
	return out, decode("probe", r, &out)
}

// Report tells what became of downloads. A report sent twice counts once.
func (c *Client) Report(ctx context.Context, reports api.Reports) error {
	_, err := c.call(ctx, c.post("report", c.serverURL("/v1/reports"), reports, true))
	return err
}

// DenyList asks for the fleet's deny list. tag is the one of the list held, empty for none;
// the list is nil when it is still that one.
func (c *Client) DenyList(ctx context.Context, tag string) (signed []byte, newTag string, err error) {
	head := c.authorization()
	if tag != "" {
		head.Set("If-None-Match", tag)
	}
	r, err := c.call(ctx, request{what: "deny list", method: http.MethodGet, url: c.serverURL("/v1/revoked"),
		header: head, max: int64(identity.MaxDenyList), again: true, wait: serviceTime, http: c.servers})
	if err != nil {
		return nil, tag, err
	}
	if r.status == http.StatusNotModified {
		return nil, tag, nil
	}
	return r.body, r.header.Get("ETag"), nil
}
