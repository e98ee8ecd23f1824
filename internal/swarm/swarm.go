// Package swarm is the brain of one swarm on one device: which run is asked of whom, when
// a slow request is hedged, who is banned, when the device itself goes out to an origin,
// and in which order peers are served. It has no I/O, no clock and no goroutine: the shell
// calls one method per kind of event with the time since the swarm began, appends the
// actions that it returns to a slice of its own, does them, and calls OnTick every
// [TickInterval] while anything is open.
//
// # Rules (design sections 3, 6 and 10)
//
//   - A follower takes the run with the fewest holders from the holder that will be done
//     soonest. A lone peer is asked in index order. Each peer has a request window of twice
//     its rate times its latency.
//   - A device with enough requests waiting chokes its peers, so that they ask others; what
//     was asked before is served all the same.
//   - A request that is late by its peer's own measure is asked of a second holder (hedged)
//     before it delays the file, or moved there when the peer said that requests wait. A peer
//     with a late request gets no other until it delivers or a growing while has passed. Who
//     proves nothing is doubted: its claims keep the device from no origin.
//   - A wrong run is charged; the second one bans its sender. One charge may be withdrawn.
//   - The peer that holds the fewest runs is served first, so that all end together.
//   - A device asks peers within its [Reach] alone; all others it serves. Only one that may go
//     out asks peers of other sites, and fetches from an origin: runs that no peer holds, in
//     index order, one range at a time, the next one asked for shortly before the end. One
//     that may go out no more lets the run under way come, for its bytes are paid.
//   - The device that brings a run into the site tells it to one peer first and to all
//     others once that peer has it, so that every run leaves it once before any leaves it
//     twice. First copies are sent before second ones. Where subnets elect leaders, this
//     subnet and the leaders of the others are told, and served, so each for themselves and
//     in turn.
package swarm

import (
	"math/rand/v2"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/picker"
)

// Peer is a connection's number, given by the shell. Numbers are small and may be used
// again after OnPeerGone.
type Peer int32

// None stands where no peer is meant.
const None Peer = -1

// Kind says what an Action asks the shell to do.
type Kind uint8

const (
	Request  Kind = 1 + iota // ask Peer for Run
	Cancel                   // tell Peer that Run is not wanted of it any more
	Tell                     // send Peer a Have for Run
	TellAll                  // send every peer a Have for Run, also those that hold it: whoever told this device first waits for it
	Choke                    // tell every peer that new requests would wait
	Unchoke                  // tell every peer that requests are welcome again
	Send                     // send Run to Peer, then call OnSent
	Charge                   // tell Peer that its Run was wrong
	Ban                      // end the connection to Peer and refuse it for this content
	Fetch                    // ask origin Source for the runs Run to End-1 as fetch ID
	Stop                     // end fetch ID
	Changed                  // origin Source holds other bytes than the manifest says: use it no more
	Complete                 // every run is held
)

// Action is one duty of the shell. Duties are done in the order given.
type Action struct {
	Kind   Kind
	Peer   Peer
	Source int32 // index of an origin
	ID     int32 // of a fetch
	Run    int32
	End    int32
}

// TickInterval is how often the shell calls OnTick.
const TickInterval = 50 * time.Millisecond

// Config is what New needs. The zero value of an optional field means its default.
type Config struct {
	Seed    uint64
	Lens    func(run int) int // bytes of a run
	Runs    int
	Held    content.Bits // runs held at the beginning; may be nil
	Origins int          // how many origins there are at the beginning, nearest first
	Led     bool         // elections say how far the device may go: it never goes further on its own

	OutAfter   time.Duration // with neither a known reach nor progress, the device goes out itself after this, up to twice as long where there are peers; 0: 45 s
	StallAfter time.Duration // a device that follows a leader goes out itself without a new run for this, longer where requests take long, up to twice as long; 0: 20 s
	MaxOpen    int           // requests to peers open at once; 0: 16
	Slots      int           // runs sent at once; 0: 4
}

