package picker

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

// dumb is the package comment written down: no tiers, no counts.
type dumb struct {
	missing map[int]bool
	asked   map[int]int
	sure    map[int]int
	holders map[int]map[int]bool
}

func newDumb(runs int, held content.Bits) *dumb {
	d := &dumb{missing: map[int]bool{}, asked: map[int]int{}, sure: map[int]int{}, holders: map[int]map[int]bool{}}
	for r := range runs {
		d.missing[r] = !held.Has(r)
		d.holders[r] = map[int]bool{}
	}
	return d
}

func (d *dumb) candidate(r int) bool {
	return d.missing[r] && d.asked[r] == 0 && len(d.holders[r]) > 0
}

func (d *dumb) held(r int, peers content.Bits) bool {
	for p := range d.holders[r] {
		if p/64 < len(peers) && peers.Has(p) {
			return true
		}
	}
	return false
}

func (d *dumb) gap(r int, peers content.Bits) bool {
	return d.missing[r] && d.sure[r] == 0 && !d.held(r, peers)
}

const maxPeers = 150 // three words

func drawSet(t *rapid.T, n int, name string) content.Bits {
	b := content.NewBits(n)
	for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, name) {
		b.Add(i)
	}
	return b
}

// TestPickerEqualsDumbOne does the same to both and compares all that can be asked.
func TestPickerEqualsDumbOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		runs := rapid.IntRange(1, 150).Draw(t, "runs")
		held := drawSet(t, runs, "held")
		p, d := New(runs, held, rand.New(rand.NewPCG(1, 2))), newDumb(runs, held)
		peers := rapid.IntRange(0, maxPeers-1)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			step(t, p, d, rapid.IntRange(0, runs-1).Draw(t, "run"), peers.Draw(t, "peer"))
			mask := drawSet(t, rapid.SampledFrom([]int{1, 64, maxPeers}).Draw(t, "mask size"), "mask")
			compare(t, p, d, runs, mask)
		}
	})
}

func step(t *rapid.T, p *Picker, d *dumb, r, peer int) {
	sure := rapid.Bool().Draw(t, "sure")
	switch rapid.IntRange(0, 8).Draw(t, "what") {
	case 0, 1, 2:
		if got := p.Add(r, peer); got == d.holders[r][peer] {
			t.Fatalf("Add(%d, %d) = %v", r, peer, got)
		}
		d.holders[r][peer] = true
	case 3:
		if got := p.Remove(r, peer); got != d.holders[r][peer] {
			t.Fatalf("Remove(%d, %d) = %v", r, peer, got)
		}
		delete(d.holders[r], peer)
	case 4:
		p.RemovePeer(peer)
		for r := range d.holders {
			delete(d.holders[r], peer)
		}
	case 5:
		p.Ask(r, sure)
		d.asked[r]++
		if sure {
			d.sure[r]++
		}
	case 6:
		switch {
		case d.sure[r] > 0:
			p.Unask(r, true)
			d.asked[r]--
			d.sure[r]--
		case d.asked[r] > 0:
			p.Unask(r, false)
			d.asked[r]--
		}
	case 7:
		if got := p.Got(r); got != d.missing[r] {
			t.Fatalf("Got(%d) = %v", r, got)
		}
		d.missing[r] = false
	case 8:
		if d.sure[r] > 0 && rapid.Bool().Draw(t, "unsure") {
			p.Unsure(r)
			d.sure[r]--
			return
		}
		if got := p.Lost(r); got == d.missing[r] {
			t.Fatalf("Lost(%d) = %v", r, got)
		}
		d.missing[r] = true
	}
}

