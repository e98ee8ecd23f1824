package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// testKey returns a key and what verifies it, behind one that does not.
func testKey(t testing.TB) (ed25519.PrivateKey, []ed25519.PublicKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, []ed25519.PublicKey{old, pub}
}

func testGrant() Grant {
	return Grant{
		Device: device(1), Group: "lab", Ref: content.Ref{ID: "app", Version: 3}, Generation: 1_790_000_000,
		Manifest: content.DigestOf([]byte("m")), HashOfHashes: content.DigestOf([]byte("h")), Expires: time.Unix(start.Add(GrantLife).Unix(), 0),
	}
}

func testTicket() Ticket {
	return Ticket{
		Nonce: [16]byte{1}, Origin: device(2), Ref: content.Ref{ID: "app", Version: 3},
		Groups: []string{"lab", "field"}, Expires: time.Unix(start.Add(time.Hour).Unix(), 0),
	}
}

func TestGrant(t *testing.T) {
	key, keys := testKey(t)
	_, strangers := testKey(t)
	g := testGrant()
	signed := SignGrant(key, g)
	tests := []struct {
		name  string
		keys  []ed25519.PublicKey
		after time.Duration
		grace bool
		want  string // in the error; empty: none
	}{
		{"fresh", keys, 0, false, ""},
		{"last second", keys, GrantLife - time.Second, false, ""},
		{"expired", keys, GrantLife, false, "expired"},
		{"in grace", keys, GrantLife + Grace - time.Second, true, ""},
		{"after grace", keys, GrantLife + Grace, true, "expired"},
		{"other keys", strangers, 0, false, "signature"},
		{"no keys", nil, 0, false, "signature"},
		{"a key of no length", []ed25519.PublicKey{nil}, 0, false, "signature"},
	}
	for _, tt := range tests {
		got, err := VerifyGrant(tt.keys, signed, start.Add(tt.after), tt.grace)
		if tt.want == "" {
			if err != nil || got != g {
				t.Errorf("%s: got %+v, %v; want %+v", tt.name, got, err, g)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 0x20
		if _, err := VerifyGrant(keys, bad, start, false); err == nil {
			t.Errorf("a grant with byte %d changed was taken", i)
		}
		if _, err := VerifyGrant(keys, signed[:i], start, false); err == nil {
			t.Errorf("%d bytes of a grant were taken", i)
		}
	}
	if _, err := VerifyGrant(keys, make([]byte, MaxStatement+1), start, false); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a giant: got %v", err)
	}
}

// A statement of one kind is none of another, whatever its bytes say.
func TestStatementsAreApart(t *testing.T) {
	key, keys := testKey(t)
	body := AppendGrant(nil, testGrant())
	for prefix, what := range map[string]string{ticketPrefix: "a ticket", denyPrefix: "a deny list", "": "nothing"} {
		if _, err := VerifyGrant(keys, sign(key, prefix, bytes.Clone(body)), start, false); err == nil {
			t.Errorf("a signature for %s passed for a grant's", what)
		}
	}
	if _, err := VerifyTicket(keys, sign(key, grantPrefix, AppendTicket(nil, testTicket())), start); err == nil {
		t.Error("a signature for a grant passed for a ticket's")
	}
	asks, err := SignInquiry(key, testTicket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyTicket(keys, asks, start); err == nil {
		t.Error("an inquiry passed for a ticket")
	}
	if _, err := VerifyInquiry(keys, asks, start); err != nil {
		t.Errorf("an inquiry: %v", err)
	}
	if _, err := VerifyInquiry(keys, sign(key, ticketPrefix, AppendTicket(nil, testTicket())), start); err == nil {
		t.Error("a ticket passed for an inquiry")
	}
	if _, err := VerifyDenyList(keys, sign(key, grantPrefix, AppendDenyList(nil, DenyList{Version: 1}))); err == nil {
		t.Error("a signature for a grant passed for a deny list's")
	}
}

func TestTicket(t *testing.T) {
	key, keys := testKey(t)
	want := testTicket()
	signed, err := SignTicket(key, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyTicket(keys, signed, start); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := VerifyTicket(keys, signed, want.Expires); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: got %v", err)
	}
	drawn := want
	drawn.Nonce = [16]byte{}
	a, err := SignTicket(key, drawn)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := SignTicket(key, drawn); err != nil || bytes.Equal(a, b) {
		t.Errorf("two tickets have one nonce (%v)", err)
	}
}

func TestTicketLimits(t *testing.T) {
	key, _ := testKey(t)
	full := testTicket()
	full.Ref.ID = content.ID(strings.Repeat("a", 128))
	full.Groups = make([]string, maxGroups)
	for i := range full.Groups {
		full.Groups[i] = strings.Repeat("g", maxLabel)
	}
	if b, err := SignTicket(key, full); err != nil || len(b) > MaxStatement {
		t.Errorf("the largest ticket: %d bytes, %v", len(b), err)
	}
	full.Groups = append(full.Groups, "one-more")
	if _, err := SignTicket(key, full); err == nil {
		t.Error("too many groups were signed")
	}
	bad := testTicket()
	bad.Groups = []string{"No Group"}
	if _, err := SignTicket(key, bad); err == nil {
		t.Error("a ticket that does not parse was signed")
	}
}

func TestDenyList(t *testing.T) {
	key, keys := testKey(t)
	l, err := NewDenyList(7, []wire.DeviceID{device(9), device(1), device(9), device(4)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyDenyList(keys, SignDenyList(key, l))
	if err != nil || got.Version != 7 || len(got.Devices) != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for n, want := range map[byte]bool{0: false, 1: true, 4: true, 5: false, 9: true, 10: false} {
		if got.Has(device(n)) != want {
			t.Errorf("Has(%d) = %v, want %v", n, !want, want)
		}
	}
	if empty, err := VerifyDenyList(keys, SignDenyList(key, DenyList{})); err != nil || empty.Has(device(0)) {
		t.Errorf("empty list: %+v, %v", empty, err)
	}
	if _, err := VerifyDenyList(nil, SignDenyList(key, l)); err == nil {
		t.Error("a list of no key was taken")
	}
	unsorted := DenyList{Devices: []wire.DeviceID{device(2), device(1)}}
	if _, err := ParseDenyList(AppendDenyList(nil, unsorted)); err == nil {
		t.Error("an unsorted list was taken")
	}
	if _, err := NewDenyList(1, manyDevices(MaxDenied+1)); err == nil {
		t.Error("a list beyond the limit was made")
	}
	if b := SignDenyList(key, DenyList{Devices: manyDevices(MaxDenied)}); len(b) != MaxDenyList {
		t.Errorf("the longest list has %d bytes, want %d", len(b), MaxDenyList)
	}
}

func manyDevices(n int) []wire.DeviceID {
	out := make([]wire.DeviceID, n)
	for i := range out {
		out[i] = wire.DeviceID{byte(i >> 16), byte(i >> 8), byte(i)}
	}
	return out
}

func TestGrantKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := GrantKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := GrantKey(dir); err != nil || !a.Equal(b) {
		t.Errorf("the second call gives another key (%v)", err)
	}
	checkPrivate(t, dir, 1)
	if err := os.WriteFile(filepath.Join(dir, grantKeyFile), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := GrantKey(dir); err == nil {
		t.Error("a damaged key file was replaced or taken")
	}
	if _, err := ParseGrantKeys([][]byte{a[:31]}); err == nil {
		t.Error("a short key was taken")
	}
}

func FuzzParseGrant(f *testing.F) {
	f.Add(AppendGrant(nil, testGrant()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := ParseGrant(b); err == nil && !bytes.Equal(AppendGrant(nil, g), b) {
			t.Errorf("parse, append of %x is not identical: %+v", b, g)
		}
	})
}

func FuzzParseTicket(f *testing.F) {
	f.Add(AppendTicket(nil, testTicket()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseTicket(b); err == nil && !bytes.Equal(AppendTicket(nil, k), b) {
			t.Errorf("parse, append of %x is not identical: %+v", b, k)
		}
	})
}

func FuzzParseDenyList(f *testing.F) {
	f.Add(AppendDenyList(nil, DenyList{Version: 2, Devices: []wire.DeviceID{device(1), device(2)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ParseDenyList(b); err == nil && !bytes.Equal(AppendDenyList(nil, l), b) {
			t.Errorf("parse, append of %x is not identical: %+v", b, l)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("freshet://acme/device/lab/" + device(1).String())
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseName(s); err == nil && n.String() != s {
			t.Errorf("parse, format of %q is %q", s, n)
		}
	})
}