func (c *Config) defaults() {
	if c.OutAfter == 0 {
		c.OutAfter = 45 * time.Second
	}
	if c.StallAfter == 0 {
		c.StallAfter = 20 * time.Second
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = 16
	}
	if c.Slots == 0 {
		c.Slots = 4
	}
}

// Stats are counters of one swarm.
type Stats struct {
	FromPeers  int64 // bytes of runs that were new and right
	FromOrigin int64
	Wasted     int64 // bytes of runs that were held already
	Wrong      int64 // bytes of runs that did not verify
	Sent       int64 // bytes to peers
	Hedges     int
	Bans       int
	WANIdle    time.Duration // in which the device was to fetch from outside, and nothing came
}

// Swarm is the state of one swarm. It is owned by one goroutine.
type Swarm struct {
	cfg     Config
	pick    *picker.Picker
	missing int64        // bytes of runs that are not held
	peers   []*peer      // by number; nil when not connected
	live    []*peer      // connected
	told    []int32      // by number: how many runs a peer told that it holds
	room    content.Bits // peers that may be asked for a full run more
	trusted content.Bits // peers whose claims keep a device from an origin
	stuck   int          // peers
	rng     *rand.Rand

	open     []request
	late     int           // of open
	rate     float64       // bytes a second that a peer delivers while busy, smoothed over all; 0: not known
	latency  time.Duration // smoothed time from request to run, over all peers; 0: not known
	spread   time.Duration // its smoothed deviation
	progress time.Duration // when the last new run came

	wan    wan
	upload upload
	stats  Stats
}

// New returns the swarm of cfg.
func New(cfg Config) *Swarm {
	cfg.defaults()
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x667265736865))
	s := &Swarm{
		cfg:  cfg,
		pick: picker.New(cfg.Runs, cfg.Held, rng),
		rng:  rng,
	}
	for run := range cfg.Runs {
		if s.pick.Missing(run) {
			s.missing += s.runLen(int32(run))
		}
	}
	s.wan.init(&s.cfg, rng.Float64())
	s.upload.init(&s.cfg)
	return s
}

// Left returns the number of missing runs.
func (s *Swarm) Left() int { return s.pick.Left() }

// Missing returns the bytes of the missing runs. It and the counters of Stats always agree.
func (s *Swarm) Missing() int64 { return s.missing }

// Stats returns the counters.
func (s *Swarm) Stats() Stats { return s.stats }

// Peers returns how many peers are connected.
func (s *Swarm) Peers() int { return len(s.live) }

// Idle reports whether nothing is open that OnTick would have to watch.
func (s *Swarm) Idle() bool {
	u := &s.upload
	return s.pick.Left() == 0 && len(s.open)+len(u.first)+len(u.queue) == 0 && !slices.ContainsFunc(u.circles, func(c circle) bool { return c.keeps() })
}

func (s *Swarm) runLen(run int32) int64 { return int64(s.cfg.Lens(int(run))) }

// OnTick does what falls due by now.
func (s *Swarm) OnTick(now time.Duration, acts []Action) []Action {
	s.listen(now)
	s.tickIdle(now)
	acts = s.expire(now, acts)
	acts = s.tickUpload(now, acts)
	acts = s.tickWAN(now, acts)
	return s.fill(now, acts)
}

// OnDamaged notes that the store found a held run damaged: it is missing again.
func (s *Swarm) OnDamaged(now time.Duration, run int32, acts []Action) []Action {
	if s.pick.Lost(int(run)) {
		s.missing += s.runLen(run)
		s.withdraw(run)
	}
	return s.fill(now, s.fillWAN(now, acts))
}

// accept books a run that arrived and was verified, from a peer or an origin. It reports
// whether the run was new.
func (s *Swarm) accept(now time.Duration, run int32, bytes *int64, acts []Action) ([]Action, bool) {
	n := s.runLen(run)
	if !s.pick.Got(int(run)) {
		s.stats.Wasted += n
		return acts, false
	}
	*bytes += n
	s.missing -= n
	s.progress = now
	acts = s.dropRequests(run, acts)
	if s.pick.Left() == 0 {
		acts = append(acts, Action{Kind: Complete})
	}
	return acts, true
}
