package election

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// fleet is a subnet of equal devices that all want everything from the start.
func fleet(seed uint64, devices int, sizes ...uint32) *subnet {
	s := newSubnet(seed, sizes...)
	for range devices {
		n := s.add(WeightDesktop)
		for _, g := range n.goods {
			g.wanted = true
		}
		s.at(time.Duration(s.rng.Int64N(int64(100*time.Millisecond))), func() { s.start(n) })
	}
	return s
}

// honestOut returns a device that fetches content i from outside.
func (s *subnet) honestOut(i int) *node {
	for _, n := range s.nodes {
		if n.brain != nil && !n.hostile && n.goods[i].out {
			return n
		}
	}
	return nil
}

// untilOut runs s until a device fetches content i from outside, and returns how long it took.
func (s *subnet) untilOut(t *testing.T, i int, limit time.Duration) time.Duration {
	t.Helper()
	begin := s.now
	for s.honestOut(i) == nil {
		if s.run(s.now + time.Millisecond); s.now > begin+limit {
			t.Fatalf("nobody goes out within %v", limit)
		}
	}
	return s.now - begin
}

// The WAN is idle for at most 0.3 s when the leader's connections close, and for 1 s when it
// falls silent. With the deputy gone, too, there is an election.
func TestTakeOver(t *testing.T) {
	for _, c := range []struct {
		name         string
		seen, deputy bool
		want         time.Duration
	}{
		{"closed", true, false, 300 * time.Millisecond},
		{"silent", false, false, time.Second},
		{"closed, deputy too", true, true, 400 * time.Millisecond},
		{"silent, deputy too", false, true, 1500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			var slowest time.Duration
			for seed := range uint64(40) {
				s := fleet(seed, 3+int(seed)%12, 4000)
				s.run(time.Second + time.Duration(seed)*37*time.Millisecond)
				leader := s.honestOut(0)
				deputy := s.node(leader.brain.contests[hohOf(0)].deputy)
				s.stop(leader, c.seen)
				if c.deputy {
					s.stop(deputy, c.seen)
				}
				slowest = max(slowest, s.untilOut(t, 0, 10*time.Second))
				if out := s.honestOut(0); !c.deputy && out != deputy {
					t.Errorf("seed %d: %s took over, want the deputy %s", seed, short(out.id), short(deputy.id))
				}
				if s.err != nil {
					t.Fatal(s.err)
				}
			}
			t.Logf("the WAN was idle for %v at most", slowest)
			if slowest > c.want {
				t.Errorf("the WAN was idle for %v, want at most %v", slowest, c.want)
			}
		})
	}
}

// On a subnet where nothing goes wrong each piece comes over the WAN once.
func TestOneCopy(t *testing.T) {
	for seed := range uint64(20) {
		s := fleet(seed, 2+int(seed)*2, 40, 25)
		s.run(10 * time.Second)
		for i, pieces := range s.fetched {
			for p, n := range pieces {
				if n != 1 {
					t.Errorf("seed %d: piece %d of content %d came %d times", seed, p, i, n)
				}
			}
			if len(pieces) != int(s.sizes[i]) {
				t.Errorf("seed %d: %d pieces of content %d came, want %d", seed, len(pieces), i, s.sizes[i])
			}
			if l := s.leaders(i, 0); len(l) != 1 {
				t.Errorf("seed %d: content %d has %d leaders", seed, i, len(l))
			}
		}
		if s.err != nil {
			t.Errorf("seed %d: %v", seed, s.err)
		}
	}
}

// Equal devices share the work: none leads more than three times its share of 100 contents.
func TestLeadersAreSpread(t *testing.T) {
	sizes := make([]uint32, 100)
	for i := range sizes {
		sizes[i] = 1000
	}
	for _, devices := range []int{3, 10, 25} {
		s := fleet(1, devices, sizes...)
		s.run(1500 * time.Millisecond)
		var led []int
		for _, n := range s.nodes {
			count := 0
			for _, g := range n.goods {
				if g.leads != 0 {
					count++
				}
			}
			led = append(led, count)
		}
		sum := 0
		for _, n := range led {
			sum += n
		}
		if sum != len(sizes) || slices.Max(led) > 3*len(sizes)/devices {
			t.Errorf("%d devices lead %v contents, together %d, want %d and none more than %d", devices, led, sum, len(sizes), 3*len(sizes)/devices)
		}
		t.Logf("%d devices lead %v of 100 contents", devices, led)
	}
}

