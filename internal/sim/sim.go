// Package sim runs the real brains of hundreds of devices in virtual time, over links with
// rate, delay and loss, without sockets, files or goroutines. The same seed gives the same
// run, event for event.
//
// # Model
//
// A run of a content travels as a whole: it leaves through its sender's uplink and enters
// through its receiver's downlink, each a queue served at the link's rate, with the delay in
// between. Small messages (requests, Haves) take the delay alone. A lost packet costs a run
// one more round trip and its retransmission time. The origins of a site share the site's
// WAN link. Each site's lease is given as the array gives it: to one device, and 10 s after
// that one was last heard of to another.
package sim

import (
	"math/rand/v2"
	"time"

	"freshet/internal/content"
	"freshet/internal/swarm"
)

// Config describes a run. Rates are bytes a second, sizes bytes.
type Config struct {
	Seed       uint64
	Devices    int // honest ones
	Liars      int // devices that claim all runs and send wrong bytes
	Sites      int // devices are spread over them in turn; 0: 1
	Size       int64
	RunSize    int     // 0: content.PieceSize
	Up, Down   float64 // of each device
	WAN        float64 // of each site's link to the origin
	Delay      time.Duration
	Loss       float64               // probability that a run meets a lost packet
	Neighbours int                   // connections of a device; 0: 30
	Kill       map[int]time.Duration // devices that vanish, and when
	Limit      time.Duration         // the run is given up after this; 0: 1 h
}

// Result is what came of a run.
type Result struct {
	Finished   []time.Duration // of each honest device; 0: killed or not finished
	Slowest    time.Duration
	Bound      time.Duration // fluid bound: max(S/WAN, S/down, N·S/(WAN+ΣU)) of the largest site
	WANBytes   []int64       // by site
	Wrong      int64         // bytes that did not verify, all devices
	Wasted     int64         // bytes received twice
	Hedges     int
	Bans       int
	Events     uint64
	Unfinished int // devices that neither finished nor were killed
}

const (
	leaseTime = 10 * time.Second // design section 6
	liarRuns  = false            // what a liar's runs are: never right
)

// link is a queue served at a rate.
type link struct {
	rate float64
	free time.Duration // when the last byte queued has left
}

// carry returns when n bytes queued at now have left.
func (l *link) carry(now time.Duration, n int) time.Duration {
	l.free = max(l.free, now) + time.Duration(float64(n)/l.rate*float64(time.Second))
	return l.free
}

// conn is one end of a connection: the other device, and this device's number there.
type conn struct {
	dev  int32
	back swarm.Peer
	gone bool
}

type device struct {
	brain    *swarm.Swarm // nil: a liar
	site     int
	conns    []conn // by peer number
	up, down link
	done     time.Duration
	dead     bool
	fetching map[int32]bool // fetches that were not stopped
}

type sim struct {
	cfg     Config
	rng     *rand.Rand
	q       queue
	now     time.Duration
	runs    int
	lastLen int
	devs    []device
	wan     []link
	leader  []int32 // by site; -1: nobody
	acts    []swarm.Action
	left    int
	res     Result
}

// Run simulates cfg.
func Run(cfg Config) Result {
	s := newSim(cfg)
	for len(s.q.heap) > 0 && s.left > 0 {
		e := s.q.pop()
		if e.at > s.cfg.Limit {
			break
		}
		s.now = e.at
		s.res.Events++
		s.handle(e)
	}
	return s.result()
}

func newSim(cfg Config) *sim {
	if cfg.Sites == 0 {
		cfg.Sites = 1
	}
	if cfg.RunSize == 0 {
		cfg.RunSize = content.PieceSize
	}
	if cfg.Neighbours == 0 {
		cfg.Neighbours = 30
	}
	if cfg.Limit == 0 {
		cfg.Limit = time.Hour
	}
	s := &sim{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), left: cfg.Devices}
	s.runs = int((cfg.Size + int64(cfg.RunSize) - 1) / int64(cfg.RunSize))
	s.lastLen = int(cfg.Size - int64(s.runs-1)*int64(cfg.RunSize))
	s.devs = make([]device, cfg.Devices+cfg.Liars)
	for i := range s.devs {
		d := &s.devs[i]
		d.site = i % cfg.Sites
		d.up, d.down = link{rate: cfg.Up}, link{rate: cfg.Down}
		d.fetching = map[int32]bool{}
		if i < cfg.Devices {
			d.brain = swarm.New(swarm.Config{Seed: s.rng.Uint64(), Runs: s.runs, Lens: s.runLen, Origins: 1, Slots: 2})
			s.q.push(event{at: time.Duration(s.rng.Int64N(int64(swarm.TickInterval))), kind: evTick, dev: int32(i)})
		}
	}
	s.wan = make([]link, cfg.Sites)
	s.leader = make([]int32, cfg.Sites)
	s.res.WANBytes = make([]int64, cfg.Sites)
	for site := range s.wan {
		s.wan[site].rate = cfg.WAN
		s.leader[site] = -1
	}
	s.connectAll()
	for i := range cfg.Devices {
		s.lead(s.devs[i].site)
	}
	for i, at := range cfg.Kill {
		s.q.push(event{at: at, kind: evKill, dev: int32(i)})
	}
	return s
}

