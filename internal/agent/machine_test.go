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
