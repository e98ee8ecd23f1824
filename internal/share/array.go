package share

import (
	"context"
	"fmt"
	"slices"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/swarm"
	"freshet/internal/web"
	"freshet/internal/wire"
)

const (
	joinRetry = 2 * time.Second        // while no array answers, the first time
	maxRetry  = 60 * time.Second       // and at most
	farTime   = 300 * time.Millisecond // for peers of other sites to connect and tell what they hold, before the origin is asked
	minRejoin = 200 * time.Millisecond
	leaveTime = 2 * time.Second // for the last word, when the device stops
)

// keepJoined joins the content's array again and again: it tells what the device holds, and
// learns peers and who fetches from outside.
func (s *Share) keepJoined(ctx context.Context) {
	var array string
	var epoch int64
	defer func() { s.leaveArray(array) }()
	retry := joinRetry
	for seq := int64(1); ; seq++ {
		if s.alone.Load() {
			s.leaveArray(array)
			array = ""
			select {
			case <-s.rejoin:
				continue
			case <-ctx.Done():
				return
			}
		}
		s.renewGrant(ctx)
		wait, err := s.joinOnce(ctx, &array, &epoch, seq)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.log.Info("array does not answer", "err", err, "again in", retry)
			s.box.post(func() { s.onLease(swarm.Unknown) })
			array = ""
			wait = web.Jitter(retry)
			retry = min(2*retry, maxRetry)
		} else {
			retry = joinRetry
		}
		if !s.sleep(ctx, wait) {
			return
		}
	}
}

// leaveArray tells the array that this device gives nothing any more: else others would count
// on it until its entry has run out.
func (s *Share) leaveArray(array string) {
	if array == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), leaveTime)
	defer cancel()
	q := api.LeaveRequest{HashOfHashes: s.hoh.Base64(), PeerId: s.peerID()}
	if err := s.dev.Client.Leave(ctx, array, q); err != nil {
		s.log.Debug("leaving the array", "err", err)
	}
}

// peerID is the device's id as arrays know it.
func (s *Share) peerID() string { return s.self.String() + "00000000" }

// renewGrant asks Content Policy for a fresh grant at half of the old one's life.
func (s *Share) renewGrant(ctx context.Context) {
	rec := s.Record()
	if time.Since(rec.Granted) < identity.GrantLife/2 {
		return
	}
	p, err := s.dev.Client.ContentPolicy(ctx, rec.Ref)
	if err != nil {
		s.log.Info("renewing the grant", "err", err)
		return
	}
	fresh, err := records.Of(p)
	if err != nil || fresh.Manifest != rec.Manifest {
		return // re-issued: what is held belongs to another generation
	}
	s.Update(fresh)
	if err := s.Keep(ctx, s.Record().Wanted); err != nil {
		s.log.Warn("keeping the grant", "err", err)
	}
}

// sleep waits for the next join; a change of the share shortens it. It reports false when
// ctx ends.
func (s *Share) sleep(ctx context.Context, wait time.Duration) bool {
	first := time.After(minRejoin)
	select {
	case <-first:
	case <-ctx.Done():
		return false
	}
	rest := time.NewTimer(max(0, wait-minRejoin))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-s.rejoin:
	case <-ctx.Done():
		return false
	}
	return true
}

func (s *Share) joinOnce(ctx context.Context, array *string, epoch *int64, seq int64) (time.Duration, error) {
	rec := s.Record()
	if *array == "" {
		arrays, err := s.dev.Client.Discovery(ctx, rec.Ref.ID, s.hoh)
		if err != nil {
			return 0, err
		}
		if len(arrays) == 0 {
			return 0, fmt.Errorf("no array serves %s", rec.Ref)
		}
		*array = arrays[0].CollectiveArray
	}
	reply, err := s.dev.Client.Join(ctx, *array, s.joinRequest(rec, *epoch, seq))
	if err != nil {
		return 0, err
	}
	*epoch = 0
	if reply.Lease.Mine {
		*epoch = reply.Lease.Epoch
	}
	s.box.post(func() { s.joined(reply) })
	wait := time.Duration(reply.NextMillis) * time.Millisecond
	if !reply.Lease.Mine && s.facts.Load().Left > 0 {
		wait = min(wait, s.dev.Settings.JoinInterval())
	}
	return wait, nil
}

