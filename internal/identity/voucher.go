package identity

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"freshet/internal/content"
	"freshet/internal/policy"
)

// Voucher says whether the publisher's signature of one manifest stands for grants (design
// section 8): whoever is of a group that it names may then read the content without one, so
// that devices get and exchange what their publishers signed while no service answers.
//
// A signature is verified once for the same pinned keys, good or bad, so that asking again
// costs next to nothing. The zero value is ready; it is safe for concurrent use.
type Voucher struct {
	mu        sync.Mutex // guards the following; held while a manifest is read and verified
	verified  bool
	keys      []policy.PublisherKey // by which it was verified
	signature []byte                // that was
	terms     Terms
	err       error // why it does not count
}

// Claim is what a voucher is asked about: always the same manifest.
type Claim struct {
	ID        content.ID             // that the manifest names
	Signature []byte                 // a minisign file; empty: none
	Manifest  func() ([]byte, error) // called when there is something to verify
}

// Admits returns nil when a key that is pinned for the content signed the manifest, and the
// terms hold and name the reader's group. It wraps ErrUnsigned where nothing good was signed.
func (v *Voucher) Admits(p Publishers, r Reader, c Claim) error {
	t, err := v.termsOf(p, c)
	if err != nil {
		return err
	}
	return t.admit(r, c.ID)
}

// termsOf returns what was signed by one of the keys.
func (v *Voucher) termsOf(p Publishers, c Claim) (Terms, error) {
	if len(c.Signature) == 0 || !slices.ContainsFunc(p.Keys, func(k policy.PublisherKey) bool { return k.Covers(c.ID) }) {
		return Terms{}, fmt.Errorf("%w: of %q, for its signature to stand for a grant", ErrUnsigned, c.ID)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.verified && slices.Equal(v.keys, p.Keys) && bytes.Equal(v.signature, c.Signature) {
		return v.terms, v.err
	}
	manifest, err := c.Manifest()
	if err != nil {
		return Terms{}, fmt.Errorf("identity: publisher's signature of %q: %w", c.ID, err)
	}
	v.verified, v.keys, v.signature = true, slices.Clone(p.Keys), bytes.Clone(c.Signature)
	v.terms, _, v.err = p.Verify(Signed{ID: c.ID, Manifest: manifest, Signature: c.Signature})
	return v.terms, v.err
}
