package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of tokens.
const (
	TokenAdmin   = "admin"
	TokenPublish = "publish"
	TokenOrigin  = "origin"
	TokenJoin    = "join"
)

const (
	tokenPrefix   = "freshet-"
	secretSize    = 32 // bytes
	checksumSize  = 8  // bytes
	maxTokenChars = 4096
)

// tokenKinds are the kinds in the order of their binary form, from 1, with what each is for.
var tokenKinds = []struct{ kind, use string }{
	{TokenAdmin, "administering the fleet"},
	{TokenPublish, "publishing"},
	{TokenOrigin, "joining as a distribution point"},
	{TokenJoin, "enrolling a device"},
}

func kindIndex(kind string) int {
	return slices.IndexFunc(tokenKinds, func(k struct{ kind, use string }) bool { return k.kind == kind })
}

// CheckTokenKind checks that kind is admin, publish, origin or join.
func CheckTokenKind(kind string) error {
	if kindIndex(kind) < 0 {
		return fmt.Errorf("identity: token kind %q is not admin, publish, origin or join", kind)
	}
	return nil
}

// Token lets its bearer do one kind of thing at a fleet's server. [Token.String] is the
// secret itself: it belongs into a file of mode 0600 and nowhere else.
type Token struct {
	Kind    string // admin, publish, origin or join
	Fleet   string
	Address string    // of the server, host:port
	Expires time.Time // whole seconds
	Secret  []byte    // 32 bytes
	Root    []byte    // the fleet's root certificate, DER
}

// NewToken draws a token of this fleet.
func (ca *CA) NewToken(kind, address string, expires time.Time) (Token, error) {
	t := Token{
		Kind: kind, Fleet: ca.fleet, Address: address, Expires: time.Unix(expires.Unix(), 0),
		Secret: make([]byte, secretSize), Root: ca.root.Raw,
	}
	rand.Read(t.Secret) // never fails
	return t, t.check()
}

func (t Token) check() error {
	if err := CheckTokenKind(t.Kind); err != nil {
		return err
	}
	if err := CheckLabel(t.Fleet); err != nil {
		return fmt.Errorf("token's fleet: %w", err)
	}
	if err := checkAddress(t.Address); err != nil {
		return err
	}
	if len(t.Secret) != secretSize {
		return fmt.Errorf("identity: token's secret has %d bytes, want %d", len(t.Secret), secretSize)
	}
	if _, err := x509.ParseCertificate(t.Root); err != nil {
		return fmt.Errorf("identity: token's root certificate: %w", err)
	}
	return nil
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > 255 || host == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("identity: address %q is not HOST:PORT", s)
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return fmt.Errorf("identity: address %q: port %q is not a number from 1 to 65535", s, port)
	}
	return nil
}

// CAFingerprint returns the hex SHA-256 of the fleet's root.
func (t Token) CAFingerprint() string { return fingerprint(t.Root) }

// String returns the token's one line of text, secret included.
func (t Token) String() string {
	return tokenPrefix + t.Kind + "-" + base64.RawURLEncoding.EncodeToString(appendToken(nil, t))
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", t.Kind), slog.String("fleet", t.Fleet),
		slog.String("address", t.Address), slog.Time("expires", t.Expires))
}

func appendToken(b []byte, t Token) []byte {
	at := len(b)
	b = append(b, codecVersion, byte(kindIndex(t.Kind)+1))
	b = appendString(appendString(b, t.Fleet), t.Address)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = append(b, t.Secret...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Root)))
	b = append(b, t.Root...)
	sum := sha256.Sum256(b[at:])
	return append(b, sum[:checksumSize]...)
}

