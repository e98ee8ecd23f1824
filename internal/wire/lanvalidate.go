package wire

import (
	"fmt"

	"freshet/internal/content"
)

// Validate asks those who hold a content to check that their manifest is still right (design
// section 7): on the subnet as a LAN message, over TLS as the body of [ValidateMetadata]. Its
// body is
//
//	u64 version | u8 length | ContentID | u8 kind | kind 1: u8 algorithm | MetadataHash
//	                                              | kind 2: manifest digest
type Validate struct {
	Ref       content.Ref       // Version at least 1
	Algorithm content.Algorithm // of the files' hashes in Wanted; 0: it names Rejected instead
	Wanted    content.Digest    // MetadataHash that the sender expects
	Rejected  content.Digest    // digest of the manifest that did not fit; concerns its holders only
}

// Kinds of Validate.
const (
	validateWanted   = 0x01
	validateRejected = 0x02
)

// AppendLAN appends v as a LAN message.
func (v Validate) AppendLAN(dst []byte) []byte {
	return AppendValidate(append(dst, byte(LANValidate)), v)
}

// AppendValidate appends the body of v.
func AppendValidate(dst []byte, v Validate) []byte {
	dst = appendRef(dst, v.Ref)
	if v.Algorithm == 0 {
		return append(append(dst, validateRejected), v.Rejected[:]...)
	}
	return append(append(dst, validateWanted, byte(v.Algorithm)), v.Wanted[:]...)
}

// ParseValidate reads the body of a Validate.
func ParseValidate(b []byte) (Validate, error) {
	var v Validate
	n, err := parseRef(b, &v.Ref)
	if err != nil {
		return Validate{}, err
	}
	if v.Ref.Version == 0 {
		return Validate{}, fmt.Errorf("wire: validate metadata of %q without a version", v.Ref.ID)
	}
	rest := b[n:]
	switch {
	case len(rest) == 1+digestSize && rest[0] == validateRejected:
		copy(v.Rejected[:], rest[1:])
	case len(rest) == 2+digestSize && rest[0] == validateWanted:
		if v.Algorithm = content.Algorithm(rest[1]); v.Algorithm.Size() == 0 {
			return Validate{}, fmt.Errorf("wire: validate metadata by %s", v.Algorithm)
		}
		copy(v.Wanted[:], rest[2:])
	default:
		return Validate{}, fmt.Errorf("wire: validate metadata of %s: what was wanted has %d bytes", v.Ref, len(rest))
	}
	return v, nil
}
