package share

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"freshet/internal/wire"
)

// TestLargeMessagesWait: of the large messages of a peer one waits for a share that is busy, the
// next one is not taken, and the end of the share ends the waiting.
func TestLargeMessagesWait(t *testing.T) {
	for name, m := range map[string]wire.Message{
		"bitfields": {Kind: wire.Bitfield, Body: make([]byte, wire.MaxBitfield)},
		"parts": {Kind: wire.Envelope, Body: wire.AppendPart(nil, wire.Part{
			Of: wire.GetManifest, Total: wire.MaxPart, Frame: make([]byte, wire.MaxPart),
		})[wire.HeaderSize:]},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				s := &Share{ctx: ctx, box: newMailbox()}
				k := &link{s: s, large: make(chan struct{}, 1)}
				var taken atomic.Int64
				go func() {
					for range 100 {
						k.Message(nil, m)
						taken.Add(1)
					}
				}()
				for round := range int64(3) {
					synctest.Wait()
					events := s.box.take()
					if n := taken.Load(); len(events) != 1 || n != round+1 {
						t.Fatalf("round %d: %d events wait, %d messages were taken", round, len(events), n)
					}
					events[0]()
				}
				stop()
				synctest.Wait()
				if n := taken.Load(); n != 100 {
					t.Errorf("the reader waits for a share that has ended: %d messages", n)
				}
			})
		})
	}
}
