package share

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"freshet/internal/api"
	"freshet/internal/lan"
	"freshet/internal/memnet"
	"freshet/internal/policy"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// onSubnet puts the device of a rig on a subnet in memory, at 10.0.1.1/24.
func (r *rig) onSubnet() {
	r.Helper()
	h := &memnet.Host{}
	h.Plug(map[lan.Link]*memnet.Segment{{Index: 2, Name: "eth0", Local: netip.MustParsePrefix("10.0.1.1/24")}: {}})
	r.dev.Subnet = subnet.New(subnet.Options{
		LAN:  lan.Options{Trust: lan.Trust{Self: r.self, Now: time.Now}, Network: h},
		Seed: Seed, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(r.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.dev.Subnet.Run(ctx) }()
	r.Cleanup(func() { stop(); r.want(<-ended) })
	<-r.dev.Subnet.Ready()
	r.role.part = r.dev.Subnet.Enter(r.hoh, r.Record().Size, r.Share)
}

// spy is a way to a device that tells of what is said over it.
type spy chan []byte

func (s spy) Say(message []byte) { s <- message }

// TestEndPartsWithPeers: a share that ends takes its connections from the subnet: what is said to a
// device goes over one that is open.
func TestEndPartsWithPeers(t *testing.T) {
	r := newRig(t, mib)
	r.onSubnet()
	device := wire.DeviceID{8}
	r.connect(device)
	r.end()
	gone := false
	if r.Validate(device, wire.Validate{}, func() { gone = true }); !gone {
		t.Error("who is told by a share that has ended is not gone")
	}
	other := make(spy, 1)
	r.dev.Subnet.Connected(device, netip.MustParseAddr("10.0.1.7"), other)
	r.dev.Subnet.SendHint(wire.Validate{})
	select {
	case <-other:
	case <-time.After(patience):
		t.Error("what is said to a device goes over the connection of a share that has ended")
	}
}

// TestReach: elections say how far the device goes where there are any, else the array's lease
// does; and the array is asked for it by whom they chose.
func TestReach(t *testing.T) {
	r := newRig(t, 3*mib)
	rec := r.Record()
	rec.Wanted = true
	r.Update(rec)
	for _, c := range []struct {
		name  string
		stand subnet.Stand
		lease subnet.Lease
		reach swarm.Reach
		wants bool
		asks  string // zones whose peers are asked: subnet, site, elsewhere
	}{
		{"no election, no array", subnet.Stand{}, subnet.Lease{}, swarm.ReachUnknown, true, "yyy"},
		{"no election, no lease", subnet.Stand{}, subnet.Lease{Known: true}, swarm.ReachSite, true, "yyn"},
		{"no election, the lease", subnet.Stand{}, subnet.Lease{Known: true, Mine: true}, swarm.ReachAll, true, "yyy"},
		{"idle", subnet.Stand{Role: subnet.Idle}, subnet.Lease{Known: true, Mine: true}, swarm.ReachSubnet, false, "ynn"},
		{"seeking", subnet.Stand{Role: subnet.Seeking}, subnet.Lease{}, swarm.ReachSubnet, false, "ynn"},
		{"following", subnet.Stand{Role: subnet.Following, Leader: wire.DeviceID{7}}, subnet.Lease{}, swarm.ReachSubnet, false, "ynn"},
		{"leading", subnet.Stand{Role: subnet.Leading, Epoch: 3}, subnet.Lease{Known: true}, swarm.ReachSite, true, "yyn"},
		{"leading and out", subnet.Stand{Role: subnet.Leading, Epoch: 3, Out: true}, subnet.Lease{}, swarm.ReachAll, true, "yyy"},
		{"alone, and may not", subnet.Stand{Role: subnet.Alone}, subnet.Lease{}, swarm.ReachSite, false, "yyn"},
		{"alone", subnet.Stand{Role: subnet.Alone, Out: true}, subnet.Lease{Known: true}, swarm.ReachAll, false, "yyy"},
	} {
		r.role.stand, r.role.lease = c.stand, c.lease
		r.review()
		asks := ""
		for _, z := range []swarm.Zone{swarm.SameSubnet, swarm.SameSite, swarm.Elsewhere} {
			asks += map[bool]string{true: "y", false: "n"}[r.within(z)]
		}
		r.publish()
		f := r.Facts()
		if f.Reach != c.reach || f.WantsLease != c.wants || asks != c.asks || f.Role != c.stand.Role {
			t.Errorf("%s: reach %d, wants the lease %v, asks %s, role %v; want %d, %v, %s", c.name, f.Reach, f.WantsLease, asks, f.Role, c.reach, c.wants, c.asks)
		}
		if a := r.around(); a.Mine != (c.reach == swarm.ReachAll) || a.Led != (c.stand.Role != subnet.NoElection) {
			t.Errorf("%s: for metadata things stand as %+v", c.name, a)
		}
	}
}

// TestOutdatedLease: that nobody has the lease counts as an answer to a device that asked for it, and
// to one that did not know whether there is an array.
func TestOutdatedLease(t *testing.T) {
	other := wire.DeviceID{9}.PeerID()
	for _, c := range []struct {
		name  string
		known bool // that there is an array
		asked bool
		reply api.Lease
		want  subnet.Lease
	}{
		{"nobody, before it was asked for", true, false, api.Lease{}, subnet.Lease{Known: true, Mine: true}},
		{"nobody, asked for", true, true, api.Lease{}, subnet.Lease{Known: true}},
		{"another, before it was asked for", true, false, api.Lease{Holder: other}, subnet.Lease{Known: true, Holder: wire.DeviceID{9}}},
		{"the first word", false, false, api.Lease{}, subnet.Lease{Known: true}},
	} {
		r := newRig(t, 3*mib)
		rec := r.Record()
		rec.Wanted = true
		r.Update(rec)
		r.role.stand = subnet.Stand{Role: subnet.Leading, Epoch: 2, Out: true}
		r.role.lease = subnet.Lease{Known: c.known, Mine: c.known}
		r.publish()
		r.joined(api.JoinReply{Lease: c.reply}, c.asked)
		if got := r.role.lease; got != c.want {
			t.Errorf("%s: the lease is %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestClaimWaitsForNothing: a device that has just been chosen joins for the lease at once, though it
// has joined a moment ago.
func TestClaimWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Share{rejoin: make(chan struct{}, 1), claim: make(chan struct{}, 1)}
		for _, c := range []struct {
			wake chan struct{}
			want time.Duration
		}{{s.rejoin, minRejoin}, {s.claim, 0}, {nil, time.Minute}} {
			start := time.Now()
			if c.wake != nil {
				c.wake <- struct{}{}
			}
			if ok, took := s.sleep(t.Context(), time.Minute), time.Since(start); !ok || took != c.want {
				t.Errorf("the next join comes after %v, %v, want %v", took, ok, c.want)
			}
		}
	})
	r := newRig(t, 3*mib)
	rec := r.Record()
	rec.Wanted = true
	r.Update(rec)
	r.role.stand = subnet.Stand{Role: subnet.Following, Leader: wire.DeviceID{9}}
	r.publish()
	r.role.stand = subnet.Stand{Role: subnet.Leading, Epoch: 2}
	if len(r.claim) != 0 {
		t.Error("a follower claims the lease")
	}
	r.publish()
	if len(r.claim) != 1 || !r.Facts().WantsLease {
		t.Error("a leader that has just been chosen does not claim the lease")
	}
}

// TestReachWithDelay: while peers are given their time before HTTP, a leader goes no further
// than the site and leaves the lease to others. Somebody in a hurry ends it.
func TestReachWithDelay(t *testing.T) {
	r := newRig(t, 3*mib)
	r.dev.Settings, _ = policy.Resolve(policy.Layer{Provider: policy.File, Entries: []policy.Entry{{Name: "DODelayBackgroundDownloadFromHttp", Value: "3600"}}})
	rec := r.Record()
	rec.Wanted = true
	r.Update(rec)
	r.delay = time.Hour
	r.stands(subnet.Stand{Role: subnet.Leading, Epoch: 1, Out: true})
	r.publish()
	if r.mayReach() != swarm.ReachSite || r.Facts().WantsLease {
		t.Errorf("with an hour to wait it may reach %d, wants the lease: %v", r.mayReach(), r.Facts().WantsLease)
	}
	r.stands(subnet.Stand{Role: subnet.Leading, Epoch: 1, Out: true, Priority: wire.Foreground})
	r.publish()
	if r.mayReach() != swarm.ReachAll || !r.Facts().WantsLease {
		t.Errorf("when somebody waits it may reach %d, wants the lease: %v", r.mayReach(), r.Facts().WantsLease)
	}
}

// TestHurryEndsDelay: a download that somebody waits for shortens the delay of a share that began in
// the background, without elections too, and takes the hurry with it when it ends.
func TestHurryEndsDelay(t *testing.T) {
	r := newRig(t, 3*mib)
	rec := r.Record()
	rec.Wanted = true
	r.Update(rec)
	r.delay = time.Hour
	r.onLease(subnet.Lease{Known: true, Mine: true})
	r.publish()
	if r.mayReach() != swarm.ReachSite || r.Facts().WantsLease {
		t.Errorf("with an hour to wait it may reach %d, wants the lease: %v", r.mayReach(), r.Facts().WantsLease)
	}
	r.Hurry(true)
	r.until("the hurry", func() bool { return r.hurry })
	r.publish()
	if r.role.may != swarm.ReachAll || !r.Facts().WantsLease || len(r.rejoin) == 0 {
		t.Errorf("when somebody waits it may reach %d, wants the lease: %v, joins again: %v", r.role.may, r.Facts().WantsLease, len(r.rejoin) > 0)
	}
	r.Hurry(false)
	r.until("the end of the hurry", func() bool { return !r.hurry })
}

// TestElectionsEnd: a swarm that leaves it to elections goes out when there are none any more
// and no array answers for long.
func TestElectionsEnd(t *testing.T) {
	r := newRig(t, 3*mib)
	r.role.led = true
	r.start = time.Now().Add(time.Second - noArray)
	if got := r.reachNow(); got != swarm.ReachUnknown {
		t.Errorf("after %v: reach %d, want it to wait", noArray, got)
	}
	r.start = time.Now().Add(-2 * noArray)
	if got := r.reachNow(); got != swarm.ReachAll {
		t.Errorf("after %v: reach %d, want it to go out", 2*noArray, got)
	}
}

// dials is a daemon that dials nobody.
type dials struct{ idle }

func (dials) Spawn(func()) bool { return true }

// TestMeets: of two that miss pieces one dials, those that miss some dial their leader and who
// holds some, and nobody dials whom it is connected with.
func TestMeets(t *testing.T) {
	smaller, larger := wire.DeviceID{0, 5}, wire.DeviceID{2}
	for _, c := range []struct {
		name  string
		n     subnet.Neighbour
		leads bool // this device does
		want  bool
	}{
		{"a holder", subnet.Neighbour{Device: smaller}, false, true},
		{"the leader", subnet.Neighbour{Device: smaller, Leads: true}, false, true},
		{"another with a smaller id", subnet.Neighbour{Device: smaller, Wants: true}, false, false},
		{"another with a larger id", subnet.Neighbour{Device: larger, Wants: true}, false, true},
		{"a follower", subnet.Neighbour{Device: larger, Wants: true}, true, false},
		{"a rival", subnet.Neighbour{Device: larger, Leads: true}, true, true},
		{"itself", subnet.Neighbour{Device: wire.DeviceID{1}}, false, false},
	} {
		r := newRig(t, mib)
		r.owner = dials{}
		if c.leads {
			r.role.stand.Role = subnet.Leading
		}
		c.n.At = "10.0.1.7:7680"
		for range 2 {
			r.meets(c.n)
		}
		if got := r.dialing[c.n.Device]; got != c.want {
			t.Errorf("%s is dialled: %v, want %v", c.name, got, c.want)
		}
	}
	r := newRig(t, mib)
	r.owner = dials{}
	r.connect(larger)
	r.meets(subnet.Neighbour{Device: larger, Leads: true, At: "10.0.1.7:7680"})
	if len(r.dialing) > 0 {
		t.Error("a connected device is dialled")
	}
}

// TestOffer: of the peers that the array names, a follower dials those of its subnet; who is
// farther away is dialled by whom the elections let go there.
func TestOffer(t *testing.T) {
	peers := map[wire.DeviceID]api.Peer{}
	for i, p := range []api.Peer{
		{Type: "LinkLocal", Address: "10.0.1.2:7680"},
		{Type: "LAN", Address: "10.0.1.3:7680"},
		{Type: "LAN", Address: "10.0.2.2:7680"},
		{Type: "Group", Address: "10.0.1.4:7680"}, // another site that has the same addresses
		{Type: "LAN", Address: "somewhere"},
	} {
		id := wire.DeviceID{9, byte(i)}
		p.PeerId, p.Left = id.String()+"00000000", 1
		peers[id] = p
	}
	for role, want := range map[subnet.Role]string{subnet.Following: "0 1", subnet.Leading: "0 1 2 3", subnet.NoElection: "0 1 2 3"} {
		r := newRig(t, mib)
		r.onSubnet()
		r.owner = dials{}
		r.role.stand.Role = role
		r.review()
		for _, p := range peers {
			r.offer(p)
		}
		got := ""
		for i := range byte(5) {
			if r.dialing[wire.DeviceID{9, i}] {
				got += fmt.Sprint(" ", i)
			}
		}
		if got != " "+want || r.offered != len(want)/2+1 {
			t.Errorf("role %v: dialled%s of %d, want %s", role, got, r.offered, want)
		}
		for a, zone := range map[string]swarm.Zone{"10.0.1.9": swarm.SameSubnet, "10.0.2.9": swarm.SameSite} {
			if got := r.zone(netip.MustParseAddr(a), false); got != zone {
				t.Errorf("%s is in zone %d, want %d", a, got, zone)
			}
		}
		r.role.part.Leave()
	}
}

// TestJoinSaysRole: a join says subnet and leadership.
func TestJoinSaysRole(t *testing.T) {
	r := newRig(t, mib)
	r.onSubnet()
	r.role.stand = subnet.Stand{Role: subnet.Leading, Epoch: 12}
	r.publish()
	q := r.joinRequest(r.Record(), 0, 1)
	if q.Subnet != "10.0.1.0/24" || q.LeaderEpoch != 12 || q.Leader != "" {
		t.Errorf("a leader joins with subnet %q and epoch %d, follows %q", q.Subnet, q.LeaderEpoch, q.Leader)
	}
	leader := wire.DeviceID{7}
	r.role.stand = subnet.Stand{Role: subnet.Following, Leader: leader, Epoch: math.MaxUint64}
	r.publish()
	if q := r.joinRequest(r.Record(), 0, 1); q.LeaderEpoch != 0 || q.Subnet == "" || q.Leader != leader.PeerID() {
		t.Errorf("a follower joins with subnet %q and epoch %d, follows %q", q.Subnet, q.LeaderEpoch, q.Leader)
	}
}

// TestGivers: metadata is asked of the leader and of those that told of pieces, where there are
// such; never of devices beyond the reach.
func TestGivers(t *testing.T) {
	r := newRig(t, mib)
	var links []*link
	for i := range byte(3) {
		k := r.connect(wire.DeviceID{4 + i})
		k.zone = swarm.SameSubnet
		links = append(links, k)
	}
	r.stands(subnet.Stand{Role: subnet.Following, Leader: wire.DeviceID{5}})
	give := func() (all string) {
		for _, k := range r.givers() {
			all += fmt.Sprint(" ", k.conn.Device[0])
		}
		return all
	}
	if got := give(); got != " 5" {
		t.Errorf("asked are%s, want the leader", got)
	}
	links[2].holds = true
	if got := give(); got != " 5 6" {
		t.Errorf("asked are%s, want the leader and the one that holds pieces", got)
	}
	links[1].zone = swarm.SameSite
	links[2].zone = swarm.Elsewhere
	if got := give(); got != " 4" {
		t.Errorf("asked are%s, want the one on the subnet", got)
	}
}

// TestPulse: bytes that are heard are progress, and say less and less of their rate until a run
// of them is whole; silence says nothing.
func TestPulse(t *testing.T) {
	r := newRig(t, 8*mib)
	r.onSubnet()
	r.stands(subnet.Stand{Role: subnet.Leading, Epoch: 1, Out: true})
	feel := func(after time.Duration, heard bool, runs int64) float64 {
		r.start = r.start.Add(-after)
		if heard {
			r.role.heard = r.now()
		}
		r.role.fromFar += runs * mib
		r.feel()
		return r.role.rate
	}
	want := func(what string, got, least, most float64) {
		t.Helper()
		if got < least || got > most {
			t.Errorf("%s: %.0f bytes a second, want %.0f to %.0f", what, got, least, most)
		}
	}
	want("at first", feel(time.Second, false, 0), 0, 0)
	want("a second later, bytes are heard", feel(time.Second, true, 0), mib/3, mib/2)
	want("6 s later", feel(6*time.Second, true, 0), mib/9, mib/8)
	want("a run is whole", feel(0, true, 0), mib/9, mib/8)
	want("and the next", feel(time.Second, true, 1), mib/9, mib/7)
	want("faster ones", feel(time.Second, true, 8), mib, 4*mib)
	want("silence", feel(3*time.Second, false, 0), 0, 0)
}

// TestProves: a device that is to prove that it gives is asked for a run, and the elections hear
// of the first right one.
func TestProves(t *testing.T) {
	r := newRig(t, 2*mib)
	r.onSubnet()
	rival := wire.DeviceID{8}
	r.proves(rival) // who is not connected
	k := r.connect(rival)
	r.proves(rival) // who told of nothing
	r.place(k, swarm.SameSubnet)
	r.acts = r.brain.OnChoke(r.now(), k.id, true, nil)
	r.acts = r.brain.OnHave(r.now(), k.id, 1, nil)
	if len(r.acts) != 0 {
		t.Fatalf("a choked peer is asked: %+v", r.acts)
	}
	r.proves(rival)
	if len(r.acts) != 1 || r.acts[0].Kind != swarm.Request || r.acts[0].Peer != k.id {
		t.Errorf("to prove something, actions are %+v, want a request", r.acts)
	}
	r.ran(k, 1, false, nil)
	if !r.role.proving[rival] {
		t.Error("a wrong run proved something")
	}
	r.ran(k, 1, true, nil)
	if r.role.proving[rival] {
		t.Error("a right run proved nothing")
	}
}
