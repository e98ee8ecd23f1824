package devices

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/identity"
	"freshet/internal/registry"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Bounds of probes. A device has this server knock at the address that it calls from, and
// nowhere else; these keep even that from being of use to flood or to scan with.
const (
	probeTimeout  = 3 * time.Second  // until the handshake is done
	probeInterval = 10 * time.Second // between two probes of one device
	maxProbes     = 32               // at once
	probeMemory   = 10_000           // devices whose last probe is remembered, about
)

// Prober answers POST /v1/probe: it dials the caller's swarm port and says whether the
// caller's own certificate answered there. The registry remembers it for the arrays, which go
// by it in DODownloadMode 3.
type Prober struct {
	credentials *identity.Credentials
	registry    registry.Probes
	now         func() time.Time
	log         *slog.Logger
	slots       chan struct{} // capacity maxProbes

	mu   sync.Mutex // guards the following
	last map[wire.DeviceID]time.Time
}

// NewProber returns a prober that trusts what these credentials trust.
func NewProber(c *identity.Credentials, r registry.Probes, now func() time.Time, log *slog.Logger) *Prober {
	return &Prober{credentials: c, registry: r, now: now, log: log, slots: make(chan struct{}, maxProbes), last: map[wire.DeviceID]time.Time{}}
}

// ServeHTTP implements http.Handler.
func (p *Prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, err := target(w, r)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	device := authz.From(r.Context()).Name.Device
	release, wait := p.enter(device)
	if release == nil {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
		web.Problem(w, r, api.Problem{Status: http.StatusTooManyRequests, Type: "too-many-probes", Title: "this is too soon for another probe",
			Detail: fmt.Sprintf("ask again in %v", wait.Round(time.Second))})
		return
	}
	defer release()
	reply, err := p.probe(r.Context(), device, at)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	web.WriteJSON(w, reply)
}

// target returns where the caller is dialled: the port that it names, at the address that
// its connection comes from.
func target(w http.ResponseWriter, r *http.Request) (netip.AddrPort, error) {
	var q api.ProbeRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		return netip.AddrPort{}, err
	}
	if q.Port < 1 || q.Port > 65535 {
		return netip.AddrPort{}, badRequest("the probe is not well formed", fmt.Errorf("field Port: %d is not a number from 1 to 65535", q.Port))
	}
	source := authz.Source(r)
	if !source.IsValid() {
		return netip.AddrPort{}, badRequest("the caller has no address", fmt.Errorf("%q", r.RemoteAddr))
	}
	return netip.AddrPortFrom(source, uint16(q.Port)), nil
}

// enter takes a slot for the device's probe. release gives it back; it is nil when the device
// must wait for so long first.
func (p *Prober) enter(device wire.DeviceID) (release func(), wait time.Duration) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.last[device]; ok && now.Before(last.Add(probeInterval)) {
		return nil, last.Add(probeInterval).Sub(now)
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return nil, probeTimeout
	}
	if len(p.last) >= probeMemory {
		for d, last := range p.last {
			if !now.Before(last.Add(probeInterval)) {
				delete(p.last, d)
			}
		}
	}
	p.last[device] = now
	return func() { <-p.slots }, 0
}

// probe knocks, and has the registry remember what came of it.
func (p *Prober) probe(ctx context.Context, device wire.DeviceID, at netip.AddrPort) (*api.ProbeReply, error) {
	reply := &api.ProbeReply{Reached: true, Address: at.String(), ExpiresMillis: registry.ProbeTime.Milliseconds()}
	reached := at
	if err := p.knock(ctx, device, at); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("devices: probe of %s: %w", at, context.Cause(ctx))
		}
		p.log.Info("device not reached", "device", device, "address", at, "err", err)
		reply.Reached, reply.Reason, reached = false, reasonOf(err), netip.AddrPort{}
	}
	return reply, p.registry.Probed(ctx, p.now(), device, reached)
}

// errOther says that somebody else answered.
var errOther = errors.New("something else than this device answers")

// knock dials at and wants the device's certificate there. It shows none itself: the device
// then ends the connection, which is all the same by that time.
func (p *Prober) knock(ctx context.Context, device wire.DeviceID, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer raw.Close()
	config := p.credentials.ClientConfig(identity.RoleDevice)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	t := tls.Client(raw, config)
	if err := t.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Join(errOther, err)
	}
	name, err := identity.PeerName(t.ConnectionState())
	if err == nil && name.Device != device {
		err = fmt.Errorf("it is device %s", name.Device)
	}
	if err != nil {
		return errors.Join(errOther, err)
	}
	return nil
}

// reasonOf is what the device is told. It is no more than that its own certificate did not
// answer, and how: what else listens behind its address stays in the server's log.
func reasonOf(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errOther):
		return errOther.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %v", probeTimeout)
	default:
		return "nobody answers"
	}
}
