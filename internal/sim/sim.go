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
// WAN link. The array gives neighbours and each site's lease as the real one does: every
// device joins each 3 s; a lease lasts for 10 s after its holder's last join, and nobody gets
// one while a device of the site says that it is complete.
//
// Where a site has subnets, who leads each of them is simply decided, some time after nobody
// does: the elections themselves are simulated by package election's own tests. The first
// subnet with a leader has the site's lease, for as long as it has devices.
package sim

import (
	"math/rand/v2"
	"time"

	"freshet/internal/content"
	"freshet/internal/swarm"
)

// Config describes a run. Rates are bytes a second, sizes bytes.
type Config struct {
	Seed    uint64
	Devices int // honest ones; device i is at site i modulo Sites
	Sites   int // 0: 1
	Subnets int // of each site, whose devices elect leaders; 0: the array's lease alone decides
	Size    int64
	RunSize int // 0: content.PieceSize

	Up, Down   float64 // of each device
	WAN        float64 // of each site's link to the origin
	Delay      time.Duration
	Loss       float64 // probability that a run meets a lost packet
	Neighbours int     // connections of a device; 0: 30

	Liars   int                   // further devices that claim all runs and send wrong bytes
	Silent  int                   // further devices that claim all runs and send nothing
	Boast   bool                  // liars and silent ones tell the array, too, that they are complete
	Stalled map[int]time.Duration // honest devices whose uplinks stop, and when
	Join    map[int]time.Duration // honest devices that come later than at the start, and when
	Kill    map[int]time.Duration // honest devices that vanish, and when

	KillLeaders []time.Duration // then the leader of each site vanishes
	Limit       time.Duration   // the run is given up after this; 0: 1 h
}

// Result is what came of a run.
type Result struct {
	Finished   []time.Duration // when each honest device had everything; 0: killed before, or never
	Slowest    time.Duration   // of Finished
	Bound      time.Duration   // fluid bound of the largest site: max(S/WAN, S/down, N·S/(WAN+ΣU)), and with subnets S/up
	WANBytes   []int64         // bytes that origins sent, by site
	Again      int64           // of WANBytes, those that another device of the site could have given
	Wrong      int64           // bytes that did not verify, all devices
	Wasted     int64           // bytes received twice
	Unheld     int             // runs that a brain wanted to send and did not hold, or called complete and was not: a defect
	Killed     int             // devices that vanished before they had everything
	Unfinished int             // others without everything
	Leaders    int             // killed while they held a lease
	Hedges     int
	Bans       int
	Events     uint64
}

// Ratio is the slowest device's time as a multiple of the bound.
func (r *Result) Ratio() float64 { return r.Slowest.Seconds() / r.Bound.Seconds() }

// Kinds of device.
type nature uint8

const (
	honest nature = iota
	liar          // claims all, sends wrong bytes
	silent        // claims all, sends nothing
)

type device struct {
	nature   nature
	brain    *swarm.Swarm // nil: not honest
	site     int
	subnet   int
	conns    []conn // by peer number
	links    int    // of conns, those that are not gone
	up, down link
	has      content.Bits    // what really arrived: the check on what the brain believes
	fetches  map[int32]int32 // ends of the fetches that were not stopped
	coming   int32           // 1 + the run that the origin is sending; 0: none
	joined   time.Duration   // last join
	complete bool            // said so in its last join
	banned   map[int32]bool
	present  bool // came, and did not vanish
	dead     bool // vanished
	ticking  bool
	done     time.Duration
}

type sim struct {
	cfg     Config
	rng     *rand.Rand
	q       queue
	now     time.Duration
	runs    int
	lastLen int
	devs    []device
	sites   []site
	acts    []swarm.Action
	left    int // honest devices that neither have everything nor vanished
	res     Result
}

// Run simulates cfg until every device has everything.
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

func (c *Config) defaults() {
	if c.Sites == 0 {
		c.Sites = 1
	}
	if c.RunSize == 0 {
		c.RunSize = content.PieceSize
	}
	if c.Neighbours == 0 {
		c.Neighbours = 30
	}
	if c.Limit == 0 {
		c.Limit = time.Hour
	}
}

func newSim(cfg Config) *sim {
	cfg.defaults()
	s := &sim{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), left: cfg.Devices}
	s.runs = int((cfg.Size + int64(cfg.RunSize) - 1) / int64(cfg.RunSize))
	s.lastLen = int(cfg.Size - int64(s.runs-1)*int64(cfg.RunSize))
	s.devs = make([]device, cfg.Devices+cfg.Liars+cfg.Silent)
	for i := range s.devs {
		s.build(i)
	}
	s.sites = make([]site, cfg.Sites)
	for i := range s.sites {
		s.sites[i] = site{wan: link{rate: cfg.WAN}, leader: -1, subnets: newSubnets(cfg.Subnets), outer: -1}
	}
	s.res.WANBytes = make([]int64, cfg.Sites)
	for _, i := range s.rng.Perm(len(s.devs)) { // in another order for each seed
		if cfg.Join[i] == 0 {
			s.enter(int32(i), &s.devs[i])
		}
		s.q.push(event{at: cfg.Join[i], kind: evJoin, dev: int32(i), ok: true})
	}
	for i := range cfg.Devices {
		if at, ok := cfg.Kill[i]; ok {
			s.q.push(event{at: at, kind: evKill, dev: int32(i)})
		}
		if at, ok := cfg.Stalled[i]; ok {
			s.q.push(event{at: at, kind: evStall, dev: int32(i)})
		}
	}
	for _, at := range cfg.KillLeaders {
		s.q.push(event{at: at, kind: evKillLeaders})
	}
	return s
}

// build makes device i, which is not there before it joins.
func (s *sim) build(i int) {
	d := &s.devs[i]
	d.site = i % s.cfg.Sites
	if s.cfg.Subnets > 0 {
		d.subnet = i / s.cfg.Sites % s.cfg.Subnets
	}
	d.up, d.down = link{rate: s.cfg.Up}, link{rate: s.cfg.Down}
	switch {
	case i >= s.cfg.Devices+s.cfg.Liars:
		d.nature = silent
	case i >= s.cfg.Devices:
		d.nature = liar
	default:
		d.brain = swarm.New(swarm.Config{Seed: s.rng.Uint64(), Runs: s.runs, Lens: s.runLen, Origins: 1, Slots: 2, Led: s.cfg.Subnets > 0})
		d.fetches = map[int32]int32{}
		d.has = content.NewBits(s.runs)
	}
}

func (s *sim) runLen(r int) int {
	if r == s.runs-1 {
		return s.lastLen
	}
	return s.cfg.RunSize
}

func (s *sim) result() Result {
	r := &s.res
	r.Finished = make([]time.Duration, s.cfg.Devices)
	for i := range r.Finished {
		d := &s.devs[i]
		r.Finished[i] = d.done
		r.Slowest = max(r.Slowest, d.done)
		st := d.brain.Stats()
		r.Wrong += st.Wrong
		r.Wasted += st.Wasted
		r.Hedges += st.Hedges
		r.Bans += st.Bans
	}
	r.Unfinished = s.left
	n := float64((s.cfg.Devices + s.cfg.Sites - 1) / s.cfg.Sites)
	size := float64(s.cfg.Size)
	bound := max(size/s.cfg.WAN, size/s.cfg.Down, n*size/(s.cfg.WAN+n*s.cfg.Up))
	if s.cfg.Subnets > 0 && n > 1 { // everything leaves the device that fetches once at least
		bound = max(bound, size/s.cfg.Up)
	}
	r.Bound = time.Duration(bound * float64(time.Second))
	return *r
}
