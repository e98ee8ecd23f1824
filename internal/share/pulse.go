package share

import (
	"time"

	"freshet/internal/subnet"
)

// pulse is what the elections hear of bytes on their way from outside the subnet: that something
// comes though no piece of it is whole yet, and how fast.
type pulse struct {
	heard   time.Duration // last byte of metadata or pieces; 0: none yet
	grown   time.Duration // last whole run, or when the device was let out
	fromFar int64         // bytes of runs from peers beyond the subnet
	bytes   int64         // of all runs from beyond it, at grown
	rate    float64       // bytes a second
	felt    time.Duration // last pulse
}

const (
	pulseTime = 250 * time.Millisecond // between two pulses
	heardTime = time.Second / 2        // a byte says for that long that others come
	typical   = 1 << 20                // bytes of a run
)

// feel tells the elections how the bytes come. Slow ones that are heard are progress as well;
// their rate is less than a run in the time since the last one, so that nobody gives up on
// the device while it is.
func (s *Share) feel() {
	p, now := &s.role.pulse, s.now()
	if s.role.part == nil || now-p.felt < pulseTime || s.alone.Load() {
		return
	}
	p.felt = now
	if s.role.stand.Role == subnet.Following { // its connection is to stay open
		s.warm()
	}
	alive := p.heard > 0 && now-p.heard < heardTime
	if alive || now < s.delay {
		s.role.part.Progress()
	}
	since := max(now-p.grown, pulseTime)
	most := typical / since.Seconds()
	switch total := s.beyond(); {
	case total > p.bytes:
		sample := float64(total-p.bytes) / since.Seconds()
		if p.rate > 0 {
			sample = p.rate + (sample-p.rate)/4
		}
		p.rate, p.bytes, p.grown = sample, total, now
	case !alive && since > 2*heardTime:
		p.rate = 0
	case alive && (p.rate == 0 || most < p.rate):
		p.rate = most
	}
	if r := s.role.stand.Role; r == subnet.Leading || r == subnet.Alone {
		s.role.part.Rate(p.rate)
	}
}

// beyond returns the bytes of all runs that came from beyond the subnet.
func (s *Share) beyond() int64 {
	n := s.role.fromFar
	if s.brain != nil {
		n += s.brain.Stats().FromOrigin
	}
	return n
}

// hearing returns what is called when bytes of metadata come from an origin, on one goroutine.
func (s *Share) hearing() func() {
	last := -pulseTime
	return func() {
		if now := s.now(); now-last >= pulseTime {
			last = now
			s.box.post(func() { s.role.heard = now })
		}
	}
}
