//go:build !linux

package testbed

import "testing"

// TestScenarios fails when scenarios are asked for.
func TestScenarios(t *testing.T) {
	if *scenarioDir != "" {
		t.Fatal("scenarios run on Linux alone")
	}
}
