package election

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"freshet/internal/wire"
)

var seedFlag = flag.Uint64("seed", 0, "run TestSeeds with this seed alone")

// storm is how long things go wrong in a seed; calm after it, the subnet is in order. By the end
// every device has what it wants: the large content takes 32 s over the WAN alone, and who gave
// two leaders up, which hostile members may have been, waits up to 20 s before it goes out alone.
const (
	storm = 7 * time.Second
	calm  = 8 * time.Second
	end   = 75 * time.Second
)

// bothLead is how long two devices that hear each other may lead a content in the same epoch. One
// has to hear the other, which beats each 2 s where nothing moves; then a piece of the other is the
// proof for which it gives way, or, where the other has none, its patience of 2 s ends. Half a
// second is for datagrams that are lost.
const bothLead = max(slowBeat, minPatience) + 500*time.Millisecond

// small is the content that everybody can have when the calm is over; the other one takes longer.
const (
	small = iota
	large
)

// stormy is one seed: 2 to 50 devices, and everything that may go wrong.
func stormy(seed uint64, trace func(string, ...any)) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newSubnet(seed, 10+uint32(rng.IntN(30)), 640)
	s.trace = trace
	devices := 2 + rng.IntN(8)
	if rng.IntN(25) == 0 {
		devices = 10 + rng.IntN(41)
	}
	if rng.IntN(2) == 0 {
		s.loss = 0.2 * rng.Float64()
	}
	if rng.IntN(3) == 0 {
		s.lease = LeaseOurs
	}
	weights := []uint8{WeightServer, WeightDesktop, WeightDesktop, WeightLaptop, WeightWireless}
	for range devices {
		n := s.add(weights[rng.IntN(len(weights))])
		if rng.IntN(10) == 0 && devices > 2 {
			n.cfg.Weight = 0
		}
		n.ahead, n.fast = time.Duration(rng.Int64N(int64(time.Hour))), 0.04*rng.Float64()-0.02
		s.at(soon(rng), func() { s.start(n); s.wantSoon(rng, n) })
	}
	s.troubles(rng)
	if rng.IntN(3) == 0 {
		for range 1 + rng.IntN(2) {
			s.hostile(rng)
		}
	}
	s.watchEpochs()
	s.run(storm)
	s.calm()
	s.run(storm + calm)
	s.checkOrder()
	s.finish()
	return s.err
}

// soon is a random moment of the storm; half of them at its beginning.
func soon(rng *rand.Rand) time.Duration {
	if rng.IntN(2) == 0 {
		return time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
	}
	return time.Duration(rng.Int64N(int64(storm)))
}

func (s *subnet) wantSoon(rng *rand.Rand, n *node) {
	for i := range s.sizes {
		if rng.IntN(3) > 0 {
			s.at(s.now+time.Duration(rng.Int64N(int64(200*time.Millisecond))), func() { s.want(n, i) })
		}
	}
}

// troubles draws what goes wrong.
func (s *subnet) troubles(rng *rand.Rand) {
	pick := func() *node { return s.nodes[rng.IntN(len(s.nodes))] }
	for range rng.IntN(5) {
		seen := rng.IntN(2) == 0
		switch at := soon(rng); rng.IntN(8) {
		case 0, 1:
			s.at(at, func() { s.killLeaders(rng, false, seen) })
		case 2:
			s.at(at, func() { s.killLeaders(rng, true, seen) })
		case 3: // a device restarts
			s.at(at, func() {
				if n := pick(); n.brain != nil {
					s.stop(n, seen)
					s.at(s.now+time.Duration(rng.Int64N(int64(2*time.Second))), func() { s.start(n) })
				}
			})
		case 4: // the subnet breaks in two, and heals
			s.at(at, func() {
				for _, n := range s.nodes {
					n.part = rng.IntN(2)
				}
			})
			s.at(min(storm, at+time.Duration(rng.Int64N(int64(4*time.Second)))), s.heal)
		case 5:
			s.at(at, func() { pick().deaf = true })
		case 6:
			s.at(at, func() { s.wanOff = true })
			s.at(at+time.Duration(rng.Int64N(int64(3*time.Second))), func() { s.wanOff = false })
		case 7: // policy, power and quarantine come and go
			s.at(at, func() { s.disturb(rng, pick()) })
		}
	}
}

