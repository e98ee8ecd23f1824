package keyvalue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/catalog"
)

// store keeps the keys of one group.
type store struct {
	keys    []catalog.LANKey
	revoked int64
	swaps   int
	races   int // so often, another server is first
}

func (s *store) LANKeys(context.Context, string) ([]catalog.LANKey, int64, error) {
	return slices.Clone(s.keys), s.revoked, nil
}

func (s *store) SwapLANKeys(_ context.Context, _ string, old, keys []catalog.LANKey) error {
	if s.races > 0 {
		s.races--
		return catalog.ErrChanged
	}
	s.keys = slices.Clone(keys)
	s.swaps++
	return nil
}

// in names keys by when they start, relative to now.
func in(keys []catalog.LANKey, now time.Time) string {
	var at []string
	for _, k := range keys {
		at = append(at, k.Starts.Sub(now).String())
	}
	return strings.Join(at, " ")
}

func TestLANKeysRotate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := &store{}
	l := &LANKeys{Store: s, Now: func() time.Time { return now }}
	week := lanKeyLife
	for _, step := range []struct {
		name    string
		after   time.Duration
		revoked int64 // more of them
		want    string
		swaps   int
	}{
		{"first", 0, 0, "0s 168h0m0s", 1},
		{"the same", time.Hour, 0, "-1h0m0s 167h0m0s", 0},
		{"the next begins", week - time.Hour, 0, "-168h0m0s 0s 168h0m0s", 1},
		{"a quiet day", 24 * time.Hour, 0, "-192h0m0s -24h0m0s 144h0m0s", 0},
		{"the third begins", week - 24*time.Hour, 0, "-168h0m0s 0s 168h0m0s", 1},
		{"revoked", time.Hour, 1, "-169h0m0s -1h0m0s 3m0s", 1},
		{"waits", time.Minute, 0, "-169h1m0s -1h1m0s 2m0s", 0},
		{"revoked again", time.Minute, 1, "-169h2m0s -1h2m0s 3m0s", 1},
		{"it begins", 3 * time.Minute, 0, "-1h5m0s 0s 168h0m0s", 1},
		{"off for long", 5 * week, 0, "-840h0m0s -672h0m0s 3m0s", 1},
	} {
		now = now.Add(step.after)
		s.revoked += step.revoked
		before, held := s.swaps, slices.Clone(s.keys)
		keys, err := l.due(t.Context(), "lab")
		if err != nil {
			t.Fatal(err)
		}
		if got := in(keys, now); got != step.want || s.swaps-before != step.swaps {
			t.Errorf("%s: keys start at %s in %d swaps, want %s in %d", step.name, got, s.swaps-before, step.want, step.swaps)
		}
		for _, k := range keys {
			i := slices.IndexFunc(held, func(h catalog.LANKey) bool { return h.ID == k.ID })
			if i < 0 && step.name != "first" && k.Starts.Before(now.Add(lanKeyLead)) {
				t.Errorf("%s: a key that nobody holds begins in %v", step.name, k.Starts.Sub(now))
			}
			if step.revoked > 0 && k.Starts.After(now) && i >= 0 {
				t.Errorf("%s: a key that the revoked device holds begins in %v", step.name, k.Starts.Sub(now))
			}
		}
	}
}

func TestLANKeysOf(t *testing.T) {
	s := &store{races: maxSwaps - 1}
	l := &LANKeys{Store: s, Now: time.Now}
	keys, err := l.Of(t.Context(), "lab")
	if err != nil || len(keys) != 2 {
		t.Fatalf("got %d keys, %v", len(keys), err)
	}
	for _, k := range keys {
		if len(k.ID) != 8 || len(k.Secret) != lanKeySize {
			t.Errorf("id of %d bytes, secret of %d", len(k.ID), len(k.Secret))
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%q", "%s", "%d"} {
		if shown := fmt.Sprintf(verb, keys); strings.Contains(shown, fmt.Sprintf(verb, []byte(keys[0].Secret))) {
			t.Errorf("%s shows a secret: %s", verb, shown)
		}
	}
	s.races = maxSwaps
	s.keys = nil
	if _, err := l.Of(t.Context(), "lab"); err == nil || !strings.Contains(err.Error(), `"lab"`) {
		t.Errorf("races without end: %v", err)
	}
	if keys, err := l.Of(t.Context(), ""); keys != nil || err != nil {
		t.Errorf("no group: got %d keys, %v", len(keys), err)
	}
}
