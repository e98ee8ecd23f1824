package sim

import (
	"testing"
	"time"
)

func TestDbg(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip()
	}
	c := scenario(*seedFlag)
	t.Logf("%+v", c)
	s := newSim(c)
	fetchers := map[int32]time.Duration{}
	next := time.Duration(0)
	for len(s.q.heap) > 0 && s.left > 0 && s.now < c.Limit+time.Hour {
		e := s.q.pop()
		s.now = e.at
		s.handle(e)
		for i := range s.devs {
			d := &s.devs[i]
			if d.brain != nil && len(d.fetches) > 0 {
				if _, ok := fetchers[int32(i)]; !ok {
					fetchers[int32(i)] = s.now
					t.Logf("%v device %d goes out, leader %v left %d peers %d", s.now, i, s.sites[d.site].leader, d.brain.Left(), d.brain.Peers())
				}
			}
		}
		if s.now > next {
			next += 5 * time.Second
			mn, mx, sum := 1<<30, 0, 0
			for i := range c.Devices {
				if s.devs[i].dead { continue }
				l := s.devs[i].brain.Left()
				mn, mx, sum = min(mn, l), max(mx, l), sum+l
			}
			t.Logf("%v left %d..%d avg %d, done %d, wan %v runs %d", s.now, mn, mx, sum/c.Devices, c.Devices-s.left, s.res.WANBytes, s.runs)
		}
	}
	for i := range c.Devices {
		if s.devs[i].done == 0 && !s.devs[i].dead {
			t.Log(i, s.devs[i].brain.Dbg())
		}
	}
	t.Logf("%+v", s.result())
}