// Devices that ask for a name that nobody on the subnet knows: one asks the services, the
// others learn it from that one, and the bytes come once.
func TestNamesComeInOnce(t *testing.T) {
	subject := wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "c", Version: 1}}
	for seed := range uint64(20) {
		s := newSubnet(seed, 30)
		for range 2 + int(seed) {
			n := s.add(WeightDesktop)
			s.at(time.Duration(s.rng.Int64N(int64(300*time.Millisecond))), func() {
				s.start(n)
				s.act(n, n.brain.OnSeek(n.clock(s.now), subject, wire.Background, nil))
			})
		}
		s.run(10 * time.Second)
		for _, n := range s.nodes {
			if n.goods[0].held != 30 {
				t.Errorf("seed %d: %s holds %d of 30 pieces", seed, short(n.id), n.goods[0].held)
			}
		}
		if s.asked != 1 || s.again(0) != 0 || s.err != nil {
			t.Errorf("seed %d: the services were asked %d times, %d pieces came twice, %v", seed, s.asked, s.again(0), s.err)
		}
	}
}

// A member that wins the election and brings nothing holds the others up for less than 5 s: it
// beats and stalls, or claims nearly everything.
func TestStallingMember(t *testing.T) {
	for name, held := range map[string]uint32{"stalls": 0, "claims 99 percent": 396, "claims all": 400} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := newSubnet(seed, 400)
				liar := s.add(0)
				liar.hostile = true
				b := wire.Beat{HashOfHashes: hohOf(0), Epoch: 1, Held: held, Total: 400, Flags: wire.Leads | wire.Able | wire.Stands | wire.Moving, Device: deviceOf(1)}
				s.every(fastBeat, func() { s.say(liar, nil, wire.Heartbeat{Weight: wire.MaxWeight, Beats: []wire.Beat{b}}) })
				for range 6 {
					n := s.add(WeightDesktop)
					n.goods[0].wanted = true
					s.at(10*time.Millisecond, func() { s.start(n) })
				}
				s.run(300 * time.Millisecond)
				for _, n := range s.nodes[1:] {
					if n.goods[0].follows != liar.id {
						t.Fatalf("seed %d: %s does not follow the liar: the test shows nothing", seed, short(n.id))
					}
				}
				if d := s.untilOut(t, 0, 10*time.Second); d > 5*time.Second {
					t.Errorf("seed %d: the others go on after %v", seed, d)
				}
				s.run(s.now + 30*time.Second)
				if again := s.again(0); again > 0 {
					t.Errorf("seed %d: %d pieces came over the WAN twice", seed, again)
				}
				if l := s.leaders(0, 0); len(l) != 1 || l[0].goods[0].held != 400 {
					t.Errorf("seed %d: %d leaders in the end", seed, len(l))
				}
			}
		})
	}
}

// again returns how many pieces of content i came over the WAN more than once.
func (s *subnet) again(i int) int {
	n := 0
	for _, times := range s.fetched[i] {
		n += times - 1
	}
	return n
}

// A leader whose own way out is broken resigns; it is not shunned, and nobody goes out alone.
func TestLeaderThatCannotFetch(t *testing.T) {
	for seed := range uint64(20) {
		s := fleet(seed, 5, 400)
		s.run(time.Second)
		leader := s.honestOut(0)
		leader.deaf = true
		s.run(4 * time.Second)
		if next := s.honestOut(0); next == nil || next == leader || leader.goods[0].leads != 0 {
			t.Fatalf("seed %d: after 3 s the leader leads %d and %v goes out", seed, leader.goods[0].leads, next)
		}
		for _, n := range s.nodes {
			if n.shuns > 0 || n.goods[0].alone {
				t.Errorf("seed %d: %s shunned %d leaders, alone: %v", seed, short(n.id), n.shuns, n.goods[0].alone)
			}
		}
	}
}

