package share

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/records"
	"freshet/internal/subnet"
	"freshet/internal/web"
	"freshet/internal/wire"
)

const (
	joinRetry = 2 * time.Second        // while no array answers, the first time
	maxRetry  = 60 * time.Second       // and at most
	farTime   = 300 * time.Millisecond // for peers of other sites to connect and tell what they hold, before the origin is asked
	minRejoin = 200 * time.Millisecond
	linksTime = 2 * time.Second // for the first look at interfaces
	leaveTime = 2 * time.Second // for the last word, when the device stops
)

// keepJoined joins the content's array again and again: it tells what the device holds, and
// learns peers and who fetches from outside.
func (s *Share) keepJoined(ctx context.Context) {
	var array string
	var epoch int64
	defer func() { s.leaveArray(array) }()
	s.awaitLinks(ctx)
	retry := joinRetry
	for seq := int64(1); ; seq++ {
		if s.alone.Load() || s.OnHold() {
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
		select {
		case <-s.claim: // this join is it
		default:
		}
		wait, err := s.joinOnce(ctx, &array, &epoch, seq)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.log.Info("array does not answer", "err", err, "again in", retry)
			s.box.post(func() {
				s.role.joined = true
				s.onLease(subnet.Lease{})
			})
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

// awaitLinks waits until the device knows, at its start, whether there are elections: else it
// would ask for a lease that is another's to ask for.
func (s *Share) awaitLinks(ctx context.Context) {
	if s.dev.Subnet == nil || s.Record().Size <= smallContent {
		return
	}
	s.dev.Subnet.AwaitLinks(ctx, linksTime)
}

// leaveArray tells the array that this device gives nothing any more: else others would count
// on it until its entry has run out.
func (s *Share) leaveArray(array string) {
	if array == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), leaveTime)
	defer cancel()
	q := api.LeaveRequest{HashOfHashes: s.hoh.Base64(), PeerId: s.self.PeerID()}
	if err := s.dev.Client.Leave(ctx, array, q); err != nil {
		s.log.Debug("leaving the array", "err", err)
	}
}

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
	renew := func(old *records.Record) bool { return !old.Manifest.IsZero() && s.kept(old) }
	if err := s.dev.Records.Change(ctx, rec.Manifest, renew); err != nil {
		s.log.Warn("keeping the grant", "err", err)
	}
}

// sleep waits for the next join; a change of the share shortens it, and a leader that has just been
// chosen waits for nothing. It reports false when ctx ends.
func (s *Share) sleep(ctx context.Context, wait time.Duration) bool {
	first := time.After(minRejoin)
	select {
	case <-first:
	case <-s.claim:
		return true
	case <-ctx.Done():
		return false
	}
	rest := time.NewTimer(max(0, wait-minRejoin))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-s.rejoin:
	case <-s.claim:
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
	q := s.joinRequest(rec, *epoch, seq)
	reply, err := s.dev.Client.Join(ctx, *array, q)
	if err != nil {
		return 0, err
	}
	*epoch = 0
	if reply.Lease.Mine {
		*epoch = reply.Lease.Epoch
	}
	s.box.post(func() { s.joined(reply, q.WantLease) })
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
		PeerId: s.self.PeerID(),
		Port:   api.Number(s.dev.Port), Scope: api.Number(s.dev.Settings.DownloadMode()),
		Left:     api.Number(f.Left),
		Uploaded: api.Number(f.Stats.Sent), Downloaded: api.Number(f.Stats.FromPeers), DownloadedCdn: api.Number(f.Stats.FromOrigin),
		JoinRequestEvent: event, Seq: api.Number(seq),
		Stalled:   f.Stalled,
		WantLease: f.WantsLease, LeaseEpoch: epoch,
	}
	if s.dev.Subnet != nil {
		s.standing(&r, f)
	}
	if s.dev.Local.IsValid() {
		r.ReportedIp = s.dev.Local.String()
	}
	return r
}

// standing says in a join what this device is in its subnet.
func (s *Share) standing(r *api.JoinRequest, f *Facts) {
	if p := s.dev.Subnet.Prefix(); p.IsValid() {
		r.Subnet = p.String()
	}
	switch f.Role {
	case subnet.Leading:
		r.LeaderEpoch = api.Number(min(f.Epoch, math.MaxInt64))
	case subnet.Following:
		r.Leader = f.Leader.PeerID()
	}
}

// joined takes an array's reply to a join that asked for the lease, or did not.
func (s *Share) joined(reply api.JoinReply, asked bool) {
	s.heard.Store(true)
	s.role.joined = true
	s.heardGeneration(reply.Generation)
	if s.alone.Load() || s.guard.onHold {
		return
	}
	if !s.metFar && s.Record().Size > smallContent && slices.ContainsFunc(reply.Peers, func(p api.Peer) bool { return !isNear(p) }) {
		s.metFar = true
		s.delay = max(s.delay, s.now()+farTime)
	}
	if l := leaseOf(reply.Lease); !s.outdated(l, asked) {
		s.onLease(l)
	}
	s.offered = 0
	for _, p := range reply.Peers {
		s.offer(p)
	}
}

// outdated reports whether an array's word, that nobody has the lease, is of before this device
// wanted it: a deputy that takes over from a leader that left goes on with its lease until the next
// join, which is under way, tells.
func (s *Share) outdated(l subnet.Lease, asked bool) bool {
	return !asked && s.facts.Load().WantsLease && s.role.lease.Known && l.Holder.IsZero()
}

// leaseOf reads an array's word. A holder that is no device is nobody.
func leaseOf(l api.Lease) subnet.Lease {
	holder, _ := wire.ParsePeerID(l.Holder)
	return subnet.Lease{Known: true, Mine: l.Mine, Holder: holder}
}
