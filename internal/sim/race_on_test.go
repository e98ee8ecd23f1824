//go:build race

package sim

const (
	seeds = 25 // scenarios of TestSeeds; the race detector makes them ten times as slow
)
