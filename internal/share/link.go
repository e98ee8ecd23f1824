package share

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"

	"freshet/internal/content"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// maxHaves bounds what a peer may tell before the layout is known, one piece after the other.
const maxHaves = 4096

// link is one peer of a share. Its Handler methods run on the connection's reader and post
// to the share; its other fields and methods are the share's.
type link struct {
	s       *Share
	conn    *peer.Conn
	zone    swarm.Zone
	dialled bool          // by this end
	large   chan struct{} // capacity 1: an event of postLarge waits

	id         swarm.Peer // the brain's number, once introduced
	introduced bool
	bitfield   []byte // as received, until the layout is known
	haves      []uint32
	choked     bool
	holds      bool // it told of a piece, so it has the metadata
	banned     bool
}

var (
	_ peer.Handler  = (*link)(nil)
	_ subnet.Talker = (*link)(nil)
)

// link adds a connection to the share and runs it until it ends. dialled says that this
// end dialled it.
func (s *Share) link(ctx context.Context, c *peer.Conn, zone swarm.Zone, dialled bool) {
	k := &link{s: s, conn: c, zone: zone, dialled: dialled, large: make(chan struct{}, 1), id: swarm.None}
	s.box.post(func() { s.addLink(k) })
	err := c.Run(ctx, k)
	s.log.Debug("peer gone", "device", c.Device, "err", err)
	s.box.post(func() { s.dropLink(k) })
}

// addLink numbers a new link. Two devices that dialled each other at once have two
// connections: both ends keep the one that the device with the smaller id dialled. A
// second one from the same end replaces the first, which must be dead.
func (s *Share) addLink(k *link) {
	if s.alone.Load() || s.guard.out[k.conn.Device] || s.guard.onHold && (s.done() || !k.dialled) {
		k.conn.Close()
		return
	}
	if !s.wake(false) {
		k.conn.Close()
		return
	}
	if far, known := s.traffic.isFar(k.conn.Device); known {
		k.zone = s.zone(addressOf(k.conn), far)
	} else if s.dev.Settings.DownloadMode() != policy.SameSite {
		s.kickJoin() // the array tells where a stranger is while it downloads
	}
	var replaced *link
	free := len(s.links)
	for i, other := range s.links {
		switch {
		case other == nil:
			free = min(free, i)
		case other.conn.Device != k.conn.Device:
		case other.dialled != k.dialled && k.dialled != (bytes.Compare(s.self[:], k.conn.Device[:]) < 0):
			k.conn.Close()
			return
		default:
			replaced = other
			free = min(free, i)
		}
	}
	if s.dev.Subnet != nil { // before the other one is gone
		s.dev.Subnet.Connected(k.conn.Device, addressOf(k.conn), k)
	}
	if replaced != nil {
		replaced.conn.Close()
		s.dropLink(replaced)
	}
	if free == len(s.links) {
		s.links = append(s.links, nil)
	}
	s.links[free] = k
	k.id = swarm.Peer(free)
	s.meet()
	if s.brain != nil {
		s.introduce(k)
	}
}

// introduce tells the brain of a link, and the peer of what is held.
func (s *Share) introduce(k *link) {
	l := s.layout.Load()
	k.introduced = true
	s.acts = s.brain.OnPeer(s.now(), k.id, k.zone, s.acts)
	pub := pieceBits(l, s.brain.Public(k.zone))
	k.conn.Post(func(b []byte) []byte {
		b = wire.AppendBitfield(b, pub)
		if s.brain.Choking() || s.guard.onHold {
			return wire.AppendState(b, wire.Choke)
		}
		return wire.AppendState(b, wire.Unchoke)
	})
	if k.bitfield != nil {
		s.bitfield(k, k.bitfield)
		k.bitfield = nil
	}
	for _, p := range k.haves {
		s.have(k, p)
	}
	k.haves = nil
	if k.choked {
		s.acts = s.brain.OnChoke(s.now(), k.id, true, s.acts)
	}
}

func (s *Share) dropLink(k *link) {
	if k.id == swarm.None || s.linkAt(k.id) != k {
		return
	}
	s.links[k.id] = nil
	s.parted(k)
	s.meet()
	if k.introduced && !k.banned {
		s.acts = s.brain.OnPeerGone(s.now(), k.id, s.acts)
	}
	if s.meta != nil {
		s.meta.OnGone(metadata.Peer(k.id))
	}
	s.kickJoin()
}

// parted tells the subnet that a link is no way to its device any more.
func (s *Share) parted(k *link) {
	if s.dev.Subnet != nil {
		s.dev.Subnet.Disconnected(k.conn.Device, k)
	}
}

// bitfield tells the brain what a peer holds: runs of which it has all pieces.
func (s *Share) bitfield(k *link, b []byte) {
	l := s.layout.Load()
	if err := wire.CheckBitfield(b, l.Pieces()); err != nil {
		s.log.Info("peer sent a wrong bitfield", "device", k.conn.Device, "err", err)
		k.conn.Close()
		return
	}
	s.acts = s.brain.OnHolds(s.now(), k.id, runBits(l, b), s.acts)
}

func (s *Share) have(k *link, piece uint32) {
	l := s.layout.Load()
	if int64(piece) >= int64(l.Pieces()) {
		k.conn.Close()
		return
	}
	if run := l.RunOf(int(piece)); l.Run(run).First == int(piece) {
		s.acts = s.brain.OnHave(s.now(), k.id, int32(run), s.acts)
	}
}

// tell sends a Have of a run, by its first piece.
func (k *link) tell(l *content.Layout, run int32) {
	first := uint32(l.Run(int(run)).First)
	k.conn.Post(func(b []byte) []byte { return wire.AppendHave(b, first) })
}

