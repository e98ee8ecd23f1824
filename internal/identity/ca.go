package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const rootLife = 10 * 365 * 24 * time.Hour // of the root and its intermediates

// Files of a CA's directory. The root's key is needed only to make another intermediate.
const (
	rootFile    = "root.pem"
	devicesFile = "devices.pem"
	serversFile = "servers.pem"
)

// CA is the fleet's certificate authority. It is immutable and safe for concurrent use.
type CA struct {
	fleet   string
	root    *x509.Certificate
	devices issuer // of devices and origins
	servers issuer
	now     func() time.Time
}

// issuer is a certificate that signs others.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CreateCA makes the authority of a new fleet in dir, which it creates. It refuses a
// directory that has one.
func CreateCA(dir, fleet string) (*CA, error) {
	if err := CheckLabel(fleet); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: create CA: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, rootFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity: create CA in %q: there is one already; open it, or choose another directory", dir)
	}
	ca, rootKey, err := newCA(fleet, time.Now)
	if err != nil {
		return nil, err
	}
	// The root last: it is what says that the directory holds an authority.
	for _, f := range []struct {
		name string
		is   issuer
	}{{devicesFile, ca.devices}, {serversFile, ca.servers}, {rootFile, issuer{ca.root, rootKey}}} {
		if err := writeIssuer(filepath.Join(dir, f.name), f.is); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// newCA makes an authority in memory.
func newCA(fleet string, now func() time.Time) (*CA, *ecdsa.PrivateKey, error) {
	ca := &CA{fleet: fleet, now: now}
	root, err := newIssuer(issuer{}, ca.authority("root", 1), now())
	if err != nil {
		return nil, nil, err
	}
	ca.root = root.cert
	tmpl := ca.authority("devices", 0)
	tmpl.PermittedDNSDomains = []string{RoleDevice.DNSName(), RoleOrigin.DNSName()}
	if ca.devices, err = newIssuer(root, tmpl, now()); err != nil {
		return nil, nil, err
	}
	tmpl = ca.authority("servers", 0)
	tmpl.PermittedDNSDomains = []string{RoleServer.DNSName()}
	if ca.servers, err = newIssuer(root, tmpl, now()); err != nil {
		return nil, nil, err
	}
	return ca, root.key, nil
}

// authority returns the template of a root (pathLen 1) or an intermediate (0).
func (ca *CA) authority(what string, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		Subject:                     pkix.Name{Organization: []string{ca.fleet}, CommonName: "freshet " + what},
		NotAfter:                    ca.now().Add(rootLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLen:                  pathLen,
		MaxPathLenZero:              pathLen == 0,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
	}
}

// newIssuer makes a key and has parent sign its certificate; without a parent it signs itself.
func newIssuer(parent issuer, tmpl *x509.Certificate, now time.Time) (issuer, error) {
	key, err := NewKey()
	if err != nil {
		return issuer{}, err
	}
	if parent.cert == nil {
		parent = issuer{tmpl, key}
	}
	der, err := parent.sign(tmpl, &key.PublicKey, now)
	if err != nil {
		return issuer{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return issuer{}, fmt.Errorf("identity: parse new certificate: %w", err)
	}
	return issuer{cert, key}, nil
}

// sign fills in serial number and NotBefore and signs.
func (is issuer) sign(tmpl *x509.Certificate, pub *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("identity: serial number: %w", err)
	}
	tmpl.SerialNumber = serial.Add(serial, big.NewInt(1))
	tmpl.NotBefore = now.Add(-backdate)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, is.cert, pub, is.key)
	if err != nil {
		return nil, fmt.Errorf("identity: sign certificate: %w", err)
	}
	return der, nil
}

func writeIssuer(path string, is issuer) error {
	b, err := appendKey(nil, is.key)
	if err != nil {
		return err
	}
	return writeFile(path, appendCerts(b, [][]byte{is.cert.Raw}))
}

// OpenCA opens the authority that [CreateCA] made in dir. The error is fs.ErrNotExist when
// there is none.
func OpenCA(dir string) (*CA, error) {
	root, err := readIssuer(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, err
	}
	if len(root.cert.Subject.Organization) != 1 {
		return nil, fmt.Errorf("identity: root certificate in %q names no fleet", dir)
	}
	ca := &CA{fleet: root.cert.Subject.Organization[0], root: root.cert, now: time.Now}
	if ca.devices, err = readIssuer(filepath.Join(dir, devicesFile)); err != nil {
		return nil, err
	}
	if ca.servers, err = readIssuer(filepath.Join(dir, serversFile)); err != nil {
		return nil, err
	}
	for _, is := range []issuer{ca.devices, ca.servers} {
		if err := is.cert.CheckSignatureFrom(root.cert); err != nil {
			return nil, fmt.Errorf("identity: open CA in %q: intermediate %q is not of this root: %w", dir, is.cert.Subject.CommonName, err)
		}
	}
	return ca, nil
}

