package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"freshet/internal/wire"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func testCA(t testing.TB, fleet string, c *clock) *CA {
	t.Helper()
	ca, _, err := newCA(fleet, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func device(n byte) wire.DeviceID { return wire.DeviceID{0: 0xd0, 15: n} }

func testCredentials(t *testing.T, ca *CA, role Role, id wire.DeviceID) *Credentials {
	t.Helper()
	n := Name{Role: role, Device: id}
	if role == RoleDevice {
		n.Group = "lab"
	}
	c, err := ca.IssueCredentials(n)
	if err != nil {
		t.Fatal(err)
	}
	c.now = ca.now
	return c
}

// connect shakes hands over loopback (a pipe has no room for the session tickets of a resumed
// handshake) and sends one byte each way; the errors are those of the server and the client.
func connect(t *testing.T, server, client *tls.Config) (ss, cs tls.ConnectionState, serr, cerr error) {
	t.Helper()
	a, b := loopback(t)
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		s := tls.Server(a, server)
		serr = exchange(s)
		ss = s.ConnectionState()
	}()
	c := tls.Client(b, client)
	cerr = exchange(c)
	cs = c.ConnectionState()
	b.Close()
	<-done
	return ss, cs, serr, cerr
}

// loopback returns both ends of a TCP connection.
func loopback(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// exchange writes and reads a byte. Reading takes in the session tickets as well.
func exchange(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte{1})
		wrote <- err
	}()
	_, err := io.ReadFull(c, make([]byte, 1))
	return errors.Join(err, <-wrote)
}

func TestPeersAreNamed(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	server := testCredentials(t, ca, RoleServer, device(1))
	dev := testCredentials(t, ca, RoleDevice, device(2))
	ss, cs, serr, cerr := connect(t, server.ServerConfig(ServerOptions{Roles: []Role{RoleDevice}}), dev.ClientConfig(RoleServer))
	if serr != nil || cerr != nil {
		t.Fatalf("server: %v, client: %v", serr, cerr)
	}
	if got, err := PeerName(ss); err != nil || got != dev.Name() {
		t.Errorf("server sees %v, %v; want %v", got, err, dev.Name())
	}
	if got, err := PeerName(cs); err != nil || got != server.Name() {
		t.Errorf("client sees %v, %v; want %v", got, err, server.Name())
	}
	if cs.Version != tls.VersionTLS13 {
		t.Errorf("version %x, want TLS 1.3", cs.Version)
	}
}

func TestHandshakesThatFail(t *testing.T) {
	c := &clock{start}
	ca, other := testCA(t, "acme", c), testCA(t, "acme", c)
	sister := *ca // another fleet under the same root, as an infrastructure of one's own may have it
	sister.fleet = "umbrella"

	server := testCredentials(t, ca, RoleServer, device(1))
	origin := testCredentials(t, ca, RoleOrigin, device(2))
	dev := testCredentials(t, ca, RoleDevice, device(3))
	peer := testCredentials(t, ca, RoleDevice, device(4))
	strangerServer := testCredentials(t, other, RoleServer, device(5))
	stranger := testCredentials(t, other, RoleDevice, device(6))
	stranger.roots = ca.Roots() // so that only the other end has cause to refuse
	sisterServer := testCredentials(t, &sister, RoleServer, device(7))
	sisterDevice := testCredentials(t, &sister, RoleDevice, device(8))
	sisterDevice.name.Fleet = "acme" // likewise
	denied := testCredentials(t, ca, RoleDevice, device(9))
	for _, cr := range []*Credentials{server, dev} {
		cr.SetDenied(func(id wire.DeviceID) bool { return id == denied.Name().Device })
	}
	past := *ca
	past.now = func() time.Time { return start.Add(-CertificateLife - time.Minute) }
	expired := testCredentials(t, &past, RoleDevice, device(10))
	expired.now = c.now
	forged := forge(t, ca, ca.devices, RoleServer)
	forgedByServers := forge(t, ca, ca.servers, RoleDevice)

	any := ServerOptions{}
	tests := []struct {
		name       string
		server     *tls.Config
		client     *tls.Config
		where, why string // which end says why
	}{
		{"device poses as server", dev.ServerConfig(any), peer.ClientConfig(RoleServer), "client", "server.freshet"},
		{"origin poses as server", origin.ServerConfig(any), peer.ClientConfig(RoleServer), "client", "server.freshet"},
		{"server poses as device", server.ServerConfig(any), peer.ClientConfig(RoleDevice), "client", "device.freshet"},
		{"devices' intermediate signs a server", forged.ServerConfig(any), dev.ClientConfig(RoleServer), "client", "not permitted"},
		{"servers' intermediate signs a device", server.ServerConfig(any), forgedByServers.ClientConfig(RoleServer), "server", "not permitted"},
		{"server of another CA", strangerServer.ServerConfig(any), dev.ClientConfig(RoleServer), "client", "unknown authority"},
		{"device of another CA", server.ServerConfig(any), stranger.ClientConfig(RoleServer), "server", "unknown authority"},
		{"server of another fleet", sisterServer.ServerConfig(any), dev.ClientConfig(RoleServer), "client", `of fleet "umbrella"`},
		{"device of another fleet", server.ServerConfig(any), sisterDevice.ClientConfig(RoleServer), "server", `of fleet "umbrella"`},
		{"role that may not call", server.ServerConfig(ServerOptions{Roles: []Role{RoleDevice}}), origin.ClientConfig(RoleServer), "server", `role "origin"`},
		{"no certificate", server.ServerConfig(any), bare(dev.ClientConfig(RoleServer)), "server", "didn't provide a certificate"},
		{"expired device", server.ServerConfig(any), expired.ClientConfig(RoleServer), "server", "expired"},
		{"expired device, certificate optional", server.ServerConfig(ServerOptions{Optional: true}), expired.ClientConfig(RoleServer), "server", "expired"},
		{"expired peer", expired.ServerConfig(any), dev.ClientConfig(RoleDevice), "client", "expired"},
		{"denied caller", server.ServerConfig(any), denied.ClientConfig(RoleServer), "server", "deny list"},
		{"denied peer", denied.ServerConfig(any), dev.ClientConfig(RoleDevice), "client", "deny list"},
		{"TLS 1.2", server.ServerConfig(any), tls12(dev.ClientConfig(RoleServer)), "server", "unsupported versions"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, serr, cerr := connect(t, tt.server, tt.client)
			err := serr
			if tt.where == "client" {
				err = cerr
			}
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("%s: got %v, want an error with %q (server %v, client %v)", tt.where, err, tt.why, serr, cerr)
			}
			if serr == nil || cerr == nil {
				t.Errorf("one end was content: server %v, client %v", serr, cerr)
			}
		})
	}
}

