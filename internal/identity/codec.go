package identity

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
)

const codecVersion = 1 // first byte of every binary form of this package

var errShort = errors.New("truncated")

// reader takes a binary form apart; the first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.b) < n {
		r.err = errShort
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) u32() int {
	if b := r.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reader) i64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *reader) str() string { return string(r.take(int(r.u8()))) }

// fail keeps the first error.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) version() {
	if v := r.u8(); r.err == nil && v != codecVersion {
		r.err = fmt.Errorf("version %d is unknown; it was made by another release", v)
	}
}

// done returns the first error, or one when bytes are left.
func (r *reader) done() error {
	if r.err == nil && len(r.b) != 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.b))
	}
	return r.err
}

// appendString writes u8 length | bytes; callers have checked that s has at most 255 bytes.
func appendString(b []byte, s string) []byte {
	if len(s) > 255 {
		panic(fmt.Sprintf("identity: string of %d bytes in a binary form", len(s)))
	}
	return append(append(b, byte(len(s))), s...)
}

// Prefixes of what is signed, so that no statement passes for one of another kind.
const (
	grantPrefix  = "freshet grant v1\x00"
	ticketPrefix = "freshet ticket v1\x00"
	askPrefix    = "freshet inquiry v1\x00"
	denyPrefix   = "freshet deny v1\x00"
)

// errSignature is the cause when no key of the fleet made a signature.
var errSignature = errors.New("the signature is of none of the fleet's keys")

// sign appends the signature of body under prefix to body.
func sign(key ed25519.PrivateKey, prefix string, body []byte) []byte {
	return append(body, ed25519.Sign(key, append([]byte(prefix), body...))...)
}

// open returns the body of a signed statement.
func open(keys []ed25519.PublicKey, prefix string, b []byte) ([]byte, error) {
	if len(b) < ed25519.SignatureSize {
		return nil, errShort
	}
	body, sig := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	msg := append([]byte(prefix), body...)
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, sig) {
			return body, nil
		}
	}
	return nil, errSignature
}
