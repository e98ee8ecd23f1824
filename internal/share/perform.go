package share

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/fetch"
	"freshet/internal/identity"
	"freshet/internal/store"
	"freshet/internal/swarm"
	"freshet/internal/web"
	"freshet/internal/wire"
)

const (
	banTime   = time.Hour // at least, design section 3
	slowBlock = 64 << 10  // bytes of a request to a peer that gives less than fastPipe
	fastPipe  = 4 << 20   // bytes a second
)

// perform does what the brain decided, until it has nothing more to say.
func (s *Share) perform() {
	for len(s.acts) > 0 {
		acts := s.acts
		s.acts = nil
		for i := range acts {
			s.act(&acts[i])
		}
		if len(s.acts) == 0 {
			s.acts = acts[:0]
			return
		}
	}
}

func (s *Share) act(a *swarm.Action) {
	l := s.layout.Load()
	switch a.Kind {
	case swarm.Request:
		if k := s.linkAt(a.Peer); k != nil {
			k.conn.Ask(l, int(a.Run), s.block(a.Peer))
		}
	case swarm.Cancel:
		if k := s.linkAt(a.Peer); k != nil {
			k.conn.Cancel(l, int(a.Run))
		}
	case swarm.Tell:
		if k := s.linkAt(a.Peer); k != nil {
			k.tell(l, a.Run)
		}
	case swarm.TellAll:
		for _, k := range s.links {
			if k != nil {
				k.tell(l, a.Run)
			}
		}
	case swarm.Choke, swarm.Unchoke:
		kind := wire.Choke
		if a.Kind == swarm.Unchoke && !s.guard.onHold {
			kind = wire.Unchoke
		}
		for _, k := range s.links {
			if k != nil {
				k.state(kind)
			}
		}
	case swarm.Send:
		s.send(a.Peer, a.Run)
	case swarm.Charge:
		if k := s.linkAt(a.Peer); k != nil {
			first := uint32(l.Run(int(a.Run)).First)
			k.conn.Post(func(b []byte) []byte { return wire.AppendWrongPiece(b, first) })
		}
	case swarm.Ban:
		s.ban(a.Peer)
	case swarm.Fetch:
		s.fetch(*a)
	case swarm.Stop:
		if stop := s.stops[a.ID]; stop != nil {
			stop()
		}
	case swarm.Changed:
		s.log.Warn("the origin holds other bytes than the manifest says", "origin", s.sources[a.Source].Name())
	case swarm.Complete:
		s.log.Info("every piece is held")
		s.complete()
	}
}

// block is how many bytes of a run are asked for at once.
func (s *Share) block(id swarm.Peer) int {
	if s.brain.Rate(id) < fastPipe {
		return slowBlock
	}
	return content.PieceSize
}

func (s *Share) linkAt(id swarm.Peer) *link {
	if id < 0 || int(id) >= len(s.links) {
		return nil
	}
	return s.links[id]
}

// send lets a link send a run, and tells the brain when it left.
func (s *Share) send(id swarm.Peer, run int32) {
	k := s.linkAt(id)
	if k == nil || s.guard.onHold {
		to := id
		if k == nil {
			to = swarm.None
		} else {
			k.conn.Unwants(int(run))
		}
		s.acts = s.brain.OnSent(s.now(), to, run, false, s.acts)
		return
	}
	e, brain := s.Use(), s.brain
	k.conn.Send(int(run), reader{e}, func(n int, err error) {
		e.Release()
		s.box.post(func() {
			s.toPeers += int64(n)
			s.traffic.sent(k.conn.Device, n)
			if s.brain == brain {
				to := id
				if s.linkAt(id) != k || k.banned { // the number may be another's by now
					to = swarm.None
				}
				s.acts = brain.OnSent(s.now(), to, run, err == nil && n > 0, s.acts)
			}
			if errors.Is(err, store.ErrCorrupt) {
				s.damaged(run)
			}
		})
	})
}

// damaged fetches a run again that the store found wrong and dropped. Peers have been told
// that it is held, and the protocol has no word to take that back: they are connected anew,
// but for those that know.
func (s *Share) damaged(run int32, know ...*link) {
	s.log.Warn("a piece in the cache was damaged; it is fetched again", "run", run)
	if s.brain == nil {
		return
	}
	s.acts = s.brain.OnDamaged(s.now(), run, s.acts)
	for _, k := range s.live() {
		if !slices.Contains(know, k) {
			k.conn.Close()
		}
	}
	s.kickJoin()
}

// ban ends the connection and keeps the device away, over restarts.
func (s *Share) ban(id swarm.Peer) {
	k := s.linkAt(id)
	if k == nil {
		return
	}
	k.banned = true // the brain has forgotten it
	s.banDevice(k)
}

