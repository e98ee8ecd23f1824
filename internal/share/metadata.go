package share

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/metadata"
	"freshet/internal/records"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// wantMetadata begins to get manifest and hash file.
func (s *Share) wantMetadata() {
	rec := s.Record()
	cfg := metadata.Config{
		Manifest: rec.Manifest, HashOfHashes: rec.HashOfHashes, Seed: Seed(),
		Early: s.early, Peers: s.peering.OK, Patience: s.dev.Patience,
	}
	if s.always {
		cfg.Simple = s.reason
	}
	s.meta = metadata.New(cfg, s.now())
	acts, err := s.meta.OnInline(rec.Inline, rec.InlineHashes, nil)
	if err != nil {
		s.log.Warn("metadata from Content Policy", "err", err)
	}
	s.seek(acts)
	s.found()
}

// around says how things stand.
func (s *Share) around() metadata.Around {
	a := metadata.Around{
		Mine: s.reach == swarm.ReachAll, Unknown: s.reach == swarm.ReachUnknown, Led: s.role.stand.Role != subnet.NoElection, Hurry: s.hurry,
	}
	for _, k := range s.givers() {
		a.Givers = append(a.Givers, metadata.Peer(k.id))
	}
	return a
}

// seek does what the brain of the metadata decided.
func (s *Share) seek(acts []metadata.Action) {
	for _, a := range acts {
		k := s.linkAt(swarm.Peer(a.Peer))
		switch a.Kind {
		case metadata.AskPeer:
			k.conn.Post(func(b []byte) []byte { return wire.AppendGet(b, a.Want, a.Offset) })
		case metadata.AskOrigin:
			s.askOrigin(a.Want)
		case metadata.Late:
			s.log.Info("peer does not send the manifest", "device", k.conn.Device)
		case metadata.Charge:
			s.log.Warn("peer sent wrong metadata", "device", k.conn.Device, "err", a.Err)
			s.charge(k)
			k.conn.Close()
		case metadata.Failed:
			s.log.Info("metadata from the origin", "err", a.Err)
			s.originFailed(1)
			if s.dev.Store.HasDraft(s.Record().Manifest) {
				s.meta.Hasten() // in simple mode before the agent began again
			}
		case metadata.Without:
			s.whenAllowed(func() { s.goSimple(a.Reason) })
		case metadata.Got:
			s.whenAllowed(s.gotMetadata)
		}
	}
}

func (s *Share) live() []*link {
	var out []*link
	for _, k := range s.links {
		if k != nil {
			out = append(out, k)
		}
	}
	return out
}

// givers returns the peers in reach that sent nothing wrong yet: those that are known to have
// the metadata, since they told of pieces, and the leader; or else all.
func (s *Share) givers() []*link {
	all := slices.DeleteFunc(s.live(), func(k *link) bool {
		c := s.charges[k.conn.Device]
		return !s.within(k.zone) || c != nil && c.wrong > 0
	})
	sure := slices.DeleteFunc(slices.Clone(all), func(k *link) bool {
		return !k.holds && k.conn.Device != s.role.stand.Leader
	})
	if len(sure) > 0 {
		return sure
	}
	return all
}

// gotPart takes a part from a peer.
func (s *Share) gotPart(k *link, p wire.Part) {
	if s.meta != nil && s.linkAt(k.id) == k {
		s.role.heard = s.now()
		s.seek(s.meta.OnPart(s.now(), metadata.Peer(k.id), p, nil))
		s.found()
	}
}

// gotMetadata makes the entry, of what simple mode brought if it brought something.
func (s *Share) gotMetadata() {
	manifest, hashes := s.meta.Manifest(), s.meta.Hashes()
	switch {
	case s.draft != nil:
		s.draft.Take(hashes)
		return
	case s.dev.Store.HasDraft(content.DigestOf(manifest)):
		s.beginDraft(hashes)
		return
	}
	if !s.always {
		s.reason = ""
	}
	s.meta = nil
	s.create(manifest, hashes)
}

// askOrigin fetches what is wanted from the givers that Content Policy named, nearest first.
func (s *Share) askOrigin(want wire.Type) {
	m, rec, parsed := s.meta, s.Record(), s.meta.Parsed()
	ctx := web.WithHeard(s.ctx, s.hearing())
	s.owner.Spawn(func() {
		r := metadata.Reply{Want: want}
		if want == wire.GetManifest {
			r.Bytes, r.Err = FetchManifest(ctx, s.dev.Client, rec)
		} else {
			r.Bytes, r.Err = fetchHashFile(ctx, s.dev.Client, rec, parsed)
		}
		s.box.post(func() {
			if s.meta == m && s.facts.Load().Failed == nil {
				s.seek(m.OnOrigin(s.now(), s.around(), r, nil))
				s.found()
			}
		})
	})
}

// FetchManifest gets the manifest of a record over HTTP.
func FetchManifest(ctx context.Context, c *client.Client, rec records.Record) ([]byte, error) {
	var errs []error
	for _, u := range rec.ManifestURLs {
		_, b, err := c.Manifest(ctx, u, rec.Grant, rec.Manifest)
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append([]error{errors.New("no giver has the manifest")}, errs...)...)
}

// fetchHashFile gets the raw hash file of a manifest over HTTP.
func fetchHashFile(ctx context.Context, c *client.Client, rec records.Record, parsed *content.Manifest) ([]byte, error) {
	var errs []error
	for _, u := range rec.HashFileURLs {
		h, err := c.HashFile(ctx, u, rec.Grant, parsed)
		if err == nil {
			return content.AppendHashFileRaw(nil, h), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append([]error{errors.New("no giver has a good hash file")}, errs...)...)
}

// envelope takes message 20.
func (k *link) envelope(body []byte) {
	s := k.s
	t, rest, err := wire.ParseEnvelope(body)
	if err != nil {
		return
	}
	switch t {
	case wire.GetManifest, wire.GetHashFile, wire.GetSignature:
		if off, err := wire.ParseGet(t, rest); err == nil {
			k.givePart(t, off)
		}
	case wire.PartOf:
		if p, err := wire.ParsePart(rest); err == nil {
			p.Frame = bytes.Clone(p.Frame)
			k.postLarge(func() { s.gotPart(k, p) })
		}
	case wire.WrongPiece:
		k.recheck()
	case wire.Said:
		if m, err := wire.ParseSaid(rest); err == nil && s.dev.Subnet != nil && s.dev.Endpoint.Credentials != nil {
			s.dev.Subnet.Heard(k.conn.Device, m)
		}
	case wire.ValidateMetadata:
		k.validate(rest)
	case wire.Acknowledge:
		if a, err := wire.ParseAck(rest); err == nil {
			k.acknowledged(a)
		}
	}
}

// given returns what others may have of the metadata. A manifest that is used they may have before
// there is an entry, which takes the hash file.
func (s *Share) given(of wire.Type) []byte {
	e, m := s.held.Load(), s.Sought()
	switch {
	case of == wire.GetSignature:
		return s.Record().Signature
	case of == wire.GetManifest && m != nil && (e != nil || s.Allowed()):
		return m.Bytes
	case of == wire.GetHashFile && e != nil:
		return e.HashFileRaw()
	}
	return nil
}

// givePart sends a part of what was asked for, or says that there is none yet.
func (k *link) givePart(of wire.Type, off uint64) {
	var all []byte
	if !k.s.OnHold() {
		all = k.s.given(of)
	}
	p := metadata.PartOf(of, all, off)
	k.conn.Post(func(b []byte) []byte { return wire.AppendPart(b, p) })
}
