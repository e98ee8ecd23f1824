package freshness

import (
	"slices"
	"time"

	"freshet/internal/content"
)

// peer is a device on another subnet of the site (SSD), or of this one where broadcasts do not
// reach it (LocalSSD): it is told singly.
type peer struct {
	device  Device
	told    int // hints of job.sent that it was told
	awaited bool
	due     time.Duration // of its acknowledgement
	out     bool          // left out
}

// sent is a hint that went out.
type sent struct {
	hint Hint
	at   time.Duration
}

// awaits reports whether an acknowledgement may still come.
func (j *job) awaits() bool {
	return slices.ContainsFunc(j.peers, func(p peer) bool { return p.awaited })
}

// OnPeer notes a device that this download's hints must reach singly.
func (b *Brain) OnPeer(now time.Duration, id Job, device Device, acts []Action) []Action {
	j := b.job(id)
	if j == nil || j.peer(device) != nil || len(j.peers) >= maxPeers {
		return acts
	}
	j.peers = append(j.peers, peer{device: device})
	return b.done(b.tellPeer(now, j, &j.peers[len(j.peers)-1], acts))
}

// OnPeerGone notes that a device is connected no more.
func (b *Brain) OnPeerGone(_ time.Duration, id Job, device Device, acts []Action) []Action {
	if j := b.job(id); j != nil {
		j.peers = slices.DeleteFunc(j.peers, func(p peer) bool { return p.device == device })
	}
	return b.done(acts)
}

func (j *job) peer(device Device) *peer {
	for i := range j.peers {
		if j.peers[i].device == device {
			return &j.peers[i]
		}
	}
	return nil
}

// validate notes a hint because of a manifest that somebody else has. It reports whether
// there is one to send: each goes out once.
func (b *Brain) validate(now time.Duration, j *job, digest content.Digest) bool {
	if b.cfg.Mode != Enforce || j.covered(digest) != never || len(j.sent) >= maxSent {
		return false
	}
	h := Hint{Ref: j.ref, Rejected: digest}
	if j.expected.State == IsExpected && j.match == content.Exact && j.expected.Algorithm != 0 {
		h = Hint{Ref: j.ref, Algorithm: j.expected.Algorithm, Wanted: j.expected.Hash}
	}
	j.sent = append(j.sent, sent{h, now})
	return true
}

// covered returns when the subnet was told of the manifest digest; never when it was not.
func (j *job) covered(digest content.Digest) time.Duration {
	for _, s := range j.sent {
		if s.hint.covers(digest) {
			return s.at
		}
	}
	return never
}

// tell sends the newest hint to everyone.
func (b *Brain) tell(now time.Duration, j *job, acts []Action) []Action {
	acts = append(acts, Action{Kind: Broadcast, Job: j.id, Ref: j.ref, Hint: j.sent[len(j.sent)-1].hint})
	for i := range j.peers {
		acts = b.tellPeer(now, j, &j.peers[i], acts)
	}
	return acts
}

// tellPeer sends p what it was not told yet.
func (b *Brain) tellPeer(now time.Duration, j *job, p *peer, acts []Action) []Action {
	for ; p.told < len(j.sent); p.told++ {
		p.awaited, p.due = true, now+tellPatience
		acts = append(acts, Action{Kind: Tell, Job: j.id, Ref: j.ref, Device: p.device, Hint: j.sent[p.told].hint})
	}
	return acts
}

// OnAck takes a peer's acknowledgement of the last hint.
func (b *Brain) OnAck(now time.Duration, id Job, device Device, ack Ack, acts []Action) []Action {
	j := b.job(id)
	if j == nil {
		return acts
	}
	p := j.peer(device)
	if p == nil || !p.awaited {
		return acts
	}
	p.awaited = false
	if ack == AckKept {
		acts = append(acts, Action{Kind: Tally, Job: j.id, Ref: j.ref, Device: device, Outcome: PeerKept})
	}
	return b.done(b.tickJob(now, j, acts))
}

