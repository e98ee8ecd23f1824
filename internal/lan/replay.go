package lan

import (
	"bytes"
	"time"

	"freshet/internal/identity"
	"freshet/internal/wire"
)

const (
	maxSenders = 4096 // devices heard lately; about 1 KiB each
	maxBoots   = 4    // of a device, each with its window
	counters   = 64   // width of a window
)

// senderLife is how long a sender is remembered after the newest time that it wrote. What it
// wrote until then is too old twice over, so a clock that goes back a little lets no replay in.
const senderLife = 2 * Window

// senders remembers who spoke lately, and what of it has come already. Only who has shown a
// pass and a signature is entered, so its size is the members' doing.
type senders struct {
	known map[wire.DeviceID]*sender
	swept time.Time
}

// sender is what is remembered of a device.
type sender struct {
	signed []byte        // the pass that was checked last
	pass   identity.Pass // in signed
	boots  [maxBoots]boot
	floor  int64 // Unix ms; a boot that is not among boots must write a later time
}

// boot is one start of a device: its window of counters.
//
// Bit i of seen says that counter highest-i has come; newest is 0 when the slot is free.
type boot struct {
	id, highest, seen uint64
	newest            int64 // highest time written, Unix ms
}

func newSenders() *senders { return &senders{known: map[wire.DeviceID]*sender{}} }

// of returns what is remembered of a device, nil for nothing.
func (s *senders) of(id wire.DeviceID) *sender { return s.known[id] }

// checked reports whether this very pass was found good before.
func (s *sender) checked(signed []byte) bool { return s != nil && bytes.Equal(s.signed, signed) }

// fresh reports whether a datagram has not come before.
func (s *sender) fresh(h *header) bool {
	if s == nil {
		return true
	}
	b := s.boot(h.boot)
	switch {
	case b == nil:
		return h.time > s.floor
	case h.counter > b.highest:
		return true
	case b.highest-h.counter >= counters:
		return false
	}
	return b.seen&(1<<(b.highest-h.counter)) == 0
}

func (s *sender) boot(id uint64) *boot {
	for i := range s.boots {
		if s.boots[i].newest != 0 && s.boots[i].id == id {
			return &s.boots[i]
		}
	}
	return nil
}

// note takes a fresh datagram as come. It reports false when there is no room for its sender.
func (s *senders) note(h *header, pass identity.Pass, now time.Time) bool {
	e := s.known[pass.Device]
	if e == nil {
		if len(s.known) >= maxSenders && !s.sweep(now) {
			return false
		}
		e = &sender{}
		s.known[pass.Device] = e
	}
	if !e.checked(h.signed) {
		e.signed, e.pass = bytes.Clone(h.signed), pass
	}
	e.note(h)
	return true
}

func (s *sender) note(h *header) {
	b := s.boot(h.boot)
	if b == nil {
		b = s.oldest()
		s.floor = max(s.floor, b.newest)
		*b = boot{id: h.boot}
	}
	if h.counter > b.highest {
		b.seen = b.seen<<min(h.counter-b.highest, counters) | 1 // a shift by 64 gives 0
		b.highest = h.counter
	} else {
		b.seen |= 1 << (b.highest - h.counter)
	}
	b.newest = max(b.newest, h.time)
}

// oldest returns the boot that wrote the lowest times, or a free one.
func (s *sender) oldest() *boot {
	b := &s.boots[0]
	for i := range s.boots {
		if s.boots[i].newest < b.newest {
			b = &s.boots[i]
		}
	}
	return b
}

// newest returns the highest time that the device wrote.
func (s *sender) newest() int64 {
	t := s.floor
	for i := range s.boots {
		t = max(t, s.boots[i].newest)
	}
	return t
}

// sweep forgets devices that have long been silent, at most once a second, and reports whether
// there is room.
func (s *senders) sweep(now time.Time) bool {
	if d := now.Sub(s.swept); d >= 0 && d < time.Second {
		return false
	}
	s.swept = now
	limit := now.Add(-senderLife).UnixMilli()
	for id, e := range s.known {
		if e.newest() < limit {
			delete(s.known, id)
		}
	}
	return len(s.known) < maxSenders
}

// forgetPasses has every pass checked again.
func (s *senders) forgetPasses() {
	for _, e := range s.known {
		e.signed = nil
	}
}
