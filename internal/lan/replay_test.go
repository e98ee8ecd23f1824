package lan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/identity"
)

func TestReplay(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	var all [][]byte
	for i := range counters + 10 {
		all = append(all, mustSeal(t, s, fmt.Sprint(i)))
	}
	open := func(step string, i int, want Reason) {
		t.Helper()
		if _, _, why := o.Open(near, all[i]); why != want {
			t.Errorf("%s: datagram %d: %s, want %s", step, i, why, want)
		}
	}
	open("first", 0, Taken)
	open("again", 0, Replay)
	open("a gap", 5, Taken)
	open("out of order", 3, Taken)
	open("out of order again", 3, Replay)
	open("far ahead", counters+9, Taken)
	open("behind the window", 9, Replay)
	open("the window's last", 10, Taken)
	open("the window's last again", 10, Replay)
	open("a big jump forgot none", 5, Replay)
}

// TestReplayAcrossBoots: what a device sent before a restart does not come back, however often
// it restarts, and whatever its clock does.
func TestReplayAcrossBoots(t *testing.T) {
	c := newClock()
	o := opener(t, c)
	var sent [][]byte
	boot := func(step string, want Reason) {
		t.Helper()
		b := mustSeal(t, sealer(t, c, 1), "m")
		if _, _, why := o.Open(near, b); why != want {
			t.Errorf("%s: %s, want %s", step, why, want)
		} else if want == Taken {
			sent = append(sent, b)
		}
	}
	for i := range maxBoots {
		boot(fmt.Sprint("start ", i), Taken)
		c.at = c.at.Add(-time.Second)
	}
	c.at = begin.Add(time.Second)
	for i := range maxBoots {
		boot(fmt.Sprint("start ", maxBoots+i), Taken)
		c.at = c.at.Add(time.Second)
	}
	c.at = begin
	boot("a clock that went back beyond what is remembered", Replay)
	c.at = begin.Add(10 * time.Second)
	for i, b := range sent {
		if _, _, why := o.Open(near, b); why != Replay {
			t.Errorf("replay of start %d: %s", i, why)
		}
	}
}

// TestReplayModel compares the window with a set of all that came.
func TestReplayModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type mark struct{ boot, counter uint64 }
		all, s := newSenders(), identity.Pass{Device: device(1)}
		came := map[mark]bool{}
		highest := map[uint64]uint64{}
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			h := header{
				boot:    rapid.Uint64Range(1, maxBoots).Draw(t, "boot"),
				counter: rapid.Uint64Range(1, 200).Draw(t, "counter"),
				time:    begin.UnixMilli() + rapid.Int64Range(0, 1000).Draw(t, "time"),
			}
			m := mark{h.boot, h.counter}
			want := !came[m] && h.counter+counters > highest[h.boot]
			if got := all.of(device(1)).fresh(&h); got != want {
				t.Fatalf("%+v: fresh %v, want %v", h, got, want)
			}
			if want {
				all.note(&h, s, begin)
				came[m] = true
				highest[h.boot] = max(highest[h.boot], h.counter)
			}
		}
	})
}

// TestSendersAreBounded: memory does not grow with the members, and the silent are forgotten
// only when what they sent is too old.
func TestSendersAreBounded(t *testing.T) {
	now := begin
	all := newSenders()
	note := func(n int) bool {
		h := header{signed: []byte{1}, boot: 1, counter: 1, time: now.UnixMilli()}
		return all.note(&h, identity.Pass{Device: device(n)}, now)
	}
	for n := range maxSenders {
		if !note(n) {
			t.Fatalf("no room for device %d", n)
		}
	}
	if note(maxSenders) {
		t.Errorf("room for more than %d devices", maxSenders)
	}
	now = now.Add(senderLife)
	if note(maxSenders) {
		t.Error("a sender was forgotten before its time")
	}
	now = now.Add(time.Second)
	if !note(maxSenders) || len(all.known) != 1 {
		t.Errorf("%d devices are remembered, want the new one alone", len(all.known))
	}
}

func TestFullIsSaid(t *testing.T) {
	c := newClock()
	o := opener(t, c)
	for n := range maxSenders {
		h := header{boot: 1, counter: 1, time: begin.UnixMilli()}
		o.senders.note(&h, identity.Pass{Device: device(n + 200)}, begin)
	}
	if _, m, why := o.Open(near, mustSeal(t, sealer(t, c, 1), "m")); why != Full || m != nil {
		t.Errorf("got %s, message %q", why, m)
	}
}

