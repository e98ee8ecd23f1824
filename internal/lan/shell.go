package lan

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"freshet/internal/identity"
)

// Link is one protocol on one interface. Links with the same Index are the same subnet.
type Link struct {
	Index int
	Name  string       // of the interface
	Local netip.Prefix // own address and its subnet
}

// Holds reports whether an address may be one of the link's devices.
func (l *Link) Holds(a netip.Addr) bool {
	zone := a.Zone()
	a = a.Unmap().WithZone("")
	return (zone == "" || zone == l.Name) && l.Local.Contains(a) && a != broadcastOf(l.Local) && !a.IsMulticast()
}

// broadcastOf returns an IPv4 subnet's broadcast address; the zero address where there is none.
func broadcastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Network is what datagrams go over: this machine's interfaces ([UDP]), or a test's.
type Network interface {
	// Links returns what there is to speak on now.
	Links() ([]Link, error)
	// Open begins to listen. heard is called for each datagram, from any goroutine; it does
	// not block, keeps nothing of b, and says what the check made of it: Taken
	// also where Run is behind.
	Open(l Link, heard func(from netip.AddrPort, b []byte) Reason) (Socket, error)
}

// Socket is an open link. It is safe for concurrent use.
type Socket interface {
	SendAll(b []byte) error                   // to every device of the subnet
	SendTo(b []byte, to netip.AddrPort) error // to one
	Ended() <-chan struct{}                   // closed when nothing is heard any more
	Close() error                             // returns when heard is not called any more
}

// Datagram is one that was taken.
type Datagram struct {
	Sender
	Link    Link
	From    netip.AddrPort // where an answer goes
	Message []byte         // as for wire.ParseLAN
}

// Swarm returns where the sender's swarm listens; false when it lets nobody in.
func (d *Datagram) Swarm() (netip.AddrPort, bool) {
	return netip.AddrPortFrom(d.From.Addr(), d.Port), d.Port != 0
}

// DefaultPoll is how often interfaces are looked at.
const DefaultPoll = 5 * time.Second

const maxWaiting = 256 // datagrams that wait for Options.Handle

// Options of a LAN. Trust, Network and Handle are needed.
type Options struct {
	Trust   Trust
	Network Network
	Handle  func(Datagram) // called by Run, one datagram after the other
	Linked  func([]Link)   // called by Run with the links that are open, sorted: at first, and when they change; nil: nobody asks
	Near    func([]Link)   // called by Run with the links that there are, open or not, sorted, before Linked; nil: nobody asks
	On      func() bool    // whether to speak at all, asked at each poll; nil: yes
	Poll    time.Duration  // 0: DefaultPoll
	Log     *slog.Logger   // nil: none
}

// LAN sends and receives sealed messages on every link. It is safe for concurrent use.
type LAN struct {
	opt    Options
	sealer *Sealer
	counts counts
	in     chan Datagram

	openMu sync.Mutex // guards opener
	opener *Opener

	linkMu sync.Mutex // guards links
	links  map[Link]Socket

	failed map[Link]failure // of links that did not open; owned by Run
	told   []Link           // to Options.Linked; owned by Run, nil before the first time
	near   []Link           // to Options.Near; owned by Run
}

// failure is why a link did not open.
type failure struct {
	why   string
	again bool // not for the first time
}

// New returns a LAN that is silent and deaf until it has keys and a speaker, and Run is called.
func New(opt Options) *LAN {
	if opt.Poll == 0 {
		opt.Poll = DefaultPoll
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.On == nil {
		opt.On = func() bool { return true }
	}
	if opt.Linked == nil {
		opt.Linked = func([]Link) {}
	}
	if opt.Near == nil {
		opt.Near = func([]Link) {}
	}
	return &LAN{
		opt: opt, sealer: NewSealer(opt.Trust.Now), opener: NewOpener(opt.Trust), in: make(chan Datagram, maxWaiting),
		links: map[Link]Socket{}, failed: map[Link]failure{},
	}
}

// SetKeys gives the group's LAN keys, and the server's keys that sign passes.
func (l *LAN) SetKeys(k Keys, signers []ed25519.PublicKey) {
	l.sealer.SetKeys(k)
	l.openMu.Lock()
	defer l.openMu.Unlock()
	l.opener.SetKeys(k, signers)
}

// SetSpeaker gives the key and pass to speak with, and the TCP port of the swarm; 0 when nobody
// is let in.
func (l *LAN) SetSpeaker(s *identity.Speaker, port uint16) { l.sealer.SetSpeaker(s, port) }

// Drops returns how many datagrams were dropped, by [Reason]; "taken" are those that were not.
func (l *LAN) Drops() map[string]uint64 { return l.counts.byName() }

// Malformed counts a datagram as malformed that was taken: whoever reads its message cannot.
func (l *LAN) Malformed() {
	l.counts[Taken].Add(^uint64(0))
	l.counts.add(Malformed)
}

// Links returns the links that are open, sorted by interface, IPv4 first.
func (l *LAN) Links() []Link {
	l.linkMu.Lock()
	defer l.linkMu.Unlock()
	return l.sorted()
}

// sorted returns the open links. The caller holds linkMu.
func (l *LAN) sorted() []Link {
	all := make([]Link, 0, len(l.links))
	for link := range l.links {
		all = append(all, link)
	}
	slices.SortFunc(all, byInterface)
	return all
}

func byInterface(a, b Link) int {
	return cmp.Or(a.Index-b.Index, a.Local.Addr().Compare(b.Local.Addr()))
}

// Run listens until ctx ends.
func (l *LAN) Run(ctx context.Context) error {
	tick := time.NewTicker(l.opt.Poll)
	defer tick.Stop()
	defer l.rescan(nil)
	l.poll()
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-l.in:
			l.opt.Handle(d)
		case <-tick.C:
			l.poll()
		}
	}
}

