package wire

import (
	"encoding/binary"
	"fmt"
)

// Kind is the id of a message, or one of two kinds that have no id of their own.
type Kind uint16

// Message kinds. The flow is: handshake and grant, handshake, bitfield, interested, unchoke,
// then requests, pieces and haves in both directions.
const (
	Choke         Kind = 0x00 // nothing
	Unchoke       Kind = 0x01 // nothing
	Interested    Kind = 0x02 // nothing
	NotInterested Kind = 0x03 // nothing
	Have          Kind = 0x04 // u32 piece
	Bitfield      Kind = 0x05 // one bit a piece
	Request       Kind = 0x06 // u32 piece | u32 begin | u32 length
	Piece         Kind = 0x07 // u32 piece | u32 begin | data
	Cancel        Kind = 0x08 // u32 piece | u32 begin | u32 length
	Envelope      Kind = 0x14 // u8 type | body

	KeepAlive Kind = 0x100 // length 0, no id
	Unknown   Kind = 0x101 // any other id
)

var kindNames = map[Kind]string{
	Choke: "choke", Unchoke: "unchoke", Interested: "interested", NotInterested: "not interested",
	Have: "have", Bitfield: "bitfield", Request: "request", Piece: "piece", Cancel: "cancel",
	Envelope: "envelope", KeepAlive: "keep-alive", Unknown: "unknown message",
}

// String returns the name of k, for logs and errors.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %#x", uint16(k))
}

// kindOf returns the kind of an id.
func kindOf(id byte) Kind {
	if id <= byte(Cancel) || id == byte(Envelope) {
		return Kind(id)
	}
	return Unknown
}

// Header is what stands before a message's body.
type Header struct {
	Kind Kind
	ID   byte // as sent; tells unknown messages apart
	Body int  // bytes of the body, which follows the header
}

// Size returns the bytes of the header itself: 4 for a keep-alive, else [HeaderSize].
func (h Header) Size() int {
	if h.Kind == KeepAlive {
		return HeaderSize - 1
	}
	return HeaderSize
}

// Data returns the bytes of data that a Piece bears, whose piece and begin (8 bytes, see
// [ParsePiece]) come first.
func (h Header) Data() int { return h.Body - (PieceHeaderSize - HeaderSize) }

// Skip reports whether the body means nothing here and is passed over without keeping it.
func (h Header) Skip() bool {
	return h.Kind == Unknown || h.Kind == Envelope && h.Body > MaxEnvelope
}

// ParseHeader reads the header at the start of b, which may hold more. [ErrShort] asks for
// [HeaderSize] bytes; four are enough for a keep-alive. A length that does not fit the kind
// is an error before anything of the body is read.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < 4 {
		return Header{}, ErrShort
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 {
		return Header{Kind: KeepAlive}, nil
	}
	if n > MaxMessage {
		return Header{}, fmt.Errorf("wire: message of %d bytes, more than %d", n, MaxMessage)
	}
	if len(b) < HeaderSize {
		return Header{}, ErrShort
	}
	h := Header{Kind: kindOf(b[4]), ID: b[4], Body: int(n) - 1}
	if err := checkBody(h.Kind, h.Body); err != nil {
		return Header{}, err
	}
	return h, nil
}

// checkBody checks the length of a body.
func checkBody(k Kind, n int) error {
	low, high := bodyBounds(k)
	if n < low || n > high {
		return fmt.Errorf("wire: %s has a body of %d bytes, want %d to %d", k, n, low, high)
	}
	return nil
}

// bodyBounds returns the least and the most bytes of a body.
func bodyBounds(k Kind) (low, high int) {
	switch k {
	case Choke, Unchoke, Interested, NotInterested, KeepAlive:
		return 0, 0
	case Have:
		return 4, 4
	case Bitfield:
		return 1, MaxBitfield
	case Request, Cancel:
		return 12, 12
	case Piece:
		return 8 + 1, 8 + MaxData
	}
	return 0, MaxMessage - 1
}

