//go:build !race

package sim

import "time"

const (
	seeds     = 300 // scenarios of TestSeeds
	crowd     = 200 // devices of TestSlowestIsNearTheFluidBound
	crowdSize = 300e6
	crowdLost = time.Second // beyond the bound
)
