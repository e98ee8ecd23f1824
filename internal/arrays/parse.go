package arrays

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/registry"
	"freshet/internal/wire"
)

// parse checks a join and says it in the registry's words.
func (s *Service) parse(from caller, q *api.JoinRequest) (registry.Join, error) {
	hoh, err := content.ParseDigestBase64(q.HashOfHashes)
	if err != nil {
		return registry.Join{}, fmt.Errorf("field HashOfHashes: %w", err)
	}
	if err := checkPeerID(q.PeerId, from.Device); err != nil {
		return registry.Join{}, err
	}
	address, err := s.address(from, q)
	if err != nil {
		return registry.Join{}, err
	}
	if q.Left < 0 {
		return registry.Join{}, fmt.Errorf("field Left is %d bytes and must not be negative", q.Left)
	}
	mode := int(q.Scope)
	if mode == modeAcrossNAT {
		mode = registry.ModeGroup
	}
	return registry.Join{
		Key:         registry.Key{Group: from.Group, HashOfHashes: hoh},
		Device:      from.Device,
		Site:        s.places.Site(from.source),
		Address:     address,
		Mode:        mode,
		Left:        int64(q.Left),
		PeersWanted: int(min(max(q.PeersWanted, 0), registry.PeersMax)),
		WantLease:   q.WantLease,
		Stalled:     q.Stalled,
		LeaseEpoch:  q.LeaseEpoch,
	}, nil
}

// checkPeerID compares what a request says with the certificate; empty is left to it.
func checkPeerID(said string, is wire.DeviceID) error {
	if said != "" && said != peerID(is) {
		return fmt.Errorf("field PeerId: %q is not the certificate's, %q", said, peerID(is))
	}
	return nil
}

// address returns where the device is handed out. A reported address that it may not give is
// passed over for the connection's source.
func (s *Service) address(from caller, q *api.JoinRequest) (netip.AddrPort, error) {
	if q.Port < 1 || q.Port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("field Port: %d is not a number from 1 to 65535", q.Port)
	}
	at := from.source
	if q.ReportedIp != "" {
		reported, err := netip.ParseAddr(q.ReportedIp)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("field ReportedIp: %w", err)
		}
		at = s.places.Reachable(from.source, reported)
	}
	return netip.AddrPortFrom(at, uint16(q.Port)), nil
}

// Bounds of the memory of generations.
const (
	generationAge  = 2 * time.Second
	maxGenerations = 10_000
)

// generations remembers contents' generations for a moment, so that a join costs no look-up
// in the catalog.
type generations struct {
	contents Contents

	mu sync.Mutex // guards the following
	by map[content.Ref]generation
}

type generation struct {
	at      time.Time
	content *catalog.Content // nil: unknown
}

func newGenerations(c Contents) *generations {
	return &generations{contents: c, by: map[content.Ref]generation{}}
}

// of returns the newest generation of the content that a join names, 0 when there is none
// that the group may read.
func (g *generations) of(ctx context.Context, now time.Time, group string, q *api.JoinRequest) (int64, error) {
	id, err := content.ParseID(q.ContentId)
	if err != nil || q.Version <= 0 {
		return 0, nil // the swarm is named by its bytes alone
	}
	c, err := g.content(ctx, now, content.Ref{ID: id, Version: uint64(q.Version)})
	if err != nil || c == nil || !c.Allows(group) {
		return 0, err
	}
	return c.Generation, nil
}

func (g *generations) content(ctx context.Context, now time.Time, ref content.Ref) (*catalog.Content, error) {
	g.mu.Lock()
	known, ok := g.by[ref]
	g.mu.Unlock()
	if ok && now.Sub(known.at) < generationAge {
		return known.content, nil
	}
	found := generation{at: now}
	c, err := g.contents.Content(ctx, ref)
	switch {
	case err == nil:
		found.content = &c
	case !errors.Is(err, catalog.ErrNotFound):
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.by) >= maxGenerations {
		clear(g.by)
	}
	g.by[ref] = found
	return found.content, nil
}
