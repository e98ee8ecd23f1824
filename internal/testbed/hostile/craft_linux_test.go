package hostile

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

const groupName = "default"

// newVoice makes a device that the server's key lets speak.
func newVoice(t *testing.T, server ed25519.PrivateKey, name byte, given []api.LANKey) voice {
	t.Helper()
	s, err := identity.NewSpeaker()
	if err != nil {
		t.Fatal(err)
	}
	p := identity.Pass{Device: wire.DeviceID{name}, Group: groupName, Expires: time.Now().Add(time.Hour)}
	copy(p.Key[:], s.Public())
	if s, err = s.With(identity.SignPass(server, p)); err != nil {
		t.Fatal(err)
	}
	keys, err := lan.ParseKeys(groupName, given)
	if err != nil {
		t.Fatal(err)
	}
	return voice{given: given, keys: keys, speaker: s, now: time.Now}
}

// TestForgeriesAreWhatTheyClaim: a device drops every kind of datagram that flood sends, each for
// the reason that it was made for; so none is dropped for being badly made.
func TestForgeriesAreWhatTheyClaim(t *testing.T) {
	public, server, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	given := []api.LANKey{
		{ID: []byte("the last"), Secret: bytes.Repeat([]byte{1}, 32), Starts: 1},
		{ID: []byte("this one"), Secret: bytes.Repeat([]byte{2}, 32), Starts: 2},
		{ID: []byte("the next"), Secret: bytes.Repeat([]byte{3}, 32), Starts: time.Now().Add(time.Hour).Unix()},
	}
	honest := newVoice(t, server, 1, given)
	f, err := newForger(newVoice(t, server, 2, given), content.Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	s := lan.NewSealer(time.Now)
	s.SetKeys(honest.keys)
	s.SetSpeaker(honest.speaker, 7680)
	good, err := s.Seal(nil, f.claim(wire.DeviceID{}, 1).AppendLAN(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"replayed", "damaged", "cut", "unknown key", "stolen pass"} {
		if b := f.make(kind); b != nil {
			t.Errorf("%s of nothing heard: %d bytes", kind, len(b))
		}
	}
	f.hear(good)
	want := map[string][]lan.Reason{
		"random": {lan.Unsealed, lan.UnknownKey, lan.TooLong}, "replayed": {lan.Replay},
		"damaged": {lan.Unsealed, lan.UnknownKey}, "cut": {lan.Unsealed, lan.UnknownKey},
		"aged": {lan.Old, lan.Future}, "unknown key": {lan.UnknownKey},
		"stolen pass": {lan.BadSignature}, "own pass": {lan.BadPass},
	}
	for _, kind := range kinds {
		seen := map[lan.Reason]int{}
		for range 200 {
			o := lan.NewOpener(lan.Trust{Self: wire.DeviceID{3}, Now: time.Now})
			o.SetKeys(honest.keys, []ed25519.PublicKey{public})
			if _, _, why := o.Open(netip.MustParseAddr("10.1.1.1"), good); why != lan.Taken {
				t.Fatalf("the good one was dropped: %v", why)
			}
			_, _, why := o.Open(netip.MustParseAddr("10.1.1.1"), f.make(kind))
			seen[why]++
		}
		for _, why := range want[kind] {
			if seen[why] == 0 && why != lan.UnknownKey {
				t.Errorf("%s: never %v: %v", kind, why, seen)
			}
			delete(seen, why)
		}
		if len(seen) > 0 {
			t.Errorf("%s: also %v", kind, seen)
		}
	}
}

// TestHeardIsBounded: the latest are kept.
func TestHeardIsBounded(t *testing.T) {
	var f forger
	for i := range 3 * maxHeard {
		f.hear([]byte{byte(i)})
	}
	if len(f.heard) != maxHeard || f.heard[maxHeard-1][0] != 3*maxHeard-1 {
		t.Errorf("%d kept, the last is %v", len(f.heard), f.heard[len(f.heard)-1])
	}
}

// TestPacket: what is sent has the lengths and addresses of IPv4 and UDP.
func TestPacket(t *testing.T) {
	b := appendUDP(nil, netip.MustParseAddr("10.1.2.3"), []byte("hello"))
	if len(b) != 33 || b[3] != 33 || b[25] != 13 || !bytes.Equal(b[12:20], []byte{10, 1, 2, 3, 239, 255, 76, 80}) || string(b[28:]) != "hello" {
		t.Errorf("packet % x", b)
	}
}
