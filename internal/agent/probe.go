package agent

import (
	"context"
	"time"

	"freshet/internal/web"
)

const (
	probeRetry = 30 * time.Second // after a probe that was not made, then doubled
	probeRest  = time.Minute      // between two probes at least
)

// keepProbed has the server try the swarm port, at the start and at each half of what the
// answer is good for: in DODownloadMode 3 devices of other sites hear only of those that were
// reached.
func (a *Agent) keepProbed(ctx context.Context) {
	retry := probeRetry
	for {
		wait, err := a.probe(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.log.Info("no probe of the swarm port", "err", err, "again in", retry)
			wait = web.Jitter(retry)
			retry = min(2*retry, time.Hour)
		default:
			retry = probeRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// probe asks for one probe, and returns when to ask for the next.
func (a *Agent) probe(ctx context.Context) (time.Duration, error) {
	reply, err := a.opt.Client.Probe(ctx, a.dev.Port)
	if err != nil {
		return 0, err
	}
	before := a.unreachable.Load()
	switch {
	case reply.Reached:
		a.unreachable.Store(nil)
		if before != nil {
			a.log.Info("the swarm port is reached again", "address", reply.Address)
		}
	default:
		why := reply.Reason + " at " + reply.Address
		a.unreachable.Store(&why)
		if before == nil || *before != why {
			a.log.Warn("the swarm port is not reached from outside: devices of other sites do not hear of this one", "why", why)
		}
	}
	return max(probeRest, time.Duration(reply.ExpiresMillis)*time.Millisecond/2), nil
}