// Two halves of a subnet that were apart, each with a leader that made progress, end up with
// one leader soon after they hear each other again.
func TestMerge(t *testing.T) {
	var slowest time.Duration
	for seed := range uint64(30) {
		s := fleet(seed, 8, 4000)
		for i, n := range s.nodes {
			n.part = i % 2
		}
		s.run(2*time.Second + time.Duration(seed)*11*time.Millisecond)
		if len(s.leaders(0, 0)) != 1 || len(s.leaders(0, 1)) != 1 {
			t.Fatalf("seed %d: not one leader in each half", seed)
		}
		s.heal()
		begin := s.now
		for len(s.leaders(0, 0)) > 1 && s.now < begin+10*time.Second {
			s.run(s.now + 10*time.Millisecond)
		}
		slowest = max(slowest, s.now-begin)
		s.run(s.now + 2*time.Second)
		if l := s.leaders(0, 0); len(l) != 1 || s.err != nil {
			t.Errorf("seed %d: %d leaders, %v", seed, len(l), s.err)
		}
	}
	t.Logf("two leaders for %v at most", slowest)
	if slowest > 2*time.Second {
		t.Errorf("two leaders for %v, want at most 2 s", slowest)
	}
}

// noise is a random message of a hostile member, often about what the device knows.
func noise(rng *rand.Rand, known int) wire.LANMessage {
	var d content.Digest
	if rng.IntN(2) == 0 {
		d = hohOf(rng.IntN(known))
	} else {
		for i := range d {
			d[i] = byte(rng.Uint32())
		}
	}
	st := wire.Standing{Able: true, Share: uint8(rng.IntN(11)), Weight: uint8(rng.IntN(100)), Priority: wire.Foreground}
	switch rng.IntN(4) {
	case 0:
		return wire.Question{Standing: st, Subject: wire.Subject{By: wire.ByHashOfHashes, Digest: d}}
	case 1:
		return wire.Question{Standing: st, Subject: wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "x", Version: rng.Uint64() >> 1}}}
	case 2:
		return wire.Answer{Tag: rng.Uint64(), HashOfHashes: d, Manifest: d, Generation: rng.Int64(), Standing: st}
	}
	b := wire.Beat{HashOfHashes: d, Epoch: rng.Uint64(), Held: uint32(rng.IntN(51)), Total: 50, Flags: wire.BeatFlags(rng.IntN(32)), Device: deviceOf(rng.IntN(5))}
	if rng.IntN(2) == 0 {
		b.Epoch = uint64(1 + rng.IntN(2000))
	}
	return wire.Heartbeat{Weight: st.Weight, Beats: []wire.Beat{b}}
}

