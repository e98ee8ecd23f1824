package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Headers that carry a signed grant or ticket in standard base64.
const (
	GrantHeader  = "Freshet-Grant"
	TicketHeader = "Freshet-Ticket"
)

// MaxStatement is the most bytes of a signed grant or ticket.
const MaxStatement = 4 << 10

const maxGroups = 48 // of a ticket, so that it fits MaxStatement with all names at their longest

const grantKeyFile = "grant.key"

// Grant is the permission of one device to read one content's swarm.
type Grant struct {
	Device       wire.DeviceID
	Group        string
	Ref          content.Ref // with its version
	Generation   int64
	Manifest     content.Digest
	HashOfHashes content.Digest
	Expires      time.Time // whole seconds
}

// AppendGrant appends what of g is signed. g has a group and a Ref that their checks pass.
func AppendGrant(b []byte, g Grant) []byte {
	b = append(append(b, codecVersion), g.Device[:]...)
	b = appendString(b, g.Group)
	b = appendRef(b, g.Ref)
	b = binary.BigEndian.AppendUint64(b, uint64(g.Generation))
	b = append(append(b, g.Manifest[:]...), g.HashOfHashes[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(g.Expires.Unix()))
}

// ParseGrant reads what [AppendGrant] wrote, without a signature.
func ParseGrant(b []byte) (Grant, error) {
	var g Grant
	r := reader{b: b}
	r.version()
	copy(g.Device[:], r.take(len(g.Device)))
	g.Group = r.label()
	g.Ref = r.ref()
	g.Generation = r.i64()
	copy(g.Manifest[:], r.take(len(g.Manifest)))
	copy(g.HashOfHashes[:], r.take(len(g.HashOfHashes)))
	g.Expires = time.Unix(r.i64(), 0)
	if err := r.done(); err != nil {
		return Grant{}, fmt.Errorf("identity: grant: %w", err)
	}
	return g, nil
}

// SignGrant returns g with its signature.
func SignGrant(key ed25519.PrivateKey, g Grant) []byte {
	return sign(key, grantPrefix, AppendGrant(nil, g))
}

// VerifyGrant returns the grant in b when one of keys signed it and it has not expired; with
// grace, which is for when no service answers, it lives [Grace] longer.
func VerifyGrant(keys []ed25519.PublicKey, b []byte, now time.Time, grace bool) (Grant, error) {
	body, err := openStatement(keys, grantPrefix, b)
	if err != nil {
		return Grant{}, fmt.Errorf("identity: grant: %w", err)
	}
	g, err := ParseGrant(body)
	if err != nil {
		return Grant{}, err
	}
	until := g.Expires
	if grace {
		until = until.Add(Grace)
	}
	if !now.Before(until) {
		return Grant{}, fmt.Errorf("identity: grant for %s expired on %s", g.Ref, g.Expires.UTC().Format(time.RFC3339))
	}
	return g, nil
}

func openStatement(keys []ed25519.PublicKey, prefix string, b []byte) ([]byte, error) {
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(b), MaxStatement)
	}
	return open(keys, prefix, b)
}

// Ticket is the permission for one publish of one content at one distribution point.
type Ticket struct {
	Nonce   [16]byte      // names the ticket, so that it is used once
	Origin  wire.DeviceID // the distribution point; zero: any
	Ref     content.Ref   // with its version
	Groups  []string      // who may read it; empty: all groups
	Expires time.Time     // whole seconds
}

