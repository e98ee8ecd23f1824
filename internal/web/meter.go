package web

import (
	"net"
	"net/netip"
)

// Meter counts the payload bytes of connections by the site at their other end, below TLS.
type Meter struct {
	received, sent *Counters
	siteOf         func(netip.Addr) string
}

// NewMeter registers freshet_wan_received_bytes_total and freshet_wan_sent_bytes_total, by
// site. siteOf is asked once for each connection, concurrently.
func NewMeter(m *Metrics, siteOf func(netip.Addr) string) *Meter {
	return &Meter{
		received: m.Counters("freshet_wan_received_bytes_total", "TCP payload received, by the site that sent it.", "site"),
		sent:     m.Counters("freshet_wan_sent_bytes_total", "TCP payload sent, by the site that it went to.", "site"),
		siteOf:   siteOf,
	}
}

// Listener returns ln with its connections counted.
func (m *Meter) Listener(ln net.Listener) net.Listener { return &meterListener{ln, m} }

// Sent returns the bytes sent to a site so far.
func (m *Meter) Sent(site string) int64 { return m.sent.With(site).Value() }

// Received returns the bytes received from a site so far.
func (m *Meter) Received(site string) int64 { return m.received.With(site).Value() }

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
	return &meterConn{c, l.m.received.With(site), l.m.sent.With(site)}, nil
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
	received, sent *Counter
}

func (c *meterConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(int64(n))
	return n, err
}

func (c *meterConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// NetConn returns the connection below.
func (c *meterConn) NetConn() net.Conn { return c.Conn }
