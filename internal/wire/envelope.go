package wire

import (
	"encoding/binary"
	"fmt"

	"freshet/internal/content"
)

// Type says what an envelope holds.
type Type uint8

// Envelope types; others are ignored.
const (
	Grant            Type = 0x01 // a grant, opaque here
	GetManifest      Type = 0x02 // u64 offset
	GetHashFile      Type = 0x03 // u64 offset, in the raw hash file
	PartOf           Type = 0x04 // u8 GetManifest, GetHashFile or GetSignature | u64 offset | u64 total | zstd
	ValidateMetadata Type = 0x05 // opaque here
	Acknowledge      Type = 0x06 // u8 type acknowledged | opaque here
	WrongPiece       Type = 0x07 // u32 piece
	Said             Type = 0x08 // a LANMessage, of the connection's device
	GetSignature     Type = 0x09 // u64 offset, in the publisher's signature of the manifest
)

// partHeaderSize is what stands before the frame of a part, in bytes.
const partHeaderSize = 1 + 8 + 8

// Part is a part of a manifest, a raw hash file or a publisher's signature.
type Part struct {
	Of     Type   // GetManifest, GetHashFile or GetSignature
	Offset uint64 // of the part, unpacked bytes
	Total  uint64 // of the whole, unpacked bytes; 0 when the sender has none
	Frame  []byte // zstd, 1 to MaxFrame bytes; none exactly when Offset = Total
}

// Ack answers an envelope that asks for it.
type Ack struct {
	Of   Type
	Body []byte // up to MaxOpaque bytes
}

// ParseEnvelope splits the body of an Envelope; rest is what the type's own function reads.
func ParseEnvelope(body []byte) (t Type, rest []byte, err error) {
	if len(body) == 0 {
		return 0, nil, fmt.Errorf("wire: envelope without a type: %w", ErrShort)
	}
	return Type(body[0]), body[1:], nil
}

// AppendGrant appends a grant of up to [MaxGrant] bytes; empty: there is none.
func AppendGrant(dst, grant []byte) []byte {
	return append(appendEnvelope(dst, Grant, len(grant)), grant...)
}

// ParseGrant returns the grant, the caller's bytes; nil: there is none.
func ParseGrant(rest []byte) ([]byte, error) {
	switch {
	case len(rest) == 0:
		return nil, nil
	case len(rest) > MaxGrant:
		return nil, fmt.Errorf("wire: grant has %d bytes, more than %d", len(rest), MaxGrant)
	}
	return rest, nil
}

// AppendGet appends GetManifest, GetHashFile or GetSignature from offset on, in unpacked bytes.
func AppendGet(dst []byte, of Type, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(appendEnvelope(dst, of, 8), offset)
}

// ParseGet reads the offset of GetManifest, GetHashFile or GetSignature.
func ParseGet(of Type, rest []byte) (offset uint64, err error) {
	if len(rest) < 8 {
		return 0, fmt.Errorf("wire: get has %d bytes, want 8: %w", len(rest), ErrShort)
	}
	offset = binary.BigEndian.Uint64(rest)
	if limit := maxTotal(of); offset > limit {
		return 0, fmt.Errorf("wire: get of type %d from offset %d, more than %d", of, offset, limit)
	}
	return offset, nil
}

// AppendPart appends p.
func AppendPart(dst []byte, p Part) []byte {
	dst = appendEnvelope(dst, PartOf, partHeaderSize+len(p.Frame))
	dst = append(dst, byte(p.Of))
	dst = binary.BigEndian.AppendUint64(dst, p.Offset)
	dst = binary.BigEndian.AppendUint64(dst, p.Total)
	return append(dst, p.Frame...)
}

