package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/wire"
)

// Files of a credentials directory, in forms that other TLS tools read.
const (
	identityFile = "identity.pem" // key, then the chain, leaf first
	rootsFile    = "roots.pem"
	deniedFile   = "denied" // the fleet's deny list, signed; see Denials
)

// NewKey makes a private key for a certificate.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: generate key: %w", err)
	}
	return key, nil
}

// NewCSR returns a certificate request, DER, that says nothing but the key.
func NewCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate request: %w", err)
	}
	return der, nil
}

// Credentials are a private key, the chain that names its holder, and the roots that it
// trusts. They are safe for concurrent use: configurations made of them take a renewed chain
// and a new deny list from the next handshake on.
type Credentials struct {
	key   *ecdsa.PrivateKey
	now   func() time.Time
	grace atomic.Bool
	deny  atomic.Pointer[func(wire.DeviceID) bool]

	mu    sync.RWMutex // guards the following
	cert  *tls.Certificate
	name  Name
	roots [][]byte
}

// NewCredentials puts credentials together and checks that the chain, leaf first, is for key
// and leads to one of the roots. A chain that has expired is taken, since it still renews.
func NewCredentials(key *ecdsa.PrivateKey, chain, roots [][]byte) (*Credentials, error) {
	c := &Credentials{key: key, now: time.Now}
	cert, name, err := c.check(chain, roots)
	if err != nil {
		return nil, err
	}
	c.cert, c.name, c.roots = cert, name, cloneDER(roots)
	return c, nil
}

func cloneDER(ders [][]byte) [][]byte {
	out := make([][]byte, len(ders))
	for i, d := range ders {
		out[i] = slices.Clone(d)
	}
	return out
}

func (c *Credentials) check(chain, roots [][]byte) (*tls.Certificate, Name, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, Name{}, err
	}
	pool, err := rootPool(roots)
	if err != nil {
		return nil, Name{}, err
	}
	if !c.key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, Name{}, errors.New("identity: the certificate is not for this key")
	}
	if err := verifyChain(certs, pool, certs[0].NotAfter); err != nil {
		return nil, Name{}, fmt.Errorf("identity: own certificate: %w", err)
	}
	name, err := certName(certs[0])
	if err != nil {
		return nil, Name{}, err
	}
	return &tls.Certificate{Certificate: cloneDER(chain), PrivateKey: c.key, Leaf: certs[0]}, name, nil
}

func rootPool(roots [][]byte) (*x509.CertPool, error) {
	certs, err := parseChain(roots)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	pool := x509.NewCertPool()
	for _, r := range certs {
		pool.AddCert(r)
	}
	return pool, nil
}

// LoadCredentials reads what [Credentials.Save] wrote. The error is fs.ErrNotExist when the
// directory holds none.
func LoadCredentials(dir string) (*Credentials, error) {
	path := filepath.Join(dir, identityFile)
	key, chain, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity: %q holds no ECDSA key; remove it and enrol again", path)
	}
	_, roots, err := readPEM(filepath.Join(dir, rootsFile))
	if err != nil {
		return nil, err
	}
	c, err := NewCredentials(ec, chain, roots)
	if err != nil {
		return nil, fmt.Errorf("load credentials from %q: %w", dir, err)
	}
	return c, nil
}

// Save writes the credentials into dir, which it creates, readable by its owner alone.
func (c *Credentials) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: save credentials: %w", err)
	}
	c.mu.RLock()
	chain, roots := c.cert.Certificate, c.roots
	c.mu.RUnlock()
	b, err := appendKey(nil, c.key)
	if err != nil {
		return err
	}
	// Roots first: new roots serve the old chain too, the other way round they may not.
	if err := writeFile(filepath.Join(dir, rootsFile), appendCerts(nil, roots)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, identityFile), appendCerts(b, chain))
}

// Replace takes a renewed chain: of the same key, fleet, role and device. The group may be
// another one. Configurations that exist keep the roots that they were made with.
func (c *Credentials) Replace(chain, roots [][]byte) error {
	cert, name, err := c.check(chain, roots)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.name
	if name.Fleet != old.Fleet || name.Role != old.Role || name.Device != old.Device {
		return fmt.Errorf("identity: renewed certificate is for %s, not for %s", name, old)
	}
	c.cert, c.name, c.roots = cert, name, cloneDER(roots)
	return nil
}

// Name returns what the certificate says.
func (c *Credentials) Name() Name {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.name
}

// Chain returns the certificates, DER, leaf first. The caller must not change them.
func (c *Credentials) Chain() [][]byte { return c.current().Certificate }

// Roots returns the trusted roots, DER. The caller must not change them.
func (c *Credentials) Roots() [][]byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.roots
}

// CSR returns a certificate request for the same key, to renew with.
func (c *Credentials) CSR() ([]byte, error) { return NewCSR(c.key) }

// Expires returns when the certificate expires.
func (c *Credentials) Expires() time.Time { return c.current().Leaf.NotAfter }

// RenewAt returns half of the certificate's life, when it ought to be renewed.
func (c *Credentials) RenewAt() time.Time { return c.Expires().Add(-CertificateLife / 2) }

// SetGrace says whether certificates of devices and origins are accepted for [Grace] past
// their expiry; true while no service answers. Certificates of servers never are.
func (c *Credentials) SetGrace(on bool) { c.grace.Store(on) }

// InGrace reports what [Credentials.SetGrace] said last.
func (c *Credentials) InGrace() bool { return c.grace.Load() }

// SetDenied gives the deny list: handshakes with certificates for which denied returns true
// fail, resumed ones too. It is called concurrently. nil denies nobody.
func (c *Credentials) SetDenied(denied func(wire.DeviceID) bool) {
	if denied == nil {
		c.deny.Store(nil)
		return
	}
	c.deny.Store(&denied)
}

// Denied reports whether a device is on the deny list.
func (c *Credentials) Denied(d wire.DeviceID) bool {
	denied := c.deny.Load()
	return denied != nil && (*denied)(d)
}

func (c *Credentials) current() *tls.Certificate {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cert
}
