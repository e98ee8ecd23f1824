package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/store"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

const (
	metaPause   = 100 * time.Millisecond // before the next peer is asked, when one has none
	metaTimeout = 3 * time.Second        // for a part from a peer

	recheckEvery = 10 * time.Minute // of a cache that peers call wrong
)

// metadata is how a share gets its manifest and hash file: inline from Content Policy, from
// peers (message 20), or from the nearest origin, so that one compressed copy of them
// crosses the WAN. It is owned by share.run.
type metadata struct {
	since    time.Duration
	want     wire.Type // GetManifest, then GetHashFile
	buf      []byte    // of what is wanted
	manifest []byte    // whole and of the right digest
	parsed   *content.Manifest
	from     *link         // asked now
	deadline time.Duration // for from's answer
	pauseTo  time.Duration
	asking   bool // an origin is being asked
	next     int  // peer asked next
	failures int  // of origins, since the last success
	lastErr  error
	hold     time.Duration // origins are not asked before
	asked    time.Duration // when an origin was asked for the hash file for the first time; 0: not yet
	patience time.Duration // from then on until the download goes on without one
}

func (m *metadata) begin(now time.Duration) {
	*m = metadata{since: now, want: wire.GetManifest}
}

// leave waits for the giver no more. Parts of two givers are never joined: a wrong one must
// have one author.
func (m *metadata) leave() { m.from, m.buf = nil, nil }

// waits says why nothing arrives yet.
func (m *metadata) waits(s *share) string {
	what := "manifest"
	if m.parsed != nil {
		what = "hash file"
	}
	switch {
	case m.asking:
		return "waiting for the " + what + " from the origin"
	case m.lastErr != nil:
		return "waiting for the " + what + ": " + oneLine(m.lastErr)
	case m.from != nil:
		return "waiting for the " + what + " from a peer"
	case s.lease == swarm.Unknown:
		return "waiting for the array"
	default:
		return "waiting for a peer that has the " + what
	}
}

// tryInline takes what Content Policy sent along.
func (s *share) tryInline() {
	rec := s.record()
	if rec.inline == nil {
		return
	}
	err := s.gotManifest(rec.inline)
	if err == nil && s.held.Load() == nil && rec.inlineHashes != nil {
		err = s.gotHashFile(rec.inlineHashes)
	}
	if err != nil {
		s.log.Warn("metadata from Content Policy", "err", err)
	}
}

// tickMetadata asks whoever may be asked.
func (s *share) tickMetadata() {
	m, now := &s.meta, s.now()
	if s.simple != nil {
		s.tickSimple(now)
		return
	}
	if reason, yes := s.withoutHashes(now); yes {
		s.goSimple(reason)
		return
	}
	if m.from != nil && now >= m.deadline {
		s.log.Info("peer does not send the manifest", "device", m.from.conn.Device)
		m.leave()
	}
	if m.asking || m.from != nil {
		return
	}
	if s.mayAskOrigin(now) {
		s.askOrigin()
		return
	}
	if s.peering.OK && now >= m.pauseTo {
		s.askPeer(now)
	}
}

// mayAskOrigin reports whether the device may fetch the metadata from outside: it holds the
// lease, or nobody gave it for too long.
func (s *share) mayAskOrigin(now time.Duration) bool {
	return now >= s.meta.hold && s.mayGoOut(now)
}

func (s *share) mayGoOut(now time.Duration) bool {
	m := &s.meta
	return s.lease == swarm.Mine || now-m.since >= s.early && (s.lease == swarm.Unknown || len(s.givers()) == 0) || now-m.since >= 4*s.early
}

func (s *share) live() []*link {
	var out []*link
	for _, k := range s.links {
		if k != nil {
			out = append(out, k)
		}
	}
	return out
}

// givers returns the peers that sent nothing wrong yet.
func (s *share) givers() []*link {
	return slices.DeleteFunc(s.live(), func(k *link) bool {
		c := s.charges[k.conn.Device]
		return c != nil && c.wrong > 0
	})
}

// askPeer asks the next peer for the next part.
func (s *share) askPeer(now time.Duration) {
	live := s.givers()
	if len(live) == 0 {
		return
	}
	m := &s.meta
	m.from = live[m.next%len(live)]
	m.next++
	s.askPart(now)
}

func (s *share) askPart(now time.Duration) {
	m := &s.meta
	m.deadline = now + metaTimeout
	want, off := m.want, uint64(len(m.buf))
	m.from.conn.Post(func(b []byte) []byte { return wire.AppendGet(b, want, off) })
}

