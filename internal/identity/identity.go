// Package identity says who is who in a fleet, and who may do what: the fleet's certificate
// authority, certificates and the TLS configurations made of them, tokens, grants, tickets
// and the deny list (design section 8).
//
// # Certificates
//
// A fleet has one root, which signs two intermediates: one for devices and origins, one for
// servers alone. X.509 name constraints hold each to the DNS names of its roles, so that
// standard verification refuses a server certificate from the wrong one. A leaf has
//
//	DNS SAN  ROLE.freshet                              device.freshet, origin.freshet, server.freshet
//	URI SAN  freshet://FLEET/ROLE/GROUP/DEVICEID       GROUP is empty but for devices
//
// and lives for [CertificateLife]. Its NotBefore lies [backdate] before its issue, so that a
// peer can verify it as of [Grace] ago while no service answers: then a certificate is good
// for [Grace] past its expiry (see [Credentials.SetGrace]).
//
// # Signed statements
//
// Grants, tickets, deny lists and LAN passes are binary, in one spelling each, and end with an Ed25519
// signature over a prefix that names the kind (so that no statement passes for another) and
// the bytes before the signature. Integers are big-endian; a string is u8 length | bytes.
//
//	grant      u8 1 | 16 device | string group | string contentId | u64 version | i64 generation
//	           | 32 manifest digest | 32 HashOfHashes | i64 expires (Unix s) | 64 signature
//	ticket     u8 1 | 16 nonce | 16 origin | string contentId | u64 version | u8 n | n strings: groups
//	           | i64 expires (Unix s) | 64 signature
//	deny list  u8 1 | i64 version | u32 n | n × 16 device, ascending | 64 signature
//	LAN pass   u8 1 | 16 device | 32 Ed25519 key | string group | i64 expires (Unix s) | 64 signature
//
// # Tokens
//
// One line of text, "freshet-KIND-" and the unpadded base64url of
//
//	u8 1 | u8 kind (1 admin, 2 publish, 3 origin, 4 join) | string fleet | string address
//	| i64 expires (Unix s) | 32 secret | u16 length | the fleet's root certificate, DER | 8 bytes of the SHA-256 of all before
//
// The root in the token is what its bearer trusts from then on; nothing is believed before.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"freshet/internal/wire"
)

// Lifetimes.
const (
	CertificateLife = 7 * 24 * time.Hour   // of a leaf; renewed at half life
	RenewGrace      = 180 * 24 * time.Hour // an expired certificate still renews for so long
	GrantLife       = 7 * 24 * time.Hour   // of a grant
	Grace           = 30 * 24 * time.Hour  // longer while no service answers
	backdate        = 31 * 24 * time.Hour  // Grace and a day for clocks that differ
)

// Role is what a certificate's holder does in the fleet.
type Role string

// The roles.
const (
	RoleDevice Role = "device"
	RoleOrigin Role = "origin"
	RoleServer Role = "server"
)

const (
	scheme    = "freshet"
	dnsSuffix = ".freshet"
	maxLabel  = 64 // characters of a fleet's or group's name
)

// DNSName returns the DNS SAN of every certificate with this role.
func (r Role) DNSName() string { return string(r) + dnsSuffix }

func (r Role) check() error {
	switch r {
	case RoleDevice, RoleOrigin, RoleServer:
		return nil
	}
	return fmt.Errorf("identity: role %q is not device, origin or server", r)
}

// Name is what a certificate says of its holder.
type Name struct {
	Fleet  string
	Role   Role
	Group  string // of a device; empty for origins and servers
	Device wire.DeviceID
}

// CheckLabel checks the name of a fleet or group: 1 to 64 lower-case letters, digits and
// . _ - characters, the first one a letter or digit.
func CheckLabel(s string) error {
	if len(s) == 0 || len(s) > maxLabel {
		return fmt.Errorf("identity: name %q must have 1 to %d characters", s, maxLabel)
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("identity: name %q: character %q is not allowed; use lower-case letters, digits and . _ -, a letter or digit first", s, c)
		}
	}
	return nil
}

func (n Name) check() error {
	if err := n.Role.check(); err != nil {
		return err
	}
	if err := CheckLabel(n.Fleet); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	if n.Role != RoleDevice {
		if n.Group != "" {
			return fmt.Errorf("identity: a certificate for role %q has group %q and must have none", n.Role, n.Group)
		}
		return nil
	}
	if err := CheckLabel(n.Group); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	return nil
}

// String returns the URI SAN.
func (n Name) String() string {
	return fmt.Sprintf("%s://%s/%s/%s/%s", scheme, n.Fleet, n.Role, n.Group, n.Device)
}

// ParseName reads a URI SAN, in the one spelling that [Name.String] writes.
func ParseName(s string) (Name, error) {
	rest, ok := strings.CutPrefix(s, scheme+"://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 {
		return Name{}, fmt.Errorf("identity: %q is not freshet://FLEET/ROLE/GROUP/DEVICE", s)
	}
	id, err := wire.ParseDeviceID(parts[3])
	if err != nil {
		return Name{}, fmt.Errorf("identity: name %q: %w", s, err)
	}
	n := Name{Fleet: parts[0], Role: Role(parts[1]), Group: parts[2], Device: id}
	if err := n.check(); err != nil {
		return Name{}, fmt.Errorf("name %q: %w", s, err)
	}
	if n.String() != s {
		return Name{}, fmt.Errorf("identity: name %q is not in its one spelling %q", s, n)
	}
	return n, nil
}

// ErrNoCertificate is returned by [PeerName] when the other end showed no certificate.
var ErrNoCertificate = errors.New("identity: the other end showed no certificate")

// PeerName returns what the verified certificate of the other end says. The configurations
// of [Credentials] have verified it before the connection carries anything.
func PeerName(cs tls.ConnectionState) (Name, error) {
	if len(cs.PeerCertificates) == 0 {
		return Name{}, ErrNoCertificate
	}
	if len(cs.VerifiedChains) == 0 {
		return Name{}, errors.New("identity: the other end's certificate was not verified")
	}
	return certName(cs.PeerCertificates[0])
}

// certName reads the names of a leaf: one URI SAN, and the DNS SAN of its role alone, which
// the intermediates' name constraints hold.
func certName(leaf *x509.Certificate) (Name, error) {
	if len(leaf.URIs) != 1 {
		return Name{}, fmt.Errorf("identity: certificate has %d URI names, want 1", len(leaf.URIs))
	}
	n, err := ParseName(leaf.URIs[0].String())
	if err != nil {
		return Name{}, err
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != n.Role.DNSName() {
		return Name{}, fmt.Errorf("identity: certificate for %s has DNS names %q, want %q", n, leaf.DNSNames, n.Role.DNSName())
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return Name{}, fmt.Errorf("identity: certificate for %s is not one to sign handshakes with", n)
	}
	return n, nil
}

func (n Name) uri() (*url.URL, error) {
	u, err := url.Parse(n.String())
	if err != nil {
		return nil, fmt.Errorf("identity: name %q: %w", n, err)
	}
	return u, nil
}