func (k *link) state(kind wire.Kind) {
	k.conn.Post(func(b []byte) []byte { return wire.AppendState(b, kind) })
}

// Say implements subnet.Talker.
func (k *link) Say(message []byte) {
	k.conn.Post(func(b []byte) []byte { return wire.AppendSaid(b, message) })
}

// Layout implements peer.Handler.
func (k *link) Layout() *content.Layout { return k.s.layout.Load() }

// Run implements peer.Handler: a verifier takes the buffer.
func (k *link) Run(_ *peer.Conn, run int, b []byte) {
	s := k.s
	e := s.Use()
	if e == nil { // the share ends
		s.dev.Receive.Put(b)
		return
	}
	j := verifyJob{entry: e, sums: s.sums.Load(), run: run, buf: b, done: func(ok bool, err error) {
		e.Release()
		s.box.post(func() { s.ran(k, int32(run), ok, err) })
	}}
	if !s.dev.Verifiers.take(j) {
		s.dev.Receive.Put(b)
		e.Release()
	}
}

// ran tells the brain of a run that a peer delivered. The peer may be gone by then and its
// number be another's, who has no part in it.
func (s *Share) ran(k *link, run int32, ok bool, err error) {
	if err != nil {
		s.fail(fmt.Errorf("writing to the cache: %w", err))
		return
	}
	if s.brain == nil {
		return
	}
	n := s.layout.Load().Run(int(run)).Len
	s.traffic.received(k.conn.Device, n)
	if k.zone != swarm.SameSubnet {
		s.role.fromFar += int64(n)
	}
	id := k.id
	if s.linkAt(id) != k || k.banned {
		id = swarm.None
	}
	s.acts = s.brain.OnRun(s.now(), id, run, ok, s.acts)
	if !ok {
		s.charge(k)
		return
	}
	s.gave(k.conn.Device)
}

// Message implements peer.Handler.
func (k *link) Message(c *peer.Conn, m wire.Message) {
	s := k.s
	s.box.throttle()
	switch m.Kind {
	case wire.Choke, wire.Unchoke:
		s.box.post(func() { s.choked(k, m.Kind == wire.Choke) })
	case wire.Have:
		s.box.post(func() {
			k.holds = true
			if k.introduced {
				s.have(k, m.Piece)
			} else if k.haves = append(k.haves, m.Piece); len(k.haves) > maxHaves {
				c.Close() // it tells all of it at once when it is connected anew
			}
		})
	case wire.Bitfield:
		b := append([]byte(nil), m.Body...)
		k.postLarge(func() {
			k.holds = k.holds || slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
			if k.introduced {
				s.bitfield(k, b)
			} else {
				k.bitfield = b
			}
		})
	case wire.Request:
		k.requested(c, m)
	case wire.Cancel:
		if l := s.layout.Load(); l != nil && int64(m.Piece) < int64(l.Pieces()) {
			run := l.RunOf(int(m.Piece))
			c.Unwants(run)
			s.box.post(func() {
				if s.brain != nil {
					s.brain.OnCancel(k.id, int32(run))
				}
			})
		}
	case wire.Envelope:
		k.envelope(m.Body)
	}
}

// postLarge posts an event that holds much of what the peer sent. Only one of a link waits: the
// reader, and so the peer, waits before the next.
func (k *link) postLarge(event func()) {
	select {
	case k.large <- struct{}{}:
	case <-k.s.ctx.Done():
		return
	}
	k.s.box.post(func() {
		<-k.large
		event()
	})
}

func (s *Share) choked(k *link, choked bool) {
	k.choked = choked
	if k.introduced {
		s.acts = s.brain.OnChoke(s.now(), k.id, choked, s.acts)
	}
}

func (k *link) requested(c *peer.Conn, m wire.Message) {
	s := k.s
	l := s.layout.Load()
	if l == nil || s.OnHold() {
		return // it was told of nothing yet, or that nothing is given
	}
	run, first, err := c.Wants(l, m)
	if err != nil {
		s.log.Info("peer asks wrongly", "device", c.Device, "err", err)
		c.Close()
		return
	}
	if first {
		s.box.post(func() {
			if s.brain != nil {
				s.acts = s.brain.OnRequest(s.now(), k.id, int32(run), s.acts)
			}
		})
	}
}

// pieceBits returns a bitfield of the pieces of runs.
func pieceBits(l *content.Layout, runs content.Bits) []byte {
	b := make([]byte, (l.Pieces()+7)/8)
	for r := range runs.All {
		run := l.Run(r)
		for p := run.First; p < run.First+run.Count; p++ {
			b[p/8] |= 1 << (7 - p%8)
		}
	}
	return b
}

// runBits returns the runs of which a bitfield has all pieces.
func runBits(l *content.Layout, pieces []byte) content.Bits {
	b := content.NewBits(l.Runs())
	for r := range l.Runs() {
		run, all := l.Run(r), true
		for p := run.First; p < run.First+run.Count && all; p++ {
			all = pieces[p/8]&(1<<(7-p%8)) != 0
		}
		if all {
			b.Add(r)
		}
	}
	return b
}

// reader lets a connection read runs of an entry.
type reader struct{ *store.Entry }

// Span lends a run as one span of its file, for sendfile.
func (r reader) Span(run int) (f *os.File, off int64, release func(), ok bool) {
	sp, ok := r.Entry.File(run)
	if !ok {
		return nil, 0, nil, false
	}
	return sp.File, sp.Off, sp.Release, true
}
