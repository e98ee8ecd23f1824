// Package peer speaks the swarm protocol (package wire) over connections: it dials and
// accepts them, shows and checks certificates, handshakes and grants, and moves messages
// and runs. What is asked and sent is decided elsewhere (package swarm).
//
// # Opening
//
// TLS 1.3 with device certificates, unless the laboratory setting says plain. The asker sends
// handshake and grant; the answerer checks certificate, group and grant and sends its own
// handshake and grant, or closes exactly as for a swarm that it does not hold. A device that
// could get no grant shows an empty one; whether it takes part nevertheless is for
// [Endpoint].Admit to say, or for Accept at the end that dialled.
//
// # What a peer may cost
//
// Until its hello is accepted, a connection has no buffers, a place among those that are being
// opened (Endpoint.MaxOpening), and openTimeout. From then on an idle one costs a few KiB; what
// it announces takes memory as it arrives; its requests, and what waits for it to read, are
// bounded; a peer that takes nothing, or says nothing, is dropped. What a handler keeps of
// messages is the handler's to bound.
//
// # Who owns what
//
// A [Conn] has two goroutines, the reader (in Run) and the writer. A run that arrives lies in
// a buffer from the receive pool, which goes to Handler.Run; a run that is sent lies in one
// from the send pool, which the writer gives back. The two pools are apart, so that two
// devices with full pools cannot wait for each other.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// openTimeout bounds the opening of a connection, from the first byte to the grant, however
// its bytes come.
const openTimeout = 10 * time.Second

// ErrRefused says that the other end closed instead of answering the handshake: it does not
// hold the swarm, or does not let this device into it.
var ErrRefused = errors.New("the peer does not offer this content to us")

// Hello is what one end shows of itself.
type Hello struct {
	HashOfHashes content.Digest
	Device       wire.DeviceID
	Grant        []byte // signed; nil: none
}

// Endpoint opens connections for one device.
type Endpoint struct {
	Self        wire.DeviceID
	Credentials *identity.Credentials // nil: plain, a laboratory setting
	Local       netip.Addr            // address to dial from; zero: the system's choice
	Receive     *buffers.Pool
	Send        *buffers.Pool

	// MaxOpening is how many accepted connections may be in their opening at once, whose other
	// end has shown nothing yet; MaxOpeningPerAddress is how many of them from one remote IP
	// address. More are closed at once, see Excess. 0: 64 and 16.
	MaxOpening, MaxOpeningPerAddress int

	// Admit says whether the other end may take part, and what this end shows in return.
	// name is zero over plain connections. It is called from many goroutines.
	Admit func(name identity.Name, theirs Hello) (ours Hello, err error)

	// Accept says the same of the other end of a connection that this one dialled, which may know
	// better what it asked for; nil: Admit does.
	Accept func(name identity.Name, theirs Hello) error

	opening opening
	large   sync.Pool // of *largeBuffer, see joined
}

// Dial opens a connection to a peer and shows ours.
func (e *Endpoint) Dial(ctx context.Context, addr string, ours Hello) (*Conn, Hello, error) {
	d := net.Dialer{Timeout: openTimeout}
	if e.Local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: e.Local.AsSlice()}
	}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, Hello{}, fmt.Errorf("peer: dial: %w", err)
	}
	c, theirs, err := e.dialed(ctx, raw, ours)
	if err != nil {
		raw.Close()
		return nil, Hello{}, fmt.Errorf("peer %s: %w", addr, err)
	}
	return c, theirs, nil
}

func (e *Endpoint) dialed(ctx context.Context, raw net.Conn, ours Hello) (*Conn, Hello, error) {
	raw.SetDeadline(time.Now().Add(openTimeout))
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	j := newJoined(raw, &e.large)
	app, name, err := e.secure(ctx, j, asker)
	if err != nil {
		return nil, Hello{}, err
	}
	if _, err := app.Write(appendHello(nil, ours)); err != nil {
		return nil, Hello{}, err
	}
	theirs, err := readHello(app)
	if err != nil {
		return nil, Hello{}, errors.Join(ErrRefused, err)
	}
	if theirs.HashOfHashes != ours.HashOfHashes {
		return nil, Hello{}, fmt.Errorf("answered for another swarm, %s", theirs.HashOfHashes.Short())
	}
	if err := e.check(name, theirs); err != nil {
		return nil, Hello{}, err
	}
	if err := e.accept(name, theirs); err != nil {
		return nil, Hello{}, err
	}
	raw.SetDeadline(time.Time{})
	j.start()
	return newConn(e, raw, j, app, theirs.Device), theirs, nil
}