// AppendTicket appends what of t is signed. t has at most 48 groups, and they and Ref pass
// their checks.
func AppendTicket(b []byte, t Ticket) []byte {
	b = append(b, codecVersion)
	b = append(append(b, t.Nonce[:]...), t.Origin[:]...)
	b = appendRef(b, t.Ref)
	b = append(b, byte(len(t.Groups)))
	for _, g := range t.Groups {
		b = appendString(b, g)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
}

// ParseTicket reads what [AppendTicket] wrote, without a signature.
func ParseTicket(b []byte) (Ticket, error) {
	var t Ticket
	r := reader{b: b}
	r.version()
	copy(t.Nonce[:], r.take(len(t.Nonce)))
	copy(t.Origin[:], r.take(len(t.Origin)))
	t.Ref = r.ref()
	n := int(r.u8())
	if n > maxGroups {
		r.fail(fmt.Errorf("%d groups, at most %d are allowed", n, maxGroups))
		n = 0
	}
	for range n {
		t.Groups = append(t.Groups, r.label())
	}
	t.Expires = time.Unix(r.i64(), 0)
	if err := r.done(); err != nil {
		return Ticket{}, fmt.Errorf("identity: ticket: %w", err)
	}
	return t, nil
}

// SignTicket returns t with its signature. A zero nonce is drawn.
func SignTicket(key ed25519.PrivateKey, t Ticket) ([]byte, error) {
	return signTicket(key, ticketPrefix, t)
}

// SignInquiry is SignTicket for an administrator who asks a distribution point to make sure of a
// content: what it signs permits no publish, and no ticket permits that.
func SignInquiry(key ed25519.PrivateKey, t Ticket) ([]byte, error) {
	return signTicket(key, askPrefix, t)
}

func signTicket(key ed25519.PrivateKey, prefix string, t Ticket) ([]byte, error) {
	if len(t.Groups) > maxGroups {
		return nil, fmt.Errorf("identity: ticket for %s: %d groups, at most %d are allowed", t.Ref, len(t.Groups), maxGroups)
	}
	if t.Nonce == ([16]byte{}) {
		rand.Read(t.Nonce[:]) // never fails
	}
	body := AppendTicket(nil, t)
	if _, err := ParseTicket(body); err != nil {
		return nil, err
	}
	return sign(key, prefix, body), nil
}

// VerifyTicket returns the ticket in b when one of keys signed it and it has not expired.
// That it is for this distribution point and used once is the caller's to check.
func VerifyTicket(keys []ed25519.PublicKey, b []byte, now time.Time) (Ticket, error) {
	return verifyTicket(keys, ticketPrefix, b, now)
}

// VerifyInquiry is VerifyTicket for what [SignInquiry] signed; it may be used more than once.
func VerifyInquiry(keys []ed25519.PublicKey, b []byte, now time.Time) (Ticket, error) {
	return verifyTicket(keys, askPrefix, b, now)
}

func verifyTicket(keys []ed25519.PublicKey, prefix string, b []byte, now time.Time) (Ticket, error) {
	body, err := openStatement(keys, prefix, b)
	if err != nil {
		return Ticket{}, fmt.Errorf("identity: ticket: %w", err)
	}
	t, err := ParseTicket(body)
	if err != nil {
		return Ticket{}, err
	}
	if !now.Before(t.Expires) {
		return Ticket{}, fmt.Errorf("identity: ticket for %s expired on %s; publish or ask again for a new one", t.Ref, t.Expires.UTC().Format(time.RFC3339))
	}
	return t, nil
}

func appendRef(b []byte, r content.Ref) []byte {
	return binary.BigEndian.AppendUint64(appendString(b, string(r.ID)), r.Version)
}

func (r *reader) ref() content.Ref {
	id, err := content.ParseID(r.str())
	if err != nil {
		r.fail(err)
	}
	v := r.i64()
	if v <= 0 {
		r.fail(errors.New("version is not a number from 1"))
	}
	return content.Ref{ID: id, Version: uint64(v)}
}

func (r *reader) label() string {
	s := r.str()
	if err := CheckLabel(s); err != nil {
		r.fail(err)
	}
	return s
}

// GrantKey returns the key in dir that signs grants, tickets and deny lists; it is made at
// first use.
func GrantKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, grantKeyFile)
	key, _, err := readPEM(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newGrantKey(path)
	}
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity: %q holds no Ed25519 key", path)
	}
	return ed, nil
}

func newGrantKey(path string) (ed25519.PrivateKey, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("identity: make grant key: %w", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: make grant key: %w", err)
	}
	b, err := appendKey(nil, key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, b)
}

// ParseGrantKeys checks the Ed25519 public keys of an api.KeyValue or api.Enrolment.
func ParseGrantKeys(raw [][]byte) ([]ed25519.PublicKey, error) {
	keys := make([]ed25519.PublicKey, 0, len(raw))
	for _, k := range raw {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("identity: grant key of %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
		keys = append(keys, slices.Clone(k))
	}
	return keys, nil
}