func (s *subnet) heal() {
	for _, n := range s.nodes {
		n.part = 0
	}
}

// killLeaders switches leaders off, perhaps their deputies with them.
func (s *subnet) killLeaders(rng *rand.Rand, deputies, seen bool) {
	for i := range s.sizes {
		for _, n := range s.leaders(i, rng.IntN(2)) {
			if n.brain == nil { // it was the deputy of another
				continue
			}
			deputy := n.brain.contests[hohOf(i)].deputy
			s.stop(n, seen)
			if deputies && !deputy.IsZero() {
				s.stop(s.node(deputy), seen)
			}
		}
	}
}

// disturb changes a device's conditions, and puts what it has on hold, for a while.
func (s *subnet) disturb(rng *rand.Rand, n *node) {
	if n.brain == nil || n.hostile {
		return
	}
	i := rng.IntN(len(s.sizes))
	brain, hold := n.brain, rng.IntN(2) == 0
	n.cfg.Conditions = Conditions{MayGoOut: rng.IntN(2) == 0, Battery: true, Busy: true}
	s.act(n, brain.OnConditions(n.clock(s.now), n.cfg.Conditions, nil))
	s.act(n, brain.OnHold(n.clock(s.now), hohOf(i), hohOf(i), hold, nil))
	s.at(min(storm, s.now+time.Duration(rng.Int64N(int64(4*time.Second)))), func() {
		n.cfg.Conditions = Conditions{MayGoOut: true}
		if n.brain != nil {
			s.act(n, n.brain.OnConditions(n.clock(s.now), n.cfg.Conditions, nil))
			s.act(n, n.brain.OnHold(n.clock(s.now), hohOf(i), hohOf(i), false, nil))
		}
	})
}

// hostile adds a member that says whatever may help it to lead, or to disturb, and gives
// nothing.
func (s *subnet) hostile(rng *rand.Rand) {
	n := s.add(0)
	n.hostile = true
	every := time.Duration(20+rng.IntN(300)) * time.Millisecond
	begin := soon(rng)
	style := rng.IntN(6)
	var tick func()
	tick = func() {
		if s.now > storm {
			return
		}
		i := rng.IntN(len(s.sizes))
		s.say(n, nil, s.lie(rng, style, i))
		s.at(s.now+every, tick)
	}
	s.at(begin, tick)
}

func (s *subnet) lie(rng *rand.Rand, style, i int) wire.LANMessage {
	hoh := hohOf(i)
	best := wire.Standing{Able: true, Share: wire.Complete, Weight: wire.MaxWeight, Priority: wire.Foreground}
	if style == 5 {
		style = rng.IntN(5)
	}
	epoch := []uint64{1, 7, 1000, 1 << 40, ^uint64(0), ^uint64(0) - 1}[rng.IntN(6)]
	leaders := s.leaders(i, 0)
	switch style {
	case 0:
		return wire.Question{Standing: best, Subject: wire.Subject{By: wire.ByHashOfHashes, Digest: hoh}}
	case 1:
		sub := wire.Subject{By: wire.ByHashOfHashes, Digest: hoh}
		return wire.Answer{Tag: sub.Tag(), HashOfHashes: hoh, Manifest: hoh, Generation: 1, Standing: best}
	}
	for _, o := range leaders {
		epoch += o.goods[i].leads
	}
	epoch = max(1, epoch)
	if style == 4 && len(leaders) > 0 {
		return wire.Resign{HashOfHashes: hoh, Epoch: epoch, Reason: wire.Yielded, Successor: leaders[0].id}
	}
	b := wire.Beat{HashOfHashes: hoh, Epoch: epoch, Total: s.sizes[i], Held: s.sizes[i], Flags: wire.Leads | wire.Able | wire.Stands | wire.Moving | wire.Outside, Device: deviceOf(rng.IntN(len(s.nodes)))}
	if style == 3 {
		b.Held = s.sizes[i] * 99 / 100
		b.Flags &^= wire.Moving
	}
	return wire.Heartbeat{Weight: wire.MaxWeight, Beats: []wire.Beat{b}}
}

