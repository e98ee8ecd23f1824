package memory

// chance is a source of random choices (SplitMix64), seeded, so that a run can be repeated;
// eight bytes, since each swarm has its own. Nothing secret comes from it.
type chance uint64

// newChance returns the n-th source of a seed.
func newChance(seed, n uint64) chance { return chance(mix(seed ^ mix(n))) }

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (c *chance) next() uint64 {
	*c += 0x9e3779b97f4a7c15
	return mix(uint64(*c))
}

// intn returns a number from 0 to n-1. The bias of the remainder is under n/2^64.
func (c *chance) intn(n int) int { return int(c.next() % uint64(n)) }

// share returns a number from 0 to under 1.
func (c *chance) share() float64 { return float64(c.next()>>11) / (1 << 53) }
