package election

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// subnet is a subnet of devices in virtual time: the real brains, datagrams with delay and
// loss, and pieces that move in the simplest way that is fair: a device takes what it misses
// from whoever holds it, one piece each lanPiece, and from outside, where its brain lets it,
// what nobody in reach holds, one piece each wanPiece.
type subnet struct {
	rng    *rand.Rand
	now    time.Duration
	queue  events
	seq    uint64
	nodes  []*node
	sizes  []uint32 // pieces of each content
	loss   float64
	wanOff bool
	lease  Lease // what arrays say to all; LeaseNone: there are none
	err    error // first breach
	trace  func(format string, args ...any)

	asked   int              // how often the services were asked for what a name means
	fetched []map[uint32]int // by content: how often a piece came over the WAN
}

const (
	lanPiece = 20 * time.Millisecond
	wanPiece = 50 * time.Millisecond
	maxDelay = 3 * time.Millisecond
)

// node is a device.
type node struct {
	id      wire.DeviceID
	seed    uint64
	brain   *Election // nil: switched off, or hostile
	cfg     Config
	part    int // what it hears: devices of the same part
	hostile bool
	deaf    bool          // its own way out brings nothing
	ahead   time.Duration // its clock at time 0
	fast    float64       // how much faster than time its clock runs
	goods   []*goods
	shuns   int           // leaders shunned
	due     time.Duration // of its tick in the queue; never: none
}

// clock returns what the device's clock says at t.
func (n *node) clock(t time.Duration) time.Duration {
	return n.ahead + t + time.Duration(n.fast*float64(t))
}

// when returns when the device's clock says t, or a moment later.
func (n *node) when(t time.Duration) time.Duration {
	return time.Duration(float64(t-n.ahead)/(1+n.fast)) + time.Microsecond
}

// goods is what a device has of one content.
type goods struct {
	have     content.Bits
	held     uint32
	wanted   bool
	out      bool
	alone    bool
	leads    uint64 // epoch; 0: does not lead
	lastLead uint64
	since    time.Duration // of leads
	first    uint32        // pieces held when it began to lead
	follows  wire.DeviceID
	gained   time.Duration // last new piece
	lan, wan time.Duration // when the next piece may come
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

func hohOf(i int) (d content.Digest) {
	binary.BigEndian.PutUint32(d[:], 0xc0000000+uint32(i))
	return d
}

func deviceOf(i int) (d wire.DeviceID) {
	binary.BigEndian.PutUint32(d[:], 0xd0000000+uint32(i))
	return d
}

func newSubnet(seed uint64, sizes ...uint32) *subnet {
	s := &subnet{rng: rand.New(rand.NewPCG(seed, 9)), sizes: sizes, lease: LeaseNone}
	for range sizes {
		s.fetched = append(s.fetched, map[uint32]int{})
	}
	s.every(wanPiece/5, s.move)
	return s
}

func (s *subnet) at(t time.Duration, do func()) {
	s.seq++
	heap.Push(&s.queue, event{t, s.seq, do})
}

func (s *subnet) every(d time.Duration, do func()) {
	s.at(s.now+d, func() {
		do()
		s.every(d, do)
	})
}

func (s *subnet) run(until time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= until && s.err == nil {
		ev := heap.Pop(&s.queue).(event)
		s.now = ev.at
		ev.do()
	}
	s.now = until
}

func (s *subnet) breach(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("%v: "+format, append([]any{s.now}, args...)...)
	}
}

// add makes a device, switched off.
func (s *subnet) add(weight uint8) *node {
	n := &node{id: deviceOf(len(s.nodes)), seed: s.rng.Uint64(), due: never}
	n.cfg = Config{Self: n.id, Weight: weight, Conditions: Conditions{MayGoOut: true}}
	for _, size := range s.sizes {
		n.goods = append(n.goods, &goods{have: content.NewBits(int(size))})
	}
	s.nodes = append(s.nodes, n)
	return n
}

// start switches a device on; it wants again what it wanted.
func (s *subnet) start(n *node) {
	n.seed++
	n.cfg.Seed = n.seed
	n.brain = New(n.cfg)
	for i, g := range n.goods {
		if g.wanted || g.held > 0 {
			s.know(n, i)
		}
	}
}

