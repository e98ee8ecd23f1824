package registrytest

import (
	"math"
	"time"

	"freshet/internal/registry"
)

// follow joins devices of subnet 1 that follow another one.
func (f *fixture) follow(leader int, followers ...int) {
	f.Helper()
	for _, n := range followers {
		j := joiner(n)
		j.Subnet, j.Follows = subnet(1), device(leader)
		f.join(j)
	}
}

// renew has device n, which leads subnet 1, renew its lease for so long; others are told of it.
func (f *fixture) renew(n int, epoch int64, long time.Duration) {
	f.Helper()
	for end := f.now.Add(long); f.now.Before(end); {
		f.now = f.now.Add(min(registry.LeaseRenew, end.Sub(f.now)))
		f.wantMine(f.join(leader(n, 1, epoch)).Lease)
	}
}

// testDisplacedReturns: a leader that lives has its lease back, whatever the other one says of
// itself, and that one takes over no more for a while. A successor does.
func testDisplacedReturns(f *fixture) {
	for _, followers := range [][]int{nil, {11, 12}} {
		first := f.join(leader(1, 1, 5)).Lease
		f.follow(1, followers...)
		f.now = f.now.Add(registry.LeaseRenew)
		liar := leader(2, 1, 1005)
		liar.Left, liar.Stalled, liar.Follows = 1, true, liar.Device
		second := f.join(liar).Lease
		f.wantMine(second)
		f.now = f.now.Add(registry.LeaseRenew)
		back := leader(1, 1, 5)
		back.LeaseEpoch = first.Epoch
		third := f.join(back).Lease
		f.wantMine(third)
		if third.Epoch <= second.Epoch {
			f.Errorf("epoch %d after %d", third.Epoch, second.Epoch)
		}
		liar.LeaderEpoch = 6
		f.wantHolder(f.join(liar).Lease, 1)
		f.wantMine(f.join(leader(3, 1, 6)).Lease) // the leader was killed
		f.renew(3, 6, registry.BarTime)
		liar.LeaderEpoch = 7
		f.wantMine(f.join(liar).Lease)
		for n := range 20 {
			f.leave(n)
		}
	}
}

// testDisplacedStays: who was displaced does not come back when more follow the other one, when
// it wants the lease no more, and when its own has run out by then.
func testDisplacedStays(f *fixture) {
	follows := leader(1, 1, 0)
	follows.WantLease, follows.Follows = false, device(2)
	for why, test := range map[string]struct {
		followers int
		pause     time.Duration
		back      registry.Join
	}{
		"outvoted":       {1, 0, leader(1, 1, 5)},
		"follows it":     {0, 0, follows},
		"its time is up": {0, registry.LeaseTime - registry.LeaseRenew, leader(1, 1, 5)},
	} {
		f.wantMine(f.join(leader(1, 1, 5)).Lease)
		f.now = f.now.Add(registry.LeaseRenew)
		f.wantMine(f.join(leader(2, 1, 6)).Lease)
		for n := range test.followers {
			f.follow(2, 11+n)
		}
		f.now = f.now.Add(test.pause)
		if l := f.join(test.back).Lease; l.Mine || l.Holder != device(2) {
			f.Errorf("%s: lease %+v, want it held by 2", why, l)
		}
		for n := range 20 {
			f.leave(n)
		}
	}
}

// testDisplacedAgain: of several that were displaced, one after the other, whom most follow comes
// back.
func testDisplacedAgain(f *fixture) {
	for why, back := range map[string]func(){
		"it was never in doubt": func() { f.wantMine(f.join(leader(1, 1, 5)).Lease) },
		"it was elected again": func() {
			f.follow(2, 11)
			f.wantHolder(f.join(leader(1, 1, 5)).Lease, 2)
			f.wantMine(f.join(leader(1, 1, 7)).Lease)
			f.follow(1, 11)
		},
	} {
		f.wantMine(f.join(leader(1, 1, 5)).Lease)
		f.wantMine(f.join(leader(2, 1, 6)).Lease)
		back()
		f.renew(1, 7, registry.LeaseTime-1)
		f.wantMine(f.join(leader(3, 1, 8)).Lease)
		f.now = f.now.Add(registry.LeaseRenew)
		if l := f.join(leader(1, 1, 7)).Lease; !l.Mine {
			f.Errorf("%s: lease %+v, want it back", why, l)
		}
		for n := range 20 {
			f.leave(n)
		}
	}
}

// testBarred: while two are barred nobody takes over by epoch, and what is known of a contest ends
// with the lease.
func testBarred(f *fixture) {
	f.wantMine(f.join(leader(1, 1, 5)).Lease)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
	f.wantMine(f.join(leader(3, 1, 7)).Lease) // in turns, so that a liar is displaced
	f.wantMine(f.join(leader(1, 1, 5)).Lease)
	f.wantHolder(f.join(leader(3, 1, 6)).Lease, 1)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
	f.wantMine(f.join(leader(1, 1, 5)).Lease)
	for n := 2; n <= 4; n++ {
		f.wantHolder(f.join(leader(n, 1, 6)).Lease, 1)
	}
	f.leave(1)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
	f.wantMine(f.join(leader(3, 1, 7)).Lease)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
}

