package election

import (
	"testing"

	"freshet/internal/content"
	"freshet/internal/wire"

	"pgregory.net/rapid"
)

func drawRank(t *rapid.T, label string) rank {
	return rank{
		able:   rapid.Bool().Draw(t, label+" able"),
		share:  rapid.Uint8Range(7, wire.Complete).Draw(t, label+" share"),
		weight: rapid.Uint8Range(1, 3).Draw(t, label+" weight"),
		tie:    content.Digest{rapid.Uint8Range(0, 2).Draw(t, label+" tie")},
	}
}

func TestOrderIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawRank(t, "a"), drawRank(t, "b"), drawRank(t, "c")
		if a.before(a) {
			t.Errorf("%v is before itself", a)
		}
		if a != b && a.before(b) == b.before(a) {
			t.Errorf("%v and %v: both or none is before the other", a, b)
		}
		if a.before(b) && b.before(c) && !a.before(c) {
			t.Errorf("%v before %v before %v, but not the first before the last", a, b, c)
		}
	})
}

// Each of these is better than the next one, whatever else they are like.
func TestOrderOfKeys(t *testing.T) {
	low, high := content.Digest{1}, content.Digest{2}
	best := []rank{
		{able: true, share: wire.Complete, weight: 30, tie: high},
		{able: true, share: 9, weight: 61, tie: low},
		{able: true, share: 9, weight: 50, tie: high},
		{able: true, share: 8, weight: 50, tie: low},
		{able: true, share: 8, weight: 50, tie: high},
		{able: true, share: 9, weight: 40, tie: low},
		{able: false, share: wire.Complete, weight: 99, tie: low},
	}
	for i := range best {
		for j := range best {
			if got, want := best[i].before(best[j]), i < j; got != want {
				t.Errorf("%v before %v: %v, want %v", best[i], best[j], got, want)
			}
		}
	}
}

func TestWeights(t *testing.T) {
	for _, c := range []struct {
		weight uint8
		cond   Conditions
		want   uint8
	}{
		{WeightServer, Conditions{}, 61},
		{WeightDesktop, Conditions{Busy: true}, 40},
		{WeightLaptop, Conditions{Battery: true}, 20},
		{WeightLaptop, Conditions{Battery: true, Busy: true}, 10},
		{WeightWireless, Conditions{Battery: true, Metered: true}, 1},
		{0, Conditions{Battery: true}, 0},
		{200, Conditions{}, wire.MaxWeight},
	} {
		if got := New(Config{Weight: c.weight, Conditions: c.cond}).weight(); got != c.want {
			t.Errorf("weight %d in %+v is %d, want %d", c.weight, c.cond, got, c.want)
		}
	}
}

func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Uint32Range(1, content.MaxPieces).Draw(t, "total")
		held := rapid.Uint32Range(0, total).Draw(t, "held")
		if got := shareOf(held, total); got > wire.Complete || (got == wire.Complete) != (held == total) {
			t.Errorf("%d of %d pieces are a share of %d", held, total, got)
		}
	})
}
