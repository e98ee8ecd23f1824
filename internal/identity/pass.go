package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"freshet/internal/wire"
)

// Pass is a LAN pass: it says which device and group speak with an Ed25519 key in the LAN's datagrams
// (package lan). It has a key of its own, and the server's signature instead of a certificate
// chain, so that it fits into each datagram and costs little to check.
type Pass struct {
	Device  wire.DeviceID
	Key     [ed25519.PublicKeySize]byte
	Group   string
	Expires time.Time // whole seconds
}

// PassLife is how long a pass is good; it is renewed at half its life.
const PassLife = CertificateLife

// MaxPass is the most bytes of a signed pass.
const MaxPass = 1 + len(wire.DeviceID{}) + ed25519.PublicKeySize + 1 + maxLabel + 8 + ed25519.SignatureSize

const passPrefix = "freshet lan pass v1\x00"

// AppendPass appends what of p is signed. p has a group that passes its check.
func AppendPass(b []byte, p Pass) []byte {
	b = append(append(b, codecVersion), p.Device[:]...)
	b = appendString(append(b, p.Key[:]...), p.Group)
	return binary.BigEndian.AppendUint64(b, uint64(p.Expires.Unix()))
}

// ParsePass reads what [AppendPass] wrote, without a signature.
func ParsePass(b []byte) (Pass, error) {
	var p Pass
	r := reader{b: b}
	r.version()
	copy(p.Device[:], r.take(len(p.Device)))
	copy(p.Key[:], r.take(len(p.Key)))
	p.Group = r.label()
	p.Expires = time.Unix(r.i64(), 0)
	if err := r.done(); err != nil {
		return Pass{}, fmt.Errorf("identity: lan pass: %w", err)
	}
	return p, nil
}

// SignPass returns p with its signature.
func SignPass(key ed25519.PrivateKey, p Pass) []byte {
	return sign(key, passPrefix, AppendPass(nil, p))
}

// PassSigned returns the pass in b when one of keys signed it. Whether it is still good is
// for [Pass.Good], so that one check of a signature serves many datagrams.
func PassSigned(keys []ed25519.PublicKey, b []byte) (Pass, error) {
	if len(b) > MaxPass {
		return Pass{}, fmt.Errorf("identity: lan pass: %d bytes, at most %d are allowed", len(b), MaxPass)
	}
	body, err := open(keys, passPrefix, b)
	if err != nil {
		return Pass{}, fmt.Errorf("identity: lan pass: %w", err)
	}
	return ParsePass(body)
}

// Good reports whether the pass has not expired; with grace, which is for when no service
// answers, it lives [Grace] longer.
func (p *Pass) Good(now time.Time, grace bool) bool {
	until := p.Expires
	if grace {
		until = until.Add(Grace)
	}
	return now.Before(until)
}

// VerifyPass returns the pass in b when one of keys signed it and it is good.
func VerifyPass(keys []ed25519.PublicKey, b []byte, now time.Time, grace bool) (Pass, error) {
	p, err := PassSigned(keys, b)
	if err != nil {
		return Pass{}, err
	}
	if !p.Good(now, grace) {
		return Pass{}, fmt.Errorf("identity: lan pass of %s expired on %s", p.Device, p.Expires.UTC().Format(time.RFC3339))
	}
	return p, nil
}

// RenewAt returns half of the pass's life, when it ought to be renewed.
func (p *Pass) RenewAt() time.Time { return p.Expires.Add(-PassLife / 2) }

// Fits reports whether the pass is for this key and this device in its present group. One that
// does not is of no use any more.
func (p *Pass) Fits(key ed25519.PublicKey, n Name) bool {
	return bytes.Equal(p.Key[:], key) && p.Device == n.Device && p.Group == n.Group
}
