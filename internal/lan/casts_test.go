package lan

import (
	"net/netip"
	"testing"
	"time"
)

var neighbour = netip.MustParseAddrPort("10.0.0.2:7680")

// TestBroadcastWhenLonely: a device that hears no multicast broadcasts now and then, until it hears one
// of its group. Nothing else keeps it from that: what comes to it alone, and all that comes on
// Windows; what no device of its group sent.
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
	for _, tt := range []struct {
		how  cast
		why  Reason
		ends bool
	}{
		{toGroup, Taken, true}, {toGroup, Replay, true}, {toGroup, Own, false}, {toGroup, Unsealed, false},
		{toGroup, UnknownKey, false}, {toOne, Taken, false}, {toOne, Replay, false}, {toAll, Unsealed, false}, {toAll, Replay, false},
	} {
		at = at.Add(2 * lonelyAfter)
		c.onHeard(at, neighbour, tt.how, tt.why)
		if got := !c.broadcasts(at.Add(lonelyAfter)); got != tt.ends {
			t.Errorf("a datagram (%d, %v) ends the broadcasts: %v, want %v", tt.how, tt.why, got, tt.ends)
		}
		if tt.ends && !c.broadcasts(at.Add(lonelyAfter+1)) {
			t.Errorf("it does not broadcast when multicasts (%v) are not heard any more", tt.why)
		}
	}
	if !c.alone.IsZero() {
		t.Error("it broadcasts for a device that there is not")
	}
}

// TestBroadcastWhereNeeded: for a minute after a broadcast of a device that no multicast comes from;
// where multicast works, nobody goes on because another one does.
func TestBroadcastWhereNeeded(t *testing.T) {
	at := time.Unix(1000, 0)
	c := newCasts(at)
	c.onHeard(at, neighbour, toAll, Taken)
	if !c.broadcasts(at.Add(time.Second)) || !c.broadcasts(at.Add(broadcastFor)) {
		t.Error("it does not broadcast for one that is heard by broadcasts alone")
	}
	at = at.Add(broadcastFor + time.Second)
	c.onHeard(at, neighbour, toGroup, Taken)
	c.onHeard(at, neighbour, toAll, Taken)
	if c.broadcasts(at.Add(time.Second)) {
		t.Error("it broadcasts for one that is heard by multicast, too")
	}
	alone := c.alone
	c.onHeard(at.Add(broadcastFor), neighbour, toAll, Taken)
	if c.alone != alone {
		t.Error("it broadcasts for one that was heard by multicast in the last minute")
	}
	at = at.Add(broadcastFor + 1)
	c.onHeard(at, neighbour, toAll, Taken)
	if !c.broadcasts(at) {
		t.Error("it does not broadcast for one whose multicasts are heard no more")
	}
	for i := range 3 * maxHeard {
		c.onHeard(at, netip.AddrPortFrom(neighbour.Addr(), uint16(i)), toGroup, Taken)
	}
	if len(c.group) > maxHeard {
		t.Errorf("%d addresses are kept, want at most %d", len(c.group), maxHeard)
	}
}
