package fetch

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"

	"freshet/internal/web"
)

// Client returns the client that origins are read with: that of package web, with requests
// that let their contexts hear, and connections of which the kernel keeps little.
//
// What a device has received and not used crosses the WAN once more when the device dies. The
// kernel lets that grow to many megabytes where the device is slower than its link. Here it
// keeps at most 512 KiB, or about twice what the link carries in a round trip where that is
// more. Systems other than Linux keep what they think best.
func Client(cfg *tls.Config, local netip.Addr) *http.Client {
	c := web.Client(cfg, local)
	t := c.Transport.(*http.Transport) // as package web makes it
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return bound(conn), nil
	}
	return Hearing(c)
}
