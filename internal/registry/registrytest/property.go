package registrytest

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

// place is what has one lease.
type place struct {
	key  registry.Key
	site string
}

// belief is what a device was told last of a lease that it holds, and what it said then.
type belief struct {
	until time.Time
	epoch int64
	said  registry.Join
}

// model is what the suite knows of the swarms: every device's last word, and who believes to
// hold a lease.
type model struct {
	said  map[registry.Key]map[wire.DeviceID]registry.Join
	heard map[registry.Key]map[wire.DeviceID]time.Time
	holds map[place]map[wire.DeviceID]belief
	epoch map[place]int64
	last  map[place]wire.DeviceID // holder of that epoch
}

// testProperty plays random joins, leaves and pauses and checks after each that at most one
// device of a place holds its lease, that it is granted to who asks exactly when it is free and
// no complete device serves the asker, or it is the asker's to take over; that epochs grow with each change of holder, and that
// nothing is handed out that is not of the same swarm, of its newest word, and reachable.
func testProperty(f *fixture) {
	rapid.Check(f.T, func(t *rapid.T) {
		m := &model{
			said: map[registry.Key]map[wire.DeviceID]registry.Join{}, heard: map[registry.Key]map[wire.DeviceID]time.Time{},
			holds: map[place]map[wire.DeviceID]belief{}, epoch: map[place]int64{}, last: map[place]wire.DeviceID{},
		}
		g := &fixture{T: f.T, s: f.open(f.T, Start{Now: start}), now: start}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				j := drawJoin(t)
				if err := g.s.Leave(f.Context(), g.now, j.Key, j.Device); err != nil {
					t.Fatal(err)
				}
				m.forget(j)
			case 1:
				if err := g.s.Sweep(f.Context(), g.now); err != nil {
					t.Fatal(err)
				}
			case 2, 3:
				g.now = g.now.Add(time.Duration(rapid.IntRange(1, 15_000).Draw(t, "pause")) * time.Millisecond)
			default:
				m.join(t, g, drawJoin(t))
			}
		}
	})
}

func drawJoin(t *rapid.T) registry.Join {
	j := joiner(rapid.IntRange(1, 5).Draw(t, "device"))
	j.Key.Group = rapid.SampledFrom([]string{"lab", "office"}).Draw(t, "group")
	j.Site = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "site")
	j.Mode = rapid.SampledFrom([]int{1, 1, 2, 2, 3, 3, 0, 99}).Draw(t, "mode")
	if rapid.Bool().Draw(t, "reached") {
		j.Far = address(1000)
	}
	j.Left = int64(rapid.SampledFrom([]int{0, 1, 50}).Draw(t, "left"))
	j.WantLease = rapid.Bool().Draw(t, "wants")
	j.Stalled = rapid.Bool().Draw(t, "stalled")
	j.PeersWanted = rapid.IntRange(0, 4).Draw(t, "peers")
	if n := rapid.IntRange(0, 2).Draw(t, "subnet"); n > 0 {
		j.Subnet = subnet(n)
	}
	j.LeaderEpoch = rapid.SampledFrom([]int64{0, 1, 2, 3, 1002, 1003, 1 << 62}).Draw(t, "leader epoch")
	return j
}

// forget takes the device's word back.
func (m *model) forget(j registry.Join) {
	delete(m.said[j.Key], j.Device)
	for p, by := range m.holds {
		if p.key == j.Key {
			delete(by, j.Device)
		}
	}
}

func (m *model) join(t *rapid.T, g *fixture, j registry.Join) {
	p := place{j.Key, j.Site}
	b := m.holds[p][j.Device]
	keeps := g.now.Before(b.until)
	if keeps {
		j.LeaseEpoch = b.epoch
	}
	a, err := g.s.Join(g.Context(), g.now, j)
	if err != nil {
		t.Fatal(err)
	}
	m.forget(j)
	m.checkPeers(t, g.now, j, a)
	if want := m.mayHold(g.now, j, keeps); a.Lease.Mine != want {
		t.Fatalf("lease %+v for %+v, want mine: %v", a.Lease, j, want)
	}
	if a.Lease.Mine {
		delete(m.holds, p) // taken over, or its own
	}
	m.checkLease(t, g.now, j, a.Lease)
	if peers(j) {
		if m.said[j.Key] == nil {
			m.said[j.Key], m.heard[j.Key] = map[wire.DeviceID]registry.Join{}, map[wire.DeviceID]time.Time{}
		}
		m.said[j.Key][j.Device], m.heard[j.Key][j.Device] = j, g.now
	}
	if a.Next <= 0 {
		t.Fatalf("next %v", a.Next)
	}
}

