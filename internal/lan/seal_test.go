package lan

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// begin is an arbitrary time in whole seconds.
var begin = time.Unix(1_800_000_000, 0)

// server signs the passes of the tests.
var server = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))

func signers() []ed25519.PublicKey {
	return []ed25519.PublicKey{server.Public().(ed25519.PublicKey)}
}

func device(n int) wire.DeviceID { return wire.DeviceID{byte(n >> 8), byte(n), 15: 1} }

// speaker returns the speaker of device n in a group; its pass is good for a day.
func speaker(t testing.TB, n int, group string) *identity.Speaker {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(n), byte(n>>8)
	s := &identity.Speaker{Key: ed25519.NewKeyFromSeed(seed)}
	pass := identity.Pass{Device: device(n), Key: [32]byte(s.Public()), Group: group, Expires: begin.Add(24 * time.Hour)}
	s, err := s.With(identity.SignPass(server, pass))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apiKey(n byte, starts time.Time) api.LANKey {
	return api.LANKey{ID: bytes.Repeat([]byte{n}, keyIDSize), Secret: bytes.Repeat([]byte{n}, 32), Starts: starts.Unix()}
}

func keys(t testing.TB, group string, given ...api.LANKey) Keys {
	t.Helper()
	k, err := ParseKeys(group, given)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// labKeys are the keys of group lab; the second begins in a day.
func labKeys(t testing.TB) Keys {
	return keys(t, "lab", apiKey(1, begin.Add(-time.Hour)), apiKey(2, begin.Add(24*time.Hour)))
}

// clock is a time that a test sets.
type clock struct {
	at  time.Time
	off time.Duration // by which the clock is wrong
}

func (c *clock) now() time.Time { return c.at.Add(c.off) }

func (c *clock) steady() time.Time { return c.at }

func newClock() *clock { return &clock{at: begin} }

func sealer(t testing.TB, c *clock, n int) *Sealer {
	t.Helper()
	s := NewSealer(c.now)
	s.SetKeys(labKeys(t))
	s.SetSpeaker(speaker(t, n, "lab"), 7680)
	return s
}

// opener is device 100's.
func opener(t testing.TB, c *clock) *Opener {
	t.Helper()
	o := NewOpener(Trust{Self: device(100), Now: c.now, Steady: c.steady})
	o.SetKeys(labKeys(t), signers())
	return o
}

var near = netip.MustParseAddr("192.0.2.1")

func mustSeal(t testing.TB, s *Sealer, message string) []byte {
	t.Helper()
	b, err := s.Seal(nil, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndOpen(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	for _, message := range []string{"x", strings.Repeat("m", wire.MaxLAN)} {
		b := mustSeal(t, s, message)
		if len(b) > MaxDatagram {
			t.Errorf("a datagram of %d bytes, at most %d are allowed", len(b), MaxDatagram)
		}
		from, got, why := o.Open(near, b)
		if why != Taken || string(got) != message || from != (Sender{Device: device(1), Group: "lab", Port: 7680}) {
			t.Errorf("got %+v, %q, %s", from, got, why)
		}
		if bytes.Contains(b, []byte("lab")) || bytes.Contains(b, speaker(t, 1, "lab").Signed[:16]) {
			t.Error("the group or the device is readable")
		}
	}
	if longest := headSize + tagSize + 1 + identity.MaxPass + fixedSize + wire.MaxLAN + ed25519.SignatureSize; longest > MaxDatagram {
		t.Errorf("the longest datagram has %d bytes", longest)
	}
	for _, message := range [][]byte{nil, make([]byte, wire.MaxLAN+1)} {
		if _, err := s.Seal(nil, message); err == nil {
			t.Errorf("a message of %d bytes was sealed", len(message))
		}
	}
}

func TestSealNeedsKeyAndPass(t *testing.T) {
	c := newClock()
	s := NewSealer(c.now)
	check := func(step string, want error) {
		t.Helper()
		if _, err := s.Seal(nil, []byte("m")); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", step, err, want)
		}
	}
	check("nothing", ErrNoKey)
	s.SetKeys(labKeys(t))
	check("no pass", ErrNoPass)
	bare, err := identity.NewSpeaker()
	if err != nil {
		t.Fatal(err)
	}
	s.SetSpeaker(bare, 0)
	check("a key without a pass", ErrNoPass)
	s.SetSpeaker(speaker(t, 1, "field"), 0)
	check("a pass of another group", ErrNoPass)
	s.SetSpeaker(speaker(t, 1, "lab"), 0)
	check("all", nil)
}

// TestVector holds the format, byte for byte.
func TestVector(t *testing.T) {
	c := newClock()
	s := sealer(t, c, 1)
	s.boot = 0x0102030405060708
	got, err := s.seal(nil, []byte("hello"), [nonceSize]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	const want = "010101010101010101010203000000000000000000000000000000000000000000ae25d1599b5acd66980a7d6fb30648c901d7daefe9f51d4e56211973230aee814e758766a5f944bf0ed9349a7237e7e34c89e07f44f45f5ab2c92ad4d46ebb53d28af9b1a65e4a9d1b6405080271f9d7559ee9fe8480db2053d941c41f4bea5c82509fffa50273b298a7763e95e028c1bb829563eb86a47fa0c2c6f4b7b24fbb214b0eba432bb183caa7b83d44cfc019abb1936c8d354cb1ee79ef5971c43035025439953baba24e392cc08e30dfdbe18a571478409375195760ba521c419d8c178a5fa480d0825399b63df9b8eb088e303b592ebfde2aec2c1959e36c3a2623ffe7646e7a7420e53493ef9917"
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	golden, err := hex.DecodeString(want)
	if err != nil {
		t.Fatal(err)
	}
	if _, m, why := opener(t, c).Open(near, golden); why != Taken || string(m) != "hello" {
		t.Errorf("got %q, %s", m, why)
	}
}

// forge seals plain text that no sealer makes.
func forge(t testing.TB, signer ed25519.PrivateKey, pass []byte, h header, message string) []byte {
	t.Helper()
	s := &Sealer{now: func() time.Time { return time.UnixMilli(h.time) }, boot: h.boot, counter: h.counter - 1, keys: labKeys(t), port: h.port,
		speaker: &identity.Speaker{Key: signer, Signed: pass, Pass: identity.Pass{Group: "lab"}}}
	return mustSeal(t, s, message)
}

func TestDrops(t *testing.T) {
	c := newClock()
	one, two := speaker(t, 1, "lab"), speaker(t, 2, "lab")
	h := header{boot: 1, counter: 1, time: begin.UnixMilli()}
	at := func(d time.Duration) header { h := h; h.time = begin.Add(d).UnixMilli(); return h }
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	passOf := func(key ed25519.PrivateKey, change func(*identity.Pass)) []byte {
		p := one.Pass
		change(&p)
		return identity.SignPass(key, p)
	}
	good := forge(t, one.Key, one.Signed, h, "m")
	flipped := func(i int) []byte { b := bytes.Clone(good); b[i] ^= 1; return b }
	outside := sealer(t, c, 1)
	outside.SetKeys(keys(t, "lab", api.LANKey{ID: bytes.Repeat([]byte{1}, keyIDSize), Secret: make([]byte, 32), Starts: 0}))
	foreign := sealer(t, c, 1)
	foreign.SetKeys(keys(t, "lab", apiKey(7, begin)))
	for name, tt := range map[string]struct {
		datagram []byte
		want     Reason
	}{
		"good":                     {good, Taken},
		"nothing":                  {nil, Unsealed},
		"short":                    {good[:headSize+tagSize-1], Unsealed},
		"long":                     {append(bytes.Clone(good), make([]byte, MaxDatagram)...), TooLong},
		"another version":          {flipped(0), Unsealed},
		"another key id":           {flipped(1), UnknownKey},
		"another nonce":            {flipped(9), Unsealed},
		"a changed byte":           {flipped(headSize + 5), Unsealed},
		"truncated":                {good[:len(good)-1], Unsealed},
		"another key, the same id": {mustSeal(t, outside, "m"), Unsealed},
		"another group":            {mustSeal(t, foreign, "m"), UnknownKey},
		"own":                      {forge(t, one.Key, passOf(server, func(p *identity.Pass) { p.Device = device(100) }), h, "m"), Own},
		"oldest that is taken":     {forge(t, one.Key, one.Signed, at(-Window), "m"), Taken},
		"old":                      {forge(t, one.Key, one.Signed, at(-Window-time.Millisecond), "m"), Old},
		"newest that is taken":     {forge(t, one.Key, one.Signed, at(Window), "m"), Taken},
		"future":                   {forge(t, one.Key, one.Signed, at(Window+time.Millisecond), "m"), Future},
		"in another's name":        {forge(t, two.Key, one.Signed, h, "m"), BadSignature},
		"a pass of another fleet":  {forge(t, one.Key, passOf(stranger, func(*identity.Pass) {}), h, "m"), BadPass},
		"an expired pass":          {forge(t, one.Key, passOf(server, func(p *identity.Pass) { p.Expires = begin }), h, "m"), BadPass},
		"a pass of another group":  {forge(t, one.Key, passOf(server, func(p *identity.Pass) { p.Group = "field" }), h, "m"), BadPass},
		"a denied device":          {forge(t, one.Key, passOf(server, func(p *identity.Pass) { p.Device = device(66) }), h, "m"), BadPass},
		"half a pass":              {forge(t, one.Key, one.Signed[:70], h, "m"), Malformed},
		"counter 0":                {forge(t, one.Key, one.Signed, header{boot: 1, time: h.time}, "m"), Malformed},
		"before all time":          {forge(t, one.Key, one.Signed, header{boot: 1, counter: 1, time: -1}, "m"), Malformed},
	} {
		o := opener(t, c)
		o.trust.Denied = func(id wire.DeviceID) bool { return id == device(66) }
		_, message, why := o.Open(near, tt.datagram)
		if why != tt.want || (message != nil) != (tt.want == Taken) {
			t.Errorf("%s: %s, message %q; want %s", name, why, message, tt.want)
		}
		if len(o.senders.known) > 0 && tt.want != Taken {
			t.Errorf("%s: its sender is remembered", name)
		}
	}
}

// TestGrace: while no service answers, passes live longer.
func TestGrace(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	grace := false
	o.trust.Grace = func() bool { return grace }
	c.at = begin.Add(25 * time.Hour)
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != BadPass {
		t.Errorf("an expired pass: %s", why)
	}
	grace = true
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != Taken {
		t.Errorf("in grace: %s", why)
	}
	grace = false
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != BadPass {
		t.Errorf("a pass that was taken in grace, after it: %s", why)
	}
}

// TestKeysChange: the next key takes over by itself, and both are opened around it.
func TestKeysChange(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	last := speaker(t, 1, "lab")
	for day, want := range []byte{1, 2, 2, 2} {
		c.at = begin.Add(time.Duration(day) * 24 * time.Hour)
		p := last.Pass
		p.Expires = c.at.Add(time.Hour)
		sp, err := last.With(identity.SignPass(server, p))
		if err != nil {
			t.Fatal(err)
		}
		s.SetSpeaker(sp, 0)
		b := mustSeal(t, s, "m")
		if b[1] != want {
			t.Errorf("day %d: sealed with key %d, want %d", day, b[1], want)
		}
		if _, _, why := o.Open(near, b); why != Taken {
			t.Errorf("day %d: %s", day, why)
		}
	}
	early := NewSealer(func() time.Time { return begin.Add(-365 * 24 * time.Hour) })
	early.SetKeys(labKeys(t))
	early.SetSpeaker(last, 0)
	if b := mustSeal(t, early, "m"); b[1] != 1 {
		t.Errorf("before all keys: sealed with key %d, want the first", b[1])
	}
	b := mustSeal(t, s, "m")
	o.SetKeys(keys(t, "lab", apiKey(3, begin)), signers())
	if _, _, why := o.Open(near, b); why != UnknownKey {
		t.Errorf("a key that is gone: %s", why)
	}
}

// TestSignersChange: a pass that was checked is checked again with new signers.
func TestSignersChange(t *testing.T) {
	c := newClock()
	s, o := sealer(t, c, 1), opener(t, c)
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != Taken {
		t.Fatal(why)
	}
	o.SetKeys(labKeys(t), nil)
	if _, _, why := o.Open(near, mustSeal(t, s, "m")); why != BadPass {
		t.Errorf("its signer is gone: %s", why)
	}
}

func TestParseKeys(t *testing.T) {
	for name, tt := range map[string]struct {
		given []api.LANKey
		want  string
	}{
		"short id":     {[]api.LANKey{{ID: []byte("1234567"), Secret: make([]byte, 32)}}, "7 bytes"},
		"short secret": {[]api.LANKey{{ID: []byte("12345678"), Secret: make([]byte, 31)}}, "32"},
		"the same id":  {[]api.LANKey{apiKey(1, begin), apiKey(1, begin)}, "two keys"},
		"too many":     {make([]api.LANKey, maxKeys+1), "at most"},
	} {
		if _, err := ParseKeys("lab", tt.given); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
		}
	}
	k := labKeys(t)
	secret := fmt.Sprintf("%x", bytes.Repeat([]byte{1}, 32))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if shown := fmt.Sprintf(verb, k); strings.Contains(shown, secret) || !strings.Contains(shown, "lab") {
			t.Errorf("%s shows %s", verb, shown)
		}
	}
}
