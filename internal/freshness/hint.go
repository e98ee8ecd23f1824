package freshness

import (
	"errors"
	"fmt"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Hint is what Validate Metadata says (package wire has its bytes): check what you hold of Ref.
// Either Wanted is the MetadataHash by Algorithm that it should have, or Rejected is the digest
// of a manifest that should not be used any more; that one concerns its holders alone.
type Hint wire.Validate

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
