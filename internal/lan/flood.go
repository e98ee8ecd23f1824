package lan

import (
	"net/netip"
	"time"
)

// Bounds of what fails from one source address, in about microseconds of work a second. An
// address that good datagrams came from is most likely forged in what fails, so nothing that
// does not open counts against it: whoever is not of the group cannot silence it. Only a failing
// signature does, which takes a member to make, with a high bound.
const (
	costUnopened = 1
	costForged   = 10
	boundUnknown = 500    // of an address that nothing good came from
	boundGood    = 20_000 // of one that something good came from
	boundOthers  = 20_000 // of all addresses together that there is no room for
	goodFor      = time.Minute
	maxSources   = 1024 // addresses remembered
	sourceLife   = 2 * goodFor
)

// sources bounds what failing datagrams cost. Times are of a clock that never goes back: else what
// failed would count for as long as it went.
type sources struct {
	known  map[netip.Addr]*source
	others source // see source.many
	swept  time.Time
}

type source struct {
	failed float64   // work on what failed in the last second, about: a leaky bucket
	at     time.Time // of failed
	good   time.Time // when the last good datagram came
	many   bool      // stands for all addresses that there is no room for
}

func newSources() *sources {
	return &sources{known: map[netip.Addr]*source{}, others: source{many: true}}
}

// of returns what is known of an address, up to now.
func (s *sources) of(a netip.Addr, now time.Time) *source {
	p, ok := s.known[a]
	if !ok {
		return &s.others
	}
	p.drain(now)
	return p
}

func (p *source) isGood(now time.Time) bool { return !p.good.IsZero() && now.Sub(p.good) < goodFor }

func (p *source) bound(now time.Time) float64 {
	switch {
	case p.many:
		return boundOthers
	case p.isGood(now):
		return boundGood
	}
	return boundUnknown
}

func (p *source) drain(now time.Time) {
	if d := now.Sub(p.at); d > 0 {
		p.failed = max(0, p.failed-d.Seconds()*p.bound(now))
		p.at = now
	}
}

// allowed reports whether a datagram from a may cost something.
func (s *sources) allowed(a netip.Addr, now time.Time) bool {
	p := s.of(a, now)
	p.drain(now)
	return p.failed < p.bound(now)
}

// unopened notes a datagram that does not open.
func (s *sources) unopened(a netip.Addr, now time.Time) {
	if p := s.remember(a, now); !p.isGood(now) {
		p.failed += costUnopened
	}
}

// forged notes a datagram that opens, and whose pass or signature is not good.
func (s *sources) forged(a netip.Addr, now time.Time) { s.remember(a, now).failed += costForged }

// good notes a datagram that was taken.
func (s *sources) good(a netip.Addr, now time.Time) {
	if p := s.remember(a, now); p != &s.others {
		p.good = now
	}
}

// remember returns the entry of a, which it makes while there is room.
func (s *sources) remember(a netip.Addr, now time.Time) *source {
	p := s.of(a, now)
	if p != &s.others {
		return p
	}
	if len(s.known) >= maxSources && !s.sweep(now) {
		return p
	}
	p = &source{at: now}
	s.known[a] = p
	return p
}

// sweep forgets what has not been heard of lately, at most once a second, and reports whether
// there is room.
func (s *sources) sweep(now time.Time) bool {
	if d := now.Sub(s.swept); d >= 0 && d < time.Second {
		return false
	}
	s.swept = now
	for a, p := range s.known {
		if now.Sub(p.at) > sourceLife {
			delete(s.known, a)
		} else if p.drain(now); p.failed == 0 && !p.isGood(now) {
			delete(s.known, a)
		}
	}
	return len(s.known) < maxSources
}
