package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// appendMessage appends m by the function of its kind.
func appendMessage(dst []byte, m Message) []byte {
	switch m.Kind {
	case KeepAlive:
		return AppendKeepAlive(dst)
	case Choke, Unchoke, Interested, NotInterested:
		return AppendState(dst, m.Kind)
	case Have:
		return AppendHave(dst, m.Piece)
	case Bitfield:
		return AppendBitfield(dst, m.Body)
	case Request:
		return AppendRequest(dst, m.Piece, m.Begin, m.Length)
	case Cancel:
		return AppendCancel(dst, m.Piece, m.Begin, m.Length)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(1+len(m.Body)))
	return append(append(dst, m.ID), m.Body...)
}

var messageVectors = map[string]struct {
	hex string
	msg Message
}{
	"choke":          {"00000001 00", Message{Kind: Choke}},
	"unchoke":        {"00000001 01", Message{Kind: Unchoke, ID: 1}},
	"interested":     {"00000001 02", Message{Kind: Interested, ID: 2}},
	"not interested": {"00000001 03", Message{Kind: NotInterested, ID: 3}},
	"have":           {"00000005 04 01020304", Message{Kind: Have, ID: 4, Piece: 0x01020304}},
	"bitfield":       {"00000003 05 ff80", Message{Kind: Bitfield, ID: 5, Body: []byte{0xff, 0x80}}},
	"request":        {"0000000d 06 00000007 00010000 00100000", Message{Kind: Request, ID: 6, Piece: 7, Begin: 65536, Length: 1 << 20}},
	"cancel":         {"0000000d 08 00000007 00010000 00000001", Message{Kind: Cancel, ID: 8, Piece: 7, Begin: 65536, Length: 1}},
	"envelope":       {"00000006 14 07 00000005", Message{Kind: Envelope, ID: 0x14, Body: []byte{7, 0, 0, 0, 5}}},
	"unknown":        {"00000003 09 aabb", Message{Kind: Unknown, ID: 9, Body: []byte{0xaa, 0xbb}}},
	"unknown, empty": {"00000001 ff", Message{Kind: Unknown, ID: 0xff}},
}

func TestMessageVectors(t *testing.T) {
	for name, v := range messageVectors {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, v.hex)
			if got := appendMessage(nil, v.msg); !bytes.Equal(got, b) {
				t.Errorf("appended %x, want %x", got, b)
			}
			h, err := ParseHeader(append(b, 0xee))
			if err != nil || h.Kind != v.msg.Kind || h.ID != b[4] || h.Body != len(b)-HeaderSize || h.Size() != HeaderSize {
				t.Fatalf("ParseHeader = %+v, %v", h, err)
			}
			got, err := ParseMessage(b[4], b[HeaderSize:])
			if len(got.Body) == 0 {
				got.Body = nil
			}
			if err != nil || !reflect.DeepEqual(got, v.msg) {
				t.Errorf("ParseMessage = %+v, %v, want %+v", got, err, v.msg)
			}
		})
	}
}

func TestKeepAliveVector(t *testing.T) {
	b := AppendKeepAlive(nil)
	if !bytes.Equal(b, unhex(t, "00000000")) {
		t.Errorf("AppendKeepAlive = %x", b)
	}
	if h, err := ParseHeader(b); err != nil || h.Kind != KeepAlive || h.Size() != 4 || h.Body != 0 {
		t.Errorf("ParseHeader = %+v, %v", h, err)
	}
}

func TestPieceVector(t *testing.T) {
	b := AppendPieceHeader(nil, 0x0a0b0c0d, 0x10000, 3)
	if want := unhex(t, "0000000c 07 0a0b0c0d 00010000"); !bytes.Equal(b, want) || len(b) != PieceHeaderSize {
		t.Errorf("AppendPieceHeader = %x, want %x", b, want)
	}
	h, err := ParseHeader(b)
	if err != nil || h.Kind != Piece || h.Data() != 3 {
		t.Fatalf("ParseHeader = %+v, %v, want a piece of 3 bytes", h, err)
	}
	if piece, begin := ParsePiece([8]byte(b[HeaderSize:])); piece != 0x0a0b0c0d || begin != 0x10000 {
		t.Errorf("ParsePiece = %#x, %#x", piece, begin)
	}
	if _, err := ParseMessage(byte(Piece), make([]byte, 20)); err == nil {
		t.Error("ParseMessage copies a piece")
	}
}

