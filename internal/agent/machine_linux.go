package agent

import (
	"os"
	"runtime"
)

// thisMachine is the device that the agent runs on.
func thisMachine() machine {
	return machine{sys: os.DirFS("/sys"), proc: os.DirFS("/proc"), cpus: runtime.NumCPU()}
}
