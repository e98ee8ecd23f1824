package hostile

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"freshet/internal/api"
	"freshet/internal/buffers"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/lan"
	"freshet/internal/peer"
	"freshet/internal/records"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// swarmPort is where a member that lets others in listens.
const swarmPort = 7680

// member is an enrolled device of the default group, with all that its certificate gets it.
type member struct {
	options
	creds    *identity.Credentials
	services *client.Client
	signers  []ed25519.PublicKey // of passes and grants
	voice
}

// enlist enrols a member.
func enlist(ctx context.Context, opt options) (*member, error) {
	if err := os.MkdirAll(opt.state, 0o700); err != nil {
		return nil, fmt.Errorf("hostile: %w", err)
	}
	token, err := identity.ReadToken(opt.join)
	if err != nil {
		return nil, err
	}
	m := &member{options: opt}
	dir := filepath.Join(opt.state, "identity")
	if m.creds, _, err = client.Enrol(ctx, token, "hostile", dir, netip.Addr{}); err != nil {
		return nil, err
	}
	m.services, err = client.New(client.Options{Address: token.Address, Credentials: m.creds, CacheDir: opt.state, Log: opt.log})
	if err != nil {
		return nil, err
	}
	_, kv, err := m.services.Bootstrap(ctx)
	if err != nil {
		return nil, err
	}
	if m.signers, err = identity.ParseGrantKeys(kv.GrantKeys); err != nil {
		return nil, err
	}
	m.given, m.now = kv.LANKeys, m.services.Now
	if m.keys, err = lan.ParseKeys(kv.Group, kv.LANKeys); err != nil {
		return nil, err
	}
	m.speaker, err = m.services.Speaker(ctx, dir)
	return m, err
}

func (m *member) self() wire.DeviceID { return m.creds.Name().Device }

// speak returns what the member sends and hears in its subnet with; handle is told what it hears.
func (m *member) speak(handle func(lan.Datagram)) *lan.LAN {
	l := lan.New(lan.Options{
		Trust: lan.Trust{Self: m.self(), Now: m.now}, Network: lan.UDP{}, Handle: handle, Log: m.log,
	})
	l.SetKeys(m.keys, m.signers)
	l.SetSpeaker(m.speaker, swarmPort)
	return l
}

// offer is a content as Content Policy gave it to the member.
type offer struct {
	rec      records.Record
	bytes    []byte // the manifest's
	manifest *content.Manifest
	hashes   []byte // the raw hash file
	layout   *content.Layout
}

// policy asks Content Policy for the program's content, and gets manifest and hash file.
func (m *member) policy(ctx context.Context) (*offer, error) {
	ref, err := m.ref()
	if err != nil {
		return nil, err
	}
	p, err := m.services.ContentPolicy(ctx, ref)
	if err != nil {
		return nil, err
	}
	o := &offer{}
	if o.rec, err = records.Of(p); err != nil {
		return nil, err
	}
	if len(o.rec.ManifestURLs) == 0 || len(o.rec.HashFileURLs) == 0 {
		return nil, fmt.Errorf("hostile: nobody gives the manifest and hash file of %s", ref)
	}
	if o.manifest, o.bytes, err = m.services.Manifest(ctx, o.rec.ManifestURLs[0], o.rec.Grant, o.rec.Manifest); err != nil {
		return nil, err
	}
	h, err := m.services.HashFile(ctx, o.rec.HashFileURLs[0], o.rec.Grant, o.manifest)
	if err != nil {
		return nil, err
	}
	o.hashes = content.AppendHashFileRaw(nil, h)
	o.layout = content.NewLayout(o.manifest.Files)
	return o, nil
}

// enlistFor enrols a member, and asks for the program's content.
func enlistFor(ctx context.Context, opt options) (*member, *offer, error) {
	m, err := enlist(ctx, opt)
	if err != nil {
		return nil, nil, err
	}
	o, err := m.policy(ctx)
	return m, o, err
}

// fetch gets all bytes of an offer from the distribution point.
func (m *member) fetch(ctx context.Context, o *offer) ([]byte, error) {
	if len(o.rec.ContentURLs) == 0 {
		return nil, fmt.Errorf("hostile: nobody gives the bytes of %s", o.rec.Ref)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.rec.ContentURLs[0], nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set(identity.GrantHeader, base64.StdEncoding.EncodeToString(o.rec.Grant))
	c := web.Client(m.creds.ClientConfig(identity.RoleOrigin), netip.Addr{})
	defer c.CloseIdleConnections()
	reply, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("hostile: bytes of %s: %s", o.rec.Ref, reply.Status)
	}
	all, err := io.ReadAll(io.LimitReader(reply.Body, o.rec.Size+1))
	if err == nil && int64(len(all)) != o.rec.Size {
		err = fmt.Errorf("hostile: %d bytes of %s, want %d", len(all), o.rec.Ref, o.rec.Size)
	}
	return all, err
}

// endpoint opens connections for the member, whoever is at the other end.
func (m *member) endpoint(o *offer) *peer.Endpoint {
	return &peer.Endpoint{
		Self: m.self(), Credentials: m.creds, Receive: buffers.New(0), Send: buffers.New(0),
		Admit: func(_ identity.Name, theirs peer.Hello) (peer.Hello, error) {
			if theirs.HashOfHashes != o.rec.HashOfHashes {
				return peer.Hello{}, errors.New("hostile: other bytes")
			}
			return m.hello(o), nil
		},
	}
}

func (m *member) hello(o *offer) peer.Hello {
	return peer.Hello{HashOfHashes: o.rec.HashOfHashes, Device: m.self(), Grant: o.rec.Grant}
}

// receive lets others in until ctx ends, and has each connection served.
func (m *member) receive(ctx context.Context, e *peer.Endpoint, serve func(*peer.Conn)) error {
	ln, err := net.Listen("tcp", fmt.Sprintf(":%d", swarmPort))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		raw, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			c, theirs, err := e.Answer(ctx, raw)
			if err != nil {
				m.log.Info("not let in", "err", err)
				return
			}
			m.log.Info("a device came", "device", theirs.Device)
			serve(c)
		}()
	}
}

// join tells the array what q says of an offer, and returns its reply.
func (m *member) join(ctx context.Context, o *offer, q api.JoinRequest) (api.JoinReply, error) {
	arrays, err := m.services.Discovery(ctx, o.rec.Ref.ID, o.rec.HashOfHashes)
	if err != nil || len(arrays) == 0 {
		return api.JoinReply{}, errors.Join(err, errors.New("hostile: there is no array"))
	}
	q.ContentId, q.Version = string(o.rec.Ref.ID), api.Number(o.rec.Ref.Version)
	q.HashOfHashes, q.ManifestDigest = o.rec.HashOfHashes.Base64(), o.rec.Manifest.String()
	q.PeerId, q.Port, q.Scope, q.JoinRequestEvent = m.self().PeerID(), swarmPort, 1, 2
	return m.services.Join(ctx, arrays[0].CollectiveArray, q)
}