// tickPeers leaves out those who did not acknowledge.
func (b *Brain) tickPeers(now time.Duration, j *job, acts []Action) []Action {
	for i := range j.peers {
		p := &j.peers[i]
		if !p.awaited || now < p.due {
			continue
		}
		p.awaited = false
		acts = append(acts, Action{Kind: Tally, Job: j.id, Ref: j.ref, Device: p.device, Outcome: PeerDeaf})
		acts = b.leaveOut(j, p.device, acts)
	}
	return acts
}

// leaveOut takes nothing from device any more; once for a peer.
func (b *Brain) leaveOut(j *job, device Device, acts []Action) []Action {
	if p := j.peer(device); p != nil {
		if p.out {
			return acts
		}
		p.out, p.awaited = true, false
	}
	return append(acts, Action{Kind: LeaveOut, Job: j.id, Ref: j.ref, Device: device})
}

// Named is what a device says that it has: in an answer of its subnet, or where it is connected.
// Heartbeats name bytes, not manifests.
type Named struct {
	Job        Job
	Device     Device
	Digest     content.Digest // of its manifest
	Generation uint64         // as it claims; 0: it does not know
}

// OnNamed compares what a device has with what is believed. A claim changes nothing here; who
// claims a higher generation is a reason to ask the catalog, and everyone else to tell.
func (b *Brain) OnNamed(now time.Duration, n Named, acts []Action) []Action {
	j := b.job(n.Job)
	if j == nil {
		return acts
	}
	k := b.knows(now, j.ref)
	believed := j.digest
	if j.phase != using {
		believed = k.digest
	}
	switch {
	case j.rejects(n.Digest):
		acts = b.offends(now, j, n.Device, n.Digest, acts)
	case n.Digest == believed || believed.IsZero() || j.rejects(believed):
	case n.Generation > k.generation:
		if now >= k.askAt {
			k.askAt = now + namedPause
			acts = append(acts, Action{Kind: AskPolicy, Ref: j.ref})
		}
	case b.validate(now, j, n.Digest):
		acts = append(acts, Action{Kind: Tally, Job: j.id, Ref: j.ref, Digest: n.Digest, Device: n.Device, Outcome: PeerStale})
		acts = b.tell(now, j, acts)
	}
	return b.done(acts)
}

// offends deals with a device that has a rejected manifest: it is told, and banned when it
// was told long enough ago. One that has what the catalog names is right by all that it can
// ask; there the DP must make sure.
func (b *Brain) offends(now time.Duration, j *job, device Device, digest content.Digest, acts []Action) []Action {
	at := j.covered(digest)
	switch {
	case digest == b.knows(now, j.ref).digest:
		return acts
	case at == never && b.validate(now, j, digest):
		return b.tell(now, j, acts)
	case at == never || now < at+grace:
		return acts
	case slices.Contains(j.banned, Banned{device, digest}) || len(j.banned) >= maxBanned:
		return acts
	}
	j.banned = append(j.banned, Banned{device, digest})
	b.dirty = true
	acts = b.leaveOut(j, device, acts)
	acts = append(acts, Action{Kind: Ban, Job: j.id, Ref: j.ref, Device: device, Digest: digest, Outcome: PeerBanned})
	return acts
}

// forgive takes back what was done to devices because of metadata that is expected no more.
func (b *Brain) forgive(j *job, acts []Action) []Action {
	for _, x := range j.banned {
		acts = append(acts, Action{Kind: Unban, Job: j.id, Ref: j.ref, Device: x.Device, Digest: x.Digest, Outcome: ExpectedChanged})
	}
	j.banned, j.sent = nil, nil
	acts = append(acts, Action{Kind: Readmit, Job: j.id, Ref: j.ref})
	for i := range j.peers {
		j.peers[i] = peer{device: j.peers[i].device}
	}
	return acts
}