// know tells the brain of a content, and that it is wanted.
func (s *subnet) know(n *node, i int) {
	g, hoh := n.goods[i], hohOf(i)
	entry := Entry{HashOfHashes: hoh, Manifest: hoh, Ref: content.Ref{ID: "c", Version: uint64(i + 1)}, Generation: 1, Held: g.held, Total: s.sizes[i]}
	s.act(n, n.brain.OnEntry(n.clock(s.now), entry, nil))
	s.act(n, n.brain.OnLease(n.clock(s.now), hoh, s.lease, nil))
	if g.wanted {
		s.act(n, n.brain.OnWant(n.clock(s.now), hoh, wire.Background, nil))
	}
}

func (s *subnet) want(n *node, i int) {
	n.goods[i].wanted = n.goods[i].held < s.sizes[i]
	if n.brain != nil {
		s.know(n, i)
	}
}

// stop switches a device off. Others see that its connections close, or nothing.
func (s *subnet) stop(n *node, seen bool) {
	n.brain = nil
	for _, g := range n.goods {
		g.leads, g.lastLead, g.out, g.alone, g.follows = 0, 0, false, false, wire.DeviceID{}
	}
	for _, o := range s.nodes {
		if o.brain == nil || !seen || o.part != n.part {
			continue
		}
		s.at(s.now+s.delay(), func() {
			if o.brain != nil {
				s.act(o, o.brain.OnGone(o.clock(s.now), n.id, nil))
			}
		})
	}
}

func (s *subnet) delay() time.Duration {
	return time.Millisecond/5 + time.Duration(s.rng.Int64N(int64(maxDelay)))
}

// say sends a message to all devices in reach, or one.
func (s *subnet) say(from *node, to *wire.DeviceID, m wire.LANMessage) {
	for _, o := range s.nodes {
		if o == from || o.brain == nil || o.part != from.part || to != nil && o.id != *to {
			continue
		}
		if s.loss > 0 && s.rng.Float64() < s.loss {
			continue
		}
		s.at(s.now+s.delay(), func() {
			if o.brain != nil {
				s.act(o, hear(o.brain, o.clock(s.now), from.id, m))
			}
		})
	}
}

// hear gives a brain a message.
func hear(e *Election, now time.Duration, from wire.DeviceID, m wire.LANMessage) []Action {
	switch m := m.(type) {
	case wire.Question:
		return e.OnQuestion(now, from, m, nil)
	case wire.Answer:
		return e.OnAnswer(now, from, m, nil)
	case wire.Heartbeat:
		return e.OnHeartbeat(now, from, m, nil)
	case wire.Resign:
		return e.OnResign(now, from, m, nil)
	}
	panic(fmt.Sprintf("no message for an election: %+v", m))
}

func (s *subnet) contentOf(d content.Digest) int {
	return int(binary.BigEndian.Uint32(d[:]) - 0xc0000000)
}

func (s *subnet) node(id wire.DeviceID) *node {
	return s.nodes[binary.BigEndian.Uint32(id[:])-0xd0000000]
}

// act does what a brain says, and checks that it may say so.
func (s *subnet) act(n *node, acts []Action) {
	for _, a := range acts {
		if s.trace != nil {
			s.trace("%v %s %s", s.now, n.id.String()[6:8], describe(a))
		}
		switch a.Kind {
		case Broadcast:
			s.say(n, nil, a.Message)
		case Send:
			s.say(n, &a.Device, a.Message)
		case Lead, Raise, StopLeading, Follow, GoAlone, GoOut, StayIn, Prove:
			s.perform(n, n.goods[s.contentOf(a.Content)], a)
		case Shun:
			n.shuns++
		case AskOutside:
			s.askServices(n, a.Subject)
		case Found:
			s.learn(n, a.Subject)
		}
	}
	s.wake(n)
}

func (s *subnet) perform(n *node, g *goods, a Action) {
	switch a.Kind {
	case Lead:
		if g.leads != 0 || a.Epoch <= g.lastLead {
			s.breach("%s leads epoch %d after %d", n.id, a.Epoch, max(g.leads, g.lastLead))
		}
		g.leads, g.lastLead, g.since, g.first, g.alone, g.follows = a.Epoch, a.Epoch, s.now, g.held, false, wire.DeviceID{}
	case Raise:
		if g.leads == 0 || a.Epoch <= g.leads {
			s.breach("%s raises epoch %d to %d", n.id, g.leads, a.Epoch)
		}
		g.leads, g.lastLead = a.Epoch, a.Epoch
	case StopLeading:
		if g.leads != a.Epoch {
			s.breach("%s ends epoch %d, but leads %d", n.id, a.Epoch, g.leads)
		}
		if a.Reason == wire.Yielded && s.node(a.Device).hostile && g.held > g.first && (g.held == s.sizes[s.contentOf(a.Content)] || s.now-g.gained < minPatience) {
			s.breach("%s with %d pieces gave way to the hostile %s", n.id, g.held, a.Device)
		}
		g.leads = 0
	case Follow:
		g.follows, g.alone = a.Device, false
	case GoAlone:
		g.alone, g.follows = true, wire.DeviceID{}
	case GoOut:
		g.out = true
		if g.leads == 0 && !g.alone {
			s.breach("%s goes out and neither leads nor is alone", n.id)
		}
	case StayIn:
		g.out = false
	case Prove:
		s.prove(n, g, a)
	}
}

