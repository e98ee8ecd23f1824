package web

import (
	"testing"
	"time"
)

func TestJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := Jitter(time.Second)
		if d < time.Second/2 || d >= 3*time.Second/2 {
			t.Errorf("%s is not a second, give or take half", d)
		}
		seen[d] = true
	}
	if len(seen) < 500 {
		t.Errorf("%d values of 1000", len(seen))
	}
}
