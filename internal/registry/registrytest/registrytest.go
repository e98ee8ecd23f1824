// Package registrytest is the suite that every engine of the registry passes.
package registrytest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/registry"
	"freshet/internal/wire"
)

// start is an arbitrary time.
var start = time.Unix(1_800_000_000, 0)

// Start is what an engine is opened with.
type Start struct {
	Now time.Time
	Dir string // a folder that outlives the engine; empty: nothing does
}

// Engine is everything that a registry does.
type Engine interface {
	registry.Swarms
	registry.Probes
}

// Test runs the suite; open returns an empty engine.
func Test(t *testing.T, open func(t *testing.T, s Start) Engine) {
	for name, f := range map[string]func(*fixture){
		"Peers":              testPeers,
		"Modes":              testModes,
		"AcrossNATs":         testAcrossNATs,
		"Probes":             testProbes,
		"PeersWanted":        testPeersWanted,
		"WellMixed":          testWellMixed,
		"CompleteAsker":      testCompleteAsker,
		"Leave":              testLeave,
		"Expiry":             testExpiry,
		"Lease":              testLease,
		"LeaseEnds":          testLeaseEnds,
		"LeaseLapses":        testLeaseLapses,
		"LeasePerSite":       testLeasePerSite,
		"CompleteServes":     testCompleteServes,
		"CompleteLate":       testCompleteLate,
		"CompleteGone":       testCompleteGone,
		"CompleteQuarantine": testCompleteQuarantine,
		"TakeOver":           testTakeOver,
		"TakeOverTold":       testTakeOverTold,
		"TakeOverNewest":     testTakeOverNewest,
		"TakeOverServed":     testTakeOverServed,
		"TakeOverQuarantine": testTakeOverQuarantine,
		"DisplacedReturns":   testDisplacedReturns,
		"DisplacedStays":     testDisplacedStays,
		"DisplacedAgain":     testDisplacedAgain,
		"Barred":             testBarred,
		"StalledLeader":      testStalledLeader,
		"StalledAlike":       testStalledAlike,
		"HandedOn":           testHandedOn,
		"Followers":          testFollowers,
		"TwoReporters":       testTwoReporters,
		"SubnetPeers":        testSubnetPeers,
		"SubnetFew":          testSubnetFew,
		"WaitingIntervals":   testWaitingIntervals,
		"Intervals":          testIntervals,
		"Quarantine":         testQuarantine,
		"FreshFleet":         testFreshFleet,
		"EndedBeforeStop":    testEndedBeforeStop,
		"Property":           testProperty,
	} {
		t.Run(name, func(t *testing.T) {
			f(&fixture{T: t, open: open, s: open(t, Start{Now: start}), now: start})
		})
	}
}

// fixture is one engine and its time.
type fixture struct {
	*testing.T
	open func(t *testing.T, s Start) Engine
	s    Engine
	now  time.Time
}

var key = registry.Key{Group: "lab", HashOfHashes: content.DigestOf([]byte("bytes"))}

func device(n int) wire.DeviceID { return wire.DeviceID{0: byte(n >> 8), 1: byte(n), 15: 1} }

func address(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 7680)
}

// joiner returns the join of device n at site a, half-way, mode 1.
func joiner(n int) registry.Join {
	return registry.Join{Key: key, Device: device(n), Site: "a", Address: address(n), Mode: registry.ModeSite, Left: 50}
}

func (f *fixture) join(j registry.Join) registry.Answer {
	f.Helper()
	a, err := f.s.Join(f.Context(), f.now, j)
	if err != nil {
		f.Fatal(err)
	}
	return a
}

// lease joins device n, wanting the lease.
func (f *fixture) lease(n int) registry.Lease {
	f.Helper()
	j := joiner(n)
	j.WantLease = true
	return f.join(j).Lease
}

// stalled joins device n, wanting the lease, though it may have the bytes nearer.
func (f *fixture) stalled(n int) registry.Lease {
	f.Helper()
	j := joiner(n)
	j.WantLease, j.Stalled = true, true
	return f.join(j).Lease
}

