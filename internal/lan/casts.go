package lan

import (
	"net/netip"
	"time"
)

const (
	broadcastFor = time.Minute     // after a device was heard that needs it
	lonelyAfter  = 5 * time.Second // without a multicast of another device, and between two broadcasts then
	maxHeard     = 256             // addresses that multicasts came from
)

// cast is how a datagram came.
type cast uint8

const (
	toOne   cast = iota // or not known: on Windows
	toGroup             // multicast
	toAll               // broadcast
)

// casts decides whether what goes to all of a link is broadcast besides. Where multicast works, what
// a device does for its own sake makes no other device broadcast: that needs broadcasts of a device
// that no multicast comes from.
type casts struct {
	group map[netip.AddrPort]time.Time // last multicast of each other device
	alone time.Time                    // last broadcast of one whose multicast is not heard
	heard time.Time                    // last multicast of any, or when the link was opened
	tried time.Time                    // last broadcast because no multicast is heard
}

func newCasts(now time.Time) casts {
	return casts{group: map[netip.AddrPort]time.Time{}, heard: now}
}

// onHeard notes a datagram by how it came and what the check made of it: those of the group's devices
// count alone. A multicast may be a replay: the broadcast of the same was faster. What is to this
// device does not say that multicast works, and so on Windows nothing does: there a device goes on
// broadcasting.
func (c *casts) onHeard(now time.Time, from netip.AddrPort, how cast, why Reason) {
	last, known := c.group[from]
	switch {
	case how == toGroup && (why == Taken || why == Replay):
		c.heard = now
		if !known && len(c.group) >= maxHeard {
			clear(c.group) // those who speak are back soon
		}
		c.group[from] = now
	case how == toAll && why == Taken && (!known || now.Sub(last) > broadcastFor):
		c.alone = now
	}
}

// broadcasts reports whether what is sent to all now is broadcast, too.
func (c *casts) broadcasts(now time.Time) bool {
	switch {
	case !c.alone.IsZero() && now.Sub(c.alone) <= broadcastFor:
		return true
	case now.Sub(c.heard) <= lonelyAfter || now.Sub(c.tried) <= lonelyAfter:
		return false
	}
	c.tried = now
	return true
}
