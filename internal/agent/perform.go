package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"freshet/internal/content"
	"freshet/internal/fetch"
	"freshet/internal/identity"
	"freshet/internal/store"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

const (
	banTime   = time.Hour // at least, design section 3
	slowBlock = 64 << 10  // bytes of a request to a peer that gives less than fastPipe
	fastPipe  = 4 << 20   // bytes a second
)

// perform does what the brain decided, until it has nothing more to say.
func (s *share) perform() {
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

func (s *share) act(a *swarm.Action) {
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
			if k != nil && !s.brain.Holds(k.id, a.Run) {
				k.tell(l, a.Run)
			}
		}
	case swarm.Choke, swarm.Unchoke:
		kind := wire.Choke
		if a.Kind == swarm.Unchoke {
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
		s.log.Warn("the origin holds other bytes than the manifest says", "origin", s.record().ContentURLs[a.Source])
	case swarm.Complete:
		s.log.Info("every piece is held")
		s.complete()
	}
}

// block is how many bytes of a run are asked for at once.
func (s *share) block(id swarm.Peer) int {
	if s.brain.Rate(id) < fastPipe {
		return slowBlock
	}
	return content.PieceSize
}

func (s *share) linkAt(id swarm.Peer) *link {
	if int(id) >= len(s.links) {
		return nil
	}
	return s.links[id]
}

// send lets a link send a run, and tells the brain when it left.
func (s *share) send(id swarm.Peer, run int32) {
	sent := func(ok bool) {
		s.acts = s.brain.OnSent(s.now(), run, ok, s.acts)
	}
	k := s.linkAt(id)
	if k == nil {
		sent(false)
		return
	}
	e, n := s.held.Load(), int64(s.layout.Load().Run(int(run)).Len)
	k.conn.Send(int(run), reader{e}, func(err error) {
		s.box.post(func() {
			if errors.Is(err, store.ErrCorrupt) {
				s.log.Warn("a piece in the cache was damaged; it is fetched again", "run", run)
				s.acts = s.brain.OnDamaged(s.now(), run, s.acts)
			}
			if err == nil && !k.near {
				s.toFar += n
			}
			if s.brain != nil {
				sent(err == nil)
			}
		})
	})
}

// ban ends the connection and keeps the device away, over restarts.
func (s *share) ban(id swarm.Peer) {
	k := s.linkAt(id)
	if k == nil {
		return
	}
	s.log.Warn("peer banned: it sent wrong pieces", "device", k.conn.Device, "address", k.conn.Remote().String())
	b := store.Ban{Device: k.conn.Device.String(), Digest: s.record().Manifest, Until: time.Now().Add(banTime)}
	if err := s.a.store.Ban(s.ctx, b); err != nil {
		s.log.Warn("keeping a ban", "err", err)
	}
	k.banned = true
	k.conn.Close()
}

// fetch asks an origin for a range on a goroutine of its own. Runs are verified there, in
// order, as they arrive.
func (s *share) fetch(a swarm.Action) {
	ctx, stop := context.WithCancel(s.ctx)
	s.stops[a.ID] = stop
	src, e, l := s.sources[a.Source], s.held.Load(), s.layout.Load()
	last := s.now()
	ctx = withHeard(ctx, func() {
		if now := s.now(); now-last > swarm.TickInterval {
			last = now
			s.box.post(func() { s.brain.OnFetchBytes(s.now(), a.ID) })
		}
	})
	var failed error
	sink := func(run int, b []byte) error {
		ok, err := keep(e, run, b)
		s.a.receive.Put(b)
		if err != nil {
			failed = err
			return err
		}
		s.box.post(func() { s.acts = s.brain.OnFetched(s.now(), a.ID, int32(run), ok, s.acts) })
		return nil
	}
	s.a.spawn(func() {
		err := src.Fetch(ctx, l, int(a.Run), int(a.End), s.a.receive, sink)
		stopped := ctx.Err() != nil
		stop()
		s.box.post(func() {
			delete(s.stops, a.ID)
			if failed != nil {
				s.fail(fmt.Errorf("writing to the cache: %w", failed))
			}
			s.fetched(a.ID, err, stopped)
		})
	})
}

// fetched tells the brain how a fetch ended.
func (s *share) fetched(id int32, err error, stopped bool) {
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
	s.acts = s.brain.OnFetchEnd(s.now(), id, res, after, s.acts)
}

// grantHeader is what requests to origins carry.
func (s *share) grantHeader() http.Header {
	h := http.Header{}
	h.Set(identity.GrantHeader, base64.StdEncoding.EncodeToString(s.record().Grant))
	return h
}
