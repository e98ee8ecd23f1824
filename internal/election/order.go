package election

import (
	"bytes"
	"crypto/sha256"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// rank is a device's place in the order of a content. Ranks of different devices differ.
type rank struct {
	able   bool // to go out now
	share  uint8
	weight uint8
	tie    content.Digest
}

// tieOf returns what decides between equals. It spreads leaders over contents.
func tieOf(device wire.DeviceID, key content.Digest) content.Digest {
	var b [len(device) + len(key)]byte
	copy(b[copy(b[:], device[:]):], key[:])
	return sha256.Sum256(b[:])
}

func rankOf(s wire.Standing, tie content.Digest) rank {
	return rank{able: s.Able, share: s.Share, weight: s.Weight, tie: tie}
}

// before reports whether r is better than o.
func (r rank) before(o rank) bool {
	switch whole, other := r.share == wire.Complete, o.share == wire.Complete; {
	case r.able != o.able:
		return r.able
	case whole != other:
		return whole
	case r.weight != o.weight:
		return r.weight > o.weight
	case r.share != o.share:
		return r.share > o.share
	}
	return bytes.Compare(r.tie[:], o.tie[:]) < 0
}

// weight returns the device's weight as things are; 0 when it never leads.
func (e *Election) weight() uint8 {
	if e.cfg.Weight == 0 {
		return 0
	}
	w := int(e.cfg.Weight)
	if e.cond.Battery {
		w -= 20
	}
	if e.cond.Metered {
		w -= 20
	}
	if e.cond.Busy {
		w -= 10
	}
	return uint8(max(1, w))
}

// shareOf returns the share held in tenths, wire.Complete exactly when everything is.
func shareOf(held, total uint32) uint8 {
	return uint8(uint64(held) * wire.Complete / uint64(total))
}
