package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"freshet/internal/content"
)

// unhex reads hex digits with blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// handshakeVector is the swarm of the bytes 00 to 1f, asked for by the device 20 to 2f.
const handshakeVector = `0e 537761726d2070726f746f636f6c 0000000100000000
	000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
	202122232425262728292a2b2c2d2e2f 00000000`

func testHandshake() Handshake {
	var h Handshake
	for i := range h.HashOfHashes {
		h.HashOfHashes[i] = byte(i)
	}
	for i := range h.Device {
		h.Device[i] = byte(0x20 + i)
	}
	return h
}

func TestHandshakeVector(t *testing.T) {
	want := unhex(t, handshakeVector)
	got := AppendHandshake(nil, testHandshake())
	if !bytes.Equal(got, want) || len(got) != HandshakeSize || got[0] != FirstPlain {
		t.Errorf("AppendHandshake = %x\nwant %x", got, want)
	}
	if h, err := ParseHandshake(want); err != nil || h != testHandshake() {
		t.Errorf("ParseHandshake = %+v, %v", h, err)
	}
}

func TestParseHandshakeRefuses(t *testing.T) {
	good := AppendHandshake(nil, testHandshake())
	cases := map[string]struct {
		change func(b []byte) []byte
		want   string
	}{
		"empty":     {func(b []byte) []byte { return nil }, "has 0 bytes"},
		"short":     {func(b []byte) []byte { return b[:74] }, "has 74 bytes"},
		"long":      {func(b []byte) []byte { return append(b, 0) }, "has 76 bytes"},
		"TLS":       {func(b []byte) []byte { b[0] = FirstTLS; return b }, "another protocol"},
		"name":      {func(b []byte) []byte { b[1] = 's'; return b }, "another protocol"},
		"first":     {func(b []byte) []byte { b[15] = 1; return b }, "protocol version"},
		"version 2": {func(b []byte) []byte { b[18] = 2; return b }, "protocol version 00 00 00 02"},
		"last":      {func(b []byte) []byte { b[22] = 1; return b }, "protocol version"},
		"suffix":    {func(b []byte) []byte { b[74] = 1; return b }, "suffix 0x1"},
		"suffix 2":  {func(b []byte) []byte { b[71] = 1; return b }, "suffix 0x1000000"},
	}
	for name, c := range cases {
		h, err := ParseHandshake(c.change(bytes.Clone(good)))
		if err == nil || h != (Handshake{}) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseHandshake = %+v, %v, want an error with %q", name, h, err, c.want)
		}
	}
}

func TestDeviceID(t *testing.T) {
	id := testHandshake().Device
	const text = "202122232425262728292a2b2c2d2e2f"
	if id.String() != text || id.IsZero() || !(DeviceID{}).IsZero() {
		t.Errorf("String = %s, want %s", id, text)
	}
	b, err := json.Marshal(map[DeviceID]DeviceID{id: id})
	if want := `{"` + text + `":"` + text + `"}`; err != nil || string(b) != want {
		t.Errorf("as JSON %s, %v, want %s", b, err, want)
	}
	var back map[DeviceID]DeviceID
	if err := json.Unmarshal(b, &back); err != nil || back[id] != id {
		t.Errorf("from JSON %v, %v", back, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.ToUpper(text), "g" + text[1:], "{" + text[2:] + "}"} {
		if got, err := ParseDeviceID(bad); err == nil {
			t.Errorf("ParseDeviceID(%q) = %v, want an error", bad, got)
		}
		if err := id.UnmarshalText([]byte(bad)); err == nil || id.String() != text {
			t.Errorf("UnmarshalText(%q) = %v, id %v", bad, err, id)
		}
	}
}

// TestLimits ties the limits to content's.
func TestLimits(t *testing.T) {
	if MaxBitfield+1 > MaxMessage {
		t.Errorf("a bitfield of %d pieces has %d bytes, more than a message", content.MaxPieces, MaxBitfield)
	}
	if MaxEnvelope+1 > MaxMessage || content.PieceSize > MaxData {
		t.Error("an envelope or a piece does not fit into a message")
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(AppendHandshake(nil, testHandshake()))
	f.Add(make([]byte, HandshakeSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHandshake(b)
		if err != nil {
			return
		}
		if got := AppendHandshake(nil, h); !bytes.Equal(got, b) {
			t.Errorf("parsed and appended %x, want %x", got, b)
		}
	})
}

func FuzzDeviceID(f *testing.F) {
	f.Add(testHandshake().Device.String())
	f.Add("202122232425262728292A2b2c2d2e2f")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseDeviceID(s); err == nil && id.String() != s {
			t.Errorf("ParseDeviceID(%q) = %v", s, id)
		}
	})
}
