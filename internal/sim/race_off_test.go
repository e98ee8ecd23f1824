//go:build !race

package sim

const (
	seeds = 120 // scenarios of TestSeeds
)
