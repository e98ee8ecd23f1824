package hostile

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/lan"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/wire"
)

const (
	beatEvery = 250 * time.Millisecond
	joinEvery = 5 * time.Second
	topWeight = wire.MaxWeight
	pretence  = 0.99 // of the pieces that a liar claims
)

// holder is a member that offers an issue to its subnet: it answers every question on the
// content, claims to lead it, and lets others in.
type holder struct {
	m     *member
	o     *offer
	held  uint32 // MiB that it claims
	total uint32
	share uint8
	lan   *lan.LAN
	epoch atomic.Uint64 // that it claims; at least 1
}

func newHolder(m *member, o *offer, part float64) *holder {
	const mebi = 1 << 20
	h := &holder{m: m, o: o, total: uint32(max(1, (o.rec.Size+mebi-1)/mebi))}
	h.held, h.share = uint32(part*float64(h.total)), uint8(part*wire.Complete)
	h.epoch.Store(1)
	h.lan = m.speak(h.heard)
	return h
}

// heard answers a question on the content, whatever it names.
func (h *holder) heard(d lan.Datagram) {
	msg, err := wire.ParseLAN(d.Message)
	if err != nil {
		return
	}
	switch q := msg.(type) {
	case wire.Question:
		s := &q.Subject
		if s.By == wire.ByHashOfHashes && s.Digest != h.o.rec.HashOfHashes || s.By == wire.ByRef && s.Ref.ID != h.o.rec.Ref.ID {
			return
		}
		a := wire.Answer{
			Tag: s.Tag(), HashOfHashes: h.o.rec.HashOfHashes, Manifest: h.o.rec.Manifest, Generation: h.o.rec.Generation,
			Standing: wire.Standing{Able: true, Share: h.share, Weight: topWeight},
		}
		if err := h.lan.SendTo(d.Link.Index, d.From, a.AppendLAN(nil)); err != nil {
			h.m.log.Info("answer", "err", err)
		}
	case wire.Validate:
		h.m.log.Info("was told to validate", "content", q.Ref.String(), "by", d.Device)
	case wire.Heartbeat:
		for i := range q.Beats {
			if b := &q.Beats[i]; b.HashOfHashes == h.o.rec.HashOfHashes && b.Flags&wire.Leads != 0 {
				h.epoch.Store(max(h.epoch.Load(), b.Epoch+1))
			}
		}
	}
}

// offer speaks, beats as a leader and lets others in until ctx ends.
func (h *holder) offer(ctx context.Context, serve func(*peer.Conn)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.lan.Run(ctx) })
	g.Go(func() error { return h.beat(ctx) })
	g.Go(func() error { return h.m.receive(ctx, h.m.endpoint(h.o), serve) })
	return g.Wait()
}

func (h *holder) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		b := wire.Beat{
			HashOfHashes: h.o.rec.HashOfHashes, Epoch: h.epoch.Load(), Held: h.held, Total: h.total, Rate: 100 << 10,
			Flags: wire.Leads | wire.Able | wire.Stands | wire.Moving | wire.Outside, Priority: wire.Foreground,
		}
		if err := h.lan.Send(0, wire.Heartbeat{Weight: topWeight, Beats: []wire.Beat{b}}.AppendLAN(nil)); err != nil {
			h.m.log.Info("beat", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// greet tells a peer that came which pieces there are, and that it may ask for them.
func (h *holder) greet(c *peer.Conn) {
	bits := make([]byte, (h.o.layout.Pieces()+7)/8)
	for i := range int(float64(h.held) / float64(h.total) * float64(h.o.layout.Pieces())) {
		bits[i/8] |= 0x80 >> (i % 8)
	}
	c.Post(func(b []byte) []byte { return wire.AppendState(wire.AppendBitfield(b, bits), wire.Unchoke) })
}

// lie claims 99 % and gives nothing.
func lie(ctx context.Context, opt options) error {
	m, o, err := enlistFor(ctx, opt)
	if err != nil {
		return err
	}
	ctx, cancel, err := opt.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	h := newHolder(m, o, pretence)
	return h.offer(ctx, func(c *peer.Conn) {
		h.greet(c)
		m.log.Info("a device left", "device", c.Device, "err", c.Run(ctx, silence{o.layout}))
	})
}

// silence hears everything and says nothing.
type silence struct{ layout *content.Layout }

func (s silence) Layout() *content.Layout           { return s.layout }
func (silence) Message(*peer.Conn, wire.Message)    {}
func (silence) Run(c *peer.Conn, run int, b []byte) {}

// ignore gives an issue to whoever asks, and is deaf to Validate Metadata.
func ignore(ctx context.Context, opt options) error {
	m, o, err := enlistFor(ctx, opt)
	if err != nil {
		return err
	}
	all, err := m.fetch(ctx, o)
	if err != nil {
		return err
	}
	ctx, cancel, err := opt.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	h := newHolder(m, o, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.keepJoined(ctx, o) })
	g.Go(func() error {
		return h.offer(ctx, func(c *peer.Conn) {
			h.greet(c)
			m.log.Info("a device left", "device", c.Device, "err", c.Run(ctx, &giver{m: m, o: o, all: all}))
		})
	})
	return g.Wait()
}

// keepJoined tells the array until ctx ends that the member holds everything.
func (m *member) keepJoined(ctx context.Context, o *offer) error {
	for seq := 1; ; seq++ {
		if _, err := m.join(ctx, o, api.JoinRequest{Seq: api.Number(seq)}); err != nil {
			m.log.Info("join", "err", err)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// giver serves one connection: manifest, hash file and runs. Of Validate Metadata it only logs
// that it came.
type giver struct {
	m    *member
	o    *offer
	all  []byte
	told bool
}

func (g *giver) Layout() *content.Layout { return g.o.layout }

func (*giver) Run(c *peer.Conn, run int, b []byte) {}

func (g *giver) Message(c *peer.Conn, msg wire.Message) {
	switch msg.Kind {
	case wire.Request:
		run, first, err := c.Wants(g.o.layout, msg)
		if err != nil {
			c.Close()
		} else if first {
			c.Send(run, g, g.sent(c, run))
		}
	case wire.Envelope:
		g.envelope(c, msg.Body)
	}
}

func (g *giver) sent(c *peer.Conn, run int) func(int, error) {
	told := g.told
	return func(n int, err error) {
		if n > 0 {
			g.m.log.Info("gave a run", "run", run, "bytes", n, "device", c.Device, "told", told)
		}
	}
}

func (g *giver) envelope(c *peer.Conn, body []byte) {
	t, rest, err := wire.ParseEnvelope(body)
	if err != nil {
		return
	}
	switch t {
	case wire.GetManifest, wire.GetHashFile:
		if off, err := wire.ParseGet(t, rest); err == nil {
			g.part(c, t, off)
		}
	case wire.ValidateMetadata:
		g.told = true
		g.m.log.Info("was told to validate, singly", "by", c.Device)
	}
}

func (g *giver) part(c *peer.Conn, of wire.Type, off uint64) {
	all := g.o.bytes
	if of == wire.GetHashFile {
		all = g.o.hashes
	}
	p := metadata.PartOf(of, all, off)
	c.Post(func(b []byte) []byte { return wire.AppendPart(b, p) })
}

// Read implements peer.Reader.
func (g *giver) Read(run, off, n int, b []byte) error {
	copy(b[:n], g.all[g.o.layout.Run(run).Offset+int64(off):])
	return nil
}
