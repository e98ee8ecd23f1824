package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"

	"freshet/internal/content"
	"freshet/internal/policy"
	"freshet/internal/wire"
)

// MaxSignature is the most bytes of a publisher's signature, a minisign file: as many as
// devices give each other.
const MaxSignature = wire.MaxSignature

// AllGroups in a publisher's terms stands for every group.
const AllGroups = "*"

// Errors of a publisher's signature that callers branch on.
var (
	ErrUnsigned        = errors.New("identity: a publisher's signature is required and missing")
	ErrSignatureOld    = errors.New("identity: the publisher's signature is of a lower generation than one seen")
	ErrSignatureExpiry = errors.New("identity: the publisher's signature has expired")
)

// Terms are what a publisher signs besides the manifest: minisign's trusted comment,
//
//	freshet generation=N groups=a,b expires=RFC3339
//
// in this order; fields that follow are for later versions and are passed over.
type Terms struct {
	Generation int64     // from 1
	Groups     []string  // who may read it; AllGroups alone: every group
	Expires    time.Time // whole seconds, UTC
}

// String returns the trusted comment.
func (t Terms) String() string {
	return fmt.Sprintf("freshet generation=%d groups=%s expires=%s", t.Generation, strings.Join(t.Groups, ","), t.Expires.UTC().Format(time.RFC3339))
}

// ParseTerms reads a trusted comment.
func ParseTerms(comment string) (Terms, error) {
	t, err := parseTerms(strings.Split(comment, " "))
	if err != nil {
		return Terms{}, fmt.Errorf("identity: trusted comment: %w; sign with \"freshet publish --sign\"", err)
	}
	return t, nil
}

func parseTerms(fields []string) (t Terms, err error) {
	if len(fields) < 4 || fields[0] != "freshet" {
		return t, errors.New("it is not freshet generation=N groups=… expires=…")
	}
	var values [3]string
	for i, key := range []string{"generation=", "groups=", "expires="} {
		var ok bool
		if values[i], ok = strings.CutPrefix(fields[i+1], key); !ok {
			return t, fmt.Errorf("field %d is %q, want %s…", i+1, fields[i+1], key)
		}
	}
	if t.Generation, err = strconv.ParseInt(values[0], 10, 64); err != nil || t.Generation < 1 {
		return t, fmt.Errorf("generation %q is not a number from 1", values[0])
	}
	if t.Groups = strings.Split(values[1], ","); values[1] != AllGroups {
		for _, g := range t.Groups {
			if err := CheckLabel(g); err != nil {
				return t, fmt.Errorf("groups: %w", err)
			}
		}
	}
	if t.Expires, err = time.Parse(time.RFC3339, values[2]); err != nil {
		return t, fmt.Errorf("expires: %w", err)
	}
	return t, nil
}

// Allows reports whether the terms name the group.
func (t Terms) Allows(group string) bool {
	return slices.Contains(t.Groups, group) || slices.Equal(t.Groups, []string{AllGroups})
}

