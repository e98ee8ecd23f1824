package testbed

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > time.Hour {
		return 0, fmt.Errorf("%q is no time up to an hour, such as 20ms or 1m30s", s)
	}
	return d, nil
}

func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("%q is not 0%% to 100%%", s)
	}
	return v / 100, nil
}

func parseFactor(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1000) {
		return 0, fmt.Errorf("%q is no factor from 0 to 1000", s)
	}
	return v, nil
}

func parseNumber(s string) (float64, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return float64(n), nil
}

func parseCount(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q is no number from 1 to %d", s, most)
	}
	return n, nil
}

// parseSize reads 5B, 64KiB, 128MiB or 1GiB.
func parseSize(s string) (int64, error) {
	for _, u := range []struct {
		suffix string
		shift  int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"B", 0}} {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n < 0 || n > 1<<40>>u.shift {
				break
			}
			return n << u.shift, nil
		}
	}
	return 0, fmt.Errorf("%q is no size, such as 5B, 64KiB, 128MiB or 1GiB", s)
}

func parseIssue(s string) (Issue, error) {
	known := []Issue{NewIssue, OldIssue, NextIssue, PartIssue}
	if !slices.Contains(known, Issue(s)) {
		return NoIssue, fmt.Errorf("%q is none of %q", s, known)
	}
	return Issue(s), nil
}

// programs are those of package hostile, and whether they concern a content.
var programs = map[string]bool{"flood": false, "member": true, "liar": true, "deaf": true, "taste": true}

func checkProgram(name, content string) error {
	needs, ok := programs[name]
	switch {
	case !ok:
		return fmt.Errorf("%q is no program of package hostile", name)
	case needs && content == "":
		return fmt.Errorf("%q needs a content: run %s on HOST with CONTENT", name, name)
	}
	return nil
}
