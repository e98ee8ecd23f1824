package sim

import (
	"sort"
	"testing"
	"time"
)

const gbit = 125e6

func TestThousand(t *testing.T) {
	for _, liars := range []int{0, 10} {
		start := time.Now()
		r := Run(Config{Seed: 1, Devices: 1000, Liars: liars, Size: 3e9, Up: gbit, Down: gbit, WAN: gbit, Delay: 250 * time.Microsecond})
		sort.Slice(r.Finished, func(i, j int) bool { return r.Finished[i] < r.Finished[j] })
		t.Log(r.Finished[0], r.Finished[100], r.Finished[500], r.Finished[900], r.Finished[990])
		t.Logf("liars %d: slowest %v bound %v ratio %.3f wan %.3f wasted %.3f wrong %.4f hedges %d bans %d events %d unfinished %d in %v", liars, r.Slowest, r.Bound,
			r.Ratio(), float64(r.WANBytes[0])/3e9, float64(r.Wasted)/3e12, float64(r.Wrong)/3e12, r.Hedges, r.Bans, r.Events, r.Unfinished, time.Since(start))
	}
}
