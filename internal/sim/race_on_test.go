//go:build race

package sim

import "time"

// The race detector makes a run ten times as slow.
const (
	seeds     = 60
	crowd     = 50
	crowdSize = 100e6
	crowdLost = time.Second
)
