package peer

import (
	"fmt"
	"net"
	"sync"
)

// Bounds of [Endpoint.MaxOpening] and [Endpoint.MaxOpeningPerAddress] where they are 0. One
// address may stand for the devices behind a NAT, or for a laboratory on one machine.
const (
	defaultOpening           = 64
	defaultOpeningPerAddress = 16
)

// opening counts the accepted connections whose other end has not yet shown who it is.
type opening struct {
	mu     sync.Mutex // guards the following
	total  int
	from   map[string]int // by address, those with some
	excess int64          // connections closed at once
}

// enter takes a place for a connection from there until leave is called, or says why there
// is none.
func (e *Endpoint) enter(there net.Addr) (leave func(), err error) {
	total, each := e.MaxOpening, e.MaxOpeningPerAddress
	if total == 0 {
		total = defaultOpening
	}
	if each == 0 {
		each = defaultOpeningPerAddress
	}
	o, from := &e.opening, host(there)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.total >= total || o.from[from] >= each {
		o.excess++
		return nil, fmt.Errorf("closed at once: of %d connections that are being opened, %d come from its address", o.total, o.from[from])
	}
	if o.from == nil {
		o.from = map[string]int{}
	}
	o.total++
	o.from[from]++
	return func() { o.leave(from) }, nil
}

func (o *opening) leave(from string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total--
	if o.from[from]--; o.from[from] == 0 {
		delete(o.from, from)
	}
}

// Excess returns how many accepted connections were closed at once, since too many were
// being opened.
func (e *Endpoint) Excess() int64 {
	e.opening.mu.Lock()
	defer e.opening.mu.Unlock()
	return e.opening.excess
}

// host returns an address without its port. IPv6 addresses count one by one: those of one
// network are devices of one LAN.
func host(a net.Addr) string {
	if h, _, err := net.SplitHostPort(a.String()); err == nil {
		return h
	}
	return a.String()
}