// charge counts what is held against one device. The brain counts by connection; this is
// kept over them.
type charge struct {
	wrong   int  // wrong pieces and wrong metadata, less the one withdrawn
	excused bool // one was withdrawn
	banned  bool
}

// charge counts wrong bytes against the device of k. The second time bans it.
func (s *Share) charge(k *link) {
	c := s.charges[k.conn.Device]
	if c == nil {
		c = &charge{}
		s.charges[k.conn.Device] = c
	}
	c.wrong++
	s.log.Warn("peer sent wrong bytes", "device", k.conn.Device, "charges", c.wrong)
	if c.wrong >= 2 {
		s.banDevice(k)
	}
}

// excuse withdraws the one charge that may be: the device has hashed its cache again.
func (s *Share) excuse(k *link) {
	if c := s.charges[k.conn.Device]; c != nil && !c.excused && c.wrong > 0 {
		c.excused = true
		c.wrong--
	}
	if s.brain != nil {
		s.brain.OnAcknowledged(k.id)
	}
}

func (s *Share) banDevice(k *link) {
	k.conn.Close()
	c := s.charges[k.conn.Device]
	if c == nil {
		c = &charge{}
		s.charges[k.conn.Device] = c
	}
	if c.banned {
		return
	}
	c.banned = true
	s.bans++
	s.log.Warn("peer banned: it sent wrong bytes", "device", k.conn.Device, "address", k.conn.Remote().String())
	b := store.Ban{Device: k.conn.Device.String(), Digest: s.Record().Manifest, Until: time.Now().Add(banTime)}
	if err := s.dev.Store.Ban(s.ctx, b); err != nil {
		s.log.Warn("keeping a ban", "err", err)
	}
}

// fetch asks an origin for a range on a goroutine of its own. Runs are verified there, in
// order, as they arrive.
func (s *Share) fetch(a swarm.Action) {
	ctx, stop := context.WithCancel(s.ctx)
	s.stops[a.ID] = stop
	src, e, l, brain := s.sources[a.Source], s.Use(), s.layout.Load(), s.brain
	tell := func(event func()) {
		s.box.post(func() {
			if s.brain == brain { // not one that began after a rest
				event()
			}
		})
	}
	last := s.now()
	ctx = web.WithHeard(ctx, func() {
		if now := s.now(); now-last > swarm.TickInterval {
			last = now
			tell(func() {
				s.role.heard = s.now()
				brain.OnFetchBytes(s.now(), a.ID)
			})
		}
	})
	var failed error
	sink := func(run int, b []byte) error {
		tell(func() { brain.OnFetchWriting(s.now(), a.ID) })
		j := verifyJob{entry: e, sums: s.sums.Load(), run: run, buf: b}
		ok, err := j.keep(s.dev.Receive)
		if err != nil {
			failed = err
			return err
		}
		tell(func() {
			if ok {
				s.role.failures = 0
			}
			s.acts = brain.OnFetched(s.now(), a.ID, int32(run), ok, s.acts)
		})
		return nil
	}
	began := s.owner.Spawn(func() {
		defer e.Release()
		err := src.Fetch(ctx, l, int(a.Run), int(a.End), s.dev.Receive, sink)
		stopped := ctx.Err() != nil
		stop()
		tell(func() {
			delete(s.stops, a.ID)
			if failed != nil {
				s.fail(fmt.Errorf("writing to the cache: %w", failed))
			}
			s.fetched(a.ID, err, stopped)
		})
	})
	if !began {
		stop()
		e.Release()
	}
}

// fetched tells the brain how a fetch ended.
func (s *Share) fetched(id int32, err error, stopped bool) {
	res, after := swarm.FetchDone, time.Duration(0)
	var status *fetch.StatusError
	switch {
	case err == nil:
	case stopped:
		res = swarm.FetchStopped
	case errors.Is(err, fetch.ErrChanged), errors.Is(err, fetch.ErrRange):
		res = swarm.FetchChanged
		s.log.Warn("origin refused", "err", err)
	default:
		if errors.As(err, &status) {
			after = status.RetryAfter
		}
		res = swarm.FetchFailed
		s.log.Info("origin failed; it is tried again", "err", err)
	}
	if res == swarm.FetchFailed || res == swarm.FetchChanged {
		s.originFailed(len(s.sources))
	}
	s.acts = s.brain.OnFetchEnd(s.now(), id, res, after, s.acts)
}

// grantHeader is what requests to origins carry.
func (s *Share) grantHeader() http.Header {
	h := http.Header{}
	h.Set(identity.GrantHeader, base64.StdEncoding.EncodeToString(s.Record().Grant))
	return h
}