func readIssuer(path string) (issuer, error) {
	key, ders, err := readPEM(path)
	if err != nil {
		return issuer{}, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || len(ders) != 1 {
		return issuer{}, fmt.Errorf("identity: %q does not hold one ECDSA key and its certificate", path)
	}
	cert, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return issuer{}, fmt.Errorf("identity: certificate in %q: %w", path, err)
	}
	if !ec.PublicKey.Equal(cert.PublicKey) {
		return issuer{}, fmt.Errorf("identity: key and certificate in %q do not belong together", path)
	}
	return issuer{cert, ec}, nil
}

// Fleet returns the fleet's name.
func (ca *CA) Fleet() string { return ca.fleet }

// Roots returns what the fleet's members trust, DER.
func (ca *CA) Roots() [][]byte { return [][]byte{ca.root.Raw} }

// Fingerprint returns the hex SHA-256 of the root.
func (ca *CA) Fingerprint() string { return fingerprint(ca.root.Raw) }

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Issue signs a certificate for n and the key of the request; whatever else the request says
// is ignored. The chain is leaf first, without the root. An empty n.Fleet is this fleet.
func (ca *CA) Issue(csrDER []byte, n Name) (chain [][]byte, err error) {
	if n.Fleet == "" {
		n.Fleet = ca.fleet
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	if n.Fleet != ca.fleet {
		return nil, fmt.Errorf("identity: issue certificate: fleet %q is not %q", n.Fleet, ca.fleet)
	}
	pub, err := requestKey(csrDER)
	if err != nil {
		return nil, err
	}
	uri, err := n.uri()
	if err != nil {
		return nil, err
	}
	by := ca.devices
	if n.Role == RoleServer {
		by = ca.servers
	}
	leaf := &x509.Certificate{
		Subject:               pkix.Name{CommonName: n.Device.String()},
		NotAfter:              ca.now().Add(CertificateLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              []string{n.Role.DNSName()},
	}
	leaf.URIs = append(leaf.URIs, uri)
	der, err := by.sign(leaf, pub, ca.now())
	if err != nil {
		return nil, err
	}
	return [][]byte{der, by.cert.Raw}, nil
}

// requestKey checks a certificate request's own signature and returns its key, which must be
// ECDSA on P-256.
func requestKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("identity: certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("identity: certificate request: the key is not ECDSA on P-256")
	}
	return pub, nil
}

// IssueCredentials makes a key and a certificate for n, for the server's own use and for tests.
func (ca *CA) IssueCredentials(n Name) (*Credentials, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := NewCSR(key)
	if err != nil {
		return nil, err
	}
	chain, err := ca.Issue(csr, n)
	if err != nil {
		return nil, err
	}
	return NewCredentials(key, chain, ca.Roots())
}

// Renewal says who may have a new certificate for the key of csrDER, on the strength of the
// old chain: it must be of this fleet, for the same key, and expired since at most
// [RenewGrace]. Whether its holder was revoked since, or belongs to another group now, is
// the caller's to look up.
func (ca *CA) Renewal(csrDER []byte, chain [][]byte) (Name, error) {
	pub, err := requestKey(csrDER)
	if err != nil {
		return Name{}, err
	}
	certs, err := parseChain(chain)
	if err != nil {
		return Name{}, err
	}
	leaf, now := certs[0], ca.now()
	if now.After(leaf.NotAfter.Add(RenewGrace)) {
		return Name{}, fmt.Errorf("identity: renew: the certificate expired on %s, more than %d days ago; enrol again with a join token",
			leaf.NotAfter.Format(time.DateOnly), int(RenewGrace.Hours()/24))
	}
	at := now
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	if err := verifyChain(certs, ca.pool(), at); err != nil {
		return Name{}, fmt.Errorf("identity: renew: %w", err)
	}
	if !pub.Equal(leaf.PublicKey) {
		return Name{}, errors.New("identity: renew: the request is for another key than the certificate's")
	}
	n, err := certName(leaf)
	if err != nil {
		return Name{}, err
	}
	if n.Fleet != ca.fleet {
		return Name{}, fmt.Errorf("identity: renew: fleet %q is not %q", n.Fleet, ca.fleet)
	}
	return n, nil
}

func (ca *CA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.root)
	return p
}

// verifyChain verifies certs, leaf first, for either end of a handshake.
func verifyChain(certs []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}
