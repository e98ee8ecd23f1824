package web

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Limits of the client.
const (
	dialTimeout   = 3 * time.Second // a second SYN, and its answer
	tlsTimeout    = 10 * time.Second
	replyTimeout  = 30 * time.Second // from the request's end to the reply's header
	keepIdle      = 90 * time.Second
	maxIdleHost   = 8
	maxRedirects  = 5
	maxReplyHead  = 64 << 10
	connBufferLen = 64 << 10 // bytes read from or written to a connection at once
)

// Client returns an HTTP/1.1 client with keep-alive that uses cfg for https and binds local
// when it is valid. It follows at most 5 redirects, none from https to http, and none to
// another host when the request has credentials. The reply's body has no timeout; give the
// request a context.
func Client(cfg *tls.Config, local netip.Addr) *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        cfg,
			TLSHandshakeTimeout:    tlsTimeout,
			ResponseHeaderTimeout:  replyTimeout,
			IdleConnTimeout:        keepIdle,
			MaxIdleConnsPerHost:    maxIdleHost,
			MaxResponseHeaderBytes: maxReplyHead,
			ReadBufferSize:         connBufferLen,
			WriteBufferSize:        connBufferLen,
			DisableCompression:     true,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2
		},
		CheckRedirect: checkRedirect,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > maxRedirects {
		return fmt.Errorf("web: more than %d redirects from %s", maxRedirects, first.URL.Host)
	}
	if first.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("web: redirect from https://%s to %s://%s refused", first.URL.Host, req.URL.Scheme, req.URL.Host)
	}
	if req.URL.Host != first.URL.Host && hasCredentials(first.Header) {
		return fmt.Errorf("web: redirect from %s to %s refused: the request has credentials", first.URL.Host, req.URL.Host)
	}
	return nil
}

// hasCredentials knows the standard headers and freshet's own, which all begin alike.
func hasCredentials(h http.Header) bool {
	for k := range h {
		if k == "Authorization" || k == "Cookie" || strings.HasPrefix(k, "Freshet-") {
			return true
		}
	}
	return false
}