// ParsePart reads a part. Its frame is the caller's bytes. What it unpacks to is not known
// here: whoever unpacks it stops at min([MaxPart], Total-Offset) bytes.
func ParsePart(rest []byte) (Part, error) {
	if len(rest) < partHeaderSize {
		return Part{}, fmt.Errorf("wire: part has %d bytes, want at least %d: %w", len(rest), partHeaderSize, ErrShort)
	}
	p := Part{Of: Type(rest[0]), Offset: binary.BigEndian.Uint64(rest[1:]), Total: binary.BigEndian.Uint64(rest[9:])}
	frame := rest[partHeaderSize:]
	if limit := maxTotal(p.Of); p.Total > limit || p.Offset > p.Total {
		return Part{}, fmt.Errorf("wire: part of type %d at %d of %d bytes, of at most %d", p.Of, p.Offset, p.Total, limit)
	}
	if len(frame) > MaxFrame || (len(frame) == 0) != (p.Offset == p.Total) {
		return Part{}, fmt.Errorf("wire: part at %d of %d bytes has a frame of %d, want 1 to %d, or none at the end", p.Offset, p.Total, len(frame), MaxFrame)
	}
	if p.Of != GetManifest && p.Of != GetHashFile && p.Of != GetSignature {
		return Part{}, fmt.Errorf("wire: part of type %d, want %d, %d or %d", p.Of, GetManifest, GetHashFile, GetSignature)
	}
	if len(frame) > 0 {
		p.Frame = frame
	}
	return p, nil
}

// maxTotal returns the most bytes of the whole that parts are of.
func maxTotal(of Type) uint64 {
	switch of {
	case GetHashFile:
		return content.MaxPieces * uint64(len(content.Digest{}))
	case GetSignature:
		return MaxSignature
	}
	return content.MaxManifest
}

// AppendValidateMetadata appends a body of up to [MaxOpaque] bytes.
func AppendValidateMetadata(dst, body []byte) []byte {
	return append(appendEnvelope(dst, ValidateMetadata, len(body)), body...)
}

// ParseValidateMetadata returns the body, the caller's bytes.
func ParseValidateMetadata(rest []byte) ([]byte, error) {
	if len(rest) > MaxOpaque {
		return nil, fmt.Errorf("wire: validate metadata has %d bytes, more than %d", len(rest), MaxOpaque)
	}
	return rest, nil
}

// AppendAck appends a.
func AppendAck(dst []byte, a Ack) []byte {
	dst = append(appendEnvelope(dst, Acknowledge, 1+len(a.Body)), byte(a.Of))
	return append(dst, a.Body...)
}

// ParseAck reads an acknowledgement. Its body is the caller's bytes.
func ParseAck(rest []byte) (Ack, error) {
	if len(rest) < 1 || len(rest) > 1+MaxOpaque {
		return Ack{}, fmt.Errorf("wire: acknowledgement has %d bytes, want 1 to %d", len(rest), 1+MaxOpaque)
	}
	return Ack{Of: Type(rest[0]), Body: rest[1:]}, nil
}

// AppendWrongPiece appends the message that tells a sender that its piece was wrong.
func AppendWrongPiece(dst []byte, piece uint32) []byte {
	return binary.BigEndian.AppendUint32(appendEnvelope(dst, WrongPiece, 4), piece)
}

// ParseWrongPiece reads the piece.
func ParseWrongPiece(rest []byte) (piece uint32, err error) {
	if len(rest) < 4 {
		return 0, fmt.Errorf("wire: wrong piece has %d bytes, want 4: %w", len(rest), ErrShort)
	}
	return binary.BigEndian.Uint32(rest), nil
}

// AppendSaid appends a LAN message as it is in datagrams, 1 to [MaxLAN] bytes.
func AppendSaid(dst, message []byte) []byte {
	return append(appendEnvelope(dst, Said, len(message)), message...)
}

// ParseSaid reads a LAN message.
func ParseSaid(rest []byte) (LANMessage, error) { return ParseLAN(rest) }

// appendEnvelope appends everything before the n bytes that belong to t.
func appendEnvelope(dst []byte, t Type, n int) []byte {
	return append(appendHeader(dst, Envelope, 1+n), byte(t))
}