// Check reports whether the terms still hold: of no lower generation than seen, and not
// expired.
func (t Terms) Check(seen int64, now time.Time) error {
	switch {
	case t.Generation < seen:
		return fmt.Errorf("%w: %d, seen was %d", ErrSignatureOld, t.Generation, seen)
	case !now.Before(t.Expires):
		return fmt.Errorf("%w: on %s; sign and publish again", ErrSignatureExpiry, t.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Publishers are the pinned publishers' keys.
type Publishers struct {
	Keys     []policy.PublisherKey
	Required bool // of contents that no key is pinned for, too: those nobody can publish
}

// PublishersOf returns what the settings pin.
func PublishersOf(s policy.Settings) Publishers {
	return Publishers{Keys: s.PublisherKeys(), Required: s.RequireSignature()}
}

// Covers reports whether manifests of id need a signature.
func (p Publishers) Covers(id content.ID) bool {
	return p.Required || slices.ContainsFunc(p.Keys, func(k policy.PublisherKey) bool { return k.Covers(id) })
}

// Signed is a manifest with its publisher's signature.
type Signed struct {
	ID        content.ID // that the manifest names
	Manifest  []byte
	Signature []byte // a minisign file; empty: none
}

// Verify returns the terms under which a pinned key signed the manifest. ErrUnsigned when there is
// no signature and one is needed; without one that is not needed ok is false. A signature by
// no pinned key counts for nothing. Whether the terms hold and name the group is left to ask.
func (p Publishers) Verify(s Signed) (t Terms, ok bool, err error) {
	covered := p.Covers(s.ID)
	if len(s.Signature) == 0 {
		if covered {
			return Terms{}, false, fmt.Errorf("%w: of %q", ErrUnsigned, s.ID)
		}
		return Terms{}, false, nil
	}
	if len(s.Signature) > MaxSignature {
		return Terms{}, false, fmt.Errorf("identity: publisher's signature of %q: %d bytes, at most %d are allowed", s.ID, len(s.Signature), MaxSignature)
	}
	var sig minisign.Signature
	if err := sig.UnmarshalText(trimLine(s.Signature)); err != nil {
		return Terms{}, false, fmt.Errorf("identity: publisher's signature of %q: %w", s.ID, err)
	}
	if !p.signed(s) {
		if !covered {
			return Terms{}, false, nil
		}
		return Terms{}, false, fmt.Errorf("%w: key %016X of the signature of %q is not pinned for it, or the manifest is another", ErrUnsigned, sig.KeyID, s.ID)
	}
	t, err = ParseTerms(sig.TrustedComment)
	return t, err == nil, err
}

// TermsOf reads the terms of a signature without looking at who signed: for those who know
// that already.
func TermsOf(signature []byte) (Terms, error) {
	var sig minisign.Signature
	if len(signature) > MaxSignature {
		return Terms{}, fmt.Errorf("identity: publisher's signature: %d bytes, at most %d are allowed", len(signature), MaxSignature)
	}
	if err := sig.UnmarshalText(trimLine(signature)); err != nil {
		return Terms{}, fmt.Errorf("identity: publisher's signature: %w", err)
	}
	return ParseTerms(sig.TrustedComment)
}

// signed reports whether one of the keys pinned for the content fits.
func (p Publishers) signed(s Signed) bool {
	for _, k := range p.Keys {
		var key minisign.PublicKey
		if k.Covers(s.ID) && key.UnmarshalText([]byte(k.Key)) == nil && minisign.Verify(key, s.Manifest, trimLine(s.Signature)) {
			return true
		}
	}
	return false
}

// trimLine drops the end of the last line, which base64 has no place for.
func trimLine(b []byte) []byte { return bytes.TrimRight(b, "\r\n") }

// Reader is a device that would use a signed manifest.
type Reader struct {
	Group string // of the device
	Seen  int64  // the highest generation of the content that it ever saw; 0: none
	Now   time.Time
}

// VerifyFor is [Publishers.Verify] with all that a device asks: the terms hold and name its
// group.
func (p Publishers) VerifyFor(r Reader, s Signed) (t Terms, ok bool, err error) {
	t, ok, err = p.Verify(s)
	if err != nil || !ok {
		return t, ok, err
	}
	err = t.admit(r, s.ID)
	return t, err == nil, err
}

// admit returns nil when the terms of a content hold and name the reader's group.
func (t Terms) admit(r Reader, id content.ID) error {
	if !t.Allows(r.Group) {
		return fmt.Errorf("identity: the publisher's signature of %q is for groups %q, not for %q", id, t.Groups, r.Group)
	}
	if err := t.Check(r.Seen, r.Now); err != nil {
		return fmt.Errorf("%q: %w", id, err)
	}
	return nil
}

// SignFor returns a minisign signature of a manifest under these terms.
func SignFor(key minisign.PrivateKey, manifest []byte, t Terms) ([]byte, error) {
	comment := t.String()
	if _, err := ParseTerms(comment); err != nil {
		return nil, err
	}
	r := minisign.NewReader(bytes.NewReader(manifest)) // hashed first, as minisign itself does
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	sig := r.SignWithComments(key, comment, "signature by freshet publish")
	if len(sig) > MaxSignature {
		return nil, fmt.Errorf("identity: sign: %d bytes with its groups, at most %d are allowed", len(sig), MaxSignature)
	}
	return sig, nil
}

// ReadSigningKey reads a minisign secret key file. password is asked for one that is encrypted.
func ReadSigningKey(path string, password func() (string, error)) (minisign.PrivateKey, error) {
	var key minisign.PrivateKey
	b, err := readFile(path)
	if err != nil {
		return key, err
	}
	b = trimLine(b)
	if !minisign.IsEncrypted(b) {
		if err := key.UnmarshalText(b); err != nil {
			return key, fmt.Errorf("identity: %q is not a minisign secret key: %w", path, err)
		}
		return key, nil
	}
	secret, err := password()
	if err != nil {
		return key, fmt.Errorf("identity: password of %q: %w", path, err)
	}
	if key, err = minisign.DecryptKey(secret, b); err != nil {
		return key, fmt.Errorf("identity: decrypt %q: %w; is the password right?", path, err)
	}
	return key, nil
}