// calm ends what goes wrong.
func (s *subnet) calm() {
	s.loss, s.wanOff = 0, false
	s.heal()
	for _, n := range s.nodes {
		n.deaf = false
	}
}

// watchEpochs looks for devices in reach of each other that lead the same content in the same
// epoch for longer than they may.
func (s *subnet) watchEpochs() {
	type pair struct {
		i    int
		a, b *node
	}
	begun := map[pair]time.Duration{}
	s.every(100*time.Millisecond, func() {
		for i := range s.sizes {
			for ai, a := range s.nodes {
				for _, b := range s.nodes[ai+1:] {
					p := pair{i, a, b}
					ea, eb := a.goods[i].leads, b.goods[i].leads
					if a.part != b.part || ea == 0 || ea != eb {
						delete(begun, p)
						continue
					}
					if begun[p] == 0 {
						begun[p] = s.now
					}
					if s.now-begun[p] > bothLead {
						s.breach("%s and %s both lead content %d in epoch %d since %v", short(a.id), short(b.id), i, ea, begun[p])
					}
				}
			}
		}
	})
}

// finish runs on until no device wants pieces any more.
func (s *subnet) finish() {
	wants := func(n *node) bool {
		return n.brain != nil && slices.ContainsFunc(n.goods, func(g *goods) bool { return g.wanted })
	}
	for s.err == nil {
		at := slices.IndexFunc(s.nodes, wants)
		switch {
		case at < 0:
			return
		case s.now >= end:
			n := s.nodes[at]
			s.breach("%s has %d of %d pieces", short(n.id), []uint32{n.goods[small].held, n.goods[large].held}, s.sizes)
		}
		s.run(s.now + time.Second)
	}
}

// checkOrder looks at the subnet after the calm.
func (s *subnet) checkOrder() {
	for i := range s.sizes {
		leaders := s.leaders(i, 0)
		needsOne := false
		for _, n := range s.nodes {
			g := n.goods[i]
			if n.brain == nil || !g.wanted {
				continue
			}
			c := n.brain.contests[hohOf(i)]
			switch c.role {
			case following:
				needsOne = true
				if l := s.node(g.follows); l.brain == nil || l.goods[i].leads == 0 {
					s.breach("%s follows %s in content %d, which does not lead", short(n.id), short(l.id), i)
				}
			case leading, alone:
			default:
				if c.at[aloneTimer] == never {
					s.breach("%s wants content %d and is %s", short(n.id), i, c.role)
				}
			}
			if i == small && c.role != alone && c.at[aloneTimer] == never {
				s.breach("%s, %s, has %d of %d pieces of the small content", short(n.id), c.role, g.held, s.sizes[i])
			}
		}
		if len(leaders) > 1 && !s.shunned(i, leaders) || needsOne && len(leaders) == 0 {
			s.breach("content %d has %d leaders", i, len(leaders))
		}
	}
}

// shunned reports whether one of the leaders of content i shuns another of which nothing came, which is
// how they came to be several. A rival that proved nothing is shunned for less.
func (s *subnet) shunned(i int, leaders []*node) bool {
	for _, a := range leaders {
		for _, b := range leaders {
			if a.brain.contests[hohOf(i)].avoids(a.clock(s.now+unprovenTime), b.id) {
				return true
			}
		}
	}
	return false
}

func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		if err := stormy(*seedFlag, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	for part := range 2 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := 1 + part; seed <= seeds; seed += 2 {
				if err := stormy(uint64(seed), nil); err != nil {
					t.Errorf("%v; go test ./internal/election -run TestSeeds -v -seed %d runs it again", err, seed)
				}
			}
		})
	}
}
