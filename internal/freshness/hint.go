package freshness

import (
	"encoding/binary"
	"errors"
	"fmt"

	"freshet/internal/content"
)

// Hint is what Validate Metadata says: check what you hold of Ref. Either Wanted is the
// MetadataHash by Algorithm that it should have, or Rejected is the digest of a manifest that
// should not be used any more; that one concerns its holders alone.
//
// Bytes, the same in a datagram and in message 20:
//
//	u8 1 wanted, 2 rejected | u8 algorithm of wanted, 0 of rejected | 32 bytes |
//	u64be version | u8 length of id | id
//
// Bytes after the id are ignored.
type Hint struct {
	Ref       content.Ref
	Algorithm content.Algorithm // of Wanted; 0: Rejected is set
	Wanted    content.Digest
	Rejected  content.Digest
}

const (
	hintWanted   = 0x01
	hintRejected = 0x02

	hintFixed = 1 + 1 + 32 + 8 + 1 // bytes before the id
)

// AppendHint appends the bytes of h.
func AppendHint(dst []byte, h Hint) []byte {
	kind := byte(hintWanted)
	if h.Algorithm == 0 {
		kind = hintRejected
	}
	key := h.key()
	dst = append(dst, kind, byte(h.Algorithm))
	dst = append(dst, key[:]...)
	dst = binary.BigEndian.AppendUint64(dst, h.Ref.Version)
	dst = append(dst, byte(len(h.Ref.ID)))
	return append(dst, h.Ref.ID...)
}

// ParseHint reads the bytes of a hint.
func ParseHint(b []byte) (Hint, error) {
	var h Hint
	if len(b) < hintFixed || len(b) < hintFixed+int(b[hintFixed-1]) {
		return h, fmt.Errorf("freshness: validate metadata of %d bytes is too short", len(b))
	}
	var err error
	if h.Ref.ID, err = content.ParseID(string(b[hintFixed : hintFixed+int(b[hintFixed-1])])); err != nil {
		return Hint{}, fmt.Errorf("freshness: validate metadata: %w", err)
	}
	if h.Ref.Version = binary.BigEndian.Uint64(b[34:42]); h.Ref.Version == 0 || h.Ref.Version > 1<<63-1 {
		return Hint{}, fmt.Errorf("freshness: validate metadata: version %d is not from 1 to 2^63-1", h.Ref.Version)
	}
	digest := content.Digest(b[2:34])
	if digest.IsZero() {
		return Hint{}, errors.New("freshness: validate metadata names no hash")
	}
	switch h.Algorithm = content.Algorithm(b[1]); {
	case b[0] == hintWanted && h.Algorithm.Size() > 0:
		h.Wanted = digest
	case b[0] == hintRejected && h.Algorithm == 0:
		h.Rejected = digest
	default:
		return Hint{}, fmt.Errorf("freshness: validate metadata of kind %d by algorithm %d is not known", b[0], b[1])
	}
	return h, nil
}

// key is what hints on one content are told apart by.
func (h Hint) key() content.Digest {
	if h.Algorithm == 0 {
		return h.Rejected
	}
	return h.Wanted
}

// covers reports whether a device that was told h was told of the manifest digest: a wanted
// MetadataHash speaks of every manifest that has another.
func (h Hint) covers(digest content.Digest) bool {
	return h.Algorithm != 0 || h.Rejected == digest
}

// Ack is what a receiver says of a hint that came to it alone, in one byte.
type Ack uint8

const (
	AckNothing  Ack = 0x01 // it holds nothing that the hint concerns
	AckChecking Ack = 0x02 // it asks its sources; meanwhile it does not serve, or ends within 2 s
	AckKept     Ack = 0x03 // it checked the same within ten minutes, and did not drop it
	AckIgnored  Ack = 0x04 // it does not check on this sender's word now
)

// String returns the word that people see.
func (a Ack) String() string {
	switch a {
	case AckNothing:
		return "nothing"
	case AckChecking:
		return "checking"
	case AckKept:
		return "kept"
	case AckIgnored:
		return "ignored"
	}
	return fmt.Sprintf("acknowledgement %d", uint8(a))
}

// ParseAck reads the body of an acknowledgement. What it does not know is an acknowledgement
// all the same.
func ParseAck(b []byte) (Ack, error) {
	if len(b) < 1 {
		return 0, errors.New("freshness: acknowledgement of validate metadata is empty")
	}
	return Ack(b[0]), nil
}
