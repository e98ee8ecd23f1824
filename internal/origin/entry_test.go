package origin

import (
	"encoding/base64"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/content"
	"freshet/internal/identity"
)

// TestReadWithoutGrant: a device of the content's group reads without a grant where none can
// be had, and only there.
func TestReadWithoutGrant(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	e, _ := o.current(testRef)
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(groups []string, expires time.Duration) []byte {
		sig, err := identity.SignFor(key, []byte("x"), identity.Terms{Generation: 1, Groups: groups, Expires: time.Now().Add(expires)})
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	staff := []string{"staff"}
	mine, other := e.record.Manifest, content.Digest{9}
	tests := map[string]struct {
		state     standing
		signature []byte
		grace     bool
		status    int
	}{
		"registered":              {standing{known: mine}, nil, false, 404},
		"never registered":        {standing{}, nil, false, 404},
		"never, and refused":      {standing{alone: true}, nil, true, 404},
		"the catalog's is other":  {standing{known: other}, nil, false, 200},
		"refused":                 {standing{known: mine, groups: staff, alone: true}, nil, false, 200},
		"refused, of others":      {standing{known: mine, groups: []string{"lab"}, alone: true}, nil, false, 404},
		"no service answers":      {standing{known: mine, groups: staff}, nil, true, 200},
		"none, of others":         {standing{known: mine, groups: []string{"lab"}}, nil, true, 404},
		"signed for the group":    {standing{known: mine, groups: staff}, sign(staff, time.Hour), false, 200},
		"signed for all":          {standing{known: mine}, sign([]string{"*"}, time.Hour), false, 200},
		"signed for others":       {standing{known: mine}, sign([]string{"lab"}, time.Hour), false, 404},
		"signed, and expired":     {standing{known: mine}, sign(staff, -time.Hour), false, 404},
		"signed for, not allowed": {standing{known: mine, groups: []string{"lab"}}, sign(staff, time.Hour), false, 404},
	}
	for name, test := range tests {
		e.registered(test.state)
		e.record.Signature = test.signature
		o.cfg.Grace = func() bool { return test.grace }
		for _, path := range []string{"/bytes/" + mine.String(), "/metadata/" + mine.String(), "/pieceshash/" + e.hoh.String()} {
			if resp, _, _ := b.do(b.client(b.device), "GET", base+path); resp.StatusCode != test.status {
				t.Errorf("%s: %s: status %d, want %d", name, path, resp.StatusCode, test.status)
			}
			if resp, _, _ := b.do(b.client(nil), "GET", base+path); resp.StatusCode != 404 {
				t.Errorf("%s: %s without a certificate: status %d, want 404", name, path, resp.StatusCode)
			}
		}
	}
}

// TestSignaturesBesideTheManifest: both come with it, in headers.
func TestSignaturesBesideTheManifest(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	e, _ := o.current(testRef)
	e.record.Signature = []byte("a minisign file")
	resp, _, err := b.do(b.client(b.device), "GET", base+"/metadata/"+e.record.Manifest.String(), identity.GrantHeader, b.grantFor(e.record.Manifest, e.hoh))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	if got, _ := base64.StdEncoding.DecodeString(resp.Header.Get(identity.SignatureHeader)); string(got) != "a minisign file" {
		t.Errorf("the publisher's signature is %q", got)
	}
	sig, err := base64.StdEncoding.DecodeString(resp.Header.Get(identity.OriginSignatureHeader))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.device.OriginTrust().VerifyManifest(e.record.Manifest, sig); err != nil || n != b.origin.Name() {
		t.Errorf("the distribution point's signature is by %v, %v", n, err)
	}
}
