package registrytest

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

// subnet is the n-th subnet of every site.
func subnet(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)
}

// leader returns the join of device n, which leads subnet s with that epoch and wants the lease.
func leader(n, s int, epoch int64) registry.Join {
	j := joiner(n)
	j.WantLease, j.Subnet, j.LeaderEpoch = true, subnet(s), epoch
	return j
}

func testTakeOver(f *fixture) {
	other, unknown := leader(2, 1, 6), leader(2, 1, 6)
	other.Subnet, unknown.Subnet = subnet(2), netip.Prefix{}
	unwilling, complete := leader(2, 1, 6), leader(2, 1, 6)
	unwilling.WantLease = false
	complete.Left = 0
	for why, test := range map[string]struct {
		by   registry.Join
		want bool
	}{
		"the next epoch":         {leader(2, 1, 6), true},
		"the highest":            {leader(2, 1, 5+registry.MaxEpochStep), true},
		"a jump":                 {leader(2, 1, 5+registry.MaxEpochStep+1), false},
		"the last there is":      {leader(2, 1, math.MaxInt64), false},
		"the same epoch":         {leader(2, 1, 5), false},
		"an older one":           {leader(2, 1, 4), false},
		"none":                   {leader(2, 1, 0), false},
		"another subnet":         {other, false},
		"no subnet":              {unknown, false},
		"does not want it":       {unwilling, false},
		"needs nothing any more": {complete, false},
	} {
		held := f.join(leader(1, 1, 5)).Lease
		f.wantMine(held)
		l := f.join(test.by).Lease
		if l.Mine != test.want || !test.want && l.Holder != device(1) {
			f.Errorf("%s: lease %+v, want it taken over: %v", why, l, test.want)
		}
		if l.Mine && l.Epoch <= held.Epoch {
			f.Errorf("%s: epoch %d after %d", why, l.Epoch, held.Epoch)
		}
		f.leave(1)
		f.leave(2)
	}
}

// testTakeOverTold: the old holder is told, and where the subnet follows another one it has no way
// back but to be elected again.
func testTakeOverTold(f *fixture) {
	first := f.join(leader(1, 1, 5)).Lease
	f.wantMine(first)
	second := f.join(leader(2, 1, 6)).Lease
	f.wantMine(second)
	f.follow(2, 11)
	back := leader(1, 1, 5)
	back.LeaseEpoch = first.Epoch
	f.wantHolder(f.join(back).Lease, 2)
	f.wantHolder(f.join(leader(3, 2, 9)).Lease, 2)
	f.now = f.now.Add(registry.LeaseRenew)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
	back.LeaderEpoch = 7
	third := f.join(back).Lease
	f.wantMine(third)
	if third.Epoch <= second.Epoch {
		f.Errorf("epoch %d after %d", third.Epoch, second.Epoch)
	}
}

// testTakeOverNewest: what counts of the holder is its last word.
func testTakeOverNewest(f *fixture) {
	f.wantMine(f.join(leader(1, 1, 5)).Lease)
	renewed := f.join(leader(1, 1, 8)).Lease
	f.wantMine(renewed)
	f.wantHolder(f.join(leader(2, 1, 7)).Lease, 1)
	f.wantMine(f.join(leader(1, 2, 3)).Lease) // it has moved
	f.wantHolder(f.join(leader(2, 1, 9)).Lease, 1)
	taken := f.join(leader(3, 2, 4)).Lease
	f.wantMine(taken)
	if taken.Epoch <= renewed.Epoch {
		f.Errorf("epoch %d after %d", taken.Epoch, renewed.Epoch)
	}

	f.leave(3) // a subnet without elections: its first leader has it at once
	f.wantMine(f.join(leader(4, 1, 0)).Lease)
	f.wantMine(f.join(leader(5, 1, 1)).Lease)
	f.now = f.now.Add(registry.LeaseTime) // a lease that ended belongs to nobody
	f.wantMine(f.join(leader(6, 2, 1)).Lease)
}

// testTakeOverServed: a complete device of the site hinders no take-over, and a lease that has
// ended is not there to be taken over.
func testTakeOverServed(f *fixture) {
	f.wantMine(f.join(leader(1, 1, 5)).Lease)
	f.complete(9)
	f.wantMine(f.join(leader(2, 1, 6)).Lease)
	f.leave(2)
	f.wantNone(f.join(leader(3, 1, 7)).Lease)
}

// testTakeOverQuarantine: an array that starts empty hands over what was reported to it.
func testTakeOverQuarantine(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	first := f.join(leader(1, 1, 5)).Lease
	f.sweep()
	f.reopen(dir) // killed
	f.wantNone(f.join(leader(2, 1, 6)).Lease)
	holder := leader(1, 1, 5)
	holder.LeaseEpoch = first.Epoch
	f.wantMine(f.join(holder).Lease)
	second := f.join(leader(2, 1, 6)).Lease
	f.wantMine(second)
	if second.Epoch <= first.Epoch {
		f.Errorf("epoch %d after %d", second.Epoch, first.Epoch)
	}
}

