package wire

import (
	"encoding/binary"
	"fmt"

	"freshet/internal/content"
)

// BeatFlags say what the sender of a beat does with the bytes.
type BeatFlags uint8

// Flags of a beat.
const (
	Leads   BeatFlags = 0x01 // leads; else it wants the bytes
	Able    BeatFlags = 0x02 // can go out now: policy, mains power, not metered
	Stands  BeatFlags = 0x04 // would lead
	Moving  BeatFlags = 0x08 // pieces move: the next beat comes in 250 ms, else in 2 s
	Outside BeatFlags = 0x10 // fetches from outside the subnet now

	allFlags = Leads | Able | Stands | Moving | Outside
)

// Beat is one content in a heartbeat. A claim of leadership is a beat with a new epoch.
type Beat struct {
	HashOfHashes content.Digest
	Epoch        uint64 // of the sender's leadership, at least 1; else of the one it follows, 0: none
	Held, Total  uint32 // pieces; Total at least 1
	Rate         uint32 // KiB a second that come from outside the subnet
	Flags        BeatFlags
	Priority     Priority // the highest asked of the leader; else the sender's own
	Device       DeviceID // the leader's deputy; else the leader that the sender follows; zero: none
}

// Heartbeat tells what its sender leads, and from time to time what it wants. What does not
// fit into one comes in several.
type Heartbeat struct {
	Weight uint8 // of the sender
	Beats  []Beat
}

const beatSize = digestSize + 8 + 3*4 + 1 + 1 + len(DeviceID{})

// MaxBeats is how many beats fit into a heartbeat.
const MaxBeats = (MaxLAN - 3) / beatSize

// AppendLAN appends h, which has 1 to [MaxBeats] beats.
func (h Heartbeat) AppendLAN(dst []byte) []byte {
	dst = append(dst, byte(LANHeartbeat), h.Weight, byte(len(h.Beats)))
	for i := range h.Beats {
		b := &h.Beats[i]
		dst = append(dst, b.HashOfHashes[:]...)
		dst = binary.BigEndian.AppendUint64(dst, b.Epoch)
		dst = binary.BigEndian.AppendUint32(dst, b.Held)
		dst = binary.BigEndian.AppendUint32(dst, b.Total)
		dst = binary.BigEndian.AppendUint32(dst, b.Rate)
		dst = append(dst, byte(b.Flags), byte(b.Priority))
		dst = append(dst, b.Device[:]...)
	}
	return dst
}

func parseHeartbeat(b []byte) (Heartbeat, error) {
	if len(b) < 2 {
		return Heartbeat{}, fmt.Errorf("wire: heartbeat has %d bytes: %w", len(b), ErrShort)
	}
	h := Heartbeat{Weight: b[0]}
	n, rest := int(b[1]), b[2:]
	if h.Weight > MaxWeight || n < 1 || n > MaxBeats || len(rest) != n*beatSize {
		return Heartbeat{}, fmt.Errorf("wire: heartbeat with weight %d and %d beats in %d bytes, want a weight up to %d and 1 to %d beats of %d bytes", h.Weight, n, len(rest), MaxWeight, MaxBeats, beatSize)
	}
	h.Beats = make([]Beat, n)
	for i := range h.Beats {
		if err := h.Beats[i].parse(rest[i*beatSize:]); err != nil {
			return Heartbeat{}, err
		}
	}
	return h, nil
}

// parse reads the first beatSize bytes of p, which the caller made sure of.
func (b *Beat) parse(p []byte) error {
	p = p[copy(b.HashOfHashes[:], p):]
	b.Epoch = binary.BigEndian.Uint64(p)
	b.Held = binary.BigEndian.Uint32(p[8:])
	b.Total = binary.BigEndian.Uint32(p[12:])
	b.Rate = binary.BigEndian.Uint32(p[16:])
	b.Flags, b.Priority = BeatFlags(p[20]), Priority(p[21])
	copy(b.Device[:], p[22:])
	switch {
	case b.Total < 1 || b.Total > content.MaxPieces || b.Held > b.Total:
		return fmt.Errorf("wire: beat with %d of %d pieces, want up to %d", b.Held, b.Total, content.MaxPieces)
	case b.Flags&^allFlags != 0 || b.Priority > Foreground:
		return fmt.Errorf("wire: beat with the flags %#x and priority %d", uint8(b.Flags), b.Priority)
	case b.Flags&Leads != 0 && b.Epoch == 0:
		return fmt.Errorf("wire: beat of a leader without an epoch")
	}
	return nil
}

// ResignReason says why a leader leads no more.
type ResignReason uint8

// Reasons to resign.
const (
	Unable   ResignReason = 0x01 // may not or cannot go out
	Stalled  ResignReason = 0x02 // nothing came for too long
	Yielded  ResignReason = 0x03 // another leader of the same bytes is ahead
	Unwanted ResignReason = 0x04 // nobody on the subnet wants the bytes
)

var resignNames = map[ResignReason]string{Unable: "unable", Stalled: "stalled", Yielded: "yielded", Unwanted: "unwanted"}

// String returns the reason in a word, for logs.
func (r ResignReason) String() string {
	if name, ok := resignNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %#x", uint8(r))
}

// Resign ends a leadership.
type Resign struct {
	HashOfHashes content.Digest
	Epoch        uint64 // of the leadership that ends, at least 1
	Reason       ResignReason
	Successor    DeviceID // who leads from now on; zero: nobody yet
}

const resignSize = 1 + digestSize + 8 + 1 + len(DeviceID{})

// AppendLAN appends r.
func (r Resign) AppendLAN(dst []byte) []byte {
	dst = append(append(dst, byte(LANResign)), r.HashOfHashes[:]...)
	dst = binary.BigEndian.AppendUint64(dst, r.Epoch)
	dst = append(dst, byte(r.Reason))
	return append(dst, r.Successor[:]...)
}

func parseResign(b []byte) (Resign, error) {
	if len(b) != resignSize-1 {
		return Resign{}, fmt.Errorf("wire: resignation has %d bytes, want %d", len(b), resignSize-1)
	}
	var r Resign
	b = b[copy(r.HashOfHashes[:], b):]
	r.Epoch, r.Reason = binary.BigEndian.Uint64(b), ResignReason(b[8])
	copy(r.Successor[:], b[9:])
	if r.Epoch == 0 || r.Reason < Unable || r.Reason > Unwanted {
		return Resign{}, fmt.Errorf("wire: resignation from epoch %d for %s", r.Epoch, r.Reason)
	}
	return r, nil
}
