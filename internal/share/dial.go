package share

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"time"

	"freshet/internal/api"
	"freshet/internal/peer"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

const dialTime = 15 * time.Second

// isNear reports whether the array says that a peer is of this device's site.
func isNear(p api.Peer) bool { return p.Type == "LAN" || p.Type == "LinkLocal" }

// offer takes a peer that the array named: it is dialled unless it is connected, or there are
// enough, or it is beyond the reach of this device. Who goes there dials it then.
func (s *Share) offer(p api.Peer) {
	id, err := wire.ParsePeerID(p.PeerId)
	at, bad := netip.ParseAddrPort(p.Address)
	if err != nil || bad != nil {
		return
	}
	zone := s.zone(at.Addr(), !isNear(p))
	s.traffic.place(id, zone == swarm.Elsewhere)
	if k := s.linkOf(id); k != nil {
		s.place(k, zone)
		s.offered++
		return
	}
	if zone != swarm.SameSubnet && s.reach == swarm.ReachSubnet || s.done() && p.Left == 0 {
		return // two complete devices have nothing to say to each other
	}
	s.offered++
	s.connect(id, p.Address, zone)
}

// meets takes a device that spoke of the content on the subnet. Of two that miss pieces one
// dials; whoever misses some dials its leader, and holders.
func (s *Share) meets(n subnet.Neighbour) {
	leads := s.role.stand.Role == subnet.Leading
	switch {
	case s.done(), s.alone.Load():
	case n.Wants && (leads || bytes.Compare(s.self[:], n.Device[:]) > 0):
	default:
		s.connect(n.Device, n.At, swarm.SameSubnet)
	}
}

// connect dials a device unless it is connected, or there are enough.
func (s *Share) connect(id wire.DeviceID, at string, zone swarm.Zone) {
	if id == s.self || s.dialing[id] || s.guard.out[id] || s.linkOf(id) != nil ||
		len(s.live())+len(s.dialing) >= s.dev.Settings.MaxPeers() {
		return
	}
	s.dialing[id] = true
	if !s.owner.Spawn(func() { s.dial(id, at, zone) }) {
		delete(s.dialing, id)
	}
}

func (s *Share) dial(id wire.DeviceID, at string, zone swarm.Zone) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTime)
	c, _, err := s.dev.Endpoint.Dial(ctx, at, s.Hello())
	cancel()
	s.box.post(func() { delete(s.dialing, id) })
	if err != nil {
		s.log.Debug("peer not reached", "device", id, "address", at, "err", err)
		return
	}
	s.link(s.ctx, c, zone, true)
}

// linkOf returns the link to a device; nil when there is none.
func (s *Share) linkOf(id wire.DeviceID) *link {
	for _, k := range s.links {
		if k != nil && k.conn.Device == id {
			return k
		}
	}
	return nil
}

// place tells the brain where a connected device turned out to be: who was dialled by it
// could not know.
func (s *Share) place(k *link, zone swarm.Zone) {
	k.zone = zone
	if k.introduced && !k.banned {
		s.acts = s.brain.OnZone(s.now(), k.id, zone, s.acts)
	}
}

func (s *Share) done() bool { return s.dormant || s.brain != nil && s.brain.Left() == 0 }

// addressOf returns the other end's address.
func addressOf(c *peer.Conn) netip.Addr {
	if at, ok := c.Remote().(*net.TCPAddr); ok {
		return at.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
