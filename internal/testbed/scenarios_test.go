package testbed

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scenarioDir turns on the tests that need root and network namespaces: make testbed gives it.
var (
	scenarioDir = flag.String("scenarios", "", "run the scenarios (*.bed) of this directory; needs Linux, root, iproute2 and nftables")
	keep        = flag.Bool("keep", false, "leave logs and states of scenarios behind")
	binary      = flag.String("binary", "", "the freshet that scenarios run; empty: the one of this repository")
)

// scenarios reads a directory of scenarios, in the order of their names.
func scenarios(t *testing.T, dir string) []*Scenario {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.bed"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no scenarios *.bed in %q: %v", dir, err)
	}
	slices.Sort(names)
	var list []*Scenario
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(strings.TrimSuffix(filepath.Base(name), ".bed"), f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// TestScenariosParse: what the repository has is readable, and the names fit the table.
func TestScenariosParse(t *testing.T) {
	for _, s := range scenarios(t, filepath.Join("..", "..", "test", "testbed")) {
		if len(s.Name) > 22 {
			t.Errorf("%s: a name has at most 22 letters, for the table of figures", s.Name)
		}
		if !slices.ContainsFunc(s.Steps, func(st Step) bool { return strings.HasPrefix(st.Text, "expect ") }) {
			t.Errorf("%s expects nothing", s.Name)
		}
	}
}
