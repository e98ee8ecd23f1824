package main

import (
	"testing"

	"freshet/internal/agent"
)

func TestDroppedText(t *testing.T) {
	for want, dropped := range map[string]map[string]uint64{
		"": {"own": 5, "replay": 7},
		"Datagrams of the subnet that were dropped: 3 flood, 12 unknownKey": {"own": 5, "unknownKey": 12, "flood": 3},
	} {
		if got := droppedText(agent.LAN{Heard: 9, Dropped: dropped}); got != want {
			t.Errorf("%v: %q, want %q", dropped, got, want)
		}
	}
}
