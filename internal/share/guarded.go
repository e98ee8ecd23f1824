package share

import (
	"errors"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// partTime is how long connections of a share in quarantine stay, to send what was said last.
const partTime = 250 * time.Millisecond

// Guard hears what concerns the freshness of contents (package guard). Its methods do not block.
type Guard interface {
	// Generation is told of a generation that an array's reply carried, when it is higher than
	// the one that the share's content was got with.
	Generation(ref content.Ref, generation uint64)
	// Hint takes a Validate Metadata that a device sent to this one alone. answer sends the body
	// of an acknowledgement; it may be called from any goroutine, once.
	Hint(from wire.DeviceID, v wire.Validate, answer func(body []byte))
	// Acknowledged takes the body of a device's acknowledgement of one that was told to it.
	Acknowledged(ref content.Ref, from wire.DeviceID, body []byte)
}

// Sought is the manifest that a share found; it is not changed.
type Sought struct {
	Bytes  []byte
	Parsed *content.Manifest
}

// guarded is what the guard decided on a share.
type guarded struct {
	allowed bool                   // the manifest may be used; without, there is neither an entry nor a draft
	pending func()                 // what is done once it may; nil: nothing yet
	onHold  bool                   // in quarantine
	refused bool                   // nobody wants the manifest: it is asked for no more
	out     map[wire.DeviceID]bool // nothing is taken from, or given to, these
}

// Sought returns the manifest once it is there. It is used when Allow was called.
func (s *Share) Sought() *Sought { return s.sought.Load() }

// Allow lets the manifest be used: there will be an entry, and pieces.
func (s *Share) Allow() {
	s.box.post(func() {
		s.guard.allowed = true
		s.used.Store(true)
		if f := s.guard.pending; f != nil {
			s.guard.pending = nil
			f()
		}
	})
}

// Allowed reports whether the manifest may be used.
func (s *Share) Allowed() bool { return s.used.Load() }

// Vouches returns nil when a publisher's signature of the manifest stands for the grant of a device
// of a group (design section 8).
func (s *Share) Vouches(p identity.Publishers, r identity.Reader) error {
	rec := s.Record()
	return s.voucher.Admits(p, r, identity.Claim{ID: rec.Ref.ID, Signature: rec.Signature, Manifest: func() ([]byte, error) {
		if m := s.Sought(); m != nil {
			return m.Bytes, nil
		}
		return nil, errors.New("the manifest is not there yet")
	}})
}

// Refuse lets a share whose manifest is not used rest: it meets the devices that hold it, asks
// nobody for anything, and leaves the elections to others.
func (s *Share) Refuse() {
	s.box.post(func() {
		if s.guard.allowed || s.guard.refused {
			return
		}
		s.guard.refused = true
		s.mu.Lock()
		s.rec.Wanted = false
		s.mu.Unlock()
		s.partWith()
	})
}

// unrefuse takes a share up again whose manifest is wanted after all.
func (s *Share) unrefuse() {
	if !s.guard.refused {
		return
	}
	s.guard.refused = false
	s.takePart()
}

// Heard reports whether an array has answered.
func (s *Share) Heard() bool { return s.heard.Load() }

// whenAllowed does f now or when the manifest may be used, in the place of what was to be done
// then.
func (s *Share) whenAllowed(f func()) {
	if s.guard.allowed {
		f()
		return
	}
	s.guard.pending = f
}

// found lets others see a manifest that is not used yet.
func (s *Share) found() {
	if s.sought.Load() != nil || s.meta == nil || s.meta.Parsed() == nil {
		return
	}
	s.sought.Store(&Sought{Bytes: s.meta.Manifest(), Parsed: s.meta.Parsed()})
	s.news.ring()
}

// Hold puts the share into quarantine, or takes it out. In quarantine it gives nothing, is in no
// array and lets nobody in, as if it were not here. What it fetches itself goes on.
func (s *Share) Hold(on bool) {
	s.quarantined.Store(on)
	s.box.post(func() {
		if s.guard.onHold == on {
			return
		}
		s.guard.onHold = on
		s.log.Info("quarantine", "on", on)
		if s.dev.Subnet != nil {
			s.dev.Subnet.OnHold(s.hoh, s.Record().Manifest, on)
		}
		s.kickJoin()
		for _, k := range s.live() {
			switch {
			case on:
				k.state(wire.Choke)
			case s.brain != nil && !s.brain.Choking():
				k.state(wire.Unchoke)
			}
		}
		if on {
			time.AfterFunc(partTime, func() { s.box.post(s.seclude) })
		}
	})
}

// seclude ends the connections of a share in quarantine that needs none for itself. Whoever told
// it that its copy is stale has its answer by then.
func (s *Share) seclude() {
	if !s.guard.onHold || !s.done() {
		return
	}
	for _, k := range s.live() {
		k.conn.Close()
	}
}

// OnHold reports whether the share is in quarantine.
func (s *Share) OnHold() bool { return s.quarantined.Load() }

// LeaveOut has nothing to do with these devices from now on, and lets in again whoever is not among
// them any more.
func (s *Share) LeaveOut(devices []wire.DeviceID) {
	s.box.post(func() {
		before := s.guard.out
		s.guard.out = map[wire.DeviceID]bool{}
		for _, d := range devices {
			s.guard.out[d] = true
			if k := s.linkOf(d); k != nil {
				k.conn.Close()
			}
		}
		for d := range before {
			if !s.guard.out[d] {
				s.kickJoin()
			}
		}
	})
}

// Part ends the connections to devices that gone names. It does not keep them from coming again.
func (s *Share) Part(gone func(wire.DeviceID) bool) {
	s.box.post(func() {
		for _, k := range s.live() {
			if gone(k.conn.Device) {
				k.conn.Close()
			}
		}
	})
}

// Present returns the devices that are connected; the slice is not changed.
func (s *Share) Present() []wire.DeviceID {
	if p := s.present.Load(); p != nil {
		return *p
	}
	return nil
}

// meet notes who is connected.
func (s *Share) meet() {
	var all []wire.DeviceID
	for _, k := range s.live() {
		all = append(all, k.conn.Device)
	}
	s.present.Store(&all)
	s.news.ring()
}

// Validate sends Validate Metadata to a device alone, if it is connected; gone is called when it is
// not, as when the share has ended. gone waits for nothing.
func (s *Share) Validate(device wire.DeviceID, v wire.Validate, gone func()) {
	posted := s.box.post(func() {
		k := s.linkOf(device)
		if k == nil {
			gone()
			return
		}
		body := wire.AppendValidate(nil, v)
		k.conn.Post(func(b []byte) []byte { return wire.AppendValidateMetadata(b, body) })
	})
	if !posted {
		gone()
	}
}

// validate takes a hint from a peer. Without TLS nobody knows who it is.
func (k *link) validate(rest []byte) {
	g := k.s.dev.Guard
	if g == nil || k.s.dev.Endpoint.Credentials == nil {
		return
	}
	body, err := wire.ParseValidateMetadata(rest)
	if err != nil {
		return
	}
	v, err := wire.ParseValidate(body)
	if err != nil {
		k.s.log.Info("validate metadata is refused", "device", k.conn.Device, "err", err)
		return
	}
	g.Hint(k.conn.Device, v, func(body []byte) {
		k.conn.Post(func(b []byte) []byte {
			return wire.AppendAck(b, wire.Ack{Of: wire.ValidateMetadata, Body: body})
		})
	})
}

// acknowledged takes an acknowledgement.
func (k *link) acknowledged(a wire.Ack) {
	switch {
	case a.Of == wire.WrongPiece:
		k.s.box.post(func() { k.s.excuse(k) })
	case a.Of == wire.ValidateMetadata && k.s.dev.Guard != nil:
		k.s.dev.Guard.Acknowledged(k.s.Record().Ref, k.conn.Device, slices.Clone(a.Body))
	}
}

// heardGeneration tells of a generation in an array's reply.
func (s *Share) heardGeneration(generation int64) {
	rec := s.Record()
	if g := s.dev.Guard; g != nil && generation > rec.Generation {
		g.Generation(rec.Ref, uint64(generation))
	}
}