// Answer opens a connection that was accepted. On an error raw is closed.
func (e *Endpoint) Answer(ctx context.Context, raw net.Conn) (*Conn, Hello, error) {
	leave, err := e.enter(raw.RemoteAddr())
	if err != nil {
		raw.Close()
		return nil, Hello{}, fmt.Errorf("peer %s: %w", raw.RemoteAddr(), err)
	}
	defer leave()
	c, theirs, err := e.answer(ctx, raw)
	if err != nil {
		raw.Close()
		return nil, Hello{}, fmt.Errorf("peer %s: %w", raw.RemoteAddr(), err)
	}
	return c, theirs, nil
}

func (e *Endpoint) answer(ctx context.Context, raw net.Conn) (*Conn, Hello, error) {
	raw.SetDeadline(time.Now().Add(openTimeout))
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	j := newJoined(raw, &e.large)
	app, name, err := e.secure(ctx, j, answerer)
	if err != nil {
		return nil, Hello{}, err
	}
	theirs, err := readHello(app)
	if err != nil {
		return nil, Hello{}, err
	}
	if err := e.check(name, theirs); err != nil {
		return nil, Hello{}, err
	}
	ours, err := e.Admit(name, theirs)
	if err != nil {
		return nil, Hello{}, err
	}
	if _, err := app.Write(appendHello(nil, ours)); err != nil {
		return nil, Hello{}, err
	}
	raw.SetDeadline(time.Time{})
	j.start()
	return newConn(e, raw, j, app, theirs.Device), theirs, nil
}

// asker and answerer are the two ends of a TLS handshake.
func asker(j net.Conn, c *identity.Credentials) *tls.Conn {
	return tls.Client(j, peerConfig(c.ClientConfig(identity.RoleDevice)))
}

func answerer(j net.Conn, c *identity.Credentials) *tls.Conn {
	return tls.Server(j, peerConfig(c.ServerConfig(identity.ServerOptions{Roles: []identity.Role{identity.RoleDevice}})))
}

// secure puts TLS over j and says who is at the other end; plain, it is j and nobody.
func (e *Endpoint) secure(ctx context.Context, j net.Conn, end func(net.Conn, *identity.Credentials) *tls.Conn) (net.Conn, identity.Name, error) {
	if e.Credentials == nil {
		return j, identity.Name{}, nil
	}
	t := end(j, e.Credentials)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, identity.Name{}, err
	}
	name, err := identity.PeerName(t.ConnectionState())
	return t, name, err
}

// peerConfig makes full records from the first byte on: pieces are large.
func peerConfig(c *tls.Config) *tls.Config {
	c.DynamicRecordSizingDisabled = true
	return c
}

func (e *Endpoint) accept(name identity.Name, theirs Hello) error {
	if e.Accept != nil {
		return e.Accept(name, theirs)
	}
	_, err := e.Admit(name, theirs)
	return err
}

// check compares the handshake's device with the certificate's.
func (e *Endpoint) check(name identity.Name, theirs Hello) error {
	if theirs.Device == e.Self {
		return errors.New("this is the device itself")
	}
	if e.Credentials != nil && name.Device != theirs.Device {
		return fmt.Errorf("handshake names device %s, certificate %s", theirs.Device, name.Device)
	}
	return nil
}

func appendHello(b []byte, h Hello) []byte {
	b = wire.AppendHandshake(b, wire.Handshake{HashOfHashes: h.HashOfHashes, Device: h.Device})
	return wire.AppendGrant(b, h.Grant)
}

// readHello reads a handshake and the grant that must follow it.
func readHello(r io.Reader) (Hello, error) {
	var b [wire.HandshakeSize + wire.HeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	hs, err := wire.ParseHandshake(b[:wire.HandshakeSize])
	if err != nil {
		return Hello{}, err
	}
	h, err := wire.ParseHeader(b[wire.HandshakeSize:])
	if err != nil {
		return Hello{}, err
	}
	if h.Kind != wire.Envelope || h.Body > 1+wire.MaxGrant {
		return Hello{}, fmt.Errorf("a grant must follow the handshake, not %v", h.Kind)
	}
	body := make([]byte, h.Body)
	if _, err := io.ReadFull(r, body); err != nil {
		return Hello{}, fmt.Errorf("grant: %w", err)
	}
	t, rest, err := wire.ParseEnvelope(body)
	if err != nil || t != wire.Grant {
		return Hello{}, fmt.Errorf("a grant must follow the handshake, not an envelope of type %d", t)
	}
	grant, err := wire.ParseGrant(rest)
	if err != nil {
		return Hello{}, err
	}
	return Hello{HashOfHashes: hs.HashOfHashes, Device: hs.Device, Grant: grant}, nil
}