// poll opens the links that are there now, and closes all others.
func (l *LAN) poll() {
	links, err := l.opt.Network.Links()
	if err != nil {
		l.opt.Log.Warn("interfaces", "err", err)
		links = l.near
	}
	slices.SortFunc(links, byInterface)
	if !slices.Equal(links, l.near) {
		l.near = links
		l.opt.Near(slices.Clone(links))
	}
	if !l.opt.On() {
		links = nil
	}
	l.rescan(links)
}

func (l *LAN) rescan(want []Link) {
	for link, s := range l.unwanted(want) {
		if err := s.Close(); err != nil {
			l.opt.Log.Debug("close link", "interface", link.Name, "address", link.Local, "err", err)
		}
		l.opt.Log.Info("lan link closed", "interface", link.Name, "address", link.Local)
	}
	for _, link := range want {
		l.open(link)
	}
	for link := range l.failed {
		if !slices.Contains(want, link) {
			delete(l.failed, link)
		}
	}
	if links := l.Links(); l.told == nil || !slices.Equal(links, l.told) {
		l.told = links
		l.opt.Linked(links)
	}
}

// unwanted takes the links that are to be closed out of the table.
func (l *LAN) unwanted(want []Link) map[Link]Socket {
	l.linkMu.Lock()
	defer l.linkMu.Unlock()
	out := map[Link]Socket{}
	for link, s := range l.links {
		ended := false
		select {
		case <-s.Ended():
			ended = true
		default:
		}
		if ended || !slices.Contains(want, link) {
			out[link] = s
			delete(l.links, link)
		}
	}
	return out
}

func (l *LAN) open(link Link) {
	l.linkMu.Lock()
	_, open := l.links[link]
	l.linkMu.Unlock()
	if open {
		return
	}
	s, err := l.opt.Network.Open(link, func(from netip.AddrPort, b []byte) Reason { return l.heard(link, from, b) })
	if err != nil {
		f := failure{why: err.Error(), again: l.failed[link].why == err.Error()}
		if f.again && !l.failed[link].again { // each reason once; an address that is new may not be ready at first
			l.opt.Log.Warn("a lan link does not open; it is tried again", "interface", link.Name, "address", link.Local, "err", err)
		}
		l.failed[link] = f
		return
	}
	delete(l.failed, link)
	l.linkMu.Lock()
	l.links[link] = s
	l.linkMu.Unlock()
	l.opt.Log.Info("lan link open", "interface", link.Name, "address", link.Local)
}

// heard checks a datagram and hands it to Run, and returns what the check says.
func (l *LAN) heard(link Link, from netip.AddrPort, b []byte) Reason {
	if from.Port() == 0 || !link.Holds(from.Addr()) {
		l.counts.add(Foreign)
		return Foreign
	}
	l.openMu.Lock()
	sender, message, why := l.opener.Open(from.Addr(), b)
	message = slices.Clone(message)
	l.openMu.Unlock()
	counted := why
	if why == Taken {
		select {
		case l.in <- Datagram{Sender: sender, Link: link, From: from, Message: message}:
		default:
			counted = Busy
		}
	}
	l.counts.add(counted)
	return why
}

// Send sends a message to every device of a subnet, by its interface; 0 stands for all.
// [ErrOff] when no such link is open, [ErrNoKey], [ErrNoPass]. It is an error only when it
// leaves on no link.
func (l *LAN) Send(index int, message []byte) error {
	b, err := l.sealer.Seal(nil, message)
	if err != nil {
		return err
	}
	var errs []error
	sent := false
	for link, s := range l.on(index) {
		if err := s.SendAll(b); err != nil {
			errs = append(errs, fmt.Errorf("lan: send on %s (%s): %w", link.Name, link.Local, err))
		} else {
			sent = true
		}
	}
	switch {
	case sent:
		return nil
	case errs == nil:
		return ErrOff
	}
	return errors.Join(errs...)
}

// on calls yield for each open link of an interface, in order.
func (l *LAN) on(index int) func(yield func(Link, Socket) bool) {
	return func(yield func(Link, Socket) bool) {
		for _, link := range l.Links() {
			if index != 0 && link.Index != index {
				continue
			}
			l.linkMu.Lock()
			s := l.links[link]
			l.linkMu.Unlock()
			if s != nil && !yield(link, s) {
				return
			}
		}
	}
}

// SendTo sends a message to one device of a subnet, at the address that its datagrams come
// from. The errors are those of Send.
func (l *LAN) SendTo(index int, to netip.AddrPort, message []byte) error {
	for link, s := range l.on(index) {
		if !link.Holds(to.Addr()) {
			continue
		}
		b, err := l.sealer.Seal(nil, message)
		if err != nil {
			return err
		}
		if err := s.SendTo(b, to); err != nil {
			return fmt.Errorf("lan: send to %s on %s: %w", to, link.Name, err)
		}
		return nil
	}
	return fmt.Errorf("lan: send to %s: no open link has it on its subnet: %w", to, ErrOff)
}
