package hostile

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

const (
	misuseEvery = 20 * time.Millisecond // between two rounds of messages
	usurpEvery  = time.Second           // between two joins
)

// misuse sends, as a member that is let in, what members must not get far with.
func misuse(ctx context.Context, opt options) error {
	m, o, err := enlistFor(ctx, opt)
	if err != nil {
		return err
	}
	f, err := newForger(m.voice, o.rec.HashOfHashes)
	if err != nil {
		return err
	}
	w, err := openWire()
	if err != nil {
		return err
	}
	defer w.close()
	a := &abuser{m: m, o: o, f: f, wire: w}
	a.lan = m.speak(a.heard)
	ctx, cancel, err := opt.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.lan.Run(ctx) })
	g.Go(func() error { return a.usurp(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(misuseEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				m.log.Info(doneMessage, "rounds", n)
				return nil
			}
			w.overhear(f)
			a.round(n)
		}
	})
	return g.Wait()
}

// abuser is a member that knows who leads.
type abuser struct {
	m    *member
	o    *offer
	f    *forger
	wire *rawWire
	lan  *lan.LAN

	mu     sync.Mutex // guards the following
	leader wire.DeviceID
	epoch  uint64
}

// known returns who leads, and in which epoch, at least 1.
func (a *abuser) known() (wire.DeviceID, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leader, max(a.epoch, 1)
}

// usurp asks the array until ctx ends for the lease of the leader's subnet: as its next leader, nearly
// done and stalled. It logs each time that it got it and did not have it.
func (a *abuser) usurp(ctx context.Context) error {
	var last api.Lease
	for seq := 1; ; seq++ {
		_, epoch := a.known()
		reply, err := a.m.join(ctx, a.o, api.JoinRequest{
			Left: 1, Seq: api.Number(seq), WantLease: true, Stalled: true, LeaseEpoch: last.Epoch,
			Subnet: a.wire.own.String(), LeaderEpoch: api.Number(epoch + 1),
		})
		switch {
		case err != nil:
			a.m.log.Info("join", "err", err)
		case reply.Lease.Mine && !last.Mine:
			a.m.log.Info("took the lease", "epoch", reply.Lease.Epoch)
		}
		last = reply.Lease
		select {
		case <-time.After(usurpEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// heard notes the leader of the content.
func (a *abuser) heard(d lan.Datagram) {
	msg, err := wire.ParseLAN(d.Message)
	if err != nil {
		return
	}
	if h, ok := msg.(wire.Heartbeat); ok {
		for i := range h.Beats {
			if b := &h.Beats[i]; b.HashOfHashes == a.o.rec.HashOfHashes && b.Flags&wire.Leads != 0 {
				a.mu.Lock()
				a.leader, a.epoch = d.Device, b.Epoch
				a.mu.Unlock()
			}
		}
	}
}

// round sends one message of each kind; those in others' names as datagrams of their own.
func (a *abuser) round(n int) {
	leader, epoch := a.known()
	ref, hoh := a.o.rec.Ref, a.o.rec.HashOfHashes
	asked := wire.Subject{By: wire.ByRef, Ref: ref}
	made := content.DigestOf([]byte{byte(n), byte(n >> 8)})
	claims := []uint64{math.MaxUint64, math.MaxUint64 - 1, math.MaxInt64, epoch + 1, epoch + 100, epoch + 1000, epoch + 1001}
	for _, msg := range []wire.LANMessage{
		wire.Validate{Ref: ref, Rejected: a.o.rec.Manifest},
		wire.Validate{Ref: ref, Algorithm: content.SHA1Algorithm, Wanted: made},
		wire.Resign{HashOfHashes: hoh, Epoch: epoch, Reason: wire.Unable, Successor: a.m.self()},
		a.f.claim(leader, claims[n%len(claims)]),
		wire.Answer{Tag: asked.Tag(), HashOfHashes: made, Manifest: made, Generation: math.MaxInt64,
			Standing: wire.Standing{Able: true, Share: wire.Complete, Weight: topWeight}},
	} {
		if err := a.lan.Send(0, msg.AppendLAN(nil)); err != nil {
			a.m.log.Info("send", "err", err)
		}
	}
	for _, kind := range []string{"stolen pass", "own pass"} {
		if b := a.f.make(kind); b != nil {
			if err := a.wire.send(a.wire.own.Addr(), b); err != nil {
				a.m.log.Info("send", "err", err)
			}
		}
	}
}
