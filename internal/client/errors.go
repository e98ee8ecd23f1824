package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"freshet/internal/api"
)

// ErrUnreachable says that no service answered: the network, the address, or something in
// between that is not of this fleet. A service that says no is an [api.Problem] instead.
var ErrUnreachable = errors.New("no answer")

// ErrRefused says that the other end refused this end's certificate.
var ErrRefused = errors.New("the other end refused this certificate")

// errBadReply says that a reply breaks a limit or its check; asking the same again is useless.
var errBadReply = errors.New("the reply is not acceptable")

// callError says what failed, where, why and what to do.
func callError(what, host string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // it repeats method and URL
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errBadReply):
		return fmt.Errorf("client: %s at %s: %w", what, host, err)
	case refused(err):
		return fmt.Errorf("client: %s at %s: %w: %w; if it was not revoked, renew it or enrol again", what, host, ErrRefused, err)
	}
	return fmt.Errorf("client: %s at %s: %w: %w%s", what, host, ErrUnreachable, err, remedy(err))
}

// refused reports whether the other end ended the handshake by an alert.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// untrusted reports whether the other end's certificate was not believed.
func untrusted(err error) bool {
	var ve *tls.CertificateVerificationError
	return errors.As(err, &ve)
}

func remedy(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		dns     *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; is the server running?"
	case errors.As(err, &dns):
		return "; check the name in the address"
	case errors.As(err, &unknown):
		return "; what answers there is not of this fleet: is the address right, and the token or state directory this fleet's?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "; check this machine's clock, and that the server has renewed its certificate"
	case untrusted(err):
		return "; what answers there has not the role that is called for: is the address right?"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "; check the address, and that no firewall is in between"
	}
	return ""
}

// retryAfterFailure says whether another attempt may help: 0 at once, -1 never.
func retryAfterFailure(err error) time.Duration {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, errBadReply) || refused(err) || untrusted(err) {
		return -1
	}
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0
	}
	return -1
}

// Unavailable reports whether err leaves room for the last answer known: nobody answered, or
// a service failed; not when it said no.
func Unavailable(err error) bool {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Status >= 500 || p.Status == http.StatusTooManyRequests
	}
	return errors.Is(err, ErrUnreachable)
}
