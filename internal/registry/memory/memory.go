// Package memory is the registry in one process's memory.
//
// Swarms are found through sharded maps; each has a lock of its own, and a join costs time in
// the number of peers handed out, not in the number there are: members of a site lie in two
// dense slices (complete, partial), from which a random sample is shuffled to the front.
//
// Lock order: shard, then swarm, then the running mark.
package memory

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

const shards = 64 // of the map of swarms

// Options of a registry. The zero value works: it remembers nothing over a restart.
type Options struct {
	Seed uint64 // of the random choices
	// Mark is the path of the file that exists while leases may be running (see package
	// registry, Starting empty). Empty: none, and no quarantine.
	Mark string
	Log  *slog.Logger // nil: silent
}

// Registry implements registry.Swarms and registry.Probes.
type Registry struct {
	seed   uint64
	hash   maphash.Seed
	opened time.Time // when the quarantine began; zero: there is none
	mark   mark
	born   atomic.Uint64 // swarms made so far
	epoch  atomic.Int64  // highest of any lease; kept here since a site's own is forgotten with it
	shards [shards]shard
	probes probes
}

type shard struct {
	mu     sync.Mutex // guards the following
	swarms map[registry.Key]*swarm
}

var (
	_ registry.Swarms = (*Registry)(nil)
	_ registry.Probes = (*Registry)(nil)
)

// New returns an empty registry that starts now.
func New(now time.Time, o Options) (*Registry, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{seed: o.Seed, hash: maphash.MakeSeed(), mark: mark{path: o.Mark, log: o.Log}}
	for i := range r.shards {
		r.shards[i].swarms = map[registry.Key]*swarm{}
	}
	found, err := r.mark.find()
	if err != nil {
		return nil, err
	}
	if found {
		r.opened = now
		o.Log.Info("array starts with leases outstanding", "quarantine", registry.Quarantine)
	}
	return r, nil
}

// quarantined reports whether new leases wait.
func (r *Registry) quarantined(now time.Time) bool {
	return !r.opened.IsZero() && now.Before(r.opened.Add(registry.Quarantine))
}

// nextEpoch returns an epoch over all granted so far and over known, which may be of an array
// before this one.
func (r *Registry) nextEpoch(now time.Time, known int64) int64 {
	for {
		last := r.epoch.Load()
		next := max(last+1, known+1, now.UnixMilli())
		if r.epoch.CompareAndSwap(last, next) {
			return next
		}
	}
}

func (r *Registry) shard(key registry.Key) *shard {
	return &r.shards[maphash.Comparable(r.hash, key)%shards]
}

// lock returns the key's swarm, locked; it makes one when there is none and make says so.
func (r *Registry) lock(key registry.Key, make bool) *swarm {
	sh := r.shard(key)
	for {
		sh.mu.Lock()
		s := sh.swarms[key]
		if s == nil {
			if !make {
				sh.mu.Unlock()
				return nil
			}
			s = newSwarm(newChance(r.seed, r.born.Add(1)))
			sh.swarms[key] = s
		}
		sh.mu.Unlock()
		s.mu.Lock()
		if !s.gone {
			return s
		}
		s.mu.Unlock() // swept between the two locks
	}
}

// Join implements registry.Swarms.
func (r *Registry) Join(ctx context.Context, now time.Time, j registry.Join) (registry.Answer, error) {
	if j.Mode < registry.ModeSite || j.Mode > registry.ModeAcross {
		return registry.Answer{Next: registry.IntervalComplete}, r.Leave(ctx, now, j.Key, j.Device)
	}
	s := r.lock(j.Key, true)
	defer s.mu.Unlock()
	return s.join(now, j, r), nil
}

// Leave implements registry.Swarms.
func (r *Registry) Leave(_ context.Context, _ time.Time, key registry.Key, device wire.DeviceID) error {
	s := r.lock(key, false)
	if s == nil {
		return nil
	}
	defer s.mu.Unlock()
	if m := s.members[device]; m != nil {
		s.remove(m, &r.mark)
	}
	return nil
}

// Sweep implements registry.Swarms.
func (r *Registry) Sweep(ctx context.Context, now time.Time) error {
	for i := range r.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.sweepShard(&r.shards[i], now)
	}
	r.probes.sweep(now)
	if !r.quarantined(now) { // until then, leases of before may be running
		r.mark.settle()
	}
	return nil
}

// sweepShard locks each swarm without holding the shard's lock, so that a join waits for
// the sweep of its own swarm alone.
func (r *Registry) sweepShard(sh *shard, now time.Time) {
	sh.mu.Lock()
	keys := make([]registry.Key, 0, len(sh.swarms))
	for k := range sh.swarms {
		keys = append(keys, k)
	}
	sh.mu.Unlock()
	for _, k := range keys {
		sh.mu.Lock()
		s := sh.swarms[k]
		sh.mu.Unlock()
		if s == nil {
			continue
		}
		s.mu.Lock()
		s.sweep(now, &r.mark)
		empty := len(s.members) == 0
		s.mu.Unlock()
		if empty {
			sh.drop(k, s)
		}
	}
}

// drop forgets a swarm that is still empty.
func (sh *shard) drop(k registry.Key, s *swarm) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.members) == 0 && !s.gone {
		s.gone = true
		delete(sh.swarms, k)
	}
}
