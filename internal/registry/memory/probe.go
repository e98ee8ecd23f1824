package memory

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

// probes are the devices that were reached from outside. The zero value is ready.
type probes struct {
	mu sync.Mutex // guards the following
	by map[wire.DeviceID]probe
}

type probe struct {
	at    netip.AddrPort
	until time.Time
}

// Probed implements registry.Probes.
func (r *Registry) Probed(_ context.Context, now time.Time, device wire.DeviceID, at netip.AddrPort) error {
	p := &r.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !at.IsValid():
		delete(p.by, device)
	case p.by == nil:
		p.by = map[wire.DeviceID]probe{device: {at, now.Add(registry.ProbeTime)}}
	default:
		p.by[device] = probe{at, now.Add(registry.ProbeTime)}
	}
	return nil
}

// Reached implements registry.Probes.
func (r *Registry) Reached(_ context.Context, now time.Time, device wire.DeviceID) (netip.AddrPort, error) {
	r.probes.mu.Lock()
	defer r.probes.mu.Unlock()
	found, ok := r.probes.by[device]
	if !ok || !now.Before(found.until) {
		return netip.AddrPort{}, nil
	}
	return found.at, nil
}

// sweep forgets what is too old.
func (p *probes) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, found := range p.by {
		if !now.Before(found.until) {
			delete(p.by, d)
		}
	}
}
