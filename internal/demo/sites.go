package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/localapi"
	"freshet/internal/wire"
)

// settleTime is how long both ends of a connection may take to have counted the same.
const settleTime = 2 * time.Second

// pair is what went from one device to one of another site, as each of the two counts it.
type pair struct {
	from, to       int // devices, from 0
	sent, received int64
}

// apart is by how much the two ends differ.
func (p pair) apart() int64 { return max(p.sent-p.received, p.received-p.sent) }

// betweenSites returns what went from site to site, and an error when the two ends do
// not agree about it.
func (f *fleet) betweenSites(ctx context.Context) ([]pair, error) {
	at := map[wire.DeviceID]int{}
	for i := range f.opt.Devices {
		c, err := identity.LoadCredentials(filepath.Join(f.agentState(i), "identity"))
		if err != nil {
			return nil, fmt.Errorf("demo: who %s is: %w", f.agentName(i), err)
		}
		at[c.Name().Device] = i
	}
	deadline := time.Now().Add(settleTime)
	var all []pair
	err := f.poll(ctx, "the devices to have counted", func() (bool, error) {
		told, err := f.traffic(ctx)
		all = pairs(f.opt.Sites, at, told)
		same := !slices.ContainsFunc(all, func(p pair) bool { return p.sent != p.received })
		return same || time.Now().After(deadline), err
	})
	return all, errors.Join(err, disagreement(all))
}

// traffic returns what each device says of the others.
func (f *fleet) traffic(ctx context.Context) ([][]agent.Traffic, error) {
	told := make([][]agent.Traffic, f.opt.Devices)
	for i := range told {
		var err error
		if told[i], err = (localapi.Client{Path: f.socket(i)}).Traffic(ctx); err != nil {
			return nil, fmt.Errorf("demo: what %s exchanged: %w", f.agentName(i), err)
		}
	}
	return told, nil
}

// pairs brings together what both ends say of each way between devices of different sites.
// Device i is of site i modulo sites; at tells the devices' numbers.
func pairs(sites int, at map[wire.DeviceID]int, told [][]agent.Traffic) []pair {
	by := map[[2]int]*pair{}
	way := func(from, to int) *pair {
		key := [2]int{from, to}
		if by[key] == nil {
			by[key] = &pair{from: from, to: to}
		}
		return by[key]
	}
	for i := range told {
		for _, t := range told[i] {
			other, ok := at[t.Device]
			if !ok || other%sites == i%sites {
				continue
			}
			way(i, other).sent += t.Sent
			way(other, i).received += t.Received
		}
	}
	var all []pair
	for _, p := range by {
		if p.sent > 0 || p.received > 0 {
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b pair) int { return cmp.Or(a.from-b.from, a.to-b.to) })
	return all
}

// disagreement is an error when the two ends differ by more than what was cancelled on its way,
// which the sender alone counts: two full runs, and one byte in sixteen, at most. It names
// where they differ most.
func disagreement(all []pair) error {
	var sent, received, apart int64
	var worst pair
	for _, p := range all {
		sent, received, apart = sent+p.sent, received+p.received, apart+p.apart()
		if p.apart() > worst.apart() {
			worst = p
		}
	}
	if apart <= 2*content.PieceSize+max(sent, received)/16 {
		return nil
	}
	return fmt.Errorf("demo: devices count %d bytes sent to other sites, and %d received from there, so that what crossed the WAN is not known; device-%d counts %d sent to device-%d, which counts %d received",
		sent, received, worst.from+1, worst.sent, worst.to+1, worst.received)
}

// addPeers adds what peers of other sites sent, by the senders' count.
func (r *Report) addPeers(all []pair) {
	r.BytesFromOtherSitesPerSite = make([]int64, r.Sites)
	for _, p := range all {
		r.Devices[p.to].BytesFromOtherSites += p.sent
		r.BytesFromOtherSites += p.sent
		r.BytesFromOtherSitesPerSite[p.to%r.Sites] += p.sent
		r.WANBytesPerSite[p.to%r.Sites] += p.sent
	}
}
