package hostile

import (
	"context"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/peer"
	"freshet/internal/wire"
)

const (
	tasteEvery = 100 * time.Millisecond
	dialTime   = 2 * time.Second
)

// taste asks every holder that the array names, again and again, for the smallest run of the issue
// that is published when it begins. It logs "gave" with the address of the holder and the time
// for each one that came.
func taste(ctx context.Context, opt options) error {
	m, o, err := enlistFor(ctx, opt)
	if err != nil {
		return err
	}
	t := &taster{m: m, o: o, e: m.endpoint(o), holders: map[string]bool{}}
	if err := t.meet(ctx, 1); err != nil {
		return err
	}
	ctx, cancel, err := opt.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	for seq := 2; ctx.Err() == nil; seq++ {
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			continue
		}
		if err := t.meet(ctx, seq); err != nil {
			m.log.Info("join", "err", err)
		}
	}
	t.work.Wait()
	return nil
}

// taster knows the holders that it has met.
type taster struct {
	m       *member
	o       *offer
	e       *peer.Endpoint
	holders map[string]bool // by address; owned by meet's caller
	work    sync.WaitGroup
}

// meet asks the array for holders, and begins with those that are new.
func (t *taster) meet(ctx context.Context, seq int) error {
	reply, err := t.m.join(ctx, t.o, api.JoinRequest{Left: api.Number(t.o.rec.Size), Seq: api.Number(seq)})
	if err != nil {
		return err
	}
	for _, p := range reply.Peers {
		if !t.holders[p.Address] {
			t.holders[p.Address] = true
			t.m.log.Info("a holder", "address", p.Address, "type", p.Type)
			t.work.Go(func() { t.follow(ctx, p.Address) })
		}
	}
	return nil
}

// follow connects to a holder again and again.
func (t *taster) follow(ctx context.Context, addr string) {
	why := ""
	for ctx.Err() == nil {
		dctx, cancel := context.WithTimeout(ctx, dialTime)
		c, _, err := t.e.Dial(dctx, addr, t.m.hello(t.o))
		cancel()
		if err == nil {
			err = t.ask(ctx, c, addr)
		}
		if err != nil && err.Error() != why { // each reason once in a row
			why = err.Error()
			t.m.log.Info("nothing", "address", addr, "err", err)
		}
		select {
		case <-time.After(tasteEvery):
		case <-ctx.Done():
		}
	}
}

// ask asks one holder for a run until the connection ends.
func (t *taster) ask(ctx context.Context, c *peer.Conn, addr string) error {
	s := &sip{taster: t, addr: addr, run: smallest(t.o.layout), may: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.drink(ctx, c)
	c.Post(func(b []byte) []byte { return wire.AppendState(b, wire.Interested) })
	return c.Run(ctx, s)
}

// smallest returns the run with the fewest bytes.
func smallest(l *content.Layout) int {
	best := 0
	for r := range l.Runs() {
		if l.Run(r).Len < l.Run(best).Len {
			best = r
		}
	}
	return best
}

// sip is one connection of a taster.
type sip struct {
	*taster
	addr string
	run  int
	may  chan struct{} // capacity 1: the next run may be asked for
}

// drink asks for the run, each time when it may.
func (s *sip) drink(ctx context.Context, c *peer.Conn) {
	for {
		select {
		case <-s.may:
			c.Ask(s.o.layout, s.run, s.o.layout.Run(s.run).Len)
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(tasteEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (s *sip) Layout() *content.Layout { return s.o.layout }

func (s *sip) Message(c *peer.Conn, m wire.Message) {
	if m.Kind == wire.Unchoke {
		s.next()
	}
}

func (s *sip) next() {
	select {
	case s.may <- struct{}{}:
	default:
	}
}

// Run takes a run that came.
func (s *sip) Run(c *peer.Conn, run int, b []byte) {
	s.m.log.Info("gave", "address", s.addr, "at", time.Now().UnixNano())
	s.e.Receive.Put(b)
	s.next()
}
