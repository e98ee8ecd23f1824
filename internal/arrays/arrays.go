// Package arrays is the service that matches peers: devices tell it what they hold, and get
// the addresses of others with the same bytes in the same group, and their site's lease
// (design sections 5 and 6). What it knows is in a registry.
//
// Group and device are the certificate's, the site is the connection's; what a request says
// of them is only compared. Knowing a HashOfHashes opens nothing here but the swarm of the
// caller's own group: to read from one of its devices takes a grant. A join may name its
// content by a URL instead (AltCatalogId); the swarm is then that of the bytes which the catalog
// says its group gets by it.
package arrays

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/registry"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Limits.
const (
	maxBody  = 1 << 20
	maxJoins = 1000 // contents of one join
)

// Types of peers.
const (
	typeLinkLocal = "LinkLocal" // same subnet
	typeLAN       = "LAN"       // same site
	typeGroup     = "Group"     // same group, elsewhere
)

// Places says where devices are.
type Places interface {
	Site(a netip.Addr) string
	// Reachable returns reported when a device that is connected from source may give it, else source.
	Reachable(source, reported netip.Addr) netip.Addr
}

// Swarms is what this service asks of the registry.
type Swarms interface {
	registry.Swarms
	Reached(ctx context.Context, now time.Time, device wire.DeviceID) (netip.AddrPort, error)
}

// Service answers POST /join/ and POST /leave/.
type Service struct {
	swarms   Swarms
	places   Places
	contents *contents
	now      func() time.Time
}

// New returns a service over these swarms.
func New(swarms Swarms, places Places, in catalog.Finder, now func() time.Time) *Service {
	return &Service{swarms: swarms, places: places, contents: newContents(in), now: now}
}

// Join answers POST /join/.
func (s *Service) Join(w http.ResponseWriter, r *http.Request) {
	var q api.JoinRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	from := caller{authz.From(r.Context()).Name, authz.Source(r)}
	if len(q.Contents) == 0 {
		reply, err := s.join(r.Context(), from, &q)
		if err != nil {
			web.Fail(w, r, err)
			return
		}
		web.WriteJSON(w, reply)
		return
	}
	if len(q.Contents) > maxJoins {
		web.Problem(w, r, api.Problem{Status: http.StatusBadRequest, Type: "too-many", Title: "too many contents in one join", Detail: "at most 1000 are allowed"})
		return
	}
	reply, err := s.joinAll(r.Context(), from, q.Contents)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	web.WriteJSON(w, reply)
}

// caller is who joins, and from where.
type caller struct {
	identity.Name
	source netip.Addr
}

// joinAll answers each content in order; one that is refused does not stop the others.
func (s *Service) joinAll(ctx context.Context, from caller, all []api.JoinRequest) (*api.JoinReply, error) {
	out := &api.JoinReply{Replies: make([]api.JoinReply, len(all))}
	for i := range all {
		reply, err := s.join(ctx, from, &all[i])
		var p *api.Problem
		switch {
		case errors.As(err, &p):
			out.Replies[i].Error = p
			continue
		case err != nil:
			return nil, err
		}
		out.Replies[i] = *reply
		if out.NextMillis == 0 || reply.NextMillis < out.NextMillis {
			out.NextMillis = reply.NextMillis
		}
	}
	return out, nil
}

func (s *Service) join(ctx context.Context, from caller, q *api.JoinRequest) (*api.JoinReply, error) {
	now := s.now()
	generation, err := s.resolve(ctx, now, from.Group, q)
	if err != nil {
		return nil, err
	}
	j, err := s.parse(from, q)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the join is not well formed", Detail: err.Error()}
	}
	if j.Mode == registry.ModeAcross {
		if j.Far, err = s.far(ctx, now, from, j.Address.Port()); err != nil {
			return nil, err
		}
	}
	a, err := s.swarms.Join(ctx, now, j)
	if err != nil {
		return nil, err
	}
	return replyOf(a, generation), nil
}

// resolve returns the newest generation of the content that a join names, 0 when it names none
// that the group may read; and fills in the HashOfHashes of one that is known by its URL alone.
func (s *Service) resolve(ctx context.Context, now time.Time, group string, q *api.JoinRequest) (int64, error) {
	if q.AltCatalogId == "" && q.Version <= 0 {
		return 0, nil // the swarm is named by its bytes alone
	}
	byURL := q.AltCatalogId != "" && q.HashOfHashes == ""
	asked := catalog.Asked{ID: q.ContentId, Version: uint64(max(q.Version, 0)), URL: q.AltCatalogId, Group: group}
	c, err := s.contents.find(ctx, now, asked)
	switch {
	case err == nil:
	case !byURL && (errors.Is(err, catalog.ErrNotFound) || errors.Is(err, catalog.ErrBadName)):
		return 0, nil
	default:
		return 0, asked.Problem(err)
	}
	if byURL {
		q.HashOfHashes = c.HashOfHashes.Base64()
	}
	return c.Generation, nil
}

// far returns where devices of other sites reach this one: where a probe did, while it is
// connected from there and its port is the same.
func (s *Service) far(ctx context.Context, now time.Time, from caller, port uint16) (netip.AddrPort, error) {
	at, err := s.swarms.Reached(ctx, now, from.Device)
	if err != nil || at != netip.AddrPortFrom(from.source, port) {
		return netip.AddrPort{}, err
	}
	return at, nil
}

// replyOf says an answer in the API's words.
func replyOf(a registry.Answer, generation int64) *api.JoinReply {
	reply := &api.JoinReply{NextMillis: a.Next.Milliseconds(), Generation: generation, Peers: make([]api.Peer, 0, len(a.Peers))}
	for _, p := range a.Peers {
		kind := typeGroup
		switch {
		case p.SameSubnet:
			kind = typeLinkLocal
		case p.SameSite:
			kind = typeLAN
		}
		reply.Peers = append(reply.Peers, api.Peer{PeerId: p.Device.PeerID(), Address: p.Address.String(), Type: kind, Left: p.Left})
	}
	if a.Lease.Held {
		reply.Lease = api.Lease{
			Mine: a.Lease.Mine, Holder: a.Lease.Holder.PeerID(), Epoch: a.Lease.Epoch,
			ExpiresMillis: a.Lease.Expires.Milliseconds(),
		}
	}
	return reply
}

// Leave answers POST /leave/.
func (s *Service) Leave(w http.ResponseWriter, r *http.Request) {
	var q api.LeaveRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	name := authz.From(r.Context()).Name
	hoh, err := content.ParseDigestBase64(q.HashOfHashes)
	if err == nil {
		err = checkPeerID(q.PeerId, name.Device)
	}
	if err != nil {
		web.Problem(w, r, api.Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "the leave is not well formed", Detail: err.Error()})
		return
	}
	key := registry.Key{Group: name.Group, HashOfHashes: hoh}
	if err := s.swarms.Leave(r.Context(), s.now(), key, name.Device); err != nil {
		web.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
