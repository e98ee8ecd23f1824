package sim

import (
	"testing"
	"time"

	"freshet/internal/content"
)

// Everything that may go wrong in a site whose subnets elect leaders.
func TestSubnetSeeds(t *testing.T) {
	for seed := uint64(1); seed <= seeds/2; seed++ {
		c := scenario(seed)
		c.Subnets = 1 + int(seed%4)
		if err := check(c, Run(c)); err != nil {
			t.Errorf("seed %d, %d subnets: %v", seed, c.Subnets, err)
		}
	}
}

// thinSite is a site of subnets behind a link that is a tenth of theirs.
func thinSite(devices, subnets int) Config {
	return Config{
		Seed: 1, Devices: devices, Subnets: subnets, Size: 128 << 20,
		Up: gbit, Down: gbit, WAN: gbit / 10, Delay: 250 * time.Microsecond,
	}
}

func TestSubnetsAreNearTheFluidBound(t *testing.T) {
	for _, subnets := range []int{1, 2, 4, 8} {
		for _, devices := range []int{8, 16, 64} {
			c := thinSite(devices, subnets)
			r := mustRun(t, c)
			t.Logf("%d devices, %d subnets: slowest %.3f of the bound %v, of which %.3f until there were leaders", devices, subnets, r.Ratio(), r.Bound, electTime.Seconds()/r.Bound.Seconds())
			if r.Ratio() > 1.10 {
				t.Errorf("%d devices, %d subnets: slowest %.3f of the bound, want at most 1.10", devices, subnets, r.Ratio())
			}
		}
	}
}

// No uplink carries more than the link to the origin does: each subnet's copy leaves the device
// that fetches in turn, and none waits for another's.
func TestNoSubnetStarves(t *testing.T) {
	for _, subnets := range []int{2, 4} {
		c := thinSite(16, subnets)
		c.Up = c.WAN
		r := mustRun(t, c)
		first := make([]time.Duration, subnets) // that had everything, beside the one that fetches
		for i, at := range r.Finished {
			if s := i % subnets; at > r.Bound+2*electTime && (first[s] == 0 || at < first[s]) {
				first[s] = at
			}
		}
		t.Logf("%d subnets: slowest %.3f of the bound %v, each subnet's first after %v", subnets, r.Ratio(), r.Bound, first)
		if limit := 25 * r.Bound / 10; r.Slowest > limit {
			t.Errorf("%d subnets: slowest after %v, want at most %v: two copies leave the device that fetches", subnets, r.Slowest, limit)
		}
	}
}

// The device that fetches is killed, and its successor.
func TestKilledSubnetLeaders(t *testing.T) {
	c := thinSite(16, 2)
	c.KillLeaders = []time.Duration{3 * time.Second, 6 * time.Second}
	r := mustRun(t, c)
	t.Logf("slowest %.3f of the bound %v, %d bytes fetched that were at the site", r.Ratio(), r.Bound, r.Again)
	if r.Leaders != 2 || r.Killed != 2 {
		t.Fatalf("%d leaders and %d devices killed, want two", r.Leaders, r.Killed)
	}
	if r.Ratio() > 1.30 || r.WANBytes[0] > c.Size+4<<20 {
		t.Errorf("slowest %.3f of the bound, %d bytes over the WAN; want at most 1.30, %d", r.Ratio(), r.WANBytes[0], c.Size+4<<20)
	}
}

// The uplink of the device that fetches stops: another one leads its subnet, and the first one
// fetches no more than the run under way. What it brought meanwhile, it alone has.
func TestStalledSubnetLeader(t *testing.T) {
	c := thinSite(16, 2)
	s := newSim(c)
	for s.sites[0].leads() < 0 {
		e := s.q.pop()
		s.now = e.at
		s.handle(e)
	}
	c.Stalled = map[int]time.Duration{int(s.sites[0].leads()): 3 * time.Second}
	r := mustRun(t, c)
	lost := int64(progressTime.Seconds()*c.WAN) + 2*content.PieceSize
	t.Logf("slowest %.3f of the bound %v, %d bytes over the WAN, %d more than one copy", r.Ratio(), r.Bound, r.WANBytes[0], r.WANBytes[0]-c.Size)
	if r.WANBytes[0] > c.Size+lost || r.Slowest > r.Bound+5*time.Second {
		t.Errorf("slowest after %v, bound %v, %d bytes over the WAN; want at most 5s more, and %d", r.Slowest, r.Bound, r.WANBytes[0], c.Size+lost)
	}
}