func TestParseHeaderShort(t *testing.T) {
	for _, s := range []string{"", "00", "000000", "00000001", "0000000d"} {
		if _, err := ParseHeader(unhex(t, s)); !errors.Is(err, ErrShort) {
			t.Errorf("ParseHeader(%s) = %v, want ErrShort", s, err)
		}
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"001f4001":    "message of 2048001 bytes, more than 2048000",
		"ffffffff 07": "message of 4294967295 bytes",
		"00000002 00": "choke has a body of 1 bytes",
		"00000009 03": "not interested has a body of 8",
		"00000004 04": "have has a body of 3 bytes, want 4 to 4",
		"00000006 04": "have has a body of 5",
		"00000001 05": "bitfield has a body of 0",
		"00100002 05": "bitfield has a body of 1048577 bytes, want 1 to 1048576",
		"0000000c 06": "request has a body of 11",
		"0000000e 06": "request has a body of 13",
		"00000009 07": "piece has a body of 8 bytes, want 9 to 2047999",
		"0000000c 08": "cancel has a body of 11",
		"0000000e 08": "cancel has a body of 13",
	} {
		if h, err := ParseHeader(unhex(t, s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseHeader(%s) = %+v, %v, want an error with %q", s, h, err, want)
		}
	}
	for _, s := range []string{"001f4000 07", "001f4000 14", "001f4000 63", "00100001 05", "0000000a 07"} {
		b := unhex(t, s)
		if h, err := ParseHeader(b); err != nil || h.Body != int(binary.BigEndian.Uint32(b))-1 {
			t.Errorf("ParseHeader(%s) = %+v, %v", s, h, err)
		}
	}
}

func TestHeaderSkip(t *testing.T) {
	for s, want := range map[string]bool{
		"00000005 09": true, "001f4000 ff": true, "001f4000 14": true, "00040414 14": true,
		"00040413 14": false, "00000005 04": false, "00000003 14": false, "00000001 00": false,
	} {
		h, err := ParseHeader(unhex(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if h.Skip() != want {
			t.Errorf("%s: Skip() = %t, want %t", s, h.Skip(), want)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"06 00000001 00000000 00000000": "request of 0 bytes of piece 1",
		"06 00000001 00000000 001f3ff8": "request of 2047992 bytes",
		"08 00000001 00000000 ffffffff": "cancel of 4294967295 bytes",
		"04 000001":                     "have has a body of 3",
		"04 0000000100":                 "have has a body of 5",
		"00 00":                         "choke has a body of 1",
		"05":                            "bitfield has a body of 0",
	} {
		b := unhex(t, s)
		if m, err := ParseMessage(b[0], b[1:]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseMessage(%s) = %+v, %v, want an error with %q", s, m, err, want)
		}
	}
}

func TestCheckBitfield(t *testing.T) {
	cases := []struct {
		bits   string
		pieces int
		ok     bool
	}{
		{"ff", 8, true}, {"80", 1, true}, {"00", 1, true}, {"ff80", 9, true}, {"fffe", 15, true}, {"", 0, true},
		{"40", 1, false}, {"ffff", 15, false}, {"ff40", 9, false}, {"ff", 9, false}, {"ff00", 8, false}, {"", 1, false}, {"00", 0, false},
	}
	for _, c := range cases {
		if err := CheckBitfield(unhex(t, c.bits), c.pieces); (err == nil) != c.ok {
			t.Errorf("CheckBitfield(%s, %d) = %v, want it to pass: %t", c.bits, c.pieces, err, c.ok)
		}
	}
}

func TestKindString(t *testing.T) {
	if Have.String() != "have" || Kind(0x99).String() != "kind 0x99" {
		t.Errorf("%s, %s", Have, Kind(0x99))
	}
}

// FuzzMessages reads a stream of messages as a connection's reader does.
func FuzzMessages(f *testing.F) {
	for _, v := range messageVectors {
		f.Add(unhex(f, v.hex))
	}
	f.Add(append(AppendPieceHeader(AppendKeepAlive(nil), 1, 2, 3), 1, 2, 3))
	f.Add(AppendRequest(AppendHave(AppendBitfield(nil, []byte{0xf0}), 3), 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			h, err := ParseHeader(b)
			if err != nil || len(b) < h.Size()+h.Body {
				return
			}
			whole := b[:h.Size()+h.Body]
			b = b[len(whole):]
			var got []byte
			switch h.Kind {
			case KeepAlive:
				got = AppendKeepAlive(nil)
			case Piece:
				piece, begin := ParsePiece([8]byte(whole[HeaderSize:]))
				got = append(AppendPieceHeader(nil, piece, begin, h.Data()), whole[PieceHeaderSize:]...)
			default:
				m, err := ParseMessage(h.ID, whole[HeaderSize:])
				if err != nil {
					continue
				}
				got = appendMessage(nil, m)
			}
			if !bytes.Equal(got, whole) {
				t.Errorf("parsed and appended %x, want %x", got, whole)
			}
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	in := AppendRequest(nil, 7, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		h, _ := ParseHeader(in)
		if _, err := ParseMessage(h.ID, in[HeaderSize:]); err != nil {
			b.Fatal(err)
		}
	}
}
