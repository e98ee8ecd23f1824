//go:build race

package election

// seeds of TestSeeds: the race detector makes a run ten times as slow.
const seeds = 60
