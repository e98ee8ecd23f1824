package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

const sessionCache = 32 // TLS sessions kept for resumption, per configuration

// ServerOptions say who may connect.
type ServerOptions struct {
	Roles    []Role // of the callers; empty: any role
	Optional bool   // a caller may show no certificate; one that is shown must be good
}

// ServerConfig returns the configuration of a listener: TLS 1.3, callers of this fleet alone.
func (c *Credentials) ServerConfig(opt ServerOptions) *tls.Config {
	cfg := c.config(true)
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil }
	cfg.ClientCAs = c.pool()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if opt.Optional {
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	roles := slices.Clone(opt.Roles)
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if opt.Optional && len(cs.PeerCertificates) == 0 {
			return nil
		}
		return c.admit(cs, roles)
	}
	return cfg
}

// ClientConfig returns the configuration to call holders of role want with: TLS 1.3, own
// certificate shown when asked for. ServerName is fixed to the role's DNS name, so that
// standard verification checks the role; the URI SAN is checked besides.
func (c *Credentials) ClientConfig(want Role) *tls.Config {
	cfg := c.config(want != RoleServer)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.current(), nil }
	cfg.RootCAs = c.pool()
	cfg.ServerName = want.DNSName()
	cfg.VerifyConnection = func(cs tls.ConnectionState) error { return c.admit(cs, []Role{want}) }
	if want != RoleDevice {
		// Sessions are kept by ServerName: good for the few servers and origins, useless for many devices.
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(sessionCache)
	}
	return cfg
}

func (c *Credentials) config(mayGrace bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time: func() time.Time {
			if mayGrace && c.grace.Load() {
				return c.now().Add(-Grace)
			}
			return c.now()
		},
	}
}

// pool returns the roots, which were checked when they were taken.
func (c *Credentials) pool() *x509.CertPool {
	pool, err := rootPool(c.Roots())
	if err != nil {
		panic("identity: checked roots do not parse: " + err.Error())
	}
	return pool
}

// admit decides on a verified connection, new or resumed.
func (c *Credentials) admit(cs tls.ConnectionState, roles []Role) error {
	n, err := admitName(cs, c.Name().Fleet, roles)
	if err != nil {
		return err
	}
	if denied := c.deny.Load(); denied != nil && (*denied)(n.Device) {
		return fmt.Errorf("identity: %s %s is on the deny list", n.Role, n.Device)
	}
	return nil
}

func admitName(cs tls.ConnectionState, fleet string, roles []Role) (Name, error) {
	n, err := PeerName(cs)
	if err != nil {
		return Name{}, err
	}
	if n.Fleet != fleet {
		return Name{}, fmt.Errorf("identity: the other end is of fleet %q, not %q", n.Fleet, fleet)
	}
	if len(roles) > 0 && !slices.Contains(roles, n.Role) {
		return Name{}, fmt.Errorf("identity: the other end has role %q, want %q", n.Role, roles)
	}
	return n, nil
}

// BearerConfig returns the configuration of a caller that has a token and no certificate:
// it trusts the token's root alone and wants the other end to have role want.
func BearerConfig(t Token, want Role) (*tls.Config, error) {
	pool, err := rootPool([][]byte{t.Root})
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if err := want.check(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		RootCAs:            pool,
		ServerName:         want.DNSName(),
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := admitName(cs, t.Fleet, []Role{want})
			return err
		},
	}, nil
}
