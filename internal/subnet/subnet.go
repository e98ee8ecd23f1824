// Package subnet takes part, for this device, in the elections of the subnets that it is on: it
// is the shell around the brains of package election, one for each interface of package lan.
//
//	shares ──► Content ─┐                        ┌─► Member (role, neighbours, proofs)
//	                    ├─► loop: one brain for ─┤
//	datagrams, swarm ───┘   each interface       └─► lan.LAN; swarm connections of those
//	connections                                      that datagrams do not reach
//
// # One device, several subnets
//
// Every brain decides for itself. The device goes outside for a content when one of them says
// so and none follows another device; a brain that has just begun to seek is waited for. What
// one subnet brings is there for all.
//
// # Where datagrams are dropped
//
// A device of the subnet that is connected for some swarm, and was not heard by datagram for
// [silent], is told over that connection ([wire.Said]) what all are told. So elections go on
// where an access point keeps broadcasts back, with the peers that the array names.
//
// # Who is where
//
// The address book keeps, for each content, whom it heard speak of it on the subnet and where
// their swarms listen: its [Member] connects to them without an array. It is bounded, and
// filled by datagrams alone, whose sender and address are known.
//
// All state is the loop's ([Subnet.Run]). Methods post events to it and wait only while it is
// behind; it calls members, which wait for nothing.
package subnet

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"freshet/internal/content"
	"freshet/internal/election"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

const (
	silent     = 30 * time.Second // without a datagram, a device is told over a connection
	decideTime = time.Second      // for a brain that has begun to seek, where another would go out
	meetEvery  = 5 * time.Second  // between two mentions of the same neighbour

	maxEvents     = 256  // that wait for the loop; whoever posts then waits
	maxSeen       = 1024 // devices remembered on an interface
	maxNeighbours = 64   // of a content
)

// Options are what New needs.
type Options struct {
	LAN        lan.Options          // Handle, Near and Linked are the subnet's own
	Begin      <-chan struct{}      // closed when datagrams may begin; nil: at once
	Home       func() netip.Addr    // of this device, as services see it; nil or zero: not known
	Weight     func(lan.Link) uint8 // of this device as leader; nil: a desktop's
	Conditions election.Conditions
	Seed       func() uint64 // for each brain
	LeaseWait  time.Duration // see [election.Config]
	Log        *slog.Logger
}

// Subnet is the device's part in the elections of its subnets. Its methods may be called from
// any goroutine.
type Subnet struct {
	opt    Options
	log    *slog.Logger
	self   wire.DeviceID
	lan    *lan.LAN
	start  time.Time
	events chan func()
	done   chan struct{}              // closed when the loop has ended
	ready  chan struct{}              // closed when the links are known
	links  atomic.Pointer[[]lan.Link] // that are open
	near   atomic.Pointer[[]lan.Link] // that there are, whether datagrams go over them or not
	hint   atomic.Pointer[func(Hint)]

	// owned by the loop
	brains    []*brain // by index of their interface
	cond      election.Conditions
	contents  map[content.Digest]*Content
	touched   map[*Content]struct{} // whose stand may have changed
	undecided map[*Content]struct{} // whose stand changes with time
	connected map[wire.DeviceID]*connected
	seeks     map[wire.Subject]*seek
	mute      bool // the last datagram did not leave
}

// New returns a subnet without links; Run looks for them.
func New(opt Options) *Subnet {
	if opt.Home == nil {
		opt.Home = func() netip.Addr { return netip.Addr{} }
	}
	if opt.Weight == nil {
		opt.Weight = func(lan.Link) uint8 { return election.WeightDesktop }
	}
	s := &Subnet{
		opt: opt, log: opt.Log, self: opt.LAN.Trust.Self, start: time.Now(), cond: opt.Conditions,
		events: make(chan func(), maxEvents), done: make(chan struct{}), ready: make(chan struct{}),
		contents: map[content.Digest]*Content{}, touched: map[*Content]struct{}{}, undecided: map[*Content]struct{}{},
		connected: map[wire.DeviceID]*connected{}, seeks: map[wire.Subject]*seek{},
	}
	opt.LAN.Handle = s.handle
	opt.LAN.Near = func(links []lan.Link) { s.near.Store(&links) }
	opt.LAN.Linked = func(links []lan.Link) { s.post(func() { s.linked(links) }) }
	s.lan = lan.New(opt.LAN)
	s.links.Store(&[]lan.Link{})
	s.near.Store(&[]lan.Link{})
	return s
}

// LAN returns what the datagrams go over; it wants keys and a speaker.
func (s *Subnet) LAN() *lan.LAN { return s.lan }

// Ready returns a channel that is closed when the subnet knows whether there are links.
func (s *Subnet) Ready() <-chan struct{} { return s.ready }

// AwaitLinks waits until the subnet is ready, for d at most, or ctx ends.
func (s *Subnet) AwaitLinks(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.ready:
	case <-t.C:
	case <-ctx.Done():
	}
}

// Run takes part until ctx ends. It resigns what this device leads before it returns.
func (s *Subnet) Run(ctx context.Context) error {
	lanCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() {
		if s.opt.Begin != nil {
			select {
			case <-s.opt.Begin:
			case <-ctx.Done():
				ended <- nil
				return
			}
		}
		ended <- s.lan.Run(lanCtx)
	}()
	s.loop(ctx)
	for _, b := range s.brains {
		s.do(b, b.OnLeave(s.now(), nil))
	}
	close(s.done)
	end()
	return <-ended
}

func (s *Subnet) loop(ctx context.Context) {
	timer := time.NewTimer(s.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-s.events:
			event()
		case <-timer.C:
		}
		s.tick()
		s.settle()
		timer.Reset(s.wait())
	}
}

// post adds an event. After the end it is dropped.
func (s *Subnet) post(event func()) {
	select {
	case s.events <- event:
	case <-s.done:
	}
}

func (s *Subnet) now() time.Duration { return time.Since(s.start) }

// wait returns the time until something is due.
func (s *Subnet) wait() time.Duration {
	next := s.now() + time.Hour
	for _, b := range s.brains {
		next = min(next, b.Next())
	}
	for c := range s.undecided {
		next = min(next, c.decides())
	}
	return max(0, next-s.now())
}

func (s *Subnet) tick() {
	now := s.now()
	for _, b := range s.brains {
		if b.Next() <= now {
			s.do(b, b.OnTick(now, nil))
		}
	}
	for c := range s.undecided {
		s.touched[c] = struct{}{}
	}
}

// settle tells members what has become of their contents.
func (s *Subnet) settle() {
	for c := range s.touched {
		delete(s.touched, c)
		c.settle()
	}
}

// Conditions tells what this device's weight and right to go out depend on now.
func (s *Subnet) Conditions(cond election.Conditions) {
	s.post(func() {
		if cond == s.cond {
			return
		}
		s.cond = cond
		for _, b := range s.brains {
			s.do(b, b.OnConditions(s.now(), cond, nil))
		}
	})
}

// OnHold puts an entry into quarantine, or takes it out: on hold it answers no question and is
// no reason to lead.
func (s *Subnet) OnHold(hoh, manifest content.Digest, on bool) {
	s.post(func() {
		if c := s.contents[hoh]; c != nil {
			c.hold(manifest, on)
		}
	})
}
