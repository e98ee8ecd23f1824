package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// How long a reply's head may take, connecting included, and then each part of its body.
const (
	serviceTime  = 5 * time.Second  // from a service that has it at hand
	metadataTime = 10 * time.Second // of a manifest or hash file, which may have to be compressed
	makeSureTime = 15 * time.Second // from a distribution point, which lets askers wait for 10 s
)

const (
	vainTime   = 2 * time.Second // a failure after so long a wait shows a silent host
	silentTime = 5 * time.Second // it is not asked for so long
	maxSilent  = 1000            // hosts that are remembered
)

// slowError says that a reply did not begin in time.
type slowError struct{ after time.Duration }

func (e slowError) Error() string { return "no reply within " + e.after.String() }

// Timeout tells callError and remedy what it is.
func (slowError) Timeout() bool { return true }

// Temporary makes it a net.Error.
func (slowError) Temporary() bool { return true }

// slowness returns why ctx was ended when that was a slow reply, else err.
func slowness(ctx context.Context, err error) error {
	var slow slowError
	if errors.As(context.Cause(ctx), &slow) {
		return slow
	}
	return err
}

// patient is the body of a reply that is waited for as long as it moves on.
type patient struct {
	io.ReadCloser
	slow *time.Timer
	wait time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	p.slow.Reset(p.wait)
	return p.ReadCloser.Read(b)
}

// Close releases the connection.
func (p *patient) Close() error {
	p.slow.Stop()
	return p.ReadCloser.Close()
}

var errSilent = errors.New("it kept the last caller waiting in vain, a moment ago")

// silence remembers the hosts that let a caller wait in vain: their network is gone, or
// something in between swallows all. Callers that follow fail at once and go on without, but
// for one each silentTime, who looks whether the host speaks again. A host that says no at
// once, by refusing connections, is not among them.
type silence struct {
	now  func() time.Time
	vain time.Duration // vainTime

	mu    sync.Mutex           // guards the following
	until map[string]time.Time // by host: it is not asked before
}

func newSilence() silence {
	return silence{now: time.Now, vain: vainTime, until: map[string]time.Time{}}
}

// ask returns errSilent when the host is not to be asked now. Else the caller tells heard what
// became of it.
func (s *silence) ask(host string) (heard func(ctx context.Context, err error) (silent bool), err error) {
	began := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, ok := s.until[host]; ok {
		if began.Before(until) {
			return nil, errSilent
		}
		s.until[host] = began.Add(silentTime) // this caller looks, for all
	}
	return func(ctx context.Context, err error) bool { return s.heard(ctx, host, began, err) }, nil
}

// heard notes how the call to a host ended that began then, and reports whether it is silent. A
// caller who gave up says nothing.
func (s *silence) heard(ctx context.Context, host string, began time.Time, err error) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		delete(s.until, host)
	case errors.Is(context.Cause(ctx), context.Canceled):
	case now.Sub(began) >= s.vain:
		if len(s.until) >= maxSilent {
			clear(s.until)
		}
		s.until[host] = now.Add(silentTime)
		return true
	default:
		delete(s.until, host)
	}
	return false
}
