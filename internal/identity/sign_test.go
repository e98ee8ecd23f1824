package identity

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/content"
	"freshet/internal/policy"
	"freshet/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "make the vectors in testdata/minisign anew")

// The vectors are files as minisign writes them: a key pair (the secret key encrypted, with the
// password "freshet"), a manifest, and its signature.
const vectors = "testdata/minisign"

var vectorTerms = Terms{Generation: 1_800_000_000, Groups: []string{"lab", "staff"}, Expires: time.Unix(1_900_000_000, 0).UTC()}

func vector(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func vectorKey() (string, error) { return "freshet", nil }

func makeVectors(t *testing.T) {
	t.Helper()
	public, secret, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := minisign.EncryptKey("freshet", secret)
	if err != nil {
		t.Fatal(err)
	}
	text, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := content.BuildManifest(content.Ref{ID: "tools", Version: 3}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	manifest := content.AppendManifest(nil, m)
	sig, err := SignFor(secret, manifest, vectorTerms)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"minisign.key": encrypted, "minisign.pub": text, "manifest": manifest, "manifest.minisig": sig} {
		if err := os.WriteFile(filepath.Join(vectors, name), append(bytes.TrimSpace(b), '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// publicKey returns the second line of a minisign.pub.
func publicKey(t *testing.T, b []byte) string {
	t.Helper()
	_, key, ok := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if !ok {
		t.Fatalf("%q has one line", b)
	}
	return key
}

// signedVector returns what is signed, and the keys that are pinned for it.
func signedVector(t *testing.T) (Signed, Publishers) {
	t.Helper()
	manifest := bytes.TrimSuffix(vector(t, "manifest"), []byte("\n"))
	s := Signed{ID: "tools", Manifest: manifest, Signature: vector(t, "manifest.minisig")}
	return s, pinned(t, "too*="+publicKey(t, vector(t, "minisign.pub")))
}

func pinned(t *testing.T, text string) Publishers {
	t.Helper()
	s, err := policy.Resolve(policy.Layer{Provider: policy.Fleet, Entries: []policy.Entry{{Name: "publisherKeys", Value: text}}})
	if err != nil {
		t.Fatal(err)
	}
	return PublishersOf(s)
}

func TestPublisherVectors(t *testing.T) {
	if *rewrite {
		makeVectors(t)
	}
	s, keys := signedVector(t)
	terms, ok, err := keys.VerifyFor(Reader{Group: "staff", Seen: vectorTerms.Generation, Now: vectorTerms.Expires.Add(-time.Second)}, s)
	if err != nil || !ok || terms.String() != vectorTerms.String() {
		t.Fatalf("got %v, %v, %v; want %v", terms, ok, err, vectorTerms)
	}
	key, err := ReadSigningKey(filepath.Join(vectors, "minisign.key"), vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SignFor(key, s.Manifest, vectorTerms)
	if err != nil || string(trimLine(again)) != string(trimLine(s.Signature)) {
		t.Errorf("signed again: %v\n%s\nwant\n%s", err, again, s.Signature)
	}
	asked := func() (string, error) { return "wrong", nil }
	if _, err := ReadSigningKey(filepath.Join(vectors, "minisign.key"), asked); err == nil || strings.Contains(err.Error(), "wrong\"") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestPublisherRefusals(t *testing.T) {
	s, keys := signedVector(t)
	good := Reader{Group: "staff", Seen: 1, Now: vectorTerms.Expires.Add(-time.Hour)}
	otherPublic, otherKey, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	resign := func(terms string) []byte {
		return minisign.SignWithComments(otherKey, s.Manifest, terms, "x")
	}
	both := Publishers{Keys: append([]policy.PublisherKey{{Pattern: "tools", Key: otherPublic.String()}}, keys.Keys...)}
	tests := map[string]struct {
		keys   Publishers
		reader func(*Reader)
		signed func(*Signed)
		want   error  // sentinel
		text   string // in the error
	}{
		"unsigned":           {keys: keys, signed: func(s *Signed) { s.Signature = nil }, want: ErrUnsigned},
		"required, unpinned": {keys: Publishers{Required: true}, want: ErrUnsigned},
		"other manifest":     {keys: keys, signed: func(s *Signed) { s.Manifest = append(bytes.Clone(s.Manifest), ' ') }, want: ErrUnsigned},
		"other key":          {keys: keys, signed: func(s *Signed) { s.Signature = resign(vectorTerms.String()) }, want: ErrUnsigned},
		"other terms": {keys: keys, want: ErrUnsigned, signed: func(s *Signed) {
			s.Signature = bytes.Replace(s.Signature, []byte("staff"), []byte("guest"), 1)
		}},
		"older":       {keys: keys, reader: func(r *Reader) { r.Seen = vectorTerms.Generation + 1 }, want: ErrSignatureOld},
		"expired":     {keys: keys, reader: func(r *Reader) { r.Now = vectorTerms.Expires }, want: ErrSignatureExpiry},
		"other group": {keys: keys, reader: func(r *Reader) { r.Group = "guests" }, text: `not for "guests"`},
		"no terms":    {keys: both, signed: func(s *Signed) { s.Signature = resign("timestamp:1") }, text: "trusted comment"},
		"no file":     {keys: keys, signed: func(s *Signed) { s.Signature = []byte("hello") }, text: "signature"},
		"huge":        {keys: keys, signed: func(s *Signed) { s.Signature = make([]byte, MaxSignature+1) }, text: "at most"},
	}
	for name, test := range tests {
		r, signed := good, s
		if test.reader != nil {
			test.reader(&r)
		}
		if test.signed != nil {
			test.signed(&signed)
		}
		_, ok, err := test.keys.VerifyFor(r, signed)
		if ok || err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: got %v, %v; want %v %q", name, ok, err, test.want, test.text)
		}
	}
	if _, ok, err := (Publishers{}).VerifyFor(good, s); ok || err != nil {
		t.Errorf("a signature that nobody asked for: %v, %v; want false, nil", ok, err)
	}
	if _, ok, err := both.VerifyFor(good, s); !ok || err != nil {
		t.Errorf("one of two keys: %v, %v", ok, err)
	}
}

func TestTerms(t *testing.T) {
	for _, bad := range []string{
		"", "freshet", "freshet generation=1 groups=a", "freshet generation=0 groups=a expires=2027-01-01T00:00:00Z",
		"freshet generation=1 groups= expires=2027-01-01T00:00:00Z", "freshet generation=1 groups=*,a expires=2027-01-01T00:00:00Z",
		"freshet groups=a generation=1 expires=2027-01-01T00:00:00Z", "freshet generation=1 groups=a expires=soon",
		"other generation=1 groups=a expires=2027-01-01T00:00:00Z",
	} {
		if got, err := ParseTerms(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
	all, err := ParseTerms("freshet generation=1 groups=* expires=2027-01-01T00:00:00Z later=x")
	if err != nil || !all.Allows("any") {
		t.Errorf("got %v, %v", all, err)
	}
}

func FuzzTerms(f *testing.F) {
	f.Add(vectorTerms.String())
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseTerms(text)
		if err != nil {
			return
		}
		again, err := ParseTerms(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%q reads as %q, then %q, %v", text, got, again, err)
		}
	})
}

func TestOriginSignature(t *testing.T) {
	ca, err := CreateCA(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(ca *CA, role Role, group string) *Credentials {
		c, err := ca.IssueCredentials(Name{Fleet: ca.Fleet(), Role: role, Group: group, Device: wire.DeviceID{7}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dp, device := issue(ca, RoleOrigin, ""), issue(ca, RoleDevice, "staff")
	manifest := content.DigestOf([]byte("manifest"))
	sig, err := dp.SignManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	trust := device.OriginTrust()
	if n, err := trust.VerifyManifest(manifest, sig); err != nil || n != dp.Name() {
		t.Fatalf("got %v, %v", n, err)
	}
	late := trust
	late.Now = late.Now.Add(CertificateLife + time.Hour)
	graced := late
	graced.Grace = true
	if _, err := graced.VerifyManifest(manifest, sig); err != nil {
		t.Errorf("in grace: %v", err)
	}
	byDevice, err := device.SignManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := CreateCA(t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	byOther, err := issue(other, RoleOrigin, "").SignManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	renamed, denied := trust, trust
	renamed.Fleet = "another"
	denied.Denied = func(id wire.DeviceID) bool { return id == wire.DeviceID{7} }
	tests := map[string]struct {
		trust    OriginTrust
		manifest content.Digest
		sig      []byte
		want     string
	}{
		"other manifest":    {trust, content.Digest{1}, sig, "not of this manifest"},
		"expired":           {late, manifest, sig, "expired"},
		"by a device":       {trust, manifest, byDevice, "role"},
		"of another root":   {trust, manifest, byOther, "authority"},
		"of another fleet":  {renamed, manifest, sig, "fleet"},
		"on the deny list":  {denied, manifest, sig, "deny list"},
		"empty":             {trust, manifest, nil, "truncated"},
		"without signature": {trust, manifest, sig[:len(sig)-70], ""},
		"too long":          {trust, manifest, make([]byte, MaxOriginSignature+1), "at most"},
	}
	for name, test := range tests {
		if _, err := test.trust.VerifyManifest(test.manifest, test.sig); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	for i := 0; i < len(sig); i += 13 {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if n, err := trust.VerifyManifest(manifest, bad); err == nil && n != dp.Name() {
			t.Errorf("byte %d changed: believed as %v", i, n)
		}
	}
}

func FuzzOriginSignature(f *testing.F) {
	f.Add([]byte{1, 1, 0, 1, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := (OriginTrust{}).VerifyManifest(content.Digest{}, b); err == nil {
			t.Error("believed without roots")
		}
	})
}
