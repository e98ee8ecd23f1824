//go:build !race

package election

// seeds of TestSeeds.
const seeds = 1000
