package swarm

import (
	"slices"
	"time"
)

// idleAfter is how long no byte comes from an origin before the WAN counts as idle: the shell tells
// of bytes about once a tick.
const idleAfter = 2 * TickInterval

// idle counts the time in which the device was to fetch from outside and no byte came from any
// origin (design section 6, rules of the flow, 4).
type idle struct {
	needed  bool          // as of the last tick: runs are to be had from origins, by this device
	since   time.Duration // of the last byte, or of needed
	counted time.Duration // of the time since then
}

// tickIdle counts the time up to a tick, and looks whether origins are needed.
func (s *Swarm) tickIdle(now time.Duration) {
	w := &s.wan
	was := w.idle.needed
	w.idle.needed = s.GoingOut() && s.needsOrigin()
	if was && w.idle.needed {
		s.countIdle(now)
	} else {
		w.idle.since, w.idle.counted = now, 0
	}
}

// needsOrigin reports whether a run is missing that is not to be had of peers.
func (s *Swarm) needsOrigin() bool {
	if len(s.wan.open) > 0 {
		return true
	}
	_, _, gap := s.pick.Gap(0, 1, s.trusted)
	return gap
}

// endIdle notes that a byte came.
func (s *Swarm) endIdle(now time.Duration) {
	if s.wan.idle.needed {
		s.countIdle(now)
	}
	s.wan.idle.since, s.wan.idle.counted = now, 0
}

// countIdle counts a pause that is long enough, all of it, and each part of it once. While what came
// is being written, the device is slow and not the WAN.
func (s *Swarm) countIdle(now time.Duration) {
	i := &s.wan.idle
	if slices.ContainsFunc(s.wan.open, func(f fetch) bool { return f.writing }) {
		i.since, i.counted = now, 0
	}
	if pause := now - i.since; pause > idleAfter {
		s.stats.WANIdle += pause - i.counted
		i.counted = pause
	}
}