// Message is any message but a Piece, whose data goes its own way.
type Message struct {
	Kind   Kind
	ID     byte   // as sent
	Piece  uint32 // of Have, Request, Cancel
	Begin  uint32 // of Request, Cancel: bytes from the start of the piece
	Length uint32 // of Request, Cancel: bytes, 1 to MaxData
	Body   []byte // of Bitfield, Envelope and Unknown; the caller's bytes
}

// ParseMessage reads the body of the message id. Piece is not for it: see [ParsePiece]. The
// numbers are not compared with a content, which only the swarm can do.
func ParseMessage(id byte, body []byte) (Message, error) {
	m := Message{Kind: kindOf(id), ID: id}
	if m.Kind == Piece {
		return Message{}, fmt.Errorf("wire: a %s is read by its header", m.Kind)
	}
	if err := checkBody(m.Kind, len(body)); err != nil {
		return Message{}, err
	}
	switch m.Kind {
	case Have:
		m.Piece = binary.BigEndian.Uint32(body)
	case Request, Cancel:
		m.Piece = binary.BigEndian.Uint32(body)
		m.Begin = binary.BigEndian.Uint32(body[4:])
		m.Length = binary.BigEndian.Uint32(body[8:])
		if m.Length < 1 || m.Length > MaxData {
			return Message{}, fmt.Errorf("wire: %s of %d bytes of piece %d, want 1 to %d", m.Kind, m.Length, m.Piece, MaxData)
		}
	case Bitfield, Envelope, Unknown:
		m.Body = body
	}
	return m, nil
}

// ParsePiece reads the 8 bytes between the header of a Piece and its data.
func ParsePiece(b [PieceHeaderSize - HeaderSize]byte) (piece, begin uint32) {
	return binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:])
}

// CheckBitfield reports why bits are no bitfield of that many pieces, or nil.
func CheckBitfield(bits []byte, pieces int) error {
	if want := (pieces + 7) / 8; len(bits) != want {
		return fmt.Errorf("wire: bitfield has %d bytes, want %d for %d pieces", len(bits), want, pieces)
	}
	if spare := len(bits)*8 - pieces; spare > 0 && bits[len(bits)-1]&(1<<spare-1) != 0 {
		return fmt.Errorf("wire: bitfield of %d pieces has a spare bit set", pieces)
	}
	return nil
}

// AppendKeepAlive appends a message without id.
func AppendKeepAlive(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// AppendState appends Choke, Unchoke, Interested or NotInterested.
func AppendState(dst []byte, k Kind) []byte { return appendHeader(dst, k, 0) }

// AppendHave appends a Have of a piece, which stands for its run.
func AppendHave(dst []byte, piece uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, Have, 4), piece)
}

// AppendBitfield appends a Bitfield; see [CheckBitfield].
func AppendBitfield(dst, bits []byte) []byte {
	return append(appendHeader(dst, Bitfield, len(bits)), bits...)
}

// AppendRequest appends a Request of length bytes, from begin of a piece on.
func AppendRequest(dst []byte, piece, begin, length uint32) []byte {
	return appendSpan(dst, Request, [...]uint32{piece, begin, length})
}

// AppendCancel appends a Cancel of the same Request.
func AppendCancel(dst []byte, piece, begin, length uint32) []byte {
	return appendSpan(dst, Cancel, [...]uint32{piece, begin, length})
}

// AppendPieceHeader appends the [PieceHeaderSize] bytes before the n bytes of data of a Piece.
func AppendPieceHeader(dst []byte, piece, begin uint32, n int) []byte {
	dst = appendHeader(dst, Piece, PieceHeaderSize-HeaderSize+n)
	dst = binary.BigEndian.AppendUint32(dst, piece)
	return binary.BigEndian.AppendUint32(dst, begin)
}

func appendSpan(dst []byte, k Kind, span [3]uint32) []byte {
	dst = appendHeader(dst, k, 12)
	for _, v := range span {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

// appendHeader appends the length and id of a message whose body has n bytes.
func appendHeader(dst []byte, k Kind, n int) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(1+n)), byte(k))
}