func (s *Share) joinRequest(rec records.Record, epoch, seq int64) api.JoinRequest {
	f := s.facts.Load()
	event := api.Number(2)
	if seq == 1 {
		event = 1
	}
	r := api.JoinRequest{
		ContentId: string(rec.Ref.ID), Version: api.Number(rec.Ref.Version),
		HashOfHashes: s.hoh.Base64(), ManifestDigest: rec.Manifest.String(),
		PeerId: s.peerID(),
		Port:   api.Number(s.dev.Port), Scope: api.Number(s.dev.Settings.DownloadMode()),
		Left:     api.Number(f.Left),
		Uploaded: api.Number(f.Stats.Sent), Downloaded: api.Number(f.Stats.FromPeers), DownloadedCdn: api.Number(f.Stats.FromOrigin),
		JoinRequestEvent: event, Seq: api.Number(seq),
		Stalled:   f.Stalled,
		WantLease: f.Left > 0 && f.Failed == nil && rec.Wanted, LeaseEpoch: epoch,
	}
	if s.dev.Local.IsValid() {
		r.ReportedIp = s.dev.Local.String()
	}
	return r
}

// joined takes an array's reply.
func (s *Share) joined(reply api.JoinReply) {
	if s.alone.Load() {
		return
	}
	l := swarm.Other
	if reply.Lease.Mine {
		l = swarm.Mine
	}
	if !s.metFar && s.Record().Size > smallContent && slices.ContainsFunc(reply.Peers, func(p api.Peer) bool { return !isNear(p) }) {
		s.metFar = true
		s.delay = max(s.delay, s.now()+farTime)
	}
	s.onLease(l)
	s.offered = len(reply.Peers)
	for _, p := range reply.Peers {
		s.connect(p)
	}
}

// isNear reports whether the array says that a peer is of this device's site.
func isNear(p api.Peer) bool { return p.Type == "LAN" || p.Type == "LinkLocal" }

// connect dials a peer unless it is connected, or there are enough.
func (s *Share) connect(p api.Peer) {
	if len(p.PeerId) < 32 || p.PeerId[:32] == s.self.String() || s.dialing[p.PeerId] {
		return
	}
	id, err := wire.ParseDeviceID(p.PeerId[:32])
	if err != nil {
		return
	}
	near := isNear(p)
	s.traffic.place(id, !near)
	live := s.live()
	for _, k := range live {
		if k.conn.Device == id {
			s.place(k, near)
			return
		}
	}
	if len(live)+len(s.dialing) >= s.dev.Settings.MaxPeers() {
		return
	}
	if s.done() && p.Left == 0 {
		return // two complete devices have nothing to say to each other
	}
	s.dialing[p.PeerId] = true
	if !s.owner.Spawn(func() { s.dial(p, near) }) {
		delete(s.dialing, p.PeerId)
	}
}

// place tells the brain where a connected device turned out to be: who was dialled by it
// could not know.
func (s *Share) place(k *link, near bool) {
	k.near = near
	if k.introduced && !k.banned {
		s.acts = s.brain.OnNear(s.now(), k.id, near, s.acts)
	}
}

func (s *Share) done() bool { return s.dormant || s.brain != nil && s.brain.Left() == 0 }

func (s *Share) dial(p api.Peer, near bool) {
	ctx, cancel := context.WithTimeout(s.ctx, 15*time.Second)
	c, _, err := s.dev.Endpoint.Dial(ctx, p.Address, s.Hello())
	cancel()
	s.box.post(func() { delete(s.dialing, p.PeerId) })
	if err != nil {
		s.log.Debug("peer not reached", "device", p.PeerId[:32], "address", p.Address, "err", err)
		return
	}
	s.link(s.ctx, c, near, true)
}