// gotPart takes a part from a peer.
func (s *share) gotPart(k *link, p wire.Part) {
	m, now := &s.meta, s.now()
	if s.brain != nil || m.from != k || p.Of != m.want || p.Offset != uint64(len(m.buf)) {
		return
	}
	limit := uint64(content.MaxManifest)
	if m.want == wire.GetHashFile {
		limit = uint64(content.MaxHashFile)
	}
	if p.Total == 0 { // it has none itself yet
		m.leave()
		m.pauseTo = now + metaPause
		return
	}
	b, err := unpack(p)
	if err == nil && p.Total > limit {
		err = fmt.Errorf("%d bytes are too many", p.Total)
	}
	if err == nil {
		m.buf = append(m.buf, b...)
		m.since = now
		if uint64(len(m.buf)) < p.Total {
			s.askPart(now)
			return
		}
		if m.want == wire.GetManifest {
			err = s.gotManifest(m.buf)
		} else {
			err = s.gotHashFile(m.buf)
		}
	}
	if err != nil { // this device's copy is not asked for again
		s.log.Warn("peer sent wrong metadata", "device", k.conn.Device, "err", err)
		m.leave()
		s.charge(k)
		k.conn.Close()
		return
	}
	if s.brain == nil && s.simple == nil && s.facts.Load().Failed == nil {
		s.askPart(now)
	}
}

// gotManifest takes a manifest that must be the one that Content Policy named.
func (s *share) gotManifest(b []byte) error {
	rec := s.record()
	if d := content.DigestOf(b); d != rec.Manifest {
		return fmt.Errorf("manifest is %s, Content Policy says %s", d.Short(), rec.Manifest.Short())
	}
	p, err := content.ParseManifest(b)
	if err != nil {
		return err
	}
	if p.HashOfHashes != rec.HashOfHashes {
		return errors.New("the manifest's HashOfHashes is not what Content Policy says")
	}
	m := &s.meta
	m.manifest, m.parsed, m.buf, m.want = b, p, nil, wire.GetHashFile
	if p.Size == 0 {
		return s.gotHashFile(nil)
	}
	return nil
}

// gotHashFile takes the hash file, which must fit the manifest, and makes the entry, of what
// simple mode brought if it brought something.
func (s *share) gotHashFile(raw []byte) error {
	m := &s.meta
	if _, err := content.ParseHashFileRaw(raw, m.parsed); err != nil {
		m.buf = nil
		return err
	}
	switch {
	case s.simple != nil:
		s.simple.take(raw)
		return nil
	case s.a.store.HasDraft(content.DigestOf(m.manifest)):
		s.beginDraft(raw)
		return nil
	}
	if !s.always {
		s.reason = ""
	}
	e, err := s.a.store.Create(s.ctx, m.manifest, raw, []string{s.a.opt.Credentials.Name().Group})
	if err != nil {
		s.fail(err)
		return nil
	}
	s.meta = metadata{}
	s.opened(e)
	return nil
}

// askOrigin fetches what is wanted from the givers that Content Policy named, nearest first.
func (s *share) askOrigin() {
	m, rec, c := &s.meta, s.record(), s.a.opt.Client
	m.asking = true
	parsed := m.parsed
	if parsed != nil && m.asked == 0 {
		m.asked, m.patience = s.now(), s.a.hashes.draw(s.hurry)
	}
	s.a.spawn(func() {
		var b []byte
		var err error
		if parsed == nil {
			b, err = fetchManifest(s.ctx, c, rec)
		} else {
			b, err = fetchHashFile(s.ctx, c, rec, parsed)
		}
		s.box.post(func() { s.originAnswered(parsed == nil, b, err) })
	})
}

// originAnswered takes the manifest or the hash file from an origin.
func (s *share) originAnswered(manifest bool, b []byte, err error) {
	m := &s.meta
	m.asking = false
	if s.brain != nil || s.facts.Load().Failed != nil {
		return
	}
	switch {
	case err != nil:
	case !manifest:
		err = s.gotHashFile(b)
	case m.parsed == nil:
		err = s.gotManifest(b)
	}
	if err != nil {
		s.originFailed(err)
		return
	}
	m.failures, m.lastErr = 0, nil
	if s.brain == nil && s.simple == nil && m.parsed != nil && !s.always && s.mayAskOrigin(s.now()) {
		s.askOrigin()
	}
}

