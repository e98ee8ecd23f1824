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

// check returns what is wrong with a run: a survivor without the content, a run handed out
// that was not held, more copies over the WAN than there is a reason for.
func check(c Config, r Result) error {
	switch {
	case r.Unfinished > 0:
		return fmt.Errorf("%d devices never had everything", r.Unfinished)
	case r.Unheld > 0:
		return fmt.Errorf("%d runs were sent or counted that were not held", r.Unheld)
	case r.Wrong > 0 && c.Liars == 0:
		return fmt.Errorf("%d wrong bytes without a liar", r.Wrong)
	}
	if most := againLimit(c, r); r.Again > most {
		return fmt.Errorf("%d bytes over the WAN that were at the site, want at most %d of %d", r.Again, most, c.Size)
	}
	return nil
}

// againLimit returns how many bytes may cross WAN links that a device of the site has.
func againLimit(c Config, r Result) int64 {
	return 0
}

func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		c := scenario(*seedFlag)
		r := Run(c)
		t.Logf("%+v", c)
		t.Logf("%+v", r)
		if err := check(c, r); err != nil {
			t.Fatal(err)
		}
		return
	}
	for seed := range uint64(seeds) {
		seed++
		c := scenario(seed)
		r := Run(c)
		if err := check(c, r); err != nil {
			t.Errorf("%v; replay with -run TestSeeds -seed %d (leaders %d, stalled %d silent %d)", err, seed, r.Leaders, len(c.Stalled), c.Silent)
		}
	}
}