// complete joins device n, which holds all.
func (f *fixture) complete(n int) registry.Answer {
	f.Helper()
	j := joiner(n)
	j.WantLease, j.Left = true, 0
	return f.join(j)
}

func (f *fixture) leave(n int) {
	f.Helper()
	if err := f.s.Leave(f.Context(), f.now, key, device(n)); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) sweep() {
	f.Helper()
	if err := f.s.Sweep(f.Context(), f.now); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) wantPeers(a registry.Answer, devices ...int) {
	f.Helper()
	got := map[wire.DeviceID]bool{}
	for _, p := range a.Peers {
		if got[p.Device] {
			f.Errorf("peer %s twice", p.Device)
		}
		got[p.Device] = true
	}
	ok := len(got) == len(devices)
	for _, d := range devices {
		ok = ok && got[device(d)]
	}
	if !ok {
		f.Errorf("peers %v, want %v", a.Peers, devices)
	}
}

func (f *fixture) wantMine(l registry.Lease) {
	f.Helper()
	if !l.Held || !l.Mine || l.Expires != registry.LeaseTime {
		f.Errorf("lease %+v, want mine for %v", l, registry.LeaseTime)
	}
}

func (f *fixture) wantNone(l registry.Lease) {
	f.Helper()
	if l.Held {
		f.Errorf("lease %+v, want none", l)
	}
}

func (f *fixture) wantHolder(l registry.Lease, n int) {
	f.Helper()
	if !l.Held || l.Mine || l.Holder != device(n) {
		f.Errorf("lease %+v, want it held by %d", l, n)
	}
}

func testPeers(f *fixture) {
	f.wantPeers(f.join(joiner(1)))
	f.wantPeers(f.join(joiner(2)), 1)
	other := joiner(3)
	other.Key.Group = "office"
	f.wantPeers(f.join(other))
	other = joiner(4)
	other.Key.HashOfHashes = content.DigestOf([]byte("other bytes"))
	f.wantPeers(f.join(other))
	other = joiner(5)
	other.Site = "b"
	f.wantPeers(f.join(other))

	moved := joiner(2)
	moved.Address, moved.Left = address(22), 7
	f.join(moved)
	a := f.join(joiner(1))
	f.wantPeers(a, 2)
	if p := a.Peers[0]; p != (registry.Peer{Device: device(2), Address: address(22), SameSite: true, Left: 7}) {
		f.Errorf("peer %+v, want its newest word", p)
	}
	moved.Site = "b"
	f.wantPeers(f.join(moved), 5)
	f.wantPeers(f.join(joiner(1)))
}

func testModes(f *fixture) {
	for n, mode := range []int{0, 1, 2, 99, 100} {
		j := joiner(n)
		j.Mode, j.Site, j.WantLease = mode, "a", true
		f.join(j)
		j.Device, j.Site = device(10+n), "b"
		f.join(j)
	}
	asks := joiner(1)
	f.wantPeers(f.join(asks), 2)
	asks = joiner(2)
	asks.Mode = registry.ModeGroup
	a := f.join(asks)
	f.wantPeers(a, 1, 12)
	for _, p := range a.Peers {
		if p.SameSite != (p.Device == device(1)) {
			f.Errorf("peer %+v: wrong site", p)
		}
	}
	asks.Mode = 0
	if a = f.join(asks); len(a.Peers) > 0 || a.Lease.Held {
		f.Errorf("mode 0 got %+v", a)
	}
	f.wantPeers(f.join(joiner(1)))
}