// originFailed lets the next question wait, longer each time. A download that was in simple
// mode before the agent began again waits no more to go on there.
func (s *share) originFailed(err error) {
	m := &s.meta
	s.log.Info("metadata from the origin", "err", err)
	m.lastErr = err
	m.failures++
	most := 30 * time.Second
	if s.simple != nil {
		most = jitter(maxHashPause)
	} else if m.parsed != nil && s.a.store.HasDraft(s.record().Manifest) {
		m.patience = 0
	}
	m.hold = s.now() + min(most, 250*time.Millisecond<<min(m.failures, 11))
}

// fetchManifest gets the manifest over HTTP.
func fetchManifest(ctx context.Context, c *client.Client, rec record) ([]byte, error) {
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
func fetchHashFile(ctx context.Context, c *client.Client, rec record, parsed *content.Manifest) ([]byte, error) {
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

// lostLink stops waiting for a peer that is gone.
func (s *share) lostLink(k *link) {
	if s.meta.from == k {
		s.meta.leave()
	}
}

// envelope takes message 20.
func (k *link) envelope(body []byte) {
	s := k.s
	t, rest, err := wire.ParseEnvelope(body)
	if err != nil {
		return
	}
	switch t {
	case wire.GetManifest, wire.GetHashFile:
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
	case wire.Acknowledge:
		if a, err := wire.ParseAck(rest); err == nil && a.Of == wire.WrongPiece {
			s.box.post(func() { s.excuse(k) })
		}
	}
}

// givePart sends a part of the manifest or hash file, or says that there is none yet.
func (k *link) givePart(of wire.Type, off uint64) {
	var all []byte
	if e := k.s.held.Load(); e != nil {
		if all = e.ManifestBytes(); of == wire.GetHashFile {
			all = e.HashFileRaw()
		}
	}
	p := wire.Part{Of: of, Offset: min(off, uint64(len(all))), Total: uint64(len(all))}
	if rest := all[p.Offset:]; len(rest) > 0 {
		p.Frame = pack(rest[:min(len(rest), wire.MaxPart)])
	}
	k.conn.Post(func(b []byte) []byte { return wire.AppendPart(b, p) })
}

// recheck hashes the whole entry again: this end sent a wrong piece (design section 10).
// Nothing unchecked is served meanwhile, as the store sees to. However many say so, it is
// done once in recheckEvery: the disk has other work.
func (k *link) recheck() {
	s := k.s
	s.box.post(func() {
		if slices.Contains(s.rechecking, k) {
			return
		}
		if !s.rechecked.IsZero() && time.Since(s.rechecked) < recheckEvery {
			k.acknowledge()
			return
		}
		e := s.use()
		if e == nil {
			return
		}
		s.rechecking = append(s.rechecking, k)
		if len(s.rechecking) > 1 || !s.a.spawn(func() { s.hashAgain(e) }) { // one check answers all
			e.Release()
		}
	})
}

// acknowledge says that the cache was hashed again.
func (k *link) acknowledge() {
	k.conn.Post(func(b []byte) []byte { return wire.AppendAck(b, wire.Ack{Of: wire.WrongPiece}) })
}

// hashAgain hashes all of e, fetches what was wrong again, and tells those who asked.
func (s *share) hashAgain(e *store.Entry) {
	defer e.Release()
	before := e.HeldRuns()
	bad, err := e.Recheck(s.ctx)
	s.log.Warn("a peer found a piece wrong; the cache was hashed again", "wrong", bad, "err", err)
	held := e.HeldRuns()
	s.box.post(func() {
		for r := range before.All {
			if !held.Has(r) {
				s.damaged(int32(r), s.rechecking...)
			}
		}
		for _, k := range s.rechecking {
			k.acknowledge()
		}
		s.rechecking, s.rechecked = nil, time.Now()
	})
}

// pack compresses a part; unpack is its reverse, bounded by what the part may be.
func pack(b []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic("agent: zstd: " + err.Error()) // options are constant
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func unpack(p wire.Part) ([]byte, error) {
	limit := min(wire.MaxPart, p.Total-p.Offset)
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(wire.MaxPart))
	if err != nil {
		panic("agent: zstd: " + err.Error())
	}
	defer r.Close()
	b, err := r.DecodeAll(p.Frame, nil)
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) > limit || len(b) == 0 {
		return nil, fmt.Errorf("part unpacks to %d bytes, at most %d are left", len(b), limit)
	}
	return b, nil
}
