package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "run TestSeeds with this seed alone")

const gbit = 125e6 // bytes a second

// scenario draws a small site or three with everything that may go wrong in them.
func scenario(seed uint64) Config {
	rng := rand.New(rand.NewPCG(seed, 2))
	rates := []float64{gbit / 100, gbit / 10, gbit}
	c := Config{
		Seed:    seed,
		Devices: 20 + rng.IntN(41),
		Sites:   1 + rng.IntN(3),
		Size:    1 + rng.Int64N(60<<20),
		RunSize: 64 << 10 << rng.IntN(5),
		Up:      rates[rng.IntN(3)],
		Down:    rates[rng.IntN(3)],
		WAN:     rates[rng.IntN(3)],
		Delay:   time.Duration(rng.Int64N(int64(50 * time.Millisecond))),
		Stalled: map[int]time.Duration{},
		Join:    map[int]time.Duration{},
		Kill:    map[int]time.Duration{},
	}
	if rng.IntN(2) == 0 {
		c.Loss = rng.Float64() * 0.05
	}
	if rng.IntN(2) == 0 {
		c.Liars = rng.IntN(c.Devices * 3 / 10)
	}
	if rng.IntN(3) == 0 {
		c.Silent = rng.IntN(c.Devices / 5)
	}
	about := time.Duration(float64(c.Size)/min(c.WAN, c.Up, c.Down)*float64(time.Second)) + time.Second
	soon := func() time.Duration { return 1 + time.Duration(rng.Int64N(int64(2*about))) }
	if rng.IntN(2) == 0 {
		for range rng.IntN(c.Devices / 4) {
			c.Kill[rng.IntN(c.Devices)] = soon()
		}
	}
	if rng.IntN(2) == 0 {
		for range rng.IntN(c.Devices / 2) {
			c.Join[rng.IntN(c.Devices)] = soon()
		}
	}
	if rng.IntN(4) == 0 {
		for range rng.IntN(4) {
			c.Stalled[rng.IntN(c.Devices)] = soon()
		}
	}
	for range rng.IntN(3) {
		c.KillLeaders = append(c.KillLeaders, soon())
	}
	return c
}

// calm reports whether nothing goes wrong in c but lost packets.
func (c *Config) calm() bool {
	return len(c.Kill)+len(c.KillLeaders)+len(c.Stalled)+c.Liars+c.Silent == 0
}

// check returns what is wrong with a run: a survivor without the content, a run handed out
// that was not held, bytes over the WAN that were at the site.
func check(c Config, r Result) error {
	var wan int64
	for _, n := range r.WANBytes {
		wan += n
	}
	size := c.Size * int64(max(c.Sites, 1))
	switch {
	case r.Unfinished > 0:
		return fmt.Errorf("%d devices never had everything", r.Unfinished)
	case r.Unheld > 0:
		return fmt.Errorf("%d runs were sent or counted that were not held", r.Unheld)
	case r.Wrong > 0 && c.Liars == 0:
		return fmt.Errorf("%d wrong bytes without a liar", r.Wrong)
	case c.calm() && wan != size:
		return fmt.Errorf("%d bytes over the WAN, want %d: once for each of %d sites", wan, size, c.Sites)
	// Who waits for those who claim what they do not have goes out in the end. What a leader
	// took with it has to come again.
	case r.Again > max(size, 4<<20):
		return fmt.Errorf("%d bytes over the WAN were at the site, of %d", r.Again, wan)
	}
	return nil
}

func mustRun(t *testing.T, c Config) Result {
	t.Helper()
	r := Run(c)
	if err := check(c, r); err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return r
}

func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		c := scenario(*seedFlag)
		t.Logf("%+v", c)
		t.Logf("%+v", mustRun(t, c))
		return
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		c := scenario(seed)
		if err := check(c, Run(c)); err != nil {
			t.Errorf("%v; go test ./internal/sim -run TestSeeds -v -seed %d runs it again", err, seed)
		}
	}
}

// gigabitSite is the benchmark's site of issue 2, in small.
func gigabitSite(devices, liars int, size int64) Config {
	return Config{
		Seed: 1, Devices: devices, Liars: liars, Size: size,
		Up: gbit, Down: gbit, WAN: gbit, Delay: 250 * time.Microsecond,
	}
}

// What is lost is lost in the beginning, while there are few runs to give, and with liars
// until they are found out. It does not grow with the content: BenchmarkThousand.
func TestSlowestIsNearTheFluidBound(t *testing.T) {
	for liars, lost := range map[int]time.Duration{0: crowdLost, 4: 2 * crowdLost} {
		r := mustRun(t, gigabitSite(crowd, liars, crowdSize))
		t.Logf("%d liars: slowest of %d after %v, %.3f of the bound %v", liars, crowd, r.Slowest, r.Ratio(), r.Bound)
		if r.Slowest > r.Bound+lost {
			t.Errorf("%d liars: slowest of %d after %v, bound %v, want at most %v more", liars, crowd, r.Slowest, r.Bound, lost)
		}
		if r.WANBytes[0] != crowdSize {
			t.Errorf("%d liars: %d bytes over the WAN, want exactly one copy, %d", liars, r.WANBytes[0], int64(crowdSize))
		}
	}
}