// A flood of 2,000 members for a minute leaves the device's memory as it was after the first
// seconds.
func TestFloodLeavesMemoryFlat(t *testing.T) {
	const known = 40
	e := New(Config{Self: deviceOf(0), Weight: WeightDesktop, Conditions: Conditions{MayGoOut: true}})
	var acts []Action
	for i := range known {
		acts = e.OnEntry(0, Entry{HashOfHashes: hohOf(i), Manifest: hohOf(i), Ref: content.Ref{ID: "c", Version: 1}, Held: uint32(25 * (i % 3)), Total: 50}, acts[:0])
		if i%3 == 0 {
			acts = e.OnWant(0, hohOf(i), wire.Background, acts[:0])
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	now := time.Duration(0)
	flood := func(messages int) uint64 {
		for range messages {
			now += time.Millisecond
			acts = e.OnTick(now, acts[:0])
			acts = append(acts[:0], hear(e, now, deviceOf(1+rng.IntN(2000)), noise(rng, known))...)
		}
		acts = acts[:0:0]
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first := flood(20_000)
	last := flood(60_000)
	if last > first+1<<20 {
		t.Errorf("the flood's second part grew the heap from %d to %d KiB", first>>10, last>>10)
	}
	if len(e.list) != known || len(e.senders) > maxSenders || len(e.pending) > maxPending {
		t.Errorf("%d contents, %d senders, %d questions are kept", len(e.list), len(e.senders), len(e.pending))
	}
	for _, c := range e.list {
		if len(c.cands) > maxCandidates || len(c.shunned) > maxShunned || len(c.rivals) > maxRivals {
			t.Errorf("%d candidates, %d shunned, %d rivals are kept", len(c.cands), len(c.shunned), len(c.rivals))
		}
	}
	t.Logf("heap %d, then %d KiB", first>>10, last>>10)
	runtime.KeepAlive(e)
}

// One sender's questions beyond a rate are not heard; others' are.
func TestQuestionsHaveARate(t *testing.T) {
	e := New(Config{Self: deviceOf(0), Weight: WeightDesktop})
	found := func(from, questions int, now time.Duration) int {
		n := 0
		for i := range questions {
			q := wire.Question{Subject: wire.Subject{By: wire.ByHashOfHashes, Digest: hohOf(i)}}
			n += len(e.OnQuestion(now, deviceOf(from), q, nil))
		}
		return n
	}
	if got := found(1, 1000, 0); got != questionBurst {
		t.Errorf("1000 questions at once: %d are heard, want %v", got, questionBurst)
	}
	if got := found(1, 1000, time.Second); got != questionRate {
		t.Errorf("1000 questions a second later: %d are heard, want %v", got, questionRate)
	}
	if got := found(2, 10, time.Second); got != 10 {
		t.Errorf("10 questions of another device: %d are heard", got)
	}
}

// One member that invents answers to a question leaves room for those of others: of each device
// the last answer counts, of equal ones the best device's.
func TestInventedAnswers(t *testing.T) {
	e := New(Config{Self: deviceOf(0), Weight: WeightDesktop})
	subject := wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "c"}}
	answer := func(from, hoh int, weight uint8) {
		a := wire.Answer{Tag: subject.Tag(), HashOfHashes: hohOf(hoh), Manifest: hohOf(hoh), Generation: 1, Standing: wire.Standing{Weight: weight}}
		e.OnAnswer(0, deviceOf(from), a, nil)
	}
	e.OnSeek(0, subject, wire.Background, nil)
	e.OnTick(maxAskWait, nil)
	for i := range 100 {
		answer(1, 2+i, wire.MaxWeight)
	}
	answer(2, 1, WeightDesktop)
	answer(3, 1, WeightServer)
	answer(1, 1, wire.MaxWeight)
	answer(1, 500, wire.MaxWeight)
	acts := e.OnTick(maxAskWait+window, nil)
	if len(acts) != 1 || acts[0].Kind != Found {
		t.Fatalf("the window ends with %v", acts)
	}
	var got []Holding
	for _, h := range acts[0].Holdings {
		got = append(got, Holding{HashOfHashes: h.HashOfHashes, Device: h.Device})
	}
	want := []Holding{{HashOfHashes: hohOf(500), Device: deviceOf(1)}, {HashOfHashes: hohOf(1), Device: deviceOf(3)}}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	e.OnSeek(0, subject, wire.Background, nil)
	for i := range 3 * maxCandidates {
		answer(1+i, i, WeightDesktop)
	}
	if l := e.lookups[0]; len(l.answers) != maxCandidates || len(l.holdings()) != maxHoldings {
		t.Errorf("%d answers are kept, %d holdings found, want %d and %d", len(l.answers), len(l.holdings()), maxCandidates, maxHoldings)
	}
}

// The shunned are bounded: the first ones are forgotten.
func TestShunnedAreBounded(t *testing.T) {
	var c contest
	for i := range 3 * maxShunned {
		c.shun(0, deviceOf(i), shunTime)
	}
	if len(c.shunned) != maxShunned || c.avoids(0, deviceOf(0)) || !c.avoids(0, deviceOf(3*maxShunned-1)) {
		t.Errorf("%d devices are shunned, the first: %v, the last: %v", len(c.shunned), c.avoids(0, deviceOf(0)), c.avoids(0, deviceOf(3*maxShunned-1)))
	}
	if c.avoids(shunTime, deviceOf(3*maxShunned-1)) {
		t.Errorf("a device is shunned for longer than %v", shunTime)
	}
}

// Contents that nobody needs make room for others; those that are wanted stay.
func TestIdleContentsAreBounded(t *testing.T) {
	e := New(Config{Self: deviceOf(0), Weight: WeightDesktop, Conditions: Conditions{MayGoOut: true}, MaxContents: 10})
	for i := range 100 {
		e.OnEntry(time.Duration(i), Entry{HashOfHashes: hohOf(i), Manifest: hohOf(i), Held: 1, Total: 2}, nil)
		if i < 5 {
			e.OnWant(time.Duration(i), hohOf(i), wire.Background, nil)
		}
	}
	if n := len(e.list); n != 15 {
		t.Errorf("%d contents are kept, want 5 that are wanted and 10 others", n)
	}
	for i := range 5 {
		if e.contests[hohOf(i)] == nil {
			t.Errorf("wanted content %d is gone", i)
		}
	}
}
