package share

import (
	"sync"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Traffic is what went between this device and another one: bytes of pieces that arrived or
// left since the agent began, wrong and doubled ones among them.
type Traffic struct {
	HashOfHashes content.Digest `json:"hashOfHashes"` // of the swarm
	Device       wire.DeviceID  `json:"device"`
	Far          bool           `json:"otherSite,omitempty"` // the array said that it is of another site
	Sent         int64          `json:"sent"`
	Received     int64          `json:"received"`

	placed bool // the array said where it is
}

// traffic counts by the device at the other end, in one swarm. Who accepts a connection
// learns from the array only later, or never, which site it came from: what crossed between
// two sites is known for sure only to somebody who knows where both devices are.
type traffic struct {
	mu sync.Mutex // guards the following
	by map[wire.DeviceID]*Traffic
}

func (t *traffic) change(d wire.DeviceID, f func(*Traffic)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[wire.DeviceID]*Traffic{}
	}
	if t.by[d] == nil {
		t.by[d] = &Traffic{Device: d}
	}
	f(t.by[d])
}

func (t *traffic) sent(d wire.DeviceID, n int) { t.change(d, func(e *Traffic) { e.Sent += int64(n) }) }
func (t *traffic) received(d wire.DeviceID, n int) {
	t.change(d, func(e *Traffic) { e.Received += int64(n) })
}

// place notes where the array says that a device is.
func (t *traffic) place(d wire.DeviceID, far bool) {
	t.change(d, func(e *Traffic) { e.Far, e.placed = far, true })
}

// isFar reports whether a device is of another site, once the array said where it is.
func (t *traffic) isFar(d wire.DeviceID) (far, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.by[d]; e != nil {
		return e.Far, e.placed
	}
	return false, false
}

// far returns the bytes from and to devices of other sites, as far as the array said who is.
func (t *traffic) far() (from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.by {
		if e.Far {
			from, to = from+e.Received, to+e.Sent
		}
	}
	return from, to
}

func (t *traffic) appendTo(out []Traffic, swarm content.Digest) []Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.by {
		if e.Sent > 0 || e.Received > 0 {
			one := *e
			one.HashOfHashes = swarm
			out = append(out, one)
		}
	}
	return out
}