// testAcrossNATs: in mode 3 a device is handed out beyond its site where it was reached, at
// the address of that; within its site as ever.
func testAcrossNATs(f *fixture) {
	across := func(n int, site string, far int) registry.Join {
		j := joiner(n)
		j.Mode, j.Site = registry.ModeAcross, site
		if far > 0 {
			j.Far = address(far)
		}
		return j
	}
	f.join(across(1, "a", 0))
	f.join(across(2, "a", 22))
	group := joiner(3)
	group.Mode = registry.ModeGroup
	f.join(group)
	f.join(joiner(4))
	want := map[wire.DeviceID]netip.AddrPort{device(2): address(22), device(3): address(3)}
	elsewhere := joiner(9)
	elsewhere.Site, elsewhere.Mode = "b", registry.ModeGroup
	for what, asks := range map[string]registry.Join{"mode 2": elsewhere, "mode 3": across(8, "b", 0)} {
		a := f.join(asks)
		for _, p := range a.Peers {
			if p.SameSite {
				continue // the other asker
			}
			if p.Address != want[p.Device] {
				f.Errorf("%s: peer %+v, want it at %v", what, p, want[p.Device])
			}
		}
		f.leave(8)
		f.leave(9)
		f.wantPeers(a, 2, 3)
	}
	a := f.join(across(5, "a", 0))
	f.wantPeers(a, 1, 2, 3, 4)
	for _, p := range a.Peers {
		if p.Device == device(2) && p.Address != address(2) {
			f.Errorf("peer %+v of the same site, want its address there", p)
		}
	}
	f.join(across(2, "a", 0)) // reached no more
	f.wantPeers(f.join(elsewhere), 3)
}

func testProbes(f *fixture) {
	probed := func(n int, at netip.AddrPort) {
		f.Helper()
		if err := f.s.Probed(f.Context(), f.now, device(n), at); err != nil {
			f.Fatal(err)
		}
	}
	want := func(n int, at netip.AddrPort) {
		f.Helper()
		if got, err := f.s.Reached(f.Context(), f.now, device(n)); err != nil || got != at {
			f.Errorf("device %d reached at %v, %v; want %v", n, got, err, at)
		}
	}
	none := netip.AddrPort{}
	want(1, none)
	probed(1, none)
	probed(1, address(1))
	probed(2, address(2))
	probed(3, address(3))
	want(1, address(1))
	probed(1, address(11))
	want(1, address(11))
	probed(2, none)
	want(2, none)
	f.now = f.now.Add(registry.ProbeTime - 1)
	probed(3, address(3))
	f.sweep()
	want(1, address(11))
	f.now = f.now.Add(1)
	want(1, none)
	f.sweep()
	want(1, none)
	want(3, address(3))
}

func testPeersWanted(f *fixture) {
	for n := range 300 {
		f.join(joiner(n))
	}
	for wanted, want := range map[int]int{0: registry.PeersDefault, 5: 5, 1000: registry.PeersMax} {
		j := joiner(0)
		j.PeersWanted = wanted
		if got := len(f.join(j).Peers); got != want {
			f.Errorf("%d peers for %d wanted, want %d", got, wanted, want)
		}
	}
}

// testWellMixed wants the holder and complete ones in every answer, and everyone in some.
func testWellMixed(f *fixture) {
	const partial, complete = 60, 20
	f.wantMine(f.lease(0))
	for n := 1; n <= partial+complete; n++ {
		j := joiner(n)
		if n > partial {
			j.Left = 0
		}
		f.join(j)
	}
	seen := map[wire.DeviceID]int{}
	for range 100 {
		a := f.join(joiner(1))
		if len(a.Peers) != registry.PeersDefault || a.Peers[0].Device != device(0) {
			f.Fatalf("%d peers, first %s; want %d, the holder first", len(a.Peers), a.Peers[0].Device, registry.PeersDefault)
		}
		done := 0
		for _, p := range a.Peers {
			seen[p.Device]++
			if p.Left == 0 {
				done++
			}
		}
		if done < 5 || done > 15 {
			f.Errorf("%d complete ones of %d", done, len(a.Peers))
		}
	}
	for n := 2; n <= partial+complete; n++ {
		if c := seen[device(n)]; c < 10 {
			f.Errorf("device %d was handed out %d times in 100", n, c)
		}
	}
}

func testCompleteAsker(f *fixture) {
	for n := range 4 {
		j := joiner(n)
		j.Left = int64(n % 2)
		f.join(j)
	}
	asks := joiner(9)
	asks.Left = 0
	f.wantPeers(f.join(asks), 1, 3)
}

