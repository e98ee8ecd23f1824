package wire

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"freshet/internal/content"
)

// parseAny reads an envelope's body and appends it again by the functions of its type. For
// bodies of fixed length the result may be shorter than what was read.
func parseAny(body []byte) ([]byte, error) {
	typ, rest, err := ParseEnvelope(body)
	if err != nil {
		return nil, err
	}
	switch typ {
	case Grant:
		grant, err := ParseGrant(rest)
		return AppendGrant(nil, grant), err
	case GetManifest, GetHashFile, GetSignature:
		offset, err := ParseGet(typ, rest)
		return AppendGet(nil, typ, offset), err
	case PartOf:
		p, err := ParsePart(rest)
		return AppendPart(nil, p), err
	case ValidateMetadata:
		v, err := ParseValidateMetadata(rest)
		return AppendValidateMetadata(nil, v), err
	case Acknowledge:
		a, err := ParseAck(rest)
		return AppendAck(nil, a), err
	case WrongPiece:
		piece, err := ParseWrongPiece(rest)
		return AppendWrongPiece(nil, piece), err
	case Said:
		m, err := ParseSaid(rest)
		if err != nil {
			return nil, err
		}
		return AppendSaid(nil, m.AppendLAN(nil)), nil
	}
	return nil, errors.New("another type")
}

var envelopeVectors = map[string]string{
	"grant":             "00000005 14 01 aabbcc",
	"no grant":          "00000002 14 01",
	"get manifest":      "0000000a 14 02 0000000000000000",
	"get hash file":     "0000000a 14 03 0000000000040000",
	"part":              "00000014 14 04 02 0000000000040000 0000000000040001 ff",
	"part of hash file": "00000015 14 04 03 0000000000000000 0000000010000000 fffe",
	"get signature":     "0000000a 14 09 0000000000001000",
	"part of signature": "00000014 14 04 09 0000000000000000 0000000000001000 ff",
	"no signature":      "00000013 14 04 09 0000000000000000 0000000000000000",
	"last part":         "00000013 14 04 02 0000000000040001 0000000000040001",
	"none held":         "00000013 14 04 02 0000000000000000 0000000000000000",
	"validate metadata": "00000004 14 05 0102",
	"validate, empty":   "00000002 14 05",
	"acknowledgement":   "00000004 14 06 05 01",
	"ack without body":  "00000003 14 06 05",
	"wrong piece":       "00000006 14 07 00000102",
	"lan message":       "0000003c 14 08 04" + aDigest + "000000000000000b 03" + aDevice,
}

func TestEnvelopeVectors(t *testing.T) {
	for name, v := range envelopeVectors {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, v)
			m, err := ParseMessage(b[4], b[HeaderSize:])
			if err != nil || m.Kind != Envelope {
				t.Fatalf("ParseMessage = %+v, %v", m, err)
			}
			if got, err := parseAny(m.Body); err != nil || !bytes.Equal(got, b) {
				t.Errorf("parsed and appended %x, %v, want %x", got, err, b)
			}
		})
	}
}

func TestParsePartFields(t *testing.T) {
	want := Part{Of: GetHashFile, Offset: 1, Total: 300, Frame: []byte{9, 8}}
	got, err := ParsePart(AppendPart(nil, want)[HeaderSize+1:])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParsePart = %+v, %v, want %+v", got, err, want)
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	part := func(p Part) []byte { return AppendPart(nil, p)[HeaderSize:] }
	long := make([]byte, MaxFrame+1)
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"empty":                {nil, "without a type"},
		"long grant":           {append([]byte{1}, long[:MaxGrant+1]...), "grant has 4097 bytes"},
		"short get":            {[]byte{2, 0, 0, 0, 0, 0, 0, 0}, "get has 7 bytes"},
		"get far":              {AppendGet(nil, GetManifest, content.MaxManifest+1)[HeaderSize:], "from offset 67108865"},
		"get hash file far":    {AppendGet(nil, GetHashFile, 1<<63)[HeaderSize:], "from offset"},
		"get signature far":    {AppendGet(nil, GetSignature, MaxSignature+1)[HeaderSize:], "from offset 4097"},
		"signature too long":   {part(Part{Of: GetSignature, Total: MaxSignature + 1, Frame: long[:1]}), "of 4097 bytes"},
		"short part":           {[]byte{4, 2}, "part has 1 bytes"},
		"part of 5":            {part(Part{Of: 5, Total: 1, Frame: long[:1]}), "part of type 5"},
		"part of all":          {part(Part{Of: GetManifest, Total: content.MaxManifest + 1, Frame: long[:1]}), "of 67108865 bytes"},
		"hash file too long":   {part(Part{Of: GetHashFile, Total: 32*content.MaxPieces + 1, Frame: long[:1]}), "of 268435457 bytes"},
		"part past the end":    {part(Part{Of: GetManifest, Offset: 2, Total: 1, Frame: long[:1]}), "at 2 of 1 bytes"},
		"part without frame":   {part(Part{Of: GetManifest, Offset: 0, Total: 1}), "frame of 0"},
		"frame at the end":     {part(Part{Of: GetManifest, Offset: 1, Total: 1, Frame: long[:1]}), "frame of 1"},
		"long frame":           {part(Part{Of: GetManifest, Total: 1 << 20, Frame: long}), "frame of 263169"},
		"long validate":        {append([]byte{5}, long[:MaxOpaque+1]...), "validate metadata has 4097 bytes"},
		"empty ack":            {[]byte{6}, "acknowledgement has 0 bytes"},
		"long ack":             {append([]byte{6}, long[:MaxOpaque+2]...), "acknowledgement has 4098 bytes"},
		"short wrong piece":    {[]byte{7, 0, 0, 0}, "wrong piece has 3 bytes"},
		"type of another time": {[]byte{200, 1, 2}, "another type"},
		"empty lan message":    {[]byte{8}, "lan message has 0 bytes"},
		"long lan message":     {append([]byte{8}, long[:MaxLAN+1]...), "lan message has 701 bytes"},
		"lan message of 9":     {[]byte{8, 9}, "unknown type 0x9"},
	} {
		if _, err := parseAny(c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestEnvelopeIgnoresWhatFollowsAFixedBody(t *testing.T) {
	for _, b := range [][]byte{AppendGet(nil, GetManifest, 7), AppendGet(nil, GetSignature, 7), AppendWrongPiece(nil, 9)} {
		got, err := parseAny(append(bytes.Clone(b[HeaderSize:]), 1, 2, 3))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("parsed and appended %x, %v, want %x", got, err, b)
		}
	}
}

func TestLargestPartFits(t *testing.T) {
	b := AppendPart(nil, Part{Of: GetManifest, Total: content.MaxManifest, Frame: make([]byte, MaxFrame)})
	h, err := ParseHeader(b)
	if err != nil || h.Skip() || h.Body != MaxEnvelope {
		t.Errorf("ParseHeader of the largest part = %+v, %v, want a body of %d", h, err, MaxEnvelope)
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, v := range envelopeVectors {
		f.Add(unhex(f, v)[HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseAny(body)
		if err != nil {
			return
		}
		got = got[HeaderSize:]
		fixed := slices.Contains([]Type{GetManifest, GetHashFile, GetSignature, WrongPiece}, Type(body[0]))
		if !bytes.Equal(got, body) && !(fixed && bytes.HasPrefix(body, got)) {
			t.Errorf("parsed and appended %x, want %x", got, body)
		}
	})
}
