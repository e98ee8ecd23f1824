package demo

import (
	"slices"
	"strings"
	"testing"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/wire"
)

// TestPairs: devices 0 and 2 are of one site, 1 and 3 of the other.
func TestPairs(t *testing.T) {
	at, id := map[wire.DeviceID]int{}, make([]wire.DeviceID, 4)
	for i := range id {
		id[i] = wire.DeviceID{byte(i + 1)}
		at[id[i]] = i
	}
	told := [][]agent.Traffic{
		{{Device: id[1], Sent: 10}, {Device: id[2], Sent: 99, Received: 99}, {Device: id[3], Received: 5}},
		{{Device: id[0], Received: 7}, {Device: wire.DeviceID{9}, Sent: 99}},
		{{Device: id[0], Sent: 99, Received: 99}, {Device: id[1]}},
		{{Device: id[0], Sent: 5}, {Device: id[0], Sent: 6}}, // of two swarms
	}
	got := pairs(2, at, told)
	want := []pair{{from: 0, to: 1, sent: 10, received: 7}, {from: 3, to: 0, sent: 11, received: 5}}
	if !slices.Equal(got, want) {
		t.Errorf("pairs %+v, want %+v", got, want)
	}
	rep := Report{Sites: 2, Devices: make([]Device, 4), WANBytesPerSite: []int64{100, 200}}
	rep.addPeers(got)
	if !slices.Equal(rep.WANBytesPerSite, []int64{111, 210}) || !slices.Equal(rep.BytesFromOtherSitesPerSite, []int64{11, 10}) {
		t.Errorf("over the WAN %v, of it from peers %v", rep.WANBytesPerSite, rep.BytesFromOtherSitesPerSite)
	}
	if rep.BytesFromOtherSites != 21 || rep.Devices[0].BytesFromOtherSites != 11 || rep.Devices[1].BytesFromOtherSites != 10 {
		t.Errorf("from other sites %d, by device %+v", rep.BytesFromOtherSites, rep.Devices)
	}
}

func TestDisagreement(t *testing.T) {
	const size = content.PieceSize
	for _, c := range []struct {
		sent, received int64
		ok             bool
	}{
		{0, 0, true},
		{100 * size, 100 * size, true},
		{2 * size, 0, true}, // cancelled on its way
		{3 * size, 0, false},
		{0, 3 * size, false},
		{100 * size, 92 * size, true},
		{100 * size, 80 * size, false},
		{80 * size, 100 * size, false},
	} {
		err := disagreement([]pair{{from: 0, to: 1, sent: size, received: size}, {from: 2, to: 7, sent: c.sent, received: c.received}})
		if (err == nil) != c.ok {
			t.Errorf("%d pieces sent, %d received: %v", c.sent/size, c.received/size, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "device-3") || !strings.Contains(err.Error(), "device-8")) {
			t.Errorf("%v does not name the devices", err)
		}
	}
}

// TestOppositeErrors: two wrongs do not make a right.
func TestOppositeErrors(t *testing.T) {
	const size = content.PieceSize
	if err := disagreement([]pair{{sent: 9 * size, received: 0}, {sent: 0, received: 9 * size}}); err == nil {
		t.Error("equal sums of different ways pass")
	}
}
