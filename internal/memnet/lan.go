package memnet

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"freshet/internal/lan"
)

// Segment is a broadcast domain: everyone on it hears what is sent to all, the sender too, as
// with multicast loopback. The zero value is one without anybody.
type Segment struct {
	mu      sync.Mutex // guards the following
	sockets map[*segmentSocket]bool
	hush    bool
}

// Hush keeps back all that is sent from now on, or no more.
func (g *Segment) Hush(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hush = on
}

// hearers returns who hears what is sent now.
func (g *Segment) hearers() []*segmentSocket {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hush {
		return nil
	}
	return slices.Collect(maps.Keys(g.sockets))
}

func (g *Segment) set(s *segmentSocket, on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sockets == nil {
		g.sockets = map[*segmentSocket]bool{}
	}
	if on {
		g.sockets[s] = true
	} else {
		delete(g.sockets, s)
	}
}

// Host is a machine whose interfaces are on segments, as package lan sees it.
type Host struct {
	mu  sync.Mutex // guards the following
	on  map[lan.Link]*Segment
	cut bool
}

var _ lan.Network = (*Host)(nil)

// Plug gives the host these interfaces, and takes all others away.
func (h *Host) Plug(on map[lan.Link]*Segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on = on
}

// Cut lets nothing in or out any more: the machine is dead.
func (h *Host) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = true
}

func (h *Host) isCut() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut
}

// Links implements lan.Network.
func (h *Host) Links() ([]lan.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.on)), nil
}

// Open implements lan.Network.
func (h *Host) Open(l lan.Link, heard func(from netip.AddrPort, b []byte) lan.Reason) (lan.Socket, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &segmentSocket{
		host: h, segment: h.on[l], at: netip.AddrPortFrom(l.Local.Addr(), lan.Port), heard: heard, ended: make(chan struct{}),
	}
	s.segment.set(s, true)
	return s, nil
}

// segmentSocket is an open link of a host.
type segmentSocket struct {
	host    *Host
	segment *Segment
	at      netip.AddrPort
	heard   func(netip.AddrPort, []byte) lan.Reason
	ended   chan struct{}
}

// SendAll implements lan.Socket.
func (s *segmentSocket) SendAll(b []byte) error {
	s.send(b, func(*segmentSocket) bool { return true })
	return nil
}

// SendTo implements lan.Socket.
func (s *segmentSocket) SendTo(b []byte, to netip.AddrPort) error {
	s.send(b, func(o *segmentSocket) bool { return o.at == to })
	return nil
}

func (s *segmentSocket) send(b []byte, to func(*segmentSocket) bool) {
	if s.host.isCut() {
		return
	}
	for _, o := range s.segment.hearers() {
		if to(o) && !o.host.isCut() {
			o.heard(s.at, b)
		}
	}
}

// Ended implements lan.Socket.
func (s *segmentSocket) Ended() <-chan struct{} { return s.ended }

// Close implements lan.Socket.
func (s *segmentSocket) Close() error {
	s.segment.set(s, false)
	return nil
}
