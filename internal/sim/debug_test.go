package sim

import (
	"os"
	"testing"
	"time"
)

func TestDebug(t *testing.T) {
	if os.Getenv("SIMDEBUG") == "" {
		return
	}
	s := newSim(Config{Seed: 1, Devices: 1000, Size: 3e9, Up: gbit, Down: gbit, WAN: gbit, Delay: 250 * time.Microsecond})
	next := time.Second
	last := int64(0)
	for len(s.q.heap) > 0 && s.left > 0 {
		e := s.q.pop()
		s.now = e.at
		s.handle(e)
		if s.now > next {
			var tot int64
			min, max := 1<<30, 0
			busy := 0
			for i := range s.devs {
				st := s.devs[i].brain.Stats()
				tot += st.FromPeers
				l := s.devs[i].brain.Left()
				if int32(i) == s.leader[0] {
					continue
				}
				if l < min {
					min = l
				}
				if l > max {
					max = l
				}
				if s.devs[i].up.free > s.now {
					busy++
				}
			}
			ld := s.devs[s.leader[0]]
			t.Logf("%v util %.3f left %d..%d busy %d done %d leader sent %.3f left %d queue %v", s.now.Round(time.Millisecond), float64(tot-last)/gbit/1000, min, max, busy, 1000-s.left, float64(ld.brain.Stats().Sent)/3e9, ld.brain.Left(), ld.brain.Debug())
			last = tot
			next += time.Second
		}
	}
}
