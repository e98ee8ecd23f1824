//go:build !linux && !windows

package agent

// thisMachine is the device that the agent runs on.
func thisMachine() machine { return machine{} }