func (s *sim) runLen(r int) int {
	if r == s.runs-1 {
		return s.lastLen
	}
	return s.cfg.RunSize
}

// connectAll gives every device its neighbours within its site, as the array does: random
// ones.
func (s *sim) connectAll() {
	bySite := make([][]int32, s.cfg.Sites)
	for i := range s.devs {
		bySite[s.devs[i].site] = append(bySite[s.devs[i].site], int32(i))
	}
	for _, site := range bySite {
		for k, i := range site {
			for range min(s.cfg.Neighbours/2, len(site)-1) {
				j := site[(k+1+s.rng.IntN(len(site)-1))%len(site)]
				s.connect(i, j)
			}
		}
	}
}

// connect opens a connection between i and j unless there is one.
func (s *sim) connect(i, j int32) {
	for _, c := range s.devs[i].conns {
		if c.dev == j {
			return
		}
	}
	a, b := &s.devs[i], &s.devs[j]
	pa, pb := swarm.Peer(len(a.conns)), swarm.Peer(len(b.conns))
	a.conns = append(a.conns, conn{dev: j, back: pb})
	b.conns = append(b.conns, conn{dev: i, back: pa})
	s.meet(i, pa)
	s.meet(j, pb)
}

// meet tells device i of its new peer, and what that one holds.
func (s *sim) meet(i int32, p swarm.Peer) {
	d := &s.devs[i]
	if d.brain == nil {
		return
	}
	other := &s.devs[d.conns[p].dev]
	s.do(i, d.brain.OnPeer(s.now, p, true, s.acts[:0]))
	holds := content.FullBits(s.runs)
	if other.brain != nil {
		holds = other.brain.Public()
	}
	s.do(i, d.brain.OnHolds(s.now, p, holds, s.acts[:0]))
}

// lead gives the site's lease to a random device that lacks runs, if nobody holds it.
func (s *sim) lead(site int) {
	if s.leader[site] >= 0 {
		return
	}
	var may []int32
	for i := range s.cfg.Devices {
		if d := &s.devs[i]; d.site == site && !d.dead && d.brain.Left() > 0 {
			may = append(may, int32(i))
		}
	}
	if len(may) == 0 {
		return
	}
	s.leader[site] = may[s.rng.IntN(len(may))]
	for i := range s.cfg.Devices {
		if d := &s.devs[i]; d.site == site && !d.dead {
			l := swarm.Other
			if int32(i) == s.leader[site] {
				l = swarm.Mine
			}
			s.do(int32(i), d.brain.OnLease(s.now, l, s.acts[:0]))
		}
	}
}

func (s *sim) result() Result {
	r := &s.res
	r.Finished = make([]time.Duration, s.cfg.Devices)
	for i := range r.Finished {
		d := &s.devs[i]
		r.Finished[i] = d.done
		r.Slowest = max(r.Slowest, d.done)
		if d.done == 0 && !d.dead {
			r.Unfinished++
		}
		st := d.brain.Stats()
		r.WANBytes[d.site] += st.FromOrigin
		r.Wrong += st.Wrong
		r.Wasted += st.Wasted
		r.Hedges += st.Hedges
		r.Bans += st.Bans
	}
	n := float64((s.cfg.Devices + s.cfg.Sites - 1) / s.cfg.Sites)
	size := float64(s.cfg.Size)
	bound := max(size/s.cfg.WAN, size/s.cfg.Down, n*size/(s.cfg.WAN+n*s.cfg.Up))
	r.Bound = time.Duration(bound * float64(time.Second))
	return *r
}