// testStalledLeader: who is followed takes the lease from who is not, and brought nothing for
// long enough, whatever that one says of itself.
func testStalledLeader(f *fixture) {
	liar := leader(2, 9, math.MaxInt64)
	liar.Address, liar.Subnet = address(2<<8), subnet(2)
	hold := func(left int64) {
		f.Helper()
		liar.Left = left
		f.wantMine(f.join(liar).Lease)
	}
	stalled := leader(1, 1, 5)
	stalled.Stalled = true
	hold(40)
	f.follow(1, 11)
	f.now = f.now.Add(registry.HoldMin / 2)
	hold(39)
	f.now = f.now.Add(registry.HoldMin/2 - 1)
	f.wantHolder(f.join(stalled).Lease, 2)
	f.now = f.now.Add(1)
	f.wantHolder(f.join(leader(1, 1, 5)).Lease, 2) // it gets pieces
	hold(1)
	f.follow(2, 12)
	f.wantHolder(f.join(stalled).Lease, 2)
	f.follow(1, 12)
	f.wantMine(f.join(stalled).Lease)
	liar.Stalled = true
	f.follow(2, 11, 12, 13)
	f.wantHolder(f.join(liar).Lease, 1) // it has its time, too
	f.follow(1, 11, 12)
	f.now = f.now.Add(registry.HoldMin - 1)
	f.wantMine(f.join(stalled).Lease)
	f.now = f.now.Add(1)
	f.wantHolder(f.join(liar).Lease, 1)
}

// testStalledAlike: of two that as many follow, the holder goes on while it comes nearer its end.
func testStalledAlike(f *fixture) {
	stalled := leader(1, 1, 5)
	stalled.Stalled = true
	holder := leader(2, 2, 5)
	for left := range int64(3) {
		holder.Left = 50 - left
		for past := registry.LeaseRenew; past < registry.HoldStill; past += registry.LeaseRenew {
			f.wantMine(f.join(holder).Lease)
			f.now = f.now.Add(registry.LeaseRenew)
			f.wantHolder(f.join(stalled).Lease, 2)
		}
	}
	f.wantMine(f.join(holder).Lease)
	holder.Left++
	f.wantMine(f.join(holder).Lease) // what it had told is less
	f.now = f.now.Add(registry.LeaseRenew)
	f.wantMine(f.join(stalled).Lease)
}

// testHandedOn: who takes over by epoch, or comes back, does not begin anew; so devices that join in
// turns keep the lease no longer than one.
func testHandedOn(f *fixture) {
	stalled := leader(1, 1, 5)
	stalled.Stalled = true
	f.wantMine(f.join(leader(2, 2, 1)).Lease)
	f.follow(1, 11)
	f.now = f.now.Add(registry.HoldMin - 1)
	f.wantMine(f.join(leader(3, 2, 2)).Lease)
	f.wantHolder(f.join(stalled).Lease, 3)
	f.wantMine(f.join(leader(2, 2, 1)).Lease)
	f.wantHolder(f.join(stalled).Lease, 2)
	f.now = f.now.Add(1)
	f.wantMine(f.join(leader(4, 2, 2)).Lease)
	f.wantMine(f.join(stalled).Lease)
}

// testFollowers: what a device says of whom it follows counts for others alone, at its site, while
// it is in the swarm, and its newest word only.
func testFollowers(f *fixture) {
	other := joiner(11)
	other.Site = "b"
	other.Follows = device(2)
	elsewhere := joiner(11)
	elsewhere.Key.Group = "office"
	elsewhere.Follows = device(2)
	for why, changes := range map[string]func(){
		"nobody":       func() {},
		"itself":       func() { f.follow(2, 2) },
		"another site": func() { f.join(other) },
		"other bytes":  func() { f.join(elsewhere) },
		"it left":      func() { f.follow(2, 11); f.leave(11) },
		"it moved":     func() { f.follow(2, 11); f.join(other) },
		"no more":      func() { f.follow(2, 11); f.join(joiner(11)) },
		"another":      func() { f.follow(2, 11); f.follow(3, 11) },
		"as many":      func() { f.follow(2, 11); f.follow(1, 12) },
		"ran out": func() {
			f.follow(2, 11)
			f.now = f.now.Add(registry.Lifetime(50))
			f.sweep()
		},
	} {
		changes()
		holder, usurper := leader(1, 1, 5), leader(2, 1, 6)
		f.wantMine(f.join(holder).Lease)
		usurper.Follows = device(2)
		f.wantMine(f.join(usurper).Lease)
		if l := f.join(holder).Lease; !l.Mine {
			f.Errorf("%s: lease %+v, want it back", why, l)
		}
		for n := range 20 {
			f.leave(n)
		}
	}
}

// testTwoReporters: of two that held the lease when an array lost its memory, who has more goes on.
func testTwoReporters(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	epoch := f.join(leader(1, 1, 5)).Lease.Epoch
	f.sweep()
	f.reopen(dir) // killed
	report := func(n int, left int64) registry.Join {
		j := leader(n, n, 5)
		j.LeaseEpoch, j.Left = epoch-int64(n), left
		return j
	}
	f.wantMine(f.join(report(1, 50)).Lease)
	f.wantHolder(f.join(report(2, 50)).Lease, 1)
	f.wantMine(f.join(report(3, 49)).Lease)
	f.wantHolder(f.join(report(1, 50)).Lease, 3)
	unreported := leader(4, 4, 5)
	unreported.Left = 1
	f.wantHolder(f.join(unreported).Lease, 3)
	f.now = f.now.Add(registry.HoldMin - 1)
	f.wantMine(f.join(report(2, 48)).Lease)
	f.follow(1, 11)
	stalled := leader(1, 1, 5)
	stalled.Stalled = true
	f.wantHolder(f.join(stalled).Lease, 2)
	f.now = f.now.Add(1)
	f.wantMine(f.join(stalled).Lease)
	f.now = f.now.Add(registry.Quarantine - registry.HoldMin - 1)
	f.wantMine(f.join(stalled).Lease)
	f.now = f.now.Add(1)
	f.wantHolder(f.join(report(2, 1)).Lease, 1)
}
