package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testPass() Pass {
	p := Pass{Device: device(1), Group: "lab", Expires: time.Unix(start.Add(PassLife).Unix(), 0)}
	copy(p.Key[:], ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	return p
}

// TestPassVector holds the format, byte for byte.
func TestPassVector(t *testing.T) {
	server := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	p := testPass()
	p.Expires = time.Unix(1_800_000_000, 0)
	const want = "01d0000000000000000000000000000001ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c036c6162000000006b49d2008c69e2ad441c2bd0737bed052a1cb32a0c253004363e2d2d842da7865667f8df2484fcecea112b1b7bc48b1199eaad792a6efe82ba4377e09ff34b7ff10db506"
	got := SignPass(server, p)
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	back, err := VerifyPass([]ed25519.PublicKey{server.Public().(ed25519.PublicKey)}, got, time.Unix(1_799_999_999, 0), false)
	if err != nil || back != p {
		t.Errorf("got %+v, %v; want %+v", back, err, p)
	}
}

func TestPass(t *testing.T) {
	key, keys := testKey(t)
	_, strangers := testKey(t)
	p := testPass()
	signed := SignPass(key, p)
	for _, tt := range []struct {
		name  string
		keys  []ed25519.PublicKey
		after time.Duration
		grace bool
		want  string // in the error; empty: none
	}{
		{"fresh", keys, 0, false, ""},
		{"last second", keys, PassLife - time.Second, false, ""},
		{"expired", keys, PassLife, false, "expired"},
		{"in grace", keys, PassLife + Grace - time.Second, true, ""},
		{"after grace", keys, PassLife + Grace, true, "expired"},
		{"other keys", strangers, 0, false, "signature"},
		{"no keys", nil, 0, false, "signature"},
	} {
		got, err := VerifyPass(tt.keys, signed, start.Add(tt.after), tt.grace)
		if tt.want == "" {
			if err != nil || got != p {
				t.Errorf("%s: got %+v, %v; want %+v", tt.name, got, err, p)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 0x20
		if _, err := PassSigned(keys, bad); err == nil {
			t.Errorf("a pass with byte %d changed was taken", i)
		}
		if _, err := PassSigned(keys, signed[:i]); err == nil {
			t.Errorf("%d bytes of a pass were taken", i)
		}
	}
	if _, err := PassSigned(keys, sign(key, grantPrefix, AppendPass(nil, p))); err == nil {
		t.Error("a signature for a grant passed for a pass's")
	}
	long := p
	long.Group = strings.Repeat("g", maxLabel)
	if b := SignPass(key, long); len(b) != MaxPass {
		t.Errorf("the longest pass has %d bytes, want %d", len(b), MaxPass)
	}
}

func TestPassFits(t *testing.T) {
	p := testPass()
	own := Name{Device: p.Device, Group: p.Group}
	for name, tt := range map[string]struct {
		key  [32]byte
		name Name
		want bool
	}{
		"own":           {p.Key, own, true},
		"another key":   {[32]byte{1}, own, false},
		"another group": {p.Key, Name{Device: p.Device, Group: "other"}, false},
		"another one's": {p.Key, Name{Device: device(2), Group: p.Group}, false},
	} {
		if got := p.Fits(tt.key[:], tt.name); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestSpeaker(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "id")
	if _, err := LoadSpeaker(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing there: got %v", err)
	}
	s, err := OpenSpeaker(dir)
	if err != nil || s.Signed != nil {
		t.Fatalf("got %+v, %v", s, err)
	}
	again, err := OpenSpeaker(dir)
	if err != nil || !again.Key.Equal(s.Key) {
		t.Fatalf("a second start has another key (%v)", err)
	}
	p := testPass()
	server, _ := testKey(t)
	if _, err := s.With(SignPass(server, p)); err == nil {
		t.Error("a pass for another key was taken")
	}
	copy(p.Key[:], s.Public())
	full, err := s.With(SignPass(server, p))
	if err != nil {
		t.Fatal(err)
	}
	if err := full.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadSpeaker(dir); err != nil || !bytes.Equal(got.Signed, full.Signed) || got.Pass != p || !got.Key.Equal(s.Key) {
		t.Errorf("got %+v, %v", got, err)
	}
	checkPrivate(t, dir, 1)
	if err := os.WriteFile(filepath.Join(dir, lanFile), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSpeaker(dir); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged file: %v", err)
	}
}

func FuzzParsePass(f *testing.F) {
	f.Add(AppendPass(nil, testPass()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePass(b); err == nil && !bytes.Equal(AppendPass(nil, p), b) {
			t.Errorf("parse, append of %x is not identical: %+v", b, p)
		}
	})
}
