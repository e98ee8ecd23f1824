package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// A distribution point's signature of a manifest is
//
//	u8 1 | u8 n | n × (u16 length | certificate, DER), the leaf first | ECDSA signature, ASN.1
//
// by the leaf's key over the SHA-256 of manifestPrefix and the manifest digest. It holds as
// long as the certificate does: a distribution point signs anew whenever it is asked.

// SignatureHeader carries the publisher's signature of a manifest that is published, in
// standard base64.
const SignatureHeader = "Freshet-Signature"

// MaxOriginSignature is the most bytes of a distribution point's signature.
const MaxOriginSignature = 16 << 10

const (
	manifestPrefix = "freshet manifest v1\x00"
	maxSignChain   = 4 // certificates
)

// SignManifest signs a manifest digest with the certificate's key.
func (c *Credentials) SignManifest(manifest content.Digest) ([]byte, error) {
	chain := c.Chain()
	if len(chain) > maxSignChain {
		return nil, fmt.Errorf("identity: sign manifest %s: a chain of %d certificates, at most %d fit", manifest.Short(), len(chain), maxSignChain)
	}
	b := []byte{codecVersion, byte(len(chain))}
	for _, der := range chain {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(der))), der...)
	}
	sum := signedSum(manifest)
	sig, err := ecdsa.SignASN1(rand.Reader, c.key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("identity: sign manifest %s: %w", manifest.Short(), err)
	}
	if b = append(b, sig...); len(b) > MaxOriginSignature {
		return nil, fmt.Errorf("identity: sign manifest %s: %d bytes with its certificates, at most %d fit", manifest.Short(), len(b), MaxOriginSignature)
	}
	return b, nil
}

func signedSum(manifest content.Digest) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(manifestPrefix), manifest[:]...))
}

// OriginTrust says which distribution points' signatures are believed.
type OriginTrust struct {
	Roots  [][]byte // DER
	Fleet  string
	Denied func(wire.DeviceID) bool // the deny list; nil: nobody
	Now    time.Time
	Grace  bool // no service answers: certificates are good for [Grace] past their expiry
}

// OriginTrust returns what these credentials believe now.
func (c *Credentials) OriginTrust() OriginTrust {
	t := OriginTrust{Roots: c.Roots(), Fleet: c.Name().Fleet, Now: c.now(), Grace: c.InGrace()}
	if denied := c.deny.Load(); denied != nil {
		t.Denied = *denied
	}
	return t
}

// VerifyManifest returns the distribution point that signed the manifest digest: one of the
// fleet, by a certificate with role origin that the fleet's roots vouch for.
func (t OriginTrust) VerifyManifest(manifest content.Digest, signature []byte) (Name, error) {
	n, err := t.verify(manifest, signature)
	if err != nil {
		return Name{}, fmt.Errorf("identity: distribution point's signature of manifest %s: %w", manifest.Short(), err)
	}
	return n, nil
}

func (t OriginTrust) verify(manifest content.Digest, signature []byte) (Name, error) {
	chain, sig, err := parseOriginSignature(signature)
	if err != nil {
		return Name{}, err
	}
	certs, err := parseChain(chain)
	if err != nil {
		return Name{}, err
	}
	roots, err := rootPool(t.Roots)
	if err != nil {
		return Name{}, err
	}
	at := t.Now
	if t.Grace {
		at = at.Add(-Grace)
	}
	if err := verifyChain(certs, roots, at); err != nil {
		return Name{}, err
	}
	n, err := t.admit(certs[0])
	if err != nil {
		return Name{}, err
	}
	key, ok := certs[0].PublicKey.(*ecdsa.PublicKey)
	sum := signedSum(manifest)
	if !ok || !ecdsa.VerifyASN1(key, sum[:], sig) {
		return Name{}, errors.New("it is not of this manifest by this certificate's key")
	}
	return n, nil
}

// admit checks what the certificate of a verified chain says.
func (t OriginTrust) admit(leaf *x509.Certificate) (Name, error) {
	n, err := certName(leaf)
	switch {
	case err != nil:
		return Name{}, err
	case n.Fleet != t.Fleet:
		return Name{}, fmt.Errorf("the signer is of fleet %q, not %q", n.Fleet, t.Fleet)
	case n.Role != RoleOrigin:
		return Name{}, fmt.Errorf("the signer has role %q, want %q", n.Role, RoleOrigin)
	case t.Denied != nil && t.Denied(n.Device):
		return Name{}, fmt.Errorf("the signer %s is on the deny list", n.Device)
	}
	return n, nil
}

func parseOriginSignature(b []byte) (chain [][]byte, sig []byte, err error) {
	if len(b) > MaxOriginSignature {
		return nil, nil, fmt.Errorf("%d bytes, at most %d are allowed", len(b), MaxOriginSignature)
	}
	r := reader{b: b}
	r.version()
	n := int(r.u8())
	if n < 1 || n > maxSignChain {
		r.fail(fmt.Errorf("%d certificates, want 1 to %d", n, maxSignChain))
		n = 0
	}
	for range n {
		chain = append(chain, r.take(r.u16()))
	}
	if r.err == nil && len(r.b) == 0 {
		r.err = errShort
	}
	return chain, r.b, r.err
}
