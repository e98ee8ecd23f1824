package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"freshet/internal/wire"
)

func TestCAIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := OpenCA(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("OpenCA of nothing: got %v, want fs.ErrNotExist", err)
	}
	made, err := CreateCA(dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreateCA(dir, "acme"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second CreateCA: got %v, want an error", err)
	}
	opened, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if opened.Fingerprint() != made.Fingerprint() || opened.Fleet() != "acme" {
		t.Errorf("opened %s of fleet %q, want %s of acme", opened.Fingerprint(), opened.Fleet(), made.Fingerprint())
	}
	checkPrivate(t, dir, 3)
	if _, err := opened.IssueCredentials(Name{Role: RoleServer, Device: device(1)}); err != nil {
		t.Error(err)
	}
	otherDir := filepath.Join(t.TempDir(), "ca")
	if _, err := CreateCA(otherDir, "acme"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(otherDir, serversFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, serversFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(dir); err == nil || !strings.Contains(err.Error(), "not of this root") {
		t.Errorf("foreign intermediate: got %v, want an error", err)
	}
}

// checkPrivate checks that dir holds n files that only their owner reads.
func checkPrivate(t *testing.T, dir string, n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != n {
		t.Fatalf("%q has %d entries, %v; want %d", dir, len(entries), err, n)
	}
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%q has mode %v, %v; want 0600", e.Name(), st.Mode(), err)
		}
	}
}

func TestIssueTakesOnlyTheKey(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	evil, err := url.Parse("freshet://acme/server//" + device(9).String())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"server.freshet"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{evil}, EmailAddresses: []string{"a@b.example"},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	want := Name{Fleet: "acme", Role: RoleDevice, Group: "lab", Device: device(1)}
	chain, err := ca.Issue(csr, want)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := certName(leaf); err != nil || got != want {
		t.Errorf("certificate says %v, %v; want %v", got, err, want)
	}
	if leaf.IsCA || len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || leaf.Subject.CommonName != want.Device.String() {
		t.Errorf("certificate took more than the key: CA %v, %v, %v, %q", leaf.IsCA, leaf.IPAddresses, leaf.EmailAddresses, leaf.Subject)
	}
	if got, want := leaf.NotAfter, start.Add(CertificateLife); !got.Equal(want) {
		t.Errorf("expires %v, want %v", got, want)
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	good := testCSR(t)
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, edKey)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384CSR, err := NewCSR(p384)
	if err != nil {
		t.Fatal(err)
	}
	dev := Name{Role: RoleDevice, Group: "lab", Device: device(1)}
	for name, tt := range map[string]struct {
		csr []byte
		n   Name
	}{
		"no request":         {nil, dev},
		"broken signature":   {broken, dev},
		"Ed25519":            {edCSR, dev},
		"P-384":              {p384CSR, dev},
		"no group":           {good, Name{Role: RoleDevice}},
		"group of a server":  {good, Name{Role: RoleServer, Group: "lab"}},
		"unknown role":       {good, Name{Role: "king", Group: "lab"}},
		"slash in the group": {good, Name{Role: RoleDevice, Group: "a/b"}},
		"another fleet":      {good, Name{Fleet: "umbrella", Role: RoleDevice, Group: "lab"}},
	} {
		if _, err := ca.Issue(tt.csr, tt.n); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func testCSR(t *testing.T) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestRenewal(t *testing.T) {
	c := &clock{start}
	ca, other := testCA(t, "acme", c), testCA(t, "acme", c)
	cr := testCredentials(t, ca, RoleDevice, device(1))
	stranger := testCredentials(t, other, RoleDevice, device(1))
	forged := forge(t, ca, ca.devices, RoleServer)
	csr := func(c *Credentials) []byte {
		b, err := c.CSR()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name  string
		after time.Duration
		csr   []byte
		chain [][]byte
		want  string // in the error; empty: none
	}{
		{"fresh", 0, csr(cr), cr.Chain(), ""},
		{"expired", CertificateLife + time.Hour, csr(cr), cr.Chain(), ""},
		{"last day", CertificateLife + RenewGrace - time.Hour, csr(cr), cr.Chain(), ""},
		{"too late", CertificateLife + RenewGrace + time.Hour, csr(cr), cr.Chain(), "enrol again"},
		{"another key", 0, testCSR(t), cr.Chain(), "another key"},
		{"another CA", 0, csr(stranger), stranger.Chain(), "unknown authority"},
		{"forged", 0, csr(forged), forged.Chain(), "not permitted"},
		{"no chain", 0, csr(cr), nil, "0 certificates"},
		{"no intermediate", 0, csr(cr), cr.Chain()[:1], "unknown authority"},
	}
	for _, tt := range tests {
		c.t = start.Add(tt.after)
		n, err := ca.Renewal(tt.csr, tt.chain)
		if tt.want == "" {
			if err != nil || n != cr.Name() {
				t.Errorf("%s: got %v, %v; want %v", tt.name, n, err, cr.Name())
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestCredentialsAreKept(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := LoadCredentials(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("LoadCredentials of nothing: got %v, want fs.ErrNotExist", err)
	}
	c := testCredentials(t, ca, RoleDevice, device(1)) // expired by now, which must not matter
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	checkPrivate(t, dir, 2)
	got, err := LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name() != c.Name() || !got.Expires().Equal(c.Expires()) || !got.key.Equal(c.key) {
		t.Errorf("loaded %v until %v, want %v until %v", got.Name(), got.Expires(), c.Name(), c.Expires())
	}
	if want := start.Add(CertificateLife / 2); !got.RenewAt().Equal(want) {
		t.Errorf("RenewAt %v, want %v", got.RenewAt(), want)
	}
	other := testCredentials(t, ca, RoleDevice, device(2))
	if err := c.Replace(other.Chain(), ca.Roots()); err == nil {
		t.Error("took a chain for another key")
	}
	csr, err := c.CSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Issue(csr, Name{Role: RoleDevice, Group: "lab", Device: device(3)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Replace(chain, ca.Roots()); err == nil || !strings.Contains(err.Error(), "not for") {
		t.Errorf("took a chain for another device: %v", err)
	}
}

func TestParseName(t *testing.T) {
	id := wire.DeviceID{1, 2, 3}
	for _, n := range []Name{
		{"acme", RoleDevice, "lab-1", id}, {"a.b_c-d", RoleOrigin, "", id}, {"acme", RoleServer, "", wire.DeviceID{}},
	} {
		if got, err := ParseName(n.String()); err != nil || got != n {
			t.Errorf("ParseName(%q) = %v, %v; want %v", n, got, err, n)
		}
	}
	hex := id.String()
	for _, s := range []string{
		"", "freshet://", "freshet://acme/device/lab/", "spiffe://acme/device/lab/" + hex, "freshet://acme/device//" + hex,
		"freshet://acme/server/lab/" + hex, "freshet://acme/device/lab/" + hex + "/", "freshet://acme/device/lab/" + hex + "?x",
		"freshet://acme/device/lab/AA" + hex[2:], "freshet://Acme/device/lab/" + hex,
		"freshet:///device/lab/" + hex, "freshet://acme/device/../" + hex, "freshet://acme/device/l%61b/" + hex,
	} {
		if n, err := ParseName(s); err == nil {
			t.Errorf("ParseName(%q) = %v, want an error", s, n)
		}
	}
}