func testLeave(f *fixture) {
	f.join(joiner(1))
	f.join(joiner(2))
	f.leave(1)
	f.leave(1)
	f.leave(77)
	f.wantPeers(f.join(joiner(2)))
}

func testExpiry(f *fixture) {
	f.join(joiner(1))
	done := joiner(2)
	done.Left = 0
	f.join(done)
	f.now = f.now.Add(registry.Lifetime(50) - 1)
	f.wantPeers(f.join(joiner(3)), 1, 2)
	f.now = f.now.Add(1)
	f.wantPeers(f.join(joiner(3)), 2)
	f.now = start.Add(registry.Lifetime(0) - 1)
	f.sweep()
	f.wantPeers(f.join(joiner(4)), 2)
	f.now = f.now.Add(1)
	f.sweep()
	f.wantPeers(f.join(joiner(4)))
}

func testIntervals(f *fixture) {
	near := func(what string, got, want time.Duration) {
		f.Helper()
		slack := time.Duration(float64(want) * registry.Jitter)
		if got < want-slack || got > want+slack {
			f.Errorf("%s: next %v, want %v ± %v", what, got, want, slack)
		}
	}
	near("complete", f.complete(9).Next, registry.IntervalComplete)
	near("beside a complete one", f.join(joiner(2)).Next, registry.IntervalPartial)
	stuck := joiner(2)
	stuck.Stalled = true
	near("stalled beside a complete one", f.join(stuck).Next, registry.IntervalLeaderless)
	f.leave(9)
	near("leaderless", f.join(joiner(2)).Next, registry.IntervalLeaderless)
	j := joiner(1)
	j.WantLease = true
	if got := f.join(j).Next; got != registry.LeaseRenew {
		f.Errorf("holder: next %v, want %v", got, registry.LeaseRenew)
	}
	near("with a holder", f.join(joiner(2)).Next, registry.IntervalPartial)
	f.now = f.now.Add(registry.LeaseLate + time.Second)
	rest := registry.LeaseTime - registry.LeaseLate - time.Second
	if got := f.join(joiner(2)).Next; got <= rest || got > rest+registry.AfterLease {
		f.Errorf("a renewal was missed: next %v, want just after %v", got, rest)
	}
}

// reopen starts another engine over the same folder.
func (f *fixture) reopen(dir string) { f.s = f.open(f.T, Start{Now: f.now, Dir: dir}) }

func testQuarantine(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	first := f.lease(1)
	f.wantMine(first)
	f.sweep()
	f.now = f.now.Add(time.Second)
	f.reopen(dir) // killed
	if l := f.lease(2); l.Held {
		f.Errorf("granted in the quarantine: %+v", l)
	}
	holder := joiner(1)
	holder.WantLease, holder.LeaseEpoch = true, first.Epoch
	l := f.join(holder).Lease
	f.wantMine(l)
	if l.Epoch != first.Epoch {
		f.Errorf("epoch %d of the lease that went on, want %d", l.Epoch, first.Epoch)
	}
	f.wantHolder(f.lease(2), 1)

	f.reopen(dir)
	f.now = f.now.Add(registry.Quarantine - 1)
	f.sweep()
	if l := f.lease(2); l.Held {
		f.Errorf("granted in the quarantine: %+v", l)
	}
	f.now = f.now.Add(1)
	f.wantMine(f.lease(2))
}

// testFreshFleet: where no lease was ever granted, the first one does not wait.
func testFreshFleet(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	f.join(joiner(1))
	f.reopen(dir)
	f.wantMine(f.lease(1))
}

// testEndedBeforeStop: neither does one where all leases had ended.
func testEndedBeforeStop(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	f.wantMine(f.lease(1))
	f.leave(1)
	f.sweep()
	f.reopen(dir)
	f.wantMine(f.lease(2))
	f.now = f.now.Add(registry.LeaseTime)
	f.sweep()
	f.reopen(dir)
	f.wantMine(f.lease(3))
}

// String is the fixture's time, for messages.
func (f *fixture) String() string { return fmt.Sprint(f.now.Sub(start)) }