// All uplinks are as slow as a DSL line: requests wait for tens of seconds, and for no fault
// of those who are asked. Hedges must not make it worse.
func TestSlowUplinksWasteLittle(t *testing.T) {
	c := gigabitSite(30, 0, 100<<20)
	c.Up = gbit / 100
	r := mustRun(t, c)
	if got := float64(r.Wasted) / float64(c.Size) / float64(c.Devices); got > 0.02 {
		t.Errorf("%.1f %% of the bytes came twice, want at most 2 %%", 100*got)
	}
	once := time.Duration(float64(c.Size) / c.Up * float64(time.Second)) // every run leaves the leader once
	if r.Slowest > once*9/5 {
		t.Errorf("slowest after %v, want at most 1.8 times the %v that the leader's uplink takes", r.Slowest, once)
	}
}

// A peer whose uplink stops in mid-download costs the others little.
func TestStalledPeers(t *testing.T) {
	c := gigabitSite(40, 0, 200<<20)
	before := mustRun(t, c)
	c.Stalled = map[int]time.Duration{3: 500 * time.Millisecond, 7: time.Second, 9: time.Second}
	if l := leaderOf(c); c.Stalled[l] > 0 {
		t.Fatalf("device %d leads: choose another seed", l)
	}
	r := mustRun(t, c)
	if late := r.Slowest - before.Slowest; late > 3*time.Second {
		t.Errorf("three stalled peers cost %v, want at most one time-out", late)
	}
}

// A leader whose uplink stops goes on to fetch, holds the lease, then is complete: nobody
// gets the lease. The others go out themselves.
func TestStalledLeader(t *testing.T) {
	c := gigabitSite(20, 0, 50<<20)
	c.Stalled = map[int]time.Duration{leaderOf(c): 100 * time.Millisecond}
	r := mustRun(t, c)
	if r.Slowest > 3*time.Minute {
		t.Errorf("slowest after %v, want at most 3m", r.Slowest)
	}
}

// leaderOf returns who gets the first site's lease at once.
func leaderOf(c Config) int {
	s := newSim(c)
	for s.sites[0].leader < 0 {
		e := s.q.pop()
		s.now = e.at
		s.handle(e)
	}
	return int(s.sites[0].leader)
}

// Devices that tell peers and array alike that they are complete, and send nothing.
func TestBoasters(t *testing.T) {
	c := gigabitSite(20, 0, 50<<20)
	c.Silent, c.Boast = 3, true
	r := mustRun(t, c)
	if r.Slowest > 3*time.Minute {
		t.Errorf("slowest after %v, want at most 3m", r.Slowest)
	}
}

func TestKilledLeader(t *testing.T) {
	c := gigabitSite(40, 0, 200<<20)
	c.KillLeaders = []time.Duration{800 * time.Millisecond}
	r := mustRun(t, c)
	if r.Leaders != 1 || r.Killed != 1 {
		t.Fatalf("%d leaders and %d devices killed, want one", r.Leaders, r.Killed)
	}
	// Nobody may go out before the lease has run out; then nothing is fetched that is there.
	if r.Slowest > 20*time.Second || r.Again > 2<<20 {
		t.Errorf("slowest after %v, %d bytes fetched that were at the site; want at most 20s, 2 MiB", r.Slowest, r.Again)
	}
}

func TestFewDevices(t *testing.T) {
	for _, devices := range []int{1, 2, 3} {
		for _, size := range []int64{1, 1000, 1 << 20, 1<<20 + 1, 50 << 20} {
			c := gigabitSite(devices, 0, size)
			r := mustRun(t, c)
			if limit := 2*r.Bound + 200*time.Millisecond; r.Slowest > limit {
				t.Errorf("%d devices, %d bytes: slowest after %v, want at most %v", devices, size, r.Slowest, limit)
			}
		}
	}
}

func TestSameSeedSameRun(t *testing.T) {
	c := scenario(5)
	a, b := fmt.Sprintf("%+v", Run(c)), fmt.Sprintf("%+v", Run(c))
	if a != b {
		t.Errorf("one seed gave two runs:\n%s\n%s", a, b)
	}
}

func TestQueueGivesEarliestFirst(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	var q queue
	var last event
	for i := range 20_000 {
		if i < 10_000 && rng.IntN(3) > 0 || len(q.heap) == 0 {
			q.push(event{at: last.at + time.Duration(rng.IntN(50))})
			continue
		}
		e := q.pop()
		if e.at < last.at || e.at == last.at && e.seq < last.seq && last.seq > 0 {
			t.Fatalf("event %d of %v after event %d of %v", e.seq, e.at, last.seq, last.at)
		}
		last = e
	}
}

// BenchmarkThousand is issue 2's figure: slowest at most 1.15 of the bound, in under a minute
// on one core. Kraken's fleet of 2,600 hosts (3 GB at 300 MB/s) had 1.8 at p99 and 2.2 at
// p99.9.
func BenchmarkThousand(b *testing.B) {
	for _, liars := range []int{0, 10} {
		b.Run(fmt.Sprintf("liars=%d", liars), func(b *testing.B) {
			for b.Loop() {
				c := gigabitSite(1000, liars, 3e9)
				r := Run(c)
				if err := check(c, r); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(r.Bound.Seconds(), "bound-s")
				b.ReportMetric(r.Slowest.Seconds(), "slowest-s")
				b.ReportMetric(r.Ratio(), "slowest/bound")
				b.ReportMetric(1.8, "kraken-p99/bound")
				b.ReportMetric(2.2, "kraken-p99.9/bound")
				b.ReportMetric(float64(r.WANBytes[0])/float64(c.Size), "WAN-copies")
				b.ReportMetric(float64(r.Events), "events")
			}
		})
	}
}
