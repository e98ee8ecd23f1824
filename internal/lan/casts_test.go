package lan

import (
	"net/netip"
	"testing"
	"time"
)

var neighbour = netip.MustParseAddrPort("10.0.0.2:7680")

// TestBroadcastWhenLonely: a device that hears nobody broadcasts now and then, until it hears somebody.
func TestBroadcastWhenLonely(t *testing.T) {
	at := time.Unix(1000, 0)
	c := newCasts(at)
	sent := 0
	for i := range 600 { // a leader's beats of a minute, from when the link was opened
		if c.broadcasts(at.Add(time.Duration(i) * 100 * time.Millisecond)) {
			sent++
		}
	}
	if sent != 11 {
		t.Errorf("%d broadcasts in a minute in which nobody was heard, want one each %v after the first", sent, lonelyAfter)
	}
	at = at.Add(time.Minute)
	for _, how := range []cast{toOne, toGroup} {
		at = at.Add(2 * lonelyAfter)
		c.onHeard(at, neighbour, how)
		if c.broadcasts(at.Add(lonelyAfter)) {
			t.Errorf("it broadcasts although it heard a device (%d) lately", how)
		}
		if !c.broadcasts(at.Add(lonelyAfter + 1)) {
			t.Errorf("it does not broadcast when a device (%d) was not heard any more", how)
		}
	}
}

// TestBroadcastWhereNeeded: for a minute after a broadcast of a device that no multicast comes from;
// where multicast works, nobody goes on because another one does.
func TestBroadcastWhereNeeded(t *testing.T) {
	at := time.Unix(1000, 0)
	c := newCasts(at)
	c.onHeard(at, neighbour, toAll)
	if !c.broadcasts(at.Add(time.Second)) || !c.broadcasts(at.Add(broadcastFor)) {
		t.Error("it does not broadcast for one that is heard by broadcasts alone")
	}
	at = at.Add(broadcastFor + time.Second)
	c.onHeard(at, neighbour, toGroup)
	c.onHeard(at, neighbour, toAll)
	if c.broadcasts(at.Add(time.Second)) {
		t.Error("it broadcasts for one that is heard by multicast, too")
	}
	c.onHeard(at.Add(broadcastFor), neighbour, toAll)
	if c.broadcasts(at.Add(broadcastFor)) {
		t.Error("it broadcasts for one that was heard by multicast in the last minute")
	}
	at = at.Add(broadcastFor + 1)
	c.onHeard(at, neighbour, toAll)
	if !c.broadcasts(at) {
		t.Error("it does not broadcast for one whose multicasts are heard no more")
	}
	for i := range 3 * maxHeard {
		c.onHeard(at, netip.AddrPortFrom(neighbour.Addr(), uint16(i)), toGroup)
	}
	if len(c.group) > maxHeard {
		t.Errorf("%d addresses are kept, want at most %d", len(c.group), maxHeard)
	}
}
