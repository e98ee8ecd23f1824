package sim

import (
	"os"
	"sort"
	"strconv"
	"testing"
	"time"
)

func TestMany(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("MANY"))
	var wasted, again, ratio []float64
	bad := 0
	for seed := uint64(1000); seed < uint64(1000+n); seed++ {
		c := scenario(seed)
		r := Run(c)
		if r.Unfinished > 0 || r.Unheld > 0 {
			t.Errorf("seed %d: unfinished %d unheld %d", seed, r.Unfinished, r.Unheld)
		}
		calm := len(c.Stalled)+len(c.Kill)+len(c.KillLeaders)+c.Silent+c.Liars == 0
		if calm {
			bad++
			if r.Again > 0 {
				t.Errorf("seed %d calm but again %d", seed, r.Again)
			}
			if x := float64(r.Wasted)/float64(c.Size)/float64(c.Devices); x > 0.02 {
				t.Errorf("seed %d calm but wasted %.3f hedges %d up %.0f down %.0f wan %.0f delay %v loss %.3f run %d size %d", seed, x, r.Hedges, c.Up, c.Down, c.WAN, c.Delay, c.Loss, c.RunSize, c.Size)
			}
		}
		if float64(r.Again)/float64(c.Size)/float64(c.Sites) > 0.5 {
			t.Logf("again seed %d: %.2f stalled %d kill %d leaders %d silent %d liars %d up %.0f down %.0f wan %.0f", seed, float64(r.Again)/float64(c.Size)/float64(c.Sites), len(c.Stalled), len(c.Kill), len(c.KillLeaders), c.Silent, c.Liars, c.Up, c.Down, c.WAN)
		}
		again = append(again, float64(r.Again)/float64(c.Size)/float64(max(c.Sites, 1)))
		wasted = append(wasted, float64(r.Wasted)/float64(c.Size)/float64(c.Devices))
		var last time.Duration
		for _, m := range []map[int]time.Duration{c.Join, c.Kill, c.Stalled} {
			for _, at := range m { last = max(last, at) }
		}
		for _, at := range c.KillLeaders { last = max(last, at) }
		if x := float64(r.Slowest)/float64(r.Bound+last); x > 6 && r.Slowest > 150*time.Second {
			t.Logf("slow seed %d: %.2f bound %v slowest %v stalled %d kill %d leaders %d silent %d liars %d up %.0f down %.0f wan %.0f", seed, x, r.Bound, r.Slowest, len(c.Stalled), len(c.Kill), len(c.KillLeaders), c.Silent, c.Liars, c.Up, c.Down, c.WAN)
		}
		ratio = append(ratio, float64(r.Slowest)/float64(r.Bound+last))
	}
	q := func(x []float64) {
		sort.Float64s(x)
		t.Logf("%.3f %.3f %.3f %.3f %.3f", x[len(x)/2], x[len(x)*9/10], x[len(x)*99/100], x[len(x)*999/1000], x[len(x)-1])
	}
	q(wasted)
	q(again)
	q(ratio)
	t.Log("calm", bad)
}
