package agent

import (
	"context"
	"errors"
	"fmt"

	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// inquire gets the publisher's signature of a manifest, and then the manifest, from a device that
// holds them, over a connection of its own. Nothing of it is verified.
func (a *Agent) inquire(ctx context.Context, h *subnet.Holding) (signature, manifest []byte, err error) {
	e := peer.Endpoint{
		Self: a.Device(), Credentials: a.endpoint.Credentials, Local: a.opt.Local, Receive: a.dev.Receive, Send: a.endpoint.Send,
		Accept: a.mayTell,
	}
	c, _, err := e.Dial(ctx, h.Swarm.String(), peer.Hello{HashOfHashes: h.HashOfHashes, Device: a.Device()})
	if err != nil {
		return nil, nil, err
	}
	q := &inquiry{a: a, want: wire.GetSignature}
	c.Post(func(b []byte) []byte { return wire.AppendGet(b, wire.GetSignature, 0) })
	err = c.Run(ctx, q)
	if q.over {
		err = q.err
	}
	return q.signature, q.manifest, err
}

// mayTell lets any device of the group say what it knows: it gets nothing in return.
func (a *Agent) mayTell(name identity.Name, theirs peer.Hello) error {
	if a.endpoint.Credentials == nil || name.Group != a.opt.Credentials.Name().Group {
		return fmt.Errorf("device %s is of group %q", theirs.Device, name.Group)
	}
	return nil
}

// inquiry is a connection that takes a signature and a manifest, and nothing else. Its fields are
// the reader's until Conn.Run has returned.
type inquiry struct {
	a    *Agent
	want wire.Type
	buf  []byte // of what is wanted
	over bool   // the connection was closed here, for the reason err

	signature, manifest []byte
	err                 error // nil: both are there
}

var _ peer.Handler = (*inquiry)(nil)

// Layout implements peer.Handler.
func (q *inquiry) Layout() *content.Layout { return nil }

// Run implements peer.Handler: nothing was asked for.
func (q *inquiry) Run(_ *peer.Conn, _ int, b []byte) { q.a.dev.Receive.Put(b) }

// Message implements peer.Handler.
func (q *inquiry) Message(c *peer.Conn, m wire.Message) {
	if m.Kind != wire.Envelope || q.over {
		return
	}
	kind, rest, err := wire.ParseEnvelope(m.Body)
	if err != nil || kind != wire.PartOf {
		return
	}
	p, err := wire.ParsePart(rest)
	if err == nil && (p.Of != q.want || p.Offset != uint64(len(q.buf))) {
		return
	}
	var more bool
	if err == nil {
		more, err = q.part(p)
	}
	if !more || err != nil {
		q.over, q.err = true, err
		c.Close()
		return
	}
	want, offset := q.want, uint64(len(q.buf))
	c.Post(func(b []byte) []byte { return wire.AppendGet(b, want, offset) })
}

// part takes the next part of what is wanted, and says whether more is.
func (q *inquiry) part(p wire.Part) (more bool, err error) {
	switch {
	case p.Total == 0 && q.want == wire.GetSignature:
		return false, errors.New("no publisher signed what it holds")
	case p.Total == 0:
		return false, errors.New("it does not have the manifest yet")
	}
	b, err := metadata.Unpack(p)
	if err != nil {
		return false, err
	}
	q.buf = append(q.buf, b...)
	switch {
	case uint64(len(q.buf)) < p.Total:
		return true, nil
	case q.want == wire.GetSignature:
		q.signature, q.buf, q.want = q.buf, nil, wire.GetManifest
		return true, nil
	}
	q.manifest = q.buf
	return false, nil
}
