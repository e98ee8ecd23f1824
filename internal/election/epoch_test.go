package election

import (
	"testing"
	"time"

	"freshet/internal/wire"

	"pgregory.net/rapid"
)

// TestEpochsOfOthers: whatever epochs others send, in whatever role the device is, its own
// epoch and the highest that it accepts never fall, and move within what others accept.
func TestEpochsOfOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := New(Config{Self: deviceOf(0), Seed: 1, Weight: WeightDesktop, Conditions: Conditions{MayGoOut: true}})
		hoh, now := hohOf(0), time.Duration(0)
		e.OnEntry(0, Entry{HashOfHashes: hoh, Manifest: hoh, Held: 1, Total: 1000}, nil)
		e.OnLease(0, hoh, LeaseNone, nil)
		e.OnWant(0, hoh, wire.Background, nil)
		c := e.contests[hoh]
		var own, accepted uint64 // before the last event
		t.Repeat(map[string]func(*rapid.T){
			"time": func(t *rapid.T) {
				now += time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond
				e.OnTick(now, nil)
			},
			"piece": func(*rapid.T) { e.OnPiece(now, hoh, wire.DeviceID{}, min(c.held+1, c.total-1), nil) },
			"message": func(t *rapid.T) {
				from := deviceOf(rapid.IntRange(1, 3).Draw(t, "from"))
				hear(e, now, from, drawClaim(t, c))
			},
			"gone": func(t *rapid.T) { e.OnGone(now, deviceOf(rapid.IntRange(1, 3).Draw(t, "device")), nil) },
			"": func(t *rapid.T) {
				switch {
				case c.own < own:
					t.Fatalf("the device's epoch fell from %d to %d", own, c.own)
				case c.epoch < accepted || c.epoch > accepted+maxStep+1:
					t.Fatalf("the highest accepted epoch went from %d to %d", accepted, c.epoch)
				case c.role == leading && (c.own == 0 || c.own > c.epoch || c.own >= c.begun+maxStep):
					t.Fatalf("the device leads epoch %d, begun with %d, and accepts %d", c.own, c.begun, c.epoch)
				}
				own, accepted = c.own, c.epoch
			},
		})
	})
}

// drawClaim is a message about the bytes of c with an epoch near a limit, or near one that c knows.
func drawClaim(t *rapid.T, c *contest) wire.LANMessage {
	base := rapid.SampledFrom([]uint64{0, c.own, c.epoch, c.begun + maxStep, c.epoch + maxJump, 1 << 63}).Draw(t, "base")
	epoch := max(1, base+uint64(rapid.IntRange(-2, 2).Draw(t, "step"))) // from 0, too, down to the highest of all
	device := deviceOf(rapid.IntRange(0, 3).Draw(t, "device"))
	st := wire.Standing{Able: rapid.Bool().Draw(t, "able"), Weight: rapid.Uint8Range(0, wire.MaxWeight).Draw(t, "weight")}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return wire.Question{Standing: st, Subject: c.subject()}
	case 1:
		s := c.subject()
		return wire.Answer{Tag: s.Tag(), HashOfHashes: c.id, Manifest: c.id, Standing: st}
	case 2:
		return wire.Resign{HashOfHashes: c.id, Epoch: epoch, Reason: wire.ResignReason(rapid.IntRange(1, 4).Draw(t, "reason")), Successor: device}
	}
	b := wire.Beat{HashOfHashes: c.id, Epoch: epoch, Held: rapid.Uint32Range(0, c.total).Draw(t, "held"), Total: c.total, Device: device}
	b.Flags = wire.BeatFlags(rapid.IntRange(0, 31).Draw(t, "flags"))
	return wire.Heartbeat{Weight: st.Weight, Beats: []wire.Beat{b}}
}
