// Package wire is the swarm protocol in bytes: Delivery Optimization's peer protocol with an
// envelope of freshet's own in it. It does no I/O and keeps nothing that it is given. The
// messages of the LAN's datagrams are laid out in lan.go.
//
// The first byte of a connection tells [FirstTLS] from [FirstPlain]. All numbers are
// big-endian. Every Append function appends a whole message, every Parse function checks
// lengths before it reads anything.
//
// # Handshake, 75 bytes, once in each direction
//
//	offset  bytes  field
//	0       1      0x0E, the length of the name
//	1       14     "Swarm protocol"
//	15      8      00 00 00 01 00 00 00 00; anything else is refused
//	23      32     HashOfHashes, which names the swarm
//	55      16     device id
//	71      4      00 00 00 00; anything else is refused
//
// # Messages
//
//	offset  bytes  field
//	0       4      length n of what follows, at most [MaxMessage]; 0 is a keep-alive and ends here
//	4       1      id, see [Kind]
//	5       n-1    body
//
//	id    n         body
//	0x00  1         choke
//	0x01  1         unchoke
//	0x02  1         interested
//	0x03  1         not interested
//	0x04  5         have: u32 piece
//	0x05  1+⌈p/8⌉   bitfield of p pieces: piece i is bit 7-i%8 of byte i/8, spare bits 0
//	0x06  13        request: u32 piece | u32 begin | u32 length
//	0x07  9+d       piece: u32 piece | u32 begin | d bytes of data, d from 1 to [MaxData]
//	0x08  13        cancel, as request
//	0x14  1+1+b     envelope: u8 type | b bytes, see [Type]
//
// Any other id is skipped by its length. The body of a piece is never copied here: see
// [Header.Data] and [ParsePiece].
//
// # Pieces that stand for runs
//
// Small adjoining pieces travel in runs (content.Run). A piece that begins a run stands for
// the run: a Have of it tells the whole run, and the length of a Request may reach over the
// adjoining pieces to the end of the run; its Piece bears the same piece and begin. Begin
// counts from the start of the piece named. Any begin and length inside a run is served.
// Bits of a bitfield are single pieces.
//
// # Envelopes
//
//	type  body
//	0x01  grant: up to [MaxGrant] bytes, opaque here; none: the sender has none to show, and
//	      counts on the publisher's signature of the manifest
//	0x02  get manifest: u64 offset
//	0x03  get hash file (raw): u64 offset
//	0x04  part: u8 2 manifest, 3 hash file, 9 signature | u64 offset | u64 total | zstd frame of at most
//	      [MaxPart] bytes when unpacked; offset and total count unpacked bytes. No frame exactly
//	      when offset = total: there is no more, or, with total 0, the sender has none.
//	0x05  Validate Metadata: up to [MaxOpaque] bytes, opaque here
//	0x06  acknowledgement: u8 type acknowledged | up to [MaxOpaque] bytes, opaque here
//	0x07  your piece was wrong: u32 piece
//	0x08  LAN message: what a datagram would hold (lan.go), where datagrams do not arrive
//	0x09  get signature, the publisher's of the manifest, of at most [MaxSignature] bytes: u64 offset
//
// Bytes after a body of fixed length are ignored, and so are other types: this is where the
// protocol grows. An envelope longer than [MaxEnvelope] is of no known type.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"freshet/internal/content"
)

// First bytes of a connection.
const (
	FirstTLS   = 0x16 // a TLS record
	FirstPlain = 0x0E // a handshake
)

// Lengths in bytes.
const (
	HandshakeSize   = 75
	HeaderSize      = 5                             // length and id
	PieceHeaderSize = 13                            // length, id, piece, begin
	MaxMessage      = 0x1F4000                      // of id and body
	MaxData         = MaxMessage - 9                // of a Piece
	MaxBitfield     = (content.MaxPieces + 7) / 8   // of a bitfield's body
	MaxGrant        = 4 << 10                       // of a grant
	MaxOpaque       = 4 << 10                       // of what other packages lay out
	MaxSignature    = 4 << 10                       // of a publisher's signature
	MaxPart         = 256 << 10                     // of a part, unpacked
	MaxFrame        = MaxPart + 1<<10               // of a part as zstd: bytes that do not shrink grow by less
	MaxEnvelope     = 1 + partHeaderSize + MaxFrame // of an envelope's body with its type
)