// ParseToken reads a token's text; blanks around it are ignored. No error repeats the text.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	kind, text, found := strings.Cut(rest, "-")
	if !ok || !found || kindIndex(kind) < 0 {
		return Token{}, errors.New("identity: this is not a token: a token is one line that begins with freshet-admin-, freshet-publish-, freshet-origin- or freshet-join-")
	}
	if len(s) > maxTokenChars {
		return Token{}, fmt.Errorf("identity: %s token has %d characters, at most %d are allowed", kind, len(s), maxTokenChars)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil && strings.ContainsAny(text, "\r\n") {
		err = errors.New("line break")
	}
	if err != nil || len(b) < checksumSize || !checksumFits(b) {
		return Token{}, fmt.Errorf("identity: %s token of %d characters is truncated or altered; copy its whole line", kind, len(s))
	}
	t, err := parseToken(b[:len(b)-checksumSize])
	if err != nil {
		return Token{}, fmt.Errorf("identity: %s token: %w", kind, err)
	}
	if t.Kind != kind {
		return Token{}, fmt.Errorf("identity: token says that it is a %s token and is a %s token", kind, t.Kind)
	}
	return t, nil
}

func checksumFits(b []byte) bool {
	sum := sha256.Sum256(b[:len(b)-checksumSize])
	return bytes.Equal(sum[:checksumSize], b[len(b)-checksumSize:])
}

func parseToken(b []byte) (Token, error) {
	var t Token
	r := reader{b: b}
	r.version()
	if k := int(r.u8()); k >= 1 && k <= len(tokenKinds) {
		t.Kind = tokenKinds[k-1].kind
	} else {
		r.fail(fmt.Errorf("kind %d is unknown", k))
	}
	t.Fleet = r.str()
	t.Address = r.str()
	t.Expires = time.Unix(r.i64(), 0)
	t.Secret = bytes.Clone(r.take(secretSize))
	t.Root = bytes.Clone(r.take(r.u16()))
	if err := r.done(); err != nil {
		return Token{}, err
	}
	return t, t.check()
}

// ReadToken reads the token in a file.
func ReadToken(path string) (Token, error) {
	b, err := readFile(path)
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	t, err := ParseToken(string(b))
	if err != nil {
		return Token{}, fmt.Errorf("read token from %q: %w", path, err)
	}
	return t, nil
}

// WriteToken writes the token's line into a file, readable by its owner alone.
func WriteToken(path string, t Token) error { return writeFile(path, []byte(t.String()+"\n")) }

// Require returns an error when the token is not of this kind, or has expired.
func (t Token) Require(kind string, now time.Time) error {
	if err := WrongKind(t.Kind, kind); err != nil {
		return err
	}
	if !now.Before(t.Expires) {
		return fmt.Errorf("identity: this %s token expired on %s; an administrator makes a new one with \"freshet token add\"",
			t.Kind, t.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// WrongKind returns an error when a token of kind have is shown where want is needed. An
// admin token does not stand for another kind.
func WrongKind(have, want string) error {
	if have == want {
		return nil
	}
	use := "this"
	if i := kindIndex(want); i >= 0 {
		use = tokenKinds[i].use
	}
	return fmt.Errorf("identity: this is %s %s token; %s takes %s %s token", article(have), have, use, article(want), want)
}

func article(kind string) string {
	if strings.ContainsRune("aeiou", rune((kind + " ")[0])) {
		return "an"
	}
	return "a"
}

// TokenHash is all of a token that a server keeps: the SHA-256 of its secret, which has
// 256 random bits and so needs no salt.
type TokenHash [sha256.Size]byte

// HashSecret returns the hash of a token's secret.
func HashSecret(secret []byte) TokenHash { return sha256.Sum256(secret) }

// Matches compares in constant time.
func (h TokenHash) Matches(secret []byte) bool {
	got := HashSecret(secret)
	return subtle.ConstantTimeCompare(h[:], got[:]) == 1
}

// String returns lower-case hex.
func (h TokenHash) String() string { return hex.EncodeToString(h[:]) }

// ID returns 12 hex digits that name the token to people.
func (h TokenHash) ID() string { return hex.EncodeToString(h[:6]) }

// Authorization returns the value of the Authorization header that shows the token.
func (t Token) Authorization() string {
	return "Bearer " + base64.RawURLEncoding.EncodeToString(t.Secret)
}

// ParseAuthorization returns the secret of an Authorization header. No error repeats it.
func ParseAuthorization(header string) ([]byte, error) {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, errors.New("identity: the call needs a token: header \"Authorization: Bearer …\"")
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != secretSize {
		return nil, errors.New("identity: the Authorization header holds no token's secret")
	}
	return secret, nil
}
