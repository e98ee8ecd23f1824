package content

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestBitsAreASet compares Bits with a map.
func TestBitsAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		b, set := NewBits(n), map[int]bool{}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "i")
			if rapid.Bool().Draw(t, "add") {
				b.Add(i)
				set[i] = true
			} else {
				b.Remove(i)
				delete(set, i)
			}
		}
		if b.Count() != len(set) {
			t.Fatalf("Count() = %d, want %d", b.Count(), len(set))
		}
		var want []int
		for i := range n {
			if b.Has(i) != set[i] {
				t.Fatalf("Has(%d) = %v", i, b.Has(i))
			}
			if set[i] {
				want = append(want, i)
			}
		}
		if got := slices.Collect(b.All); !slices.Equal(got, want) {
			t.Fatalf("All gives %v, want %v", got, want)
		}
	})
}

func TestFullBits(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 127, 128, 1000} {
		b := FullBits(n)
		if b.Count() != n || len(b) != len(NewBits(n)) {
			t.Errorf("FullBits(%d) has %d numbers in %d words", n, b.Count(), len(b))
		}
	}
}

func TestBitsCloneIsApart(t *testing.T) {
	b := NewBits(70)
	b.Add(69)
	c := b.Clone()
	c.Add(3)
	b.Remove(69)
	if b.Has(3) || !c.Has(69) {
		t.Error("a clone shares its words")
	}
}

func TestBitsAllStops(t *testing.T) {
	b := FullBits(130)
	n := 0
	for range b.All {
		if n++; n == 65 {
			break
		}
	}
	if n != 65 {
		t.Errorf("%d numbers before the break, want 65", n)
	}
}
