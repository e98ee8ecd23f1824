package subnet

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"freshet/internal/election"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

// brain is the device on one interface.
type brain struct {
	*election.Election
	index int
	links []lan.Link
	net   netip.Prefix // the last IPv4 subnet; zero: there was none
	seen  map[wire.DeviceID]*seen
}

// seen is a device that was heard by datagram.
type seen struct {
	from  netip.AddrPort // where its datagrams come from
	swarm netip.AddrPort // zero: it lets nobody in
	at    time.Duration
}

// Same reports whether an address is on a subnet of this device.
func (s *Subnet) Same(a netip.Addr) bool {
	return slices.ContainsFunc(*s.near.Load(), func(l lan.Link) bool { return l.Holds(a) })
}

// Open reports whether datagrams are sent anywhere.
func (s *Subnet) Open() bool { return len(*s.links.Load()) > 0 }

// Prefix returns the IPv4 subnet of this device's own address, where that is not known of its
// first interface. The zero prefix: it is on none.
func (s *Subnet) Prefix() netip.Prefix {
	home := s.opt.Home()
	for _, l := range *s.near.Load() {
		if l.Local.Addr().Is4() && (!home.IsValid() || l.Local.Contains(home)) {
			return l.Local.Masked()
		}
	}
	return netip.Prefix{}
}

// linked takes the links that are open now: brains come and go with them.
func (s *Subnet) linked(links []lan.Link) {
	s.links.Store(&links)
	kept := s.brains
	s.brains = nil
	for rest := links; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Index == rest[0].Index {
			n++
		}
		same := rest[:n:n]
		rest = rest[n:]
		i := slices.IndexFunc(kept, func(b *brain) bool { return b.stays(same) })
		if i < 0 {
			s.begin(same)
			continue
		}
		b := kept[i]
		kept = slices.Delete(slices.Clone(kept), i, i+1)
		b.links, b.net = same, netOf(same, b.net)
		s.brains = append(s.brains, b)
	}
	for _, b := range kept {
		s.drop(b)
	}
	for _, k := range s.seeks {
		s.answer(k)
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// netOf returns the IPv4 subnet of links, or else the last one.
func netOf(links []lan.Link, last netip.Prefix) netip.Prefix {
	for _, l := range links {
		if l.Local.Addr().Is4() {
			return l.Local.Masked()
		}
	}
	return last
}

// stays reports whether links are of the subnet that the brain is on.
func (b *brain) stays(links []lan.Link) bool {
	return b.index == links[0].Index && (!b.net.IsValid() || netOf(links, b.net) == b.net)
}

// begin adds a brain, which learns what this device wants.
func (s *Subnet) begin(links []lan.Link) {
	b := &brain{
		index: links[0].Index, links: links, net: netOf(links, netip.Prefix{}), seen: map[wire.DeviceID]*seen{},
		Election: election.New(election.Config{
			Self: s.self, Seed: s.opt.Seed(), Weight: s.opt.Weight(links[0]), Conditions: s.cond, LeaseWait: s.opt.LeaseWait,
		}),
	}
	s.log.Info("elections begin on an interface", "interface", links[0].Name, "subnet", b.net)
	s.brains = append(s.brains, b)
	for _, c := range s.contents {
		if c.wants {
			c.tell(b)
		}
		s.touched[c] = struct{}{}
	}
	for _, k := range s.seeks {
		s.do(b, b.OnSeek(s.now(), k.subject, k.priority, nil))
	}
}

// drop forgets a brain whose links are gone: nothing can be said there any more.
func (s *Subnet) drop(b *brain) {
	s.log.Info("elections end on an interface", "interface", b.links[0].Name, "subnet", b.net)
	for _, c := range s.contents {
		delete(c.views, b)
		s.touched[c] = struct{}{}
	}
	for _, k := range s.seeks {
		delete(k.outside, b)
	}
}

// holds reports whether an address is on the brain's subnet.
func (b *brain) holds(a netip.Addr) bool {
	return slices.ContainsFunc(b.links, func(l lan.Link) bool { return l.Holds(a) })
}

// note remembers whom a datagram came from.
func (b *brain) note(now time.Duration, d *lan.Datagram) {
	n := b.seen[d.Device]
	if n == nil {
		if len(b.seen) >= maxSeen {
			forgetOldest(b.seen, func(n *seen) time.Duration { return n.at })
		}
		n = &seen{}
		b.seen[d.Device] = n
	}
	n.from, n.at = d.From, now
	n.swarm = netip.AddrPort{}
	if at, ok := d.Swarm(); ok {
		n.swarm = at
	}
}

// forgetOldest forgets the device that was silent for longest.
func forgetOldest[V any](devices map[wire.DeviceID]V, heard func(V) time.Duration) {
	var oldest wire.DeviceID
	at := time.Duration(1<<63 - 1)
	for id, v := range devices {
		if h := heard(v); h < at {
			oldest, at = id, h
		}
	}
	delete(devices, oldest)
}

// hears reports whether datagrams of a device arrive.
func (b *brain) hears(now time.Duration, device wire.DeviceID) bool {
	n := b.seen[device]
	return n != nil && now-n.at < silent
}

// connected is a device that swarms are connected with.
type connected struct {
	at      netip.Addr
	talkers []Talker
}

// Talker says a LAN message over an open swarm connection, without waiting.
type Talker interface{ Say(message []byte) }

// Connected tells of a swarm connection to a device, at its address.
func (s *Subnet) Connected(device wire.DeviceID, at netip.Addr, t Talker) {
	s.post(func() {
		k := s.connected[device]
		if k == nil {
			k = &connected{}
			s.connected[device] = k
		}
		k.at, k.talkers = at, append(k.talkers, t)
	})
}

// Disconnected tells that it closed. With the last one of a device, the device may be gone.
func (s *Subnet) Disconnected(device wire.DeviceID, t Talker) {
	s.post(func() {
		k := s.connected[device]
		if k == nil {
			return
		}
		k.talkers = slices.DeleteFunc(k.talkers, func(o Talker) bool { return o == t })
		if len(k.talkers) > 0 {
			return
		}
		delete(s.connected, device)
		for _, b := range s.brains {
			s.do(b, b.OnGone(s.now(), device, nil))
		}
	})
}

// broadcast says a message to all on a brain's subnet.
func (s *Subnet) broadcast(b *brain, m wire.LANMessage) {
	message := m.AppendLAN(nil)
	s.left(s.lan.Send(b.index, message))
	now := s.now()
	for device, k := range s.connected {
		if b.holds(k.at) && !b.hears(now, device) {
			k.talkers[0].Say(message)
		}
	}
}

// send says a message to one device.
func (s *Subnet) send(b *brain, device wire.DeviceID, m wire.LANMessage) {
	message := m.AppendLAN(nil)
	if k := s.connected[device]; k != nil && !b.hears(s.now(), device) {
		k.talkers[0].Say(message)
	} else if n := b.seen[device]; n != nil {
		s.left(s.lan.SendTo(b.index, n.from, message))
	}
}

// left notes whether a datagram left, and says so when that has changed. An interface that is
// about to be closed is no news.
func (s *Subnet) left(err error) {
	if mute := err != nil && !errors.Is(err, lan.ErrOff); mute != s.mute {
		s.mute = mute
		if mute {
			s.log.Warn("datagrams to the subnet do not leave", "err", err)
		} else {
			s.log.Info("datagrams to the subnet leave again")
		}
	}
}
