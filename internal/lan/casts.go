package lan

import (
	"net/netip"
	"time"
)

const (
	broadcastFor = time.Minute     // after a device was heard that needs it
	lonelyAfter  = 5 * time.Second // without a datagram of another device, and between two broadcasts then
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
	heard time.Time                    // last datagram of any, or when the link was opened
	tried time.Time                    // last broadcast because nobody is heard
}

func newCasts(now time.Time) casts {
	return casts{group: map[netip.AddrPort]time.Time{}, heard: now}
}

// onHeard notes a datagram of another device, by how it came.
func (c *casts) onHeard(now time.Time, from netip.AddrPort, how cast) {
	c.heard = now
	last, known := c.group[from]
	switch {
	case how == toGroup:
		if !known && len(c.group) >= maxHeard {
			clear(c.group) // those who speak are back soon
		}
		c.group[from] = now
	case how == toAll && (!known || now.Sub(last) > broadcastFor):
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