func peers(j registry.Join) bool {
	return j.Mode == registry.ModeSite || j.Mode == registry.ModeGroup || j.Mode == registry.ModeAcross
}

// at returns where a device is to be reached, by its last word.
func at(said registry.Join, sameSite bool) netip.AddrPort {
	if !sameSite && said.Mode == registry.ModeAcross {
		return said.Far
	}
	return said.Address
}

// mayHold reports whether j's device is to have the lease; keeps says that it has it already.
// Its own last word is forgotten.
func (m *model) mayHold(now time.Time, j registry.Join, keeps bool) bool {
	if !peers(j) || !j.WantLease || j.Left == 0 {
		return false
	}
	for _, b := range m.holds[place{j.Key, j.Site}] {
		if now.Before(b.until) {
			return takesOver(j, b.said)
		}
	}
	if keeps || j.Stalled {
		return true
	}
	for d, said := range m.said[j.Key] {
		if said.Site == j.Site && said.Left == 0 && now.Before(m.heard[j.Key][d].Add(registry.Lifetime(0))) {
			return false
		}
	}
	return true
}

// takesOver says in plain words what a take-over is.
func takesOver(j, holder registry.Join) bool {
	return j.Subnet.IsValid() && j.Subnet == holder.Subnet &&
		j.LeaderEpoch > holder.LeaderEpoch && j.LeaderEpoch <= holder.LeaderEpoch+registry.MaxEpochStep
}

func (m *model) checkPeers(t *rapid.T, now time.Time, j registry.Join, a registry.Answer) {
	if j.PeersWanted > 0 && len(a.Peers) > j.PeersWanted {
		t.Fatalf("%d peers, %d wanted", len(a.Peers), j.PeersWanted)
	}
	for _, p := range a.Peers {
		said, ok := m.said[j.Key][p.Device]
		switch {
		case !ok || p.Device == j.Device:
			t.Fatalf("%s was handed out to %s of group %q: not in the swarm", p.Device, j.Device, j.Key.Group)
		case at(said, p.SameSite) != p.Address || said.Left != p.Left:
			t.Fatalf("peer %+v, but it said %+v", p, said)
		case !now.Before(m.heard[j.Key][p.Device].Add(registry.Lifetime(said.Left))):
			t.Fatalf("peer %+v has run out", p)
		case p.SameSite != (said.Site == j.Site):
			t.Fatalf("peer %+v: of site %q, the asker of %q", p, said.Site, j.Site)
		case p.SameSubnet != (p.SameSite && j.Subnet.IsValid() && said.Subnet == j.Subnet):
			t.Fatalf("peer %+v: of subnet %v, the asker of %v", p, said.Subnet, j.Subnet)
		case !p.SameSite && (said.Mode == registry.ModeSite || j.Mode == registry.ModeSite):
			t.Fatalf("peer %+v of another site: its mode %d, the asker's %d", p, said.Mode, j.Mode)
		case !p.Address.IsValid():
			t.Fatalf("peer %+v of another site: its mode %d, the asker's %d", p, said.Mode, j.Mode)
		}
	}
}

func (m *model) checkLease(t *rapid.T, now time.Time, j registry.Join, l registry.Lease) {
	p := place{j.Key, j.Site}
	for d, b := range m.holds[p] {
		if now.Before(b.until) && (!l.Held || l.Holder != d) && peers(j) {
			t.Fatalf("%s holds the lease of %v until %v, but %s was told %+v", d, p, b.until, j.Device, l)
		}
	}
	if !l.Held {
		return
	}
	if l.Epoch < m.epoch[p] || l.Epoch == m.epoch[p] && l.Holder != m.last[p] {
		t.Fatalf("epoch %d of %s follows %d of %s", l.Epoch, l.Holder, m.epoch[p], m.last[p])
	}
	m.epoch[p], m.last[p] = l.Epoch, l.Holder
	if l.Mine != (l.Holder == j.Device) {
		t.Fatalf("lease %+v for %+v", l, j)
	}
	if l.Mine {
		m.holds[p] = map[wire.DeviceID]belief{j.Device: {now.Add(l.Expires), l.Epoch, j}}
	}
}

var _ testing.TB = (*fixture)(nil)
