package content

import "math/bits"

// Bits is a set of small numbers, such as the runs that a device holds: number n is bit
// n%64 of word n/64. Its capacity is fixed when it is made.
type Bits []uint64

// NewBits returns an empty set for the numbers 0 to n-1.
func NewBits(n int) Bits { return make(Bits, (n+63)/64) }

// FullBits returns the set of the numbers 0 to n-1.
func FullBits(n int) Bits {
	b := NewBits(n)
	for i := range b {
		b[i] = ^uint64(0)
	}
	if n%64 != 0 {
		b[len(b)-1] = 1<<(n%64) - 1
	}
	return b
}

// Has reports whether n is in the set.
func (b Bits) Has(n int) bool { return b[n/64]>>(n%64)&1 != 0 }

// Add puts n into the set.
func (b Bits) Add(n int) { b[n/64] |= 1 << (n % 64) }

// Remove takes n out of the set.
func (b Bits) Remove(n int) { b[n/64] &^= 1 << (n % 64) }

// Count returns how many numbers are in the set.
func (b Bits) Count() int {
	c := 0
	for _, w := range b {
		c += bits.OnesCount64(w)
	}
	return c
}

// All calls yield for every number of the set, in order, until it returns false.
func (b Bits) All(yield func(n int) bool) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			if !yield(i*64 + bits.TrailingZeros64(w)) {
				return
			}
		}
	}
}

// Clone returns a copy.
func (b Bits) Clone() Bits { return append(Bits(nil), b...) }
