package agent

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"freshet/internal/election"
)

// machine is what the agent finds out about its device by itself.
type machine struct {
	sys    fs.FS // Linux's /sys; nil elsewhere
	server bool  // as the operating system says
}

// serverChassis are SMBIOS's types of chassis that stand in racks.
var serverChassis = []string{"17", "23", "25", "28", "29"}

// weight returns the weight of the device's kind, as leader on an interface.
func (m machine) weight(name string) uint8 {
	switch {
	case m.server, slices.Contains(serverChassis, m.read("class/dmi/id/chassis_type")):
		return election.WeightServer
	case m.has("class/net/" + name + "/wireless"):
		return election.WeightWireless
	case slices.ContainsFunc(m.supplies(), m.isBattery):
		return election.WeightLaptop
	}
	return election.WeightDesktop
}

// onBattery reports whether the device runs on its battery: one of its batteries gives, and no
// mains supply does.
func (m machine) onBattery() bool {
	gives := false
	for _, dir := range m.supplies() {
		switch {
		case m.isBattery(dir):
			gives = gives || m.read(path.Join(dir, "status")) == "Discharging"
		case m.read(path.Join(dir, "type")) != "Battery" && m.read(path.Join(dir, "online")) == "1":
			return false
		}
	}
	return gives
}

func (m machine) supplies() []string {
	if m.sys == nil {
		return nil
	}
	dirs, err := fs.Glob(m.sys, "class/power_supply/*")
	if err != nil { // the pattern is good
		return nil
	}
	return dirs
}

// isBattery reports whether a supply is a battery of the device, not of a mouse.
func (m machine) isBattery(dir string) bool {
	return m.read(path.Join(dir, "type")) == "Battery" && m.read(path.Join(dir, "scope")) != "Device"
}

// read returns the line of a file, or nothing where there is none.
func (m machine) read(name string) string {
	if m.sys == nil {
		return ""
	}
	b, err := fs.ReadFile(m.sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (m machine) has(name string) bool {
	if m.sys == nil {
		return false
	}
	_, err := fs.Stat(m.sys, name)
	return err == nil
}
