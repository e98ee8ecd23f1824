package agent

import "os"

// thisMachine is the device that the agent runs on.
func thisMachine() machine { return machine{sys: os.DirFS("/sys")} }