func compare(t *rapid.T, p *Picker, d *dumb, runs int, mask content.Bits) {
	left, fits, gaps, orphaned, first := 0, 0, 0, false, 0
	for r := range runs {
		if d.missing[r] {
			left++
		}
		if d.candidate(r) && d.held(r, mask) {
			if fits == 0 {
				first = r
			}
			fits++
		}
		if d.gap(r, mask) {
			gaps++
		}
		orphaned = orphaned || d.missing[r] && d.asked[r] == 0 && len(d.holders[r]) == 0
		got := fmt.Sprint(p.Missing(r), p.Asked(r), p.Sure(r), p.Holders(r), p.Row(r).Count(), p.Candidate(r), p.Held().Has(r))
		want := fmt.Sprint(d.missing[r], d.asked[r], d.sure[r], len(d.holders[r]), len(d.holders[r]), d.candidate(r), !d.missing[r])
		if got != want {
			t.Fatalf("run %d: %s, want %s", r, got, want)
		}
		for peer := range maxPeers {
			if p.Has(r, peer) != d.holders[r][peer] {
				t.Fatalf("Has(%d, %d) = %v", r, peer, p.Has(r, peer))
			}
		}
	}
	if p.Left() != left || p.Orphaned() != orphaned {
		t.Fatalf("Left() = %d, Orphaned() = %v; want %d, %v", p.Left(), p.Orphaned(), left, orphaned)
	}
	for range 3 {
		if r, ok := p.Choose(mask); ok != (fits > 0) || ok && !(d.candidate(r) && d.held(r, mask)) {
			t.Fatalf("Choose gives %d, %v; %d candidates fit", r, ok, fits)
		}
		if r, ok := p.First(mask); ok != (fits > 0) || ok && r != first {
			t.Fatalf("First gives %d, %v, want %d", r, ok, first)
		}
	}
	compareGap(t, p, d, runs, gaps, mask)
}

func compareGap(t *rapid.T, p *Picker, d *dumb, runs, gaps int, mask content.Bits) {
	from, most := rapid.IntRange(0, runs-1).Draw(t, "from"), rapid.IntRange(1, 10).Draw(t, "most")
	first, end, ok := p.Gap(from, most, mask)
	if ok != (gaps > 0) {
		t.Fatalf("Gap finds %v, there are %d", ok, gaps)
	}
	if !ok {
		return
	}
	for r := from; r != first; r = (r + 1) % runs {
		if d.gap(r, mask) {
			t.Fatalf("Gap from %d begins with %d, %d comes before", from, first, r)
		}
	}
	for r := first; r < end; r++ {
		if !d.gap(r, mask) {
			t.Fatalf("Gap gives %d to %d, %d is none", first, end, r)
		}
	}
	if end-first > most || end-first < most && end < runs && d.gap(end, mask) {
		t.Fatalf("Gap of at most %d gives %d to %d", most, first, end)
	}
}

// A choice takes the run with the fewest holders where few are to compare.
func TestChooseTakesTheRarest(t *testing.T) {
	p := New(10, nil, rand.New(rand.NewPCG(1, 2)))
	for r := range 10 {
		for peer := range 3 + r%5 { // 3 to 7 holders: two tiers
			p.Add(r, peer)
		}
	}
	p.Ask(5, true) // as rare as run 0
	for range 50 {
		if r, ok := p.Choose(content.FullBits(7)); !ok || r != 0 {
			t.Fatalf("Choose gives %d, %v, want 0", r, ok)
		}
	}
}

// Devices must not all choose the same of equally rare runs.
func TestChooseSpreads(t *testing.T) {
	p := New(1000, nil, rand.New(rand.NewPCG(1, 2)))
	for r := range 1000 {
		p.Add(r, 1)
	}
	chosen := map[int]bool{}
	for range 1000 {
		r, _ := p.Choose(content.FullBits(2))
		chosen[r] = true
	}
	if len(chosen) < 500 { // 632 by chance
		t.Errorf("1000 choices fell on %d runs, want 500 at least", len(chosen))
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, runs := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(runs), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			p := New(runs, nil, rng)
			for r := range runs {
				for range 1 + rng.IntN(8) {
					p.Add(r, rng.IntN(60))
				}
			}
			room := content.FullBits(60)
			for b.Loop() {
				p.Choose(room)
			}
		})
	}
}
