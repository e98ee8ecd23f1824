package registrytest

import (
	"time"

	"freshet/internal/registry"
)

func testLease(f *fixture) {
	if l := f.join(joiner(1)).Lease; l.Held {
		f.Errorf("a lease that nobody asked for: %+v", l)
	}
	first := f.lease(1)
	f.wantMine(first)
	if first.Epoch <= 0 {
		f.Errorf("epoch %d", first.Epoch)
	}
	f.wantHolder(f.lease(2), 1)
	for range 5 {
		f.now = f.now.Add(registry.LeaseTime - 1)
		renewed := f.lease(1)
		f.wantMine(renewed)
		if renewed.Epoch != first.Epoch {
			f.Errorf("epoch %d after a renewal, want %d", renewed.Epoch, first.Epoch)
		}
	}
}

// testLeaseEnds has the next device say it is stalled, since the first may be complete by then.
func testLeaseEnds(f *fixture) {
	ends := map[string]func(){
		"leave":            func() { f.leave(1) },
		"complete":         func() { f.complete(1) },
		"wants it no more": func() { f.join(joiner(1)) },
		"moves": func() {
			j := joiner(1)
			j.Site, j.WantLease = "b", true
			f.join(j)
		},
		"no peering": func() {
			j := joiner(1)
			j.Mode, j.WantLease = 0, true
			f.join(j)
		},
	}
	for why, end := range ends {
		first := f.lease(1)
		f.wantMine(first)
		end()
		second := f.stalled(2)
		if !second.Mine || second.Epoch <= first.Epoch {
			f.Errorf("%s: the next lease is %+v, want mine with an epoch over %d", why, second, first.Epoch)
		}
		f.leave(1)
		f.leave(2)
	}
}

func testLeaseLapses(f *fixture) {
	first := f.lease(1)
	f.now = f.now.Add(registry.LeaseTime - 1)
	f.wantHolder(f.lease(2), 1)
	f.now = f.now.Add(1)
	second := f.lease(2)
	f.wantMine(second)
	if second.Epoch <= first.Epoch {
		f.Errorf("epoch %d after %d", second.Epoch, first.Epoch)
	}
	late := joiner(1)
	late.WantLease, late.LeaseEpoch = true, first.Epoch
	f.wantHolder(f.join(late).Lease, 2)
}

func testLeasePerSite(f *fixture) {
	f.wantMine(f.lease(1))
	for n, change := range []func(j *registry.Join){
		func(j *registry.Join) { j.Site = "b" },
		func(j *registry.Join) { j.Key.Group = "office" },
		func(j *registry.Join) { j.Key.HashOfHashes[0]++ },
	} {
		j := joiner(10 + n)
		j.WantLease = true
		change(&j)
		f.wantMine(f.join(j).Lease)
	}
}

// testCompleteServes: beside a complete device nobody gets a lease, except who is stalled.
func testCompleteServes(f *fixture) {
	f.complete(9)
	f.wantNone(f.lease(1))
	before := joiner(1)
	before.WantLease, before.LeaseEpoch = true, 7
	f.wantNone(f.join(before).Lease)
	for n, change := range []func(j *registry.Join){
		func(j *registry.Join) { j.Site = "b" },
		func(j *registry.Join) { j.Key.Group = "office" },
		func(j *registry.Join) { j.Key.HashOfHashes[0]++ },
	} {
		j := joiner(10 + n)
		j.WantLease = true
		change(&j)
		f.wantMine(f.join(j).Lease)
	}

	unwilling := joiner(1)
	unwilling.Stalled = true
	f.wantNone(f.join(unwilling).Lease)
	first := f.stalled(1)
	f.wantMine(first)
	f.wantHolder(f.stalled(2), 1)
	f.now = f.now.Add(registry.LeaseRenew)
	renewed := f.lease(1)
	f.wantMine(renewed) // pieces come again, from outside
	if renewed.Epoch != first.Epoch {
		f.Errorf("epoch %d after a renewal, want %d", renewed.Epoch, first.Epoch)
	}
	f.now = f.now.Add(registry.LeaseTime)
	f.wantNone(f.lease(1))
}

// testCompleteLate: a holder keeps its lease when another device is complete first.
func testCompleteLate(f *fixture) {
	f.wantMine(f.lease(1))
	f.wantHolder(f.complete(9).Lease, 1)
	f.now = f.now.Add(registry.LeaseRenew)
	f.wantMine(f.lease(1))
	f.complete(1)
	f.wantNone(f.lease(2))
}

// testCompleteGone: a lease is granted again once no device of the site is complete.
func testCompleteGone(f *fixture) {
	back := joiner(9)
	moved := joiner(9)
	moved.Site, moved.Left = "b", 0
	alone := joiner(9)
	alone.Mode, alone.Left = 0, 0
	for why, goes := range map[string]func(){
		"leaves":         func() { f.leave(9) },
		"lost its cache": func() { f.join(back) },
		"moved":          func() { f.join(moved) },
		"no peering":     func() { f.join(alone) },
		"lapses":         func() { f.now = f.now.Add(registry.Lifetime(0)) },
		"lapses, seen by a sweep": func() {
			f.now = f.now.Add(registry.Lifetime(0))
			f.sweep()
		},
	} {
		f.complete(8)
		f.complete(9)
		f.leave(8)
		f.wantNone(f.lease(1))
		goes()
		if l := f.lease(1); !l.Mine {
			f.Errorf("%s: lease %+v, want mine", why, l)
		}
		f.leave(1)
		f.leave(9)
	}

	f.complete(8)
	f.now = f.now.Add(time.Second)
	f.complete(9)
	f.now = f.now.Add(registry.Lifetime(0) - time.Second)
	f.wantNone(f.lease(1)) // one of two has lapsed
	f.now = f.now.Add(time.Second - 1)
	f.wantNone(f.lease(1))
	f.now = f.now.Add(1)
	f.wantMine(f.lease(1))
}

// testCompleteQuarantine: neither does being stalled shorten the quarantine, nor a reported
// lease outlive the need for it.
func testCompleteQuarantine(f *fixture) {
	dir := f.TempDir()
	f.reopen(dir)
	first := f.lease(1)
	f.wantMine(first)
	f.sweep()
	f.reopen(dir) // killed
	f.complete(9)
	f.wantNone(f.stalled(2))
	holder := joiner(1)
	holder.WantLease, holder.LeaseEpoch = true, first.Epoch
	f.wantNone(f.join(holder).Lease)
	holder.Stalled = true
	f.wantMine(f.join(holder).Lease)
}
