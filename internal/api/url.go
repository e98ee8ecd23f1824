package api

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxURL is the most bytes of a URL that a content is known by, before and after [NormalURL].
const MaxURL = 2048

// NormalURL returns the one spelling of a URL that a content is known by: scheme and host in
// lower case, no default port, no fragment, "/" for an empty path; path and query stay, but
// for bytes that cannot stand in a URL, which are escaped. It is its own fixed point.
//
// Only http and https are taken, and no user name or password: a catalog is no place for them.
func NormalURL(s string) (string, error) {
	if len(s) > MaxURL {
		return "", fmt.Errorf("the URL has %d bytes, at most %d are taken", len(s), MaxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may hold a password
		}
		return "", fmt.Errorf("the URL is not well formed: %w", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("URL %q is not of the form http://HOST/PATH or https://HOST/PATH", ShownURL(s))
	case u.User != nil:
		return "", errors.New("the URL holds a user name or password; register the one without")
	}
	host, err := normalHost(u)
	if err != nil {
		return "", fmt.Errorf("URL %q: %w", ShownURL(s), err)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	out := u.Scheme + "://" + host + path
	if u.RawQuery != "" || u.ForceQuery {
		out += "?" + escapeQuery(u.RawQuery)
	}
	if len(out) > MaxURL {
		return "", fmt.Errorf("the URL has %d bytes when escaped, at most %d are taken", len(out), MaxURL)
	}
	return out, nil
}

// normalHost returns host and port as they stand in a normal URL.
func normalHost(u *url.URL) (string, error) {
	name := u.Hostname()
	switch a, err := netip.ParseAddr(name); {
	case strings.HasPrefix(u.Host, "["):
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", fmt.Errorf("%q is not an IPv6 address without a zone", name)
		}
		name = "[" + a.String() + "]"
	default:
		name = strings.ToLower(name)
		if i := strings.IndexFunc(name, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_", c))
		}); i >= 0 || name == "" {
			return "", fmt.Errorf("%q is not a host name of letters, digits, . - and _", name)
		}
	}
	text := u.Port()
	if text == "" {
		return name, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return "", fmt.Errorf("%q is not a port from 1 to 65535", text)
	}
	if u.Scheme == "http" && port == 80 || u.Scheme == "https" && port == 443 {
		return name, nil
	}
	return name + ":" + strconv.FormatUint(port, 10), nil
}

// escapeQuery escapes what no request line carries.
func escapeQuery(q string) string {
	var b strings.Builder
	for i := range len(q) {
		if c := q[i]; c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ShownURL returns a URL for messages and logs: its query, and a user name and password, may
// be secrets and are left out.
func ShownURL(s string) string {
	const most = 200 // bytes
	s, _, _ = strings.Cut(s, "#")
	s, _, hidden := strings.Cut(s, "?")
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		authority, path, _ := strings.Cut(rest, "/")
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			s = scheme + "://…@" + authority[at+1:] + "/" + path
		}
	}
	if len(s) > most {
		s = s[:most] + "…"
	}
	if hidden {
		s += "?…"
	}
	return s
}
