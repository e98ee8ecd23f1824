// Package picker says which run of a download to ask for next: the rarest of those that a
// given set of peers holds (so that no run dies out and every device has something to
// give), the first of them, or the next gap in index order for the device that fetches from
// outside. It keeps who holds what and what is asked for; of a peer it knows nothing but
// its number.
//
// For every run r, where row(r) is the set of peers that hold it:
//
//	candidate(r) = missing(r) and asked[r] == 0 and row(r) is not empty
//	gap(r, T)    = missing(r) and sure[r] == 0 and no peer of T is in row(r)
//
// Of the open requests for r, asked[r] are expected to be answered, and sure[r] of these so
// surely that the origin need not be asked.
package picker

import (
	"math/bits"
	"math/rand/v2"

	"freshet/internal/content"
)

// Candidates lie in tiers by rarity: tier t holds those with 2^t to 2^(t+1)-1 holders, the
// last tier all the rest. A choice begins at a random place of the lowest tier that has a
// fitting one, so devices do not all choose the same run, and looks at a bounded number of
// candidates, so it costs the same for a thousand runs as for a million.
const (
	tiers   = 7
	sample  = 16   // fitting candidates of a tier that one choice compares
	maxLook = 4096 // candidates of a tier that one choice looks at
)

// Picker is the state of one download. It is not safe for concurrent use.
//
// A row lies in one piece: a Have is the most frequent event of a swarm, and it should
// touch as few cache lines as possible.
type Picker struct {
	runs    int
	left    int                 // missing runs
	stride  int                 // words of a row
	rows    []uint64            // stride words for each run: bit n is set when peer n holds it
	missing content.Bits        // not held
	asked   []uint8             // open requests, of peers and origins together
	sure    []uint8             // of asked
	tier    [tiers]content.Bits // candidates
	inTier  [tiers]int          // their numbers
	rng     *rand.Rand
}

// New returns the picker of a download of this many runs, of which held are there already.
func New(runs int, held content.Bits, rng *rand.Rand) *Picker {
	p := &Picker{
		runs:    runs,
		stride:  1,
		rows:    make([]uint64, runs),
		missing: content.FullBits(runs),
		asked:   make([]uint8, runs),
		sure:    make([]uint8, runs),
		rng:     rng,
	}
	for t := range p.tier {
		p.tier[t] = content.NewBits(runs)
	}
	for i := range min(len(held), len(p.missing)) {
		p.missing[i] &^= held[i]
	}
	p.left = p.missing.Count()
	return p
}

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

// Asked returns the number of open requests for run r that are expected to be answered.
func (p *Picker) Asked(r int) int { return int(p.asked[r]) }

// Sure returns how many of them will surely be answered.
func (p *Picker) Sure(r int) int { return int(p.sure[r]) }

// Row returns the set of peers that hold run r. It is the picker's own: it changes with the
// next call, and may be shorter than a set of all peers.
func (p *Picker) Row(r int) content.Bits {
	return content.Bits(p.rows[r*p.stride : (r+1)*p.stride])
}

// Holders returns how many peers hold run r.
func (p *Picker) Holders(r int) int {
	if p.stride == 1 {
		return bits.OnesCount64(p.rows[r])
	}
	return p.Row(r).Count()
}

// Has reports whether a peer holds run r.
func (p *Picker) Has(r, peer int) bool {
	return peer/64 < p.stride && p.rows[r*p.stride+peer/64]>>(peer%64)&1 != 0
}

// Add notes that a peer holds run r. It reports whether that is new.
func (p *Picker) Add(r, peer int) bool {
	if peer/64 >= p.stride {
		p.widen(peer/64 + 1)
	}
	w, bit := &p.rows[r*p.stride+peer/64], uint64(1)<<(peer%64)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	if p.unasked(r) {
		p.move(r, p.Holders(r)-1, p.Holders(r))
	}
	return true
}

// Remove notes that a peer does not hold run r. It reports whether it did before.
func (p *Picker) Remove(r, peer int) bool {
	if !p.Has(r, peer) {
		return false
	}
	p.rows[r*p.stride+peer/64] &^= 1 << (peer % 64)
	if p.unasked(r) {
		p.move(r, p.Holders(r)+1, p.Holders(r))
	}
	return true
}

// RemovePeer notes that a peer holds nothing.
func (p *Picker) RemovePeer(peer int) {
	for r := range p.runs {
		p.Remove(r, peer)
	}
}

// widen makes rows longer, so that they hold more peers.
func (p *Picker) widen(stride int) {
	rows := make([]uint64, p.runs*stride)
	for r := range p.runs {
		copy(rows[r*stride:], p.Row(r))
	}
	p.rows, p.stride = rows, stride
}

// Ask notes one more open request for run r.
func (p *Picker) Ask(r int, sure bool) {
	p.unlist(r)
	p.asked[r]++
	if sure {
		p.sure[r]++
	}
}

// Unask notes that a request for run r ended or is not expected to be answered any more.
func (p *Picker) Unask(r int, sure bool) {
	p.asked[r]--
	if sure {
		p.sure[r]--
	}
	p.list(r)
}

// Unsure notes that a request for run r is not sure any more.
func (p *Picker) Unsure(r int) { p.sure[r]-- }

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

