package agent

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"freshet/internal/election"
)

// machine is what the agent finds out about its device by itself.
type machine struct {
	sys    fs.FS // Linux's /sys; nil elsewhere
	proc   fs.FS // Linux's /proc; nil elsewhere
	cpus   int   // with proc
	server bool  // as the operating system says
}

// busyLoad is the load of a CPU, over a minute, above which the device is busy.
const busyLoad = 1.5

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

// load returns how many processes run or wait to for each CPU, over the last minute; 0: not known.
func (m machine) load() float64 {
	minute, _, _ := strings.Cut(line(m.proc, "loadavg"), " ")
	all, err := strconv.ParseFloat(minute, 64)
	if err != nil {
		return 0
	}
	return all / float64(m.cpus)
}

// busy is whether the device has much else to do. It ends with the second look in a row that says
// so: who leads should not change with each minute.
type busy struct{ last bool }

// look takes what the load is now.
func (b *busy) look(load float64) bool {
	was := b.last
	b.last = load > busyLoad
	return b.last || was
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

// read returns the line of a file of /sys, or nothing where there is none.
func (m machine) read(name string) string { return line(m.sys, name) }

func line(dir fs.FS, name string) string {
	if dir == nil {
		return ""
	}
	b, err := fs.ReadFile(dir, name)
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
