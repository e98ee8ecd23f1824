package client

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
)

// authorization returns the header that shows the client's token, empty when it has none.
func (c *Client) authorization() http.Header {
	h := http.Header{}
	if c.opt.Token != nil {
		h.Set("Authorization", c.opt.Token.Authorization())
	}
	return h
}

func (c *Client) post(what, url string, body any, again bool) request {
	return request{what: what, method: http.MethodPost, url: url, header: c.authorization(), body: body, max: maxReply, again: again, http: c.servers}
}

// ask is post of what may be made twice, to a service that has its reply at hand.
func (c *Client) ask(what, url string, body any) request {
	q := c.post(what, url, body, true)
	q.wait = serviceTime
	return q
}

// list asks the server for all of one kind of thing.
func list[T any](ctx context.Context, c *Client, kind string) ([]T, error) {
	r, err := c.call(ctx, request{what: "list " + kind, method: http.MethodGet, url: c.serverURL("/v1/" + kind),
		header: c.authorization(), max: maxList, again: true, http: c.servers})
	if err != nil {
		return nil, err
	}
	var out []T
	return out, decode("list "+kind, r, &out)
}

// add posts a thing of one kind and returns what the server made of it.
func add[T any](ctx context.Context, c *Client, kind string, body any) (T, error) {
	var out T
	r, err := c.call(ctx, c.post("add to "+kind, c.serverURL("/v1/"+kind), body, false))
	if err != nil {
		return out, err
	}
	return out, decode("add to "+kind, r, &out)
}

// remove deletes a thing of one kind; doing it twice says the second time that it is unknown.
func (c *Client) remove(ctx context.Context, kind, name string) error {
	return c.delete(ctx, kind, c.serverURL("/v1/"+kind)+"/"+url.PathEscape(name))
}

func (c *Client) delete(ctx context.Context, kind, at string) error {
	_, err := c.call(ctx, request{what: "remove from " + kind, method: http.MethodDelete,
		url: at, header: c.authorization(), max: maxReply, http: c.servers})
	return err
}

// Publish registers a content. It needs a publish token, or an origin's certificate: with the
// publisher's ticket, or for what the origin registers itself.
func (c *Client) Publish(ctx context.Context, p api.PublishRequest) (api.Content, error) {
	var out api.Content
	q := c.post("publish", c.serverURL("/v1/contents"), p, false)
	if len(p.Ticket) > 0 {
		q.header.Set(identity.TicketHeader, base64.StdEncoding.EncodeToString(p.Ticket))
	}
	r, err := c.call(ctx, q)
	if err != nil {
		return out, err
	}
	return out, decode("publish", r, &out)
}

// Ticket asks for the permission to upload one content to one distribution point. It needs a
// publish token.
func (c *Client) Ticket(ctx context.Context, t api.TicketRequest) ([]byte, error) {
	out, err := add[api.TicketReply](ctx, c, "tickets", t)
	return out.Ticket, err
}

// SetURLs makes these the URLs that a version is known by. It needs a publish token.
func (c *Client) SetURLs(ctx context.Context, ref content.Ref, urls []string) (api.Content, error) {
	return add[api.Content](ctx, c, "contents/"+ref.String()+"/urls", api.ContentURLs{Urls: urls})
}

// Differs lists what devices expect that a version's manifest is not. It needs a publish token.
func (c *Client) Differs(ctx context.Context, ref content.Ref) ([]api.ExpectedDiffers, error) {
	return list[api.ExpectedDiffers](ctx, c, "contents/"+ref.String()+"/differs")
}

// Contents lists the contents of the catalog.
func (c *Client) Contents(ctx context.Context) ([]api.Content, error) {
	return list[api.Content](ctx, c, "contents")
}

// Sites lists the sites.
func (c *Client) Sites(ctx context.Context) ([]api.Site, error) {
	return list[api.Site](ctx, c, "sites")
}

// AddSite adds a site, or CIDRs to one.
func (c *Client) AddSite(ctx context.Context, s api.Site) (api.Site, error) {
	return add[api.Site](ctx, c, "sites", s)
}

// RemoveSite removes a site.
func (c *Client) RemoveSite(ctx context.Context, name string) error {
	return c.remove(ctx, "sites", name)
}

// Groups lists the groups.
func (c *Client) Groups(ctx context.Context) ([]api.Group, error) {
	return list[api.Group](ctx, c, "groups")
}

// AddGroup adds a group.
func (c *Client) AddGroup(ctx context.Context, g api.Group) (api.Group, error) {
	return add[api.Group](ctx, c, "groups", g)
}

// Devices lists the devices and origins that enrolled.
func (c *Client) Devices(ctx context.Context) ([]api.Device, error) {
	return list[api.Device](ctx, c, "devices")
}

// RevokeDevice puts a device on the deny list.
func (c *Client) RevokeDevice(ctx context.Context, id string) error {
	return c.remove(ctx, "devices", id)
}

// Tokens lists the tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]api.Token, error) {
	return list[api.Token](ctx, c, "tokens")
}

// AddToken makes a token of this kind, group, expiry and count. The reply alone has its text.
func (c *Client) AddToken(ctx context.Context, t api.Token) (api.Token, error) {
	return add[api.Token](ctx, c, "tokens", t)
}

// RemoveToken makes a token worthless.
func (c *Client) RemoveToken(ctx context.Context, id string) error {
	return c.remove(ctx, "tokens", id)
}

// RemoveGroup removes a group that no device and no content is in.
func (c *Client) RemoveGroup(ctx context.Context, name string) error {
	return c.remove(ctx, "groups", name)
}

// Recall withdraws one version of a content.
func (c *Client) Recall(ctx context.Context, ref content.Ref) error {
	return c.remove(ctx, "contents", ref.String())
}

// Settings lists the settings that the fleet's administrator gave.
func (c *Client) Settings(ctx context.Context) ([]api.Setting, error) {
	return list[api.Setting](ctx, c, "settings")
}

// SetSetting gives a setting a value.
func (c *Client) SetSetting(ctx context.Context, s api.Setting) (api.Setting, error) {
	return add[api.Setting](ctx, c, "settings", s)
}

// RemoveSetting takes a setting's value back.
func (c *Client) RemoveSetting(ctx context.Context, name string) error {
	return c.remove(ctx, "settings", name)
}

// RemoveSiteSetting takes back what a setting was for the devices of a site.
func (c *Client) RemoveSiteSetting(ctx context.Context, site, name string) error {
	return c.delete(ctx, "settings", c.serverURL("/v1/settings")+"/"+url.PathEscape(name)+"?"+url.Values{"site": {site}}.Encode())
}