// Lost notes that run r is held no longer. It reports whether it was held.
func (p *Picker) Lost(r int) bool {
	if p.missing.Has(r) {
		return false
	}
	p.missing.Add(r)
	p.left++
	p.list(r)
	return true
}

// Candidate reports whether run r is a candidate, as the package comment defines it.
func (p *Picker) Candidate(r int) bool { return p.unasked(r) && p.Holders(r) > 0 }

func (p *Picker) unasked(r int) bool { return p.missing.Has(r) && p.asked[r] == 0 }

// tierOf returns the tier of a candidate with this many holders, 1 at least.
func tierOf(holders int) int { return min(bits.Len(uint(holders)), tiers) - 1 }

// move puts run r, missing and not asked for, from the tier of one number of holders into
// that of another.
func (p *Picker) move(r, from, to int) {
	if from > 0 && to > 0 && tierOf(from) == tierOf(to) {
		return
	}
	if from > 0 {
		p.tier[tierOf(from)].Remove(r)
		p.inTier[tierOf(from)]--
	}
	if to > 0 {
		p.tier[tierOf(to)].Add(r)
		p.inTier[tierOf(to)]++
	}
}

// list puts r into its tier if it is a candidate.
func (p *Picker) list(r int) {
	if p.unasked(r) {
		p.move(r, 0, p.Holders(r))
	}
}

// unlist takes r out of its tier if it is a candidate; it is called before what makes it
// one changes.
func (p *Picker) unlist(r int) {
	if p.unasked(r) {
		p.move(r, p.Holders(r), 0)
	}
}

// Choose returns a candidate that one of the peers holds, one of the rarest by a random
// sample. ok is false when it finds none.
func (p *Picker) Choose(peers content.Bits) (run int, ok bool) {
	for t := range p.tier {
		if p.inTier[t] == 0 {
			continue
		}
		if run, ok = p.chooseIn(t, peers); ok {
			return run, true
		}
	}
	return 0, false
}

// First returns the candidate of the lowest index that one of the peers holds.
func (p *Picker) First(peers content.Bits) (run int, ok bool) {
	for r := range p.missing.All {
		if p.asked[r] == 0 && p.heldByAny(r, peers) {
			return r, true
		}
	}
	return 0, false
}

// chooseIn is Choose within tier t.
func (p *Picker) chooseIn(t int, peers content.Bits) (run int, ok bool) {
	set := p.tier[t]
	least, fits, looked := int(^uint(0)>>1), 0, 0
	start := p.rng.IntN(len(set) * 64)
	at := start / 64
	w := set[at] >> (start % 64) << (start % 64)
	for i := 0; ; i++ {
		for ; w != 0; w &= w - 1 {
			r := at*64 + bits.TrailingZeros64(w)
			looked++
			if !p.heldByAny(r, peers) {
				continue
			}
			if h := p.Holders(r); h < least {
				run, least = r, h
			}
			if fits++; fits >= sample || least == 1<<t {
				return run, true
			}
		}
		if i == len(set) || looked >= maxLook {
			return run, fits > 0
		}
		if at++; at == len(set) {
			at = 0
		}
		w = set[at]
		if i == len(set)-1 { // back in the first word: what lies before the start
			w &= 1<<(start%64) - 1
		}
	}
}

// heldByAny reports whether one of the peers holds run r.
func (p *Picker) heldByAny(r int, peers content.Bits) bool {
	row := p.rows[r*p.stride : (r+1)*p.stride]
	for i := range min(len(row), len(peers)) {
		if row[i]&peers[i] != 0 {
			return true
		}
	}
	return false
}

// Gap returns the first stretch of gaps at or after from, at most max runs; when there is
// none, the first of all. The package comment says what a gap is.
func (p *Picker) Gap(from, max int, peers content.Bits) (first, end int, ok bool) {
	first, ok = p.nextGap(from, p.runs, peers)
	if !ok {
		first, ok = p.nextGap(0, from, peers)
	}
	if !ok {
		return 0, 0, false
	}
	for end = first + 1; end < p.runs && end-first < max && p.gap(end, peers); {
		end++
	}
	return first, end, true
}

// FirstHeld returns the first of the runs from to end-1 that one of the peers holds.
func (p *Picker) FirstHeld(from, end int, peers content.Bits) (run int, ok bool) {
	for r := from; r < end; r++ {
		if p.heldByAny(r, peers) {
			return r, true
		}
	}
	return 0, false
}

// Orphaned reports whether a missing run is neither held by a peer nor asked for.
func (p *Picker) Orphaned() bool {
	for r := range p.missing.All {
		if p.asked[r] == 0 && p.Holders(r) == 0 {
			return true
		}
	}
	return false
}

// nextGap returns the first gap of the runs from to end-1.
func (p *Picker) nextGap(from, end int, peers content.Bits) (int, bool) {
	for r := from; r < end; r++ {
		if r%64 == 0 && p.missing[r/64] == 0 {
			r += 63
			continue
		}
		if p.gap(r, peers) {
			return r, true
		}
	}
	return 0, false
}

func (p *Picker) gap(r int, peers content.Bits) bool {
	return p.missing.Has(r) && p.sure[r] == 0 && !p.heldByAny(r, peers)
}
