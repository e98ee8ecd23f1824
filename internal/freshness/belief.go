package freshness

import "freshet/internal/content"

// Belief is why a manifest is taken for what it says.
type Belief uint8

const (
	NoBelief    Belief = iota
	ByCatalog          // (a) Content Policy named its digest
	ByPublisher        // (b) a pinned key's signature fits
	ByOrigin           // (c) a DP signed it, and it equals the expected metadata
)

// Facts are what the shell found out of a manifest: signatures are checked there.
type Facts struct {
	Catalog          bool   // the last answer of Content Policy named its digest
	Generation       uint64 // of that answer
	Pinned           bool   // a publisher's key is pinned for the content id and group, or signatures are required of all
	Signed           bool   // the signature of such a key fits, for this content id and a group of this device
	SignedGeneration uint64
	Expires          int64 // of the signature, Unix seconds; 0: never
	Wall             int64 // now, Unix seconds: the clock as the last service reply corrected it
	OriginSigned     bool  // a DP's certificate, of this fleet, signed the digest
}

// generation is the highest one that f's manifest is vouched for with; 0: none.
func (f *Facts) generation() uint64 {
	var g uint64
	if f.Catalog {
		g = f.Generation
	}
	if f.Signed {
		g = max(g, f.SignedGeneration)
	}
	return g
}

// Believe says why a manifest is believed, or why not (design section 3, step 3). seen is the
// highest generation of the content that the device ever saw; fit, how the manifest compares
// with expected metadata. Where there is metadata it must fit besides; that is not asked here.
func Believe(f Facts, fit content.Fit, seen uint64) (Belief, Outcome) {
	switch {
	case f.Pinned && !f.Signed:
		return NoBelief, Unsigned
	case f.Signed && f.Expires != 0 && f.Wall >= f.Expires:
		return NoBelief, SignatureExpired
	case (f.Catalog || f.Signed) && f.generation() < seen:
		return NoBelief, OlderGeneration
	case f.Catalog:
		return ByCatalog, OK
	case f.Signed:
		return ByPublisher, OK
	case f.OriginSigned && fit == content.Fits:
		return ByOrigin, OK
	}
	return NoBelief, NotBelieved
}