// ErrShort says that there are fewer bytes than the header or body needs.
var ErrShort = errors.New("wire: too few bytes")

const protocol = "Swarm protocol"

// handshakeHead is everything before the HashOfHashes.
const handshakeHead = "\x0E" + protocol + "\x00\x00\x00\x01\x00\x00\x00\x00"

// DeviceID names a device. The services give it out, the device's certificate bears it. As
// text it is 32 lower-case hex digits.
type DeviceID [16]byte

// ParseDeviceID reads 32 lower-case hex digits.
func ParseDeviceID(s string) (DeviceID, error) {
	var id DeviceID
	if len(s) != hex.EncodedLen(len(id)) || strings.ToLower(s) != s {
		return id, fmt.Errorf("wire: device id %q is not %d lower-case hex digits", s, hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return DeviceID{}, fmt.Errorf("wire: device id %q: %w", s, err)
	}
	return id, nil
}

// String returns 32 lower-case hex digits.
func (id DeviceID) String() string { return hex.EncodeToString(id[:]) }

// peerIDSuffix is the handshake's four zero bytes, in hex.
const peerIDSuffix = "00000000"

// PeerID returns the device as arrays name it, which is how Delivery Optimization does: its id
// and eight zeros.
func (id DeviceID) PeerID() string { return id.String() + peerIDSuffix }

// ParsePeerID reads a PeerId. What follows the id is not looked at.
func ParsePeerID(s string) (DeviceID, error) {
	return ParseDeviceID(s[:min(len(s), 2*len(DeviceID{}))])
}

// IsZero reports whether id was never set.
func (id DeviceID) IsZero() bool { return id == DeviceID{} }

// MarshalText writes lower-case hex.
func (id DeviceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads lower-case hex.
func (id *DeviceID) UnmarshalText(b []byte) error {
	p, err := ParseDeviceID(string(b))
	if err != nil {
		return err
	}
	*id = p
	return nil
}

// Handshake opens a connection: which swarm, and who asks or answers.
type Handshake struct {
	HashOfHashes content.Digest
	Device       DeviceID
}

// AppendHandshake appends the 75 bytes of h.
func AppendHandshake(dst []byte, h Handshake) []byte {
	dst = append(dst, handshakeHead...)
	dst = append(dst, h.HashOfHashes[:]...)
	dst = append(dst, h.Device[:]...)
	return append(dst, 0, 0, 0, 0)
}

// ParseHandshake reads exactly [HandshakeSize] bytes.
func ParseHandshake(b []byte) (Handshake, error) {
	var h Handshake
	if len(b) != HandshakeSize {
		return h, fmt.Errorf("wire: handshake has %d bytes, want %d", len(b), HandshakeSize)
	}
	const nameEnd = 1 + len(protocol)
	if string(b[:nameEnd]) != handshakeHead[:nameEnd] {
		return h, fmt.Errorf("wire: handshake begins with %q, want %q: the other side speaks another protocol", b[:nameEnd], handshakeHead[:nameEnd])
	}
	rest := b[len(handshakeHead):]
	if reserved := b[nameEnd:len(handshakeHead)]; string(reserved) != handshakeHead[nameEnd:] {
		return h, fmt.Errorf("wire: handshake has the protocol version % x, want % x", reserved, handshakeHead[nameEnd:])
	}
	n := copy(h.HashOfHashes[:], rest)
	n += copy(h.Device[:], rest[n:])
	if suffix := binary.BigEndian.Uint32(rest[n:]); suffix != 0 {
		return Handshake{}, fmt.Errorf("wire: handshake has the device id suffix %#x, want 0", suffix)
	}
	return h, nil
}
