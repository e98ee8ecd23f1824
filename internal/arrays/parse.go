package arrays

import (
	"fmt"
	"net/netip"

	"freshet/internal/api"
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
	subnet, err := subnetOf(q.Subnet, address.Addr())
	if err != nil {
		return registry.Join{}, err
	}
	var follows wire.DeviceID
	if q.Leader != "" {
		if follows, err = wire.ParsePeerID(q.Leader); err != nil {
			return registry.Join{}, fmt.Errorf("field Leader: %w", err)
		}
	}
	return registry.Join{
		Key:         registry.Key{Group: from.Group, HashOfHashes: hoh},
		Device:      from.Device,
		Site:        s.places.Site(from.source),
		Address:     address,
		Mode:        int(q.Scope),
		Left:        int64(q.Left),
		PeersWanted: int(min(max(q.PeersWanted, 0), registry.PeersMax)),
		WantLease:   q.WantLease,
		Stalled:     q.Stalled,
		LeaseEpoch:  q.LeaseEpoch,
		LeaderEpoch: int64(max(q.LeaderEpoch, 0)),
		Follows:     follows,
		Subnet:      subnet,
	}, nil
}

// subnetOf returns the subnet that a device reports. One that its address is not in is passed
// over: the device may be behind a NAT, or lie.
func subnetOf(said string, at netip.Addr) (netip.Prefix, error) {
	if said == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(said)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("field Subnet: %w", err)
	}
	if !p.Contains(at) {
		return netip.Prefix{}, nil
	}
	return p.Masked(), nil
}

// checkPeerID compares what a request says with the certificate; empty is left to it.
func checkPeerID(said string, is wire.DeviceID) error {
	if said != "" && said != is.PeerID() {
		return fmt.Errorf("field PeerId: %q is not the certificate's, %q", said, is.PeerID())
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