// askServices lets a device learn what a name means from outside.
func (s *subnet) askServices(n *node, subject wire.Subject) {
	s.asked++
	s.at(s.now+700*time.Millisecond, func() {
		if n.brain != nil {
			n.brain.OnSought(subject)
			s.learn(n, subject)
		}
	})
}

// learn lets a device want what a name means.
func (s *subnet) learn(n *node, subject wire.Subject) {
	i := int(subject.Ref.Version) - 1
	s.at(s.now+time.Millisecond, func() { s.want(n, i) })
}

// prove lets a device take a piece of another one.
func (s *subnet) prove(n *node, g *goods, a Action) {
	o := s.node(a.Device)
	og := o.goods[s.contentOf(a.Content)]
	s.at(s.now+lanPiece, func() {
		if n.brain != nil && o.brain != nil && o.part == n.part && og.held > 0 {
			s.act(n, n.brain.OnPiece(n.clock(s.now), a.Content, o.id, g.held, nil))
		}
	})
}

// wake schedules a brain's next tick.
func (s *subnet) wake(n *node) {
	if n.brain == nil || n.brain.Next() == never {
		return
	}
	next := n.when(n.brain.Next())
	if n.due <= next && n.due > s.now {
		return
	}
	n.due = max(s.now, next)
	at, brain := n.due, n.brain
	s.at(at, func() {
		if n.due == at {
			n.due = never
		}
		if n.brain == brain {
			s.act(n, n.brain.OnTick(n.clock(s.now), nil))
		}
	})
}

// move lets pieces arrive.
func (s *subnet) move() {
	for _, n := range s.nodes {
		if n.brain == nil {
			continue
		}
		for i, g := range n.goods {
			if !g.wanted {
				continue
			}
			if s.now >= g.lan {
				s.take(n, i, g)
			}
			if g.wanted && g.out && s.now >= g.wan && !s.wanOff && !n.deaf {
				s.fetch(n, i, g)
			}
		}
	}
}

// take gets a piece that another device in reach holds.
func (s *subnet) take(n *node, i int, g *goods) {
	first := s.rng.IntN(len(s.nodes))
	for j := range s.nodes {
		o := s.nodes[(first+j)%len(s.nodes)]
		if o == n || o.brain == nil || o.part != n.part || o.hostile {
			continue
		}
		for w := range g.have {
			if gain := o.goods[i].have[w] &^ g.have[w]; gain != 0 {
				g.lan = s.now + lanPiece
				s.got(n, i, o.id, uint32(64*w+lowest(gain)))
				return
			}
		}
	}
}

func lowest(w uint64) int {
	n := 0
	for ; w&1 == 0; w >>= 1 {
		n++
	}
	return n
}

// fetch gets the first missing piece that nobody in reach holds.
func (s *subnet) fetch(n *node, i int, g *goods) {
	for p := range s.sizes[i] {
		if g.have.Has(int(p)) || s.inReach(n, i, int(p)) {
			continue
		}
		g.wan = s.now + wanPiece
		s.fetched[i][p]++
		s.got(n, i, wire.DeviceID{}, p)
		return
	}
}

func (s *subnet) inReach(n *node, i, p int) bool {
	for _, o := range s.nodes {
		if o.brain != nil && o.part == n.part && o.goods[i].have.Has(p) {
			return true
		}
	}
	return false
}

func (s *subnet) got(n *node, i int, from wire.DeviceID, p uint32) {
	g := n.goods[i]
	g.have.Add(int(p))
	g.held++
	g.gained = s.now
	if g.held == s.sizes[i] {
		g.wanted = false
	}
	s.act(n, n.brain.OnPiece(n.clock(s.now), hohOf(i), from, g.held, nil))
}

// leaders returns who leads content i in part.
func (s *subnet) leaders(i, part int) []*node {
	var found []*node
	for _, n := range s.nodes {
		if n.brain != nil && n.part == part && n.goods[i].leads != 0 {
			found = append(found, n)
		}
	}
	return found
}
