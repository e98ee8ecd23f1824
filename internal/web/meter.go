package web

import (
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

// Meter counts the payload bytes of connections by the site at their other end, below TLS.
type Meter struct {
	received, sent *prometheus.CounterVec
	siteOf         func(netip.Addr) string
}

// NewMeter registers freshet_wan_received_bytes_total and freshet_wan_sent_bytes_total, by
// site; it panics when m has them already. siteOf is asked once for each connection,
// concurrently. Its names come from configuration, never from strangers: each is kept as long
// as the process lives.
func NewMeter(m *Metrics, siteOf func(netip.Addr) string) *Meter {
	bytes := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"site"})
		m.MustRegister(c)
		return c
	}
	return &Meter{
		received: bytes("freshet_wan_received_bytes_total", "TCP payload received, by the site that sent it."),
		sent:     bytes("freshet_wan_sent_bytes_total", "TCP payload sent, by the site that it went to."),
		siteOf:   siteOf,
	}
}

// Listener returns ln with its connections counted.
func (m *Meter) Listener(ln net.Listener) net.Listener { return &meterListener{ln, m} }

type meterListener struct {
	net.Listener
	m *Meter
}

func (l *meterListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	site := l.m.siteOf(remoteAddr(c))
	return &meterConn{c, l.m.received.WithLabelValues(site), l.m.sent.WithLabelValues(site)}, nil
}

// remoteAddr returns the other end's address, never an IPv4 one mapped into IPv6; the zero
// Addr when the connection has none.
func remoteAddr(c net.Conn) netip.Addr {
	switch a := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case nil:
		return netip.Addr{}
	default:
		ap, err := netip.ParseAddrPort(a.String())
		if err != nil {
			return netip.Addr{}
		}
		return ap.Addr().Unmap().WithZone("")
	}
}

type meterConn struct {
	net.Conn
	received, sent prometheus.Counter
}

func (c *meterConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(float64(n))
	return n, err
}

func (c *meterConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(float64(n))
	return n, err
}

// NetConn returns the connection below.
func (c *meterConn) NetConn() net.Conn { return c.Conn }
