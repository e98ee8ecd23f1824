package agent

import (
	"testing"
	"testing/fstest"
)

// TestMachine: what /sys says of the device's kind and power.
func TestMachine(t *testing.T) {
	sys := func(files ...map[string]string) fstest.MapFS {
		out := fstest.MapFS{}
		for _, some := range files {
			for name, text := range some {
				out["class/"+name] = &fstest.MapFile{Data: []byte(text + "\n")}
			}
		}
		return out
	}
	battery := func(status string) map[string]string {
		return map[string]string{"power_supply/BAT0/type": "Battery", "power_supply/BAT0/status": status}
	}
	mains := func(online string) map[string]string {
		return map[string]string{"power_supply/AC/type": "Mains", "power_supply/AC/online": online}
	}
	usb := map[string]string{"power_supply/usb/type": "USB", "power_supply/usb/online": "1"}
	mouse := map[string]string{"power_supply/hid/type": "Battery", "power_supply/hid/scope": "Device", "power_supply/hid/status": "Discharging"}
	wireless := map[string]string{"net/wlan0/wireless/x": "", "net/eth0/mtu": "1500"}
	chassis := func(n string) map[string]string { return map[string]string{"dmi/id/chassis_type": n} }
	for name, c := range map[string]struct {
		machine machine
		weight  uint8 // on eth0
		wlan    uint8 // on wlan0
		battery bool
	}{
		"not known":         {machine{}, 50, 50, false},
		"a Windows server":  {machine{server: true}, 61, 61, false},
		"nothing":           {machine{sys: sys()}, 50, 50, false},
		"desktop":           {machine{sys: sys(mains("1"), mouse, wireless, chassis("3"))}, 50, 30, false},
		"laptop, mains":     {machine{sys: sys(mains("1"), battery("Charging"), wireless)}, 40, 30, false},
		"laptop, battery":   {machine{sys: sys(mains("0"), battery("Discharging"), wireless, mouse)}, 40, 30, true},
		"laptop, full":      {machine{sys: sys(mains("1"), battery("Discharging"))}, 40, 40, false},
		"laptop, USB":       {machine{sys: sys(battery("Discharging"), usb)}, 40, 40, false},
		"server with a UPS": {machine{sys: sys(chassis("23"), battery("Full"))}, 61, 61, false},
	} {
		m := c.machine
		if got, wlan := m.weight("eth0"), m.weight("wlan0"); got != c.weight || wlan != c.wlan {
			t.Errorf("%s: weights %d and %d, want %d and %d", name, got, wlan, c.weight, c.wlan)
		}
		if got := m.onBattery(); got != c.battery {
			t.Errorf("%s: on battery %v, want %v", name, got, c.battery)
		}
	}
}

// TestLoad: the first figure of /proc/loadavg, for each CPU.
func TestLoad(t *testing.T) {
	proc := func(text string) fstest.MapFS { return fstest.MapFS{"loadavg": &fstest.MapFile{Data: []byte(text)}} }
	for name, c := range map[string]struct {
		machine machine
		want    float64
	}{
		"not known": {machine{}, 0},
		"no file":   {machine{proc: fstest.MapFS{}, cpus: 4}, 0},
		"no number": {machine{proc: proc("much\n"), cpus: 4}, 0},
		"idle":      {machine{proc: proc("0.00 0.01 0.05 1/345 6789\n"), cpus: 4}, 0},
		"loaded":    {machine{proc: proc("7.00 0.01 0.05 3/345 6789\n"), cpus: 4}, 1.75},
	} {
		if got := c.machine.load(); got != c.want {
			t.Errorf("%s: load %v, want %v", name, got, c.want)
		}
	}
}

// TestBusy: from the first look at a high load to the second one in a row at a low one.
func TestBusy(t *testing.T) {
	var b busy
	for i, c := range []struct {
		load float64
		want bool
	}{{0, false}, {busyLoad, false}, {1.6, true}, {1.4, true}, {1.6, true}, {9, true}, {1, true}, {1, false}, {1, false}, {2, true}} {
		if got := b.look(c.load); got != c.want {
			t.Errorf("look %d at a load of %v: busy %v, want %v", i, c.load, got, c.want)
		}
	}
}