// testSubnetPeers wants the holder first, half of the asker's subnet, and of the rest half of
// the holder's; and everyone of the site in some answer.
func testSubnetPeers(f *fixture) {
	const each, wanted = 40, 21
	of := map[wire.DeviceID]int{}
	f.wantMine(f.join(leader(200, 2, 0)).Lease)
	for s := 1; s <= 3; s++ {
		for n := s * 100; n < s*100+each; n++ {
			j := leader(n, s, 0)
			j.WantLease, j.Left = false, int64(n%4)
			if n != 200 {
				f.join(j)
			}
			of[device(n)] = s
		}
	}
	asks := leader(1, 1, 0)
	asks.WantLease, asks.PeersWanted = false, wanted
	seen := map[wire.DeviceID]bool{}
	for range 200 {
		a := f.join(asks)
		if len(a.Peers) != wanted || a.Peers[0].Device != device(200) {
			f.Fatalf("%d peers, first %v; want %d, the holder first", len(a.Peers), a.Peers[0], wanted)
		}
		here := map[wire.DeviceID]bool{}
		for i, p := range a.Peers {
			s := of[p.Device]
			if here[p.Device] || !p.SameSite || p.SameSubnet != (s == 1) {
				f.Fatalf("peer %d %+v, of subnet %d", i, p, s)
			}
			if i > 0 && i <= 10 && s != 1 || i > 10 && i <= 15 && s != 2 {
				f.Errorf("peer %d is of subnet %d", i, s)
			}
			here[p.Device], seen[p.Device] = true, true
		}
	}
	if len(seen) != 3*each {
		f.Errorf("%d devices were handed out, want all %d", len(seen), 3*each)
	}

	elsewhere := leader(2, 1, 0)
	elsewhere.Site, elsewhere.Mode = "b", registry.ModeGroup
	near := leader(100, 1, 0)
	near.Mode = registry.ModeGroup
	f.join(near)
	for _, p := range f.join(elsewhere).Peers {
		if p.SameSubnet || p.SameSite {
			f.Errorf("peer %+v of another site with the same prefix", p)
		}
	}

	f.leave(1)
	unknown := joiner(3)
	f.join(unknown)
	for _, p := range f.join(joiner(4)).Peers {
		if p.SameSubnet {
			f.Errorf("peer %+v of an asker without a subnet", p)
		}
	}
}

// testSubnetFew: a small subnet leaves room for others, and none is handed out twice.
func testSubnetFew(f *fixture) {
	for n := 1; n <= 6; n++ {
		f.join(leader(n, 1+n%3, int64(n)))
	}
	f.wantPeers(f.join(leader(1, 2, 1)), 2, 3, 4, 5, 6)
	moved := leader(4, 3, 4)
	f.join(moved)
	done := leader(4, 3, 4)
	done.Left = 0
	f.join(done)
	f.leave(2)
	f.wantPeers(f.join(leader(1, 2, 1)), 3, 4, 5, 6)
	f.now = f.now.Add(registry.Lifetime(50))
	f.sweep()
	f.wantPeers(f.join(leader(1, 3, 1)), 4)
	f.wantPeers(f.join(leader(2, 2, 1)), 1, 4)
}

// testWaitingIntervals: leaders that wait for the lease come soon, at most eight in a second.
func testWaitingIntervals(f *fixture) {
	near := func(what string, j registry.Join, want time.Duration) {
		f.Helper()
		got, slack := f.join(j).Next, time.Duration(float64(want)*registry.Jitter)
		if got < want-slack || got > want+slack {
			f.Errorf("%s: next %v, want %v ± %v", what, got, want, slack)
		}
	}
	near("holder", leader(1, 1, 1), registry.LeaseRenew)
	for n := 2; n <= 8; n++ {
		near(fmt.Sprint(n-1, " waiting"), leader(n, n, 1), registry.IntervalWaiting)
	}
	near("8 waiting", leader(9, 9, 1), 2*registry.IntervalWaiting)
	near("waits, but leads nobody", leader(2, 2, 0), registry.IntervalPartial)
	near("7 waiting again", leader(9, 9, 1), registry.IntervalWaiting)
	follows := leader(2, 2, 1)
	follows.WantLease = false
	near("leads, but does not want it", follows, registry.IntervalPartial)
	f.leave(1)
	near("the holder left", leader(3, 3, 1), registry.LeaseRenew)
	for n := 10; n < 200; n++ {
		f.join(leader(n, n%100, 1))
	}
	near("many", leader(4, 4, 1), registry.IntervalPartial)
	for n := 10; n < 200; n++ {
		f.leave(n)
	}
	f.complete(300)
	near("beside a complete one", leader(4, 4, 1), registry.IntervalPartial)
	f.leave(300)
	f.leave(3)
	near("one of them left", leader(4, 4, 1), registry.LeaseRenew)
}
