// Package picker says which run of a download to ask for next: the rarest among the peers'
// (so that no run dies out and every device has something to give), or the next gap in
// index order for the device that fetches from outside. It counts who holds what and what
// is asked for; it knows nothing of peers, rates or time.
//
// For every run r:
//
//	candidate(r) = missing(r) and asked[r] == 0 and holders[r] > 0
//	gap(r)       = missing(r) and asked[r] == 0 and holders[r] == 0
package picker

import (
	"math/bits"
	"math/rand/v2"

	"freshet/internal/content"
)

// Candidates lie in tiers by rarity: tier t holds those with 2^t to 2^(t+1)-1 holders, the
// last tier all the rest. A choice begins at a random place of the lowest tier that has
// any, so it costs the same for ten runs as for a million, and devices do not all choose
// the same run.
const (
	tiers  = 7
	sample = 32 // candidates of a tier that one choice looks at
)

// Picker is the state of one download. It is not safe for concurrent use.
type Picker struct {
	runs    int
	left    int                 // missing runs
	missing content.Bits        // not held
	tier    [tiers]content.Bits // candidates
	inTier  [tiers]int          // their numbers
	asked   []uint8             // open requests, of peers and origins together
	holders []uint16            // connected peers that hold the run
	rng     *rand.Rand
}

// New returns the picker of a download of this many runs, of which held are there already.
func New(runs int, held content.Bits, rng *rand.Rand) *Picker {
	p := &Picker{
		runs:    runs,
		missing: content.FullBits(runs),
		asked:   make([]uint8, runs),
		holders: make([]uint16, runs),
		rng:     rng,
	}
	for t := range p.tier {
		p.tier[t] = content.NewBits(runs)
	}
	for i := range held {
		p.missing[i] &^= held[i]
	}
	p.left = p.missing.Count()
	return p
}

// Runs returns the number of runs.
func (p *Picker) Runs() int { return p.runs }

// Left returns the number of missing runs.
func (p *Picker) Left() int { return p.left }

// Missing reports whether run r is missing.
func (p *Picker) Missing(r int) bool { return p.missing.Has(r) }

// Held returns the set of runs held, as a copy.
func (p *Picker) Held() content.Bits {
	held := content.FullBits(p.runs)
	for i, w := range p.missing {
		held[i] &^= w
	}
	return held
}

// Asked returns the number of open requests for run r.
func (p *Picker) Asked(r int) int { return int(p.asked[r]) }

// Holders returns how many connected peers hold run r.
func (p *Picker) Holders(r int) int { return int(p.holders[r]) }

// AddHolder notes that one more peer holds run r.
func (p *Picker) AddHolder(r int) {
	p.unlist(r)
	p.holders[r]++
	p.list(r)
}

// RemoveHolder notes that one peer less holds run r.
func (p *Picker) RemoveHolder(r int) {
	p.unlist(r)
	p.holders[r]--
	p.list(r)
}

// Ask notes one more open request for run r.
func (p *Picker) Ask(r int) {
	p.unlist(r)
	p.asked[r]++
}

// Unask notes that a request for run r ended, whatever came of it.
func (p *Picker) Unask(r int) {
	p.asked[r]--
	p.list(r)
}

// Got notes that run r is held. It reports whether it was missing.
func (p *Picker) Got(r int) bool {
	if !p.missing.Has(r) {
		return false
	}
	p.unlist(r)
	p.missing.Remove(r)
	p.left--
	return true
}

// Lost notes that run r is held no longer: the store found it damaged.
func (p *Picker) Lost(r int) {
	if p.missing.Has(r) {
		return
	}
	p.missing.Add(r)
	p.left++
	p.list(r)
}

// Candidate reports whether run r is a candidate, as the package comment defines it.
func (p *Picker) Candidate(r int) bool {
	return p.holders[r] > 0 && p.asked[r] == 0 && p.missing.Has(r)
}

func (p *Picker) tierOf(r int) int { return min(bits.Len16(p.holders[r]), tiers) - 1 }

// list puts r into its tier if it is a candidate.
func (p *Picker) list(r int) {
	if p.Candidate(r) {
		t := p.tierOf(r)
		p.tier[t].Add(r)
		p.inTier[t]++
	}
}

// unlist takes r out of its tier if it is a candidate; it is called before what makes it
// one changes.
func (p *Picker) unlist(r int) {
	if p.Candidate(r) {
		t := p.tierOf(r)
		p.tier[t].Remove(r)
		p.inTier[t]--
	}
}

// Rarest appends to dst up to n candidates, rare ones first; with a mask, only those that
// are in it. Within a tier it looks at a random sample.
func (p *Picker) Rarest(dst []int32, n int, mask content.Bits) []int32 {
	base := len(dst)
	for t := range p.tier {
		if p.inTier[t] > 0 {
			dst = p.fromTier(dst, t, base+n, mask)
		}
		if len(dst) == base+n {
			break
		}
	}
	return dst
}

// fromTier appends candidates of tier t until dst has full entries.
func (p *Picker) fromTier(dst []int32, t, full int, mask content.Bits) []int32 {
	set := p.tier[t]
	base, seen := len(dst), 0
	at := p.rng.IntN(len(set))
	for range set {
		w := set[at]
		if mask != nil {
			w &= mask[at]
		}
		for ; w != 0; w &= w - 1 {
			dst = p.insert(dst, base, full, at*64+bits.TrailingZeros64(w))
			seen++
		}
		if seen >= sample && len(dst) == full {
			break
		}
		if at++; at == len(set) {
			at = 0
		}
	}
	return dst
}

// insert puts run r into dst[base:], which is ordered by holders; dst never grows beyond
// full entries.
func (p *Picker) insert(dst []int32, base, full, r int) []int32 {
	if len(dst) < full {
		dst = append(dst, int32(r))
	} else if p.holders[dst[full-1]] <= p.holders[r] {
		return dst
	}
	i := len(dst) - 1
	for ; i > base && p.holders[dst[i-1]] > p.holders[r]; i-- {
		dst[i] = dst[i-1]
	}
	dst[i] = int32(r)
	return dst
}

// Gap returns the first stretch of runs, at most max of them, that are missing, not asked
// for and held by no peer. ok is false when there is none.
func (p *Picker) Gap(max int) (first, end int, ok bool) {
	for i, w := range p.missing {
		for ; w != 0; w &= w - 1 {
			r := i*64 + bits.TrailingZeros64(w)
			if p.gap(r) {
				return r, p.stretch(r, max, p.gap), true
			}
		}
	}
	return 0, 0, false
}

// GapAny is Gap without regard to peers: for a device that has given up on them.
func (p *Picker) GapAny(max int) (first, end int, ok bool) {
	for i, w := range p.missing {
		for ; w != 0; w &= w - 1 {
			r := i*64 + bits.TrailingZeros64(w)
			if p.unasked(r) {
				return r, p.stretch(r, max, p.unasked), true
			}
		}
	}
	return 0, 0, false
}

func (p *Picker) gap(r int) bool     { return p.unasked(r) && p.holders[r] == 0 }
func (p *Picker) unasked(r int) bool { return p.asked[r] == 0 && p.missing.Has(r) }

func (p *Picker) stretch(first, max int, in func(int) bool) int {
	end := first + 1
	for end < p.runs && end-first < max && in(end) {
		end++
	}
	return end
}

// Wanted returns the missing runs that are asked for, in order: what an end game may ask
// of a second holder.
func (p *Picker) Wanted(dst []int32) []int32 {
	for r := range p.missing.All {
		if p.asked[r] > 0 {
			dst = append(dst, int32(r))
		}
	}
	return dst
}