// TestFlood: a stranger's junk is bounded by its address, and silences nobody in whose name it
// comes; a member's forgeries are bounded too.
func TestFlood(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	junk := mustSeal(t, s, "m")
	junk[len(junk)-1] ^= 1
	forged := forge(t, speaker(t, 2, "lab").Key, speaker(t, 1, "lab").Signed, header{boot: 1, counter: 1, time: begin.UnixMilli()}, "m")
	stranger, honest, newcomer := netip.MustParseAddr("192.0.2.66"), near, netip.MustParseAddr("192.0.2.3")
	flood := func(from netip.Addr, b []byte, n int) (opened int) {
		for range n {
			if _, _, why := o.Open(from, b); why != Flood {
				opened++
			}
		}
		return opened
	}
	if got := flood(stranger, junk, 10_000); got != boundUnknown {
		t.Errorf("%d junk datagrams of 10000 were opened, want %d", got, boundUnknown)
	}
	if _, _, why := o.Open(stranger, mustSeal(t, s, "m")); why != Flood {
		t.Errorf("after its flood: %s", why)
	}
	if _, _, why := o.Open(honest, mustSeal(t, s, "m")); why != Taken {
		t.Errorf("another address: %s", why)
	}
	if got := flood(honest, junk, 100_000); got != 100_000 {
		t.Errorf("an honest address was silenced after %d datagrams in its name", got)
	}
	if _, _, why := o.Open(honest, mustSeal(t, s, "m")); why != Taken {
		t.Errorf("in a flood in its name: %s", why)
	}
	if got := flood(honest, forged, 10_000); got != boundGood/costForged {
		t.Errorf("%d forgeries of 10000 were checked, want %d", got, boundGood/costForged)
	}
	if got := flood(newcomer, forged, 10_000); got != boundUnknown/costForged {
		t.Errorf("%d forgeries of 10000 of a newcomer were checked, want %d", got, boundUnknown/costForged)
	}
	c.at, c.off = c.at.Add(time.Second), -time.Hour // a service said that the clock is an hour fast
	for _, from := range []netip.Addr{stranger, honest, newcomer} {
		if _, _, why := o.Open(from, mustSeal(t, s, "m")); why != Taken {
			t.Errorf("%s a second later: %s", from, why)
		}
	}
}

// TestFloodFromManyAddresses: memory is bounded, an honest address that is known stays heard,
// and so does one that comes anew when the flood is not too fast.
func TestFloodFromManyAddresses(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	junk := mustSeal(t, s, "m")
	junk[len(junk)-1] ^= 1
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != Taken {
		t.Fatal(why)
	}
	for i := range 10_000 {
		o.Open(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), junk)
	}
	if len(o.sources.known) > maxSources {
		t.Errorf("%d addresses are remembered, at most %d are allowed", len(o.sources.known), maxSources)
	}
	for _, from := range []string{near.String(), "192.0.2.200"} {
		if _, _, why := o.Open(netip.MustParseAddr(from), mustSeal(t, s, "m")); why != Taken {
			t.Errorf("%s: %s", from, why)
		}
	}
	for i := range 3 * boundOthers {
		o.Open(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), junk)
	}
	if _, _, why := o.Open(netip.MustParseAddr("192.0.2.201"), mustSeal(t, s, "m")); why != Flood {
		t.Errorf("addresses beyond the room have no bound: %s", why)
	}
	c.at = c.at.Add(sourceLife + time.Second)
	if _, _, why := o.Open(netip.MustParseAddr("192.0.2.202"), mustSeal(t, s, "m")); why != Taken || len(o.sources.known) != 1 {
		t.Errorf("after the flood: %s, %d addresses are remembered", why, len(o.sources.known))
	}
}

func TestReasonNames(t *testing.T) {
	var names []string
	for r := range reasons {
		name := r.String()
		if name == "" || slices.Contains(names, name) {
			t.Errorf("reason %d is %q", r, name)
		}
		names = append(names, name)
	}
	if s := reasons.String(); !strings.HasPrefix(s, "reason ") {
		t.Errorf("no reason: %q", s)
	}
	var c counts
	c.add(Old)
	c.add(Old)
	if got := c.byName(); len(got) != 1 || got["old"] != 2 {
		t.Errorf("counts %v", got)
	}
}
