package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptrace"
	"net/netip"
	"runtime"
	"testing"

	"freshet/internal/content"
	"freshet/internal/web"
)

// TestClient: requests of the client let their contexts hear, over connections of which the
// kernel keeps little where there is a way.
func TestClient(t *testing.T) {
	b, l := layoutOf(content.PieceSize)
	srv := serveBytes(t, b)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c := Client(&tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}, netip.Addr{})
	defer c.CloseIdleConnections()
	heard, kept := 0, false
	ctx := web.WithHeard(t.Context(), func() { heard++ })
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		kept = isBound(i.Conn)
	}})
	p := newPool(1)
	if err := New(c, srv.URL, nil).Fetch(ctx, l, 0, 1, p, func(_ int, b []byte) error { p.Put(b); return nil }); err != nil {
		t.Fatal(err)
	}
	if heard == 0 || kept != (runtime.GOOS == "linux") {
		t.Errorf("heard %d times, connection kept small: %v", heard, kept)
	}
}
