package agent

import "golang.org/x/sys/windows"

const workstation = 1 // VER_NT_WORKSTATION; all others are servers

// thisMachine is the device that the agent runs on.
func thisMachine() machine {
	return machine{server: windows.RtlGetVersion().ProductType != workstation}
}
