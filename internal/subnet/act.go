package subnet

import (
	"errors"
	"time"

	"freshet/internal/content"
	"freshet/internal/election"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

// handle takes a datagram, on the LAN's goroutine.
func (s *Subnet) handle(d lan.Datagram) {
	m, err := wire.ParseLAN(d.Message)
	if err != nil {
		s.log.Debug("datagram not understood", "device", d.Device, "err", err)
		if !errors.Is(err, wire.ErrLANType) { // a newer freshet may say more
			s.lan.Malformed()
		}
		return
	}
	s.post(func() {
		for _, b := range s.brains {
			if b.index == d.Link.Index {
				b.note(s.now(), &d)
				s.hear(b, d.Device, m)
			}
		}
	})
}

// Heard takes a LAN message that came over the swarm connection of a device, where datagrams do
// not arrive. One from another subnet is dropped.
func (s *Subnet) Heard(device wire.DeviceID, m wire.LANMessage) {
	s.post(func() {
		k := s.connected[device]
		if k == nil {
			return
		}
		for _, b := range s.brains {
			if b.holds(k.at) {
				s.hear(b, device, m)
				return
			}
		}
	})
}

// hear gives a message to a brain.
func (s *Subnet) hear(b *brain, from wire.DeviceID, m wire.LANMessage) {
	now := s.now()
	switch m := m.(type) {
	case wire.Question:
		s.do(b, b.OnQuestion(now, from, m, nil))
		if m.Subject.By == wire.ByHashOfHashes {
			s.meet(b, m.Subject.Digest, Neighbour{Device: from, Wants: true})
		}
	case wire.Answer:
		s.do(b, b.OnAnswer(now, from, m, nil))
		s.meet(b, m.HashOfHashes, Neighbour{Device: from})
	case wire.Heartbeat:
		s.do(b, b.OnHeartbeat(now, from, m, nil))
		for i := range m.Beats {
			leads := m.Beats[i].Flags&wire.Leads != 0
			s.meet(b, m.Beats[i].HashOfHashes, Neighbour{Device: from, Wants: !leads, Leads: leads})
		}
	case wire.Resign:
		s.do(b, b.OnResign(now, from, m, nil))
	case wire.Validate:
		if f := s.hint.Load(); f != nil {
			(*f)(Hint{Validate: m, From: from, Index: b.index})
		}
	}
}

// meet puts a device into the address book of a content, and tells the member of it now and then.
func (s *Subnet) meet(b *brain, hoh content.Digest, n Neighbour) {
	c, at := s.contents[hoh], b.seen[n.Device]
	if c == nil || at == nil || !at.swarm.IsValid() {
		return
	}
	n.At = at.swarm.String()
	now := s.now()
	o := c.neighbours[n.Device]
	if o == nil {
		if len(c.neighbours) >= maxNeighbours {
			forgetOldest(c.neighbours, func(n *neighbour) time.Duration { return n.heard })
		}
		o = &neighbour{told: now - meetEvery}
		c.neighbours[n.Device] = o
	}
	news := n.Leads && !o.Leads
	o.Neighbour, o.heard = n, now
	if news || now-o.told >= meetEvery {
		o.told = now
		c.member.Meets(n)
	}
}

// do does what a brain decided, in order.
func (s *Subnet) do(b *brain, acts []election.Action) {
	for i := 0; i < len(acts); i++ {
		a := &acts[i]
		switch a.Kind {
		case election.Broadcast:
			s.broadcast(b, a.Message)
		case election.Send:
			s.send(b, a.Device, a.Message)
		case election.Find:
			acts = s.find(b, &a.Subject, acts)
		case election.Found:
			s.found(a.Subject, a.Holdings)
		case election.AskOutside:
			s.askOutside(b, a.Subject)
		default:
			if c := s.contents[a.Content]; c != nil {
				c.turn(b, a)
				s.touched[c] = struct{}{}
			}
		}
	}
}

// find tells a brain of the entries that somebody asks for.
func (s *Subnet) find(b *brain, subject *wire.Subject, acts []election.Action) []election.Action {
	if subject.By == wire.ByHashOfHashes {
		if c := s.contents[subject.Digest]; c != nil {
			acts = c.append(b, acts)
		}
		return acts
	}
	for _, c := range s.contents {
		for i := range c.entries {
			if c.entries[i].Fits(subject) {
				acts = c.append(b, acts)
				break
			}
		}
	}
	return acts
}

// turn notes what a brain decided of a content.
func (c *Content) turn(b *brain, a *election.Action) {
	v, now := c.view(b), c.net.now()
	log := c.net.log.With("hashOfHashes", c.hoh.Short(), "interface", b.links[0].Name)
	switch a.Kind {
	case election.Lead:
		v.become(now, Leading)
		v.Epoch, v.Priority = a.Epoch, a.Priority
		log.Info("this device leads", "epoch", a.Epoch)
	case election.Raise:
		v.Epoch = a.Epoch
		log.Info("this device leads on, after another one thought that it was gone", "epoch", a.Epoch)
	case election.StopLeading:
		v.become(now, Idle)
		if c.wants {
			v.Role = Seeking
		}
		log.Info("this device leads no more", "epoch", a.Epoch, "reason", a.Reason, "successor", a.Device)
	case election.Follow:
		v.become(now, Following)
		v.Leader, v.Epoch, v.last = a.Device, a.Epoch, a.Device
		log.Info("this device follows", "leader", a.Device, "epoch", a.Epoch)
		if n := c.neighbours[a.Device]; n != nil {
			n.Leads, n.told = true, now
			c.member.Meets(n.Neighbour)
		}
	case election.StandBy:
		v.Ready = true
	case election.GoAlone:
		v.become(now, Alone)
		log.Info("this device does without a leader")
	case election.GoOut:
		v.Out = true
	case election.StayIn:
		v.Out = false
	case election.Hurry:
		v.Priority = a.Priority
	case election.Prove:
		c.member.Proves(a.Device)
	case election.Shun:
		v.become(now, Seeking)
		log.Info("nothing came of the leader: it is not followed for a while", "leader", a.Device)
	}
}