// forge has an intermediate sign a certificate for a role that it must not sign.
func forge(t *testing.T, ca *CA, by issuer, role Role) *Credentials {
	t.Helper()
	c := testCredentials(t, ca, role, device(66))
	uri, err := url.Parse(c.name.String())
	if err != nil {
		t.Fatal(err)
	}
	der, err := by.sign(&x509.Certificate{
		NotAfter: ca.now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: []string{role.DNSName()},
		URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &c.key.PublicKey, ca.now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.cert = &tls.Certificate{Certificate: [][]byte{der, by.cert.Raw}, PrivateKey: c.key, Leaf: leaf}
	return c
}

func bare(cfg *tls.Config) *tls.Config {
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	return cfg
}

func tls12(cfg *tls.Config) *tls.Config {
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return cfg
}

func TestOptionalCertificate(t *testing.T) {
	ca := testCA(t, "acme", &clock{start})
	server := testCredentials(t, ca, RoleServer, device(1))
	dev := testCredentials(t, ca, RoleDevice, device(2))
	cfg := server.ServerConfig(ServerOptions{Optional: true})
	ss, _, serr, cerr := connect(t, cfg, bare(dev.ClientConfig(RoleServer)))
	if serr != nil || cerr != nil {
		t.Fatalf("without a certificate: server %v, client %v", serr, cerr)
	}
	if _, err := PeerName(ss); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("PeerName: got %v, want ErrNoCertificate", err)
	}
	ss, _, serr, cerr = connect(t, cfg, dev.ClientConfig(RoleServer))
	if n, err := PeerName(ss); serr != nil || cerr != nil || err != nil || n != dev.Name() {
		t.Errorf("with one: name %v, %v; server %v, client %v", n, err, serr, cerr)
	}
}

func TestGrace(t *testing.T) {
	c := &clock{start}
	ca := testCA(t, "acme", c)
	listener := testCredentials(t, ca, RoleDevice, device(1))
	caller := testCredentials(t, ca, RoleDevice, device(2))
	server := testCredentials(t, ca, RoleServer, device(3))
	for _, tt := range []struct {
		name  string
		after time.Duration
		grace bool
		role  Role
		want  bool
	}{
		{"fresh, in grace", 0, true, RoleDevice, true},
		{"last moment", CertificateLife - time.Second, false, RoleDevice, true},
		{"expired", CertificateLife + time.Second, false, RoleDevice, false},
		{"expired, in grace", CertificateLife + time.Second, true, RoleDevice, true},
		{"last moment of grace", CertificateLife + Grace - time.Second, true, RoleDevice, true},
		{"after grace", CertificateLife + Grace + time.Second, true, RoleDevice, false},
		{"a server has no grace", CertificateLife + time.Second, true, RoleServer, false},
	} {
		c.t = start.Add(tt.after)
		at := listener
		if tt.role == RoleServer {
			at = server
		}
		at.SetGrace(tt.grace)
		caller.SetGrace(tt.grace)
		_, _, serr, cerr := connect(t, at.ServerConfig(ServerOptions{}), caller.ClientConfig(tt.role))
		if got := serr == nil && cerr == nil; got != tt.want {
			t.Errorf("%s: connected %v, want %v (server %v, client %v)", tt.name, got, tt.want, serr, cerr)
		}
	}
}

func TestResumptionAndRevocation(t *testing.T) {
	ca := testCA(t, "acme", &clock{time.Now()})
	server := testCredentials(t, ca, RoleServer, device(1))
	dev := testCredentials(t, ca, RoleDevice, device(2))
	scfg, ccfg := server.ServerConfig(ServerOptions{}), dev.ClientConfig(RoleServer)
	for i, want := range []bool{false, true} {
		_, cs, serr, cerr := connect(t, scfg, ccfg)
		if serr != nil || cerr != nil || cs.DidResume != want {
			t.Fatalf("connection %d: server %v, client %v, resumed %v, want %v", i, serr, cerr, cs.DidResume, want)
		}
	}
	server.SetDenied(func(id wire.DeviceID) bool { return id == dev.Name().Device })
	if _, _, serr, _ := connect(t, scfg, ccfg); serr == nil || !strings.Contains(serr.Error(), "deny list") {
		t.Errorf("a revoked device resumed its session: %v", serr)
	}
	server.SetDenied(nil)
	if _, _, serr, cerr := connect(t, scfg, ccfg); serr != nil || cerr != nil {
		t.Errorf("after the ban was lifted: server %v, client %v", serr, cerr)
	}
}

func TestRenewedChainIsUsedByOldConfigurations(t *testing.T) {
	c := &clock{start}
	ca := testCA(t, "acme", c)
	server := testCredentials(t, ca, RoleServer, device(1))
	dev := testCredentials(t, ca, RoleDevice, device(2))
	scfg, ccfg := server.ServerConfig(ServerOptions{}), dev.ClientConfig(RoleServer)
	c.t = start.Add(6 * 24 * time.Hour)
	renew(t, ca, server, server.Name())
	moved := dev.Name()
	moved.Group = "field"
	renew(t, ca, dev, moved)
	c.t = start.Add(10 * 24 * time.Hour)
	ss, _, serr, cerr := connect(t, scfg, ccfg)
	if serr != nil || cerr != nil {
		t.Fatalf("server %v, client %v", serr, cerr)
	}
	if got, err := PeerName(ss); err != nil || got != moved || dev.Name() != moved {
		t.Errorf("server sees %v, %v; credentials say %v; want %v", got, err, dev.Name(), moved)
	}
}

func renew(t *testing.T, ca *CA, c *Credentials, n Name) {
	t.Helper()
	csr, err := c.CSR()
	if err != nil {
		t.Fatal(err)
	}
	if old, err := ca.Renewal(csr, c.Chain()); err != nil || old != c.Name() {
		t.Fatalf("renewal names %v, %v; want %v", old, err, c.Name())
	}
	chain, err := ca.Issue(csr, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Replace(chain, ca.Roots()); err != nil {
		t.Fatal(err)
	}
}

func TestBearer(t *testing.T) {
	c := &clock{time.Now()}
	ca, other := testCA(t, "acme", c), testCA(t, "acme", c)
	sister := *ca
	sister.fleet = "umbrella"
	tok, err := ca.NewToken(TokenPublish, "127.0.0.1:7443", c.t.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := BearerConfig(tok, RoleServer)
	if err != nil {
		t.Fatal(err)
	}
	open := ServerOptions{Optional: true}
	if _, _, serr, cerr := connect(t, testCredentials(t, ca, RoleServer, device(1)).ServerConfig(open), cfg); serr != nil || cerr != nil {
		t.Errorf("server of the fleet: server %v, client %v", serr, cerr)
	}
	for name, cr := range map[string]*Credentials{
		"another CA":      testCredentials(t, other, RoleServer, device(1)),
		"a device":        testCredentials(t, ca, RoleDevice, device(2)),
		"a forged server": forge(t, ca, ca.devices, RoleServer),
		"another fleet":   testCredentials(t, &sister, RoleServer, device(3)),
	} {
		if _, _, _, cerr := connect(t, cr.ServerConfig(open), cfg); cerr == nil {
			t.Errorf("%s was believed", name)
		}
	}
}
