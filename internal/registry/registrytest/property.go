package registrytest

import (
	"net/netip"
	"slices"
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

// belief is what a device was told last of a lease that it holds, what it said then, and what came
// before.
type belief struct {
	until time.Time
	epoch int64
	said  registry.Join

	since  time.Time // of the first of those that took over by epoch
	left   int64     // the least that it said
	fell   time.Time
	ousted *belief // displaced by a higher epoch
	barred []barred
}

type barred struct {
	device wire.DeviceID
	until  time.Time
}

// model is what the suite knows of the swarms: every device's last word, and who believes to
// hold a lease.
type model struct {
	said  map[registry.Key]map[wire.DeviceID]registry.Join
	heard map[registry.Key]map[wire.DeviceID]time.Time
	holds map[place]*belief
	epoch map[place]int64
	last  map[place]wire.DeviceID // holder of that epoch
}

// testProperty plays random joins, leaves and pauses and checks after each that at most one
// device of a place holds its lease, that it is granted to who asks exactly when it is free and
// no complete device serves the asker, or the asker wins it; that epochs grow with each change of holder, and that
// nothing is handed out that is not of the same swarm, of its newest word, and reachable.
func testProperty(f *fixture) {
	rapid.Check(f.T, func(t *rapid.T) {
		m := &model{
			said: map[registry.Key]map[wire.DeviceID]registry.Join{}, heard: map[registry.Key]map[wire.DeviceID]time.Time{},
			holds: map[place]*belief{}, epoch: map[place]int64{}, last: map[place]wire.DeviceID{},
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
				if err := g.s.Sweep(f.Context(), g.now); err != nil { // else words that ran out may count
					t.Fatal(err)
				}
				m.sweep(g.now)
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
	if n := rapid.IntRange(0, 5).Draw(t, "follows"); n > 0 {
		j.Follows = device(n)
	}
	j.LeaderEpoch = rapid.SampledFrom([]int64{0, 1, 2, 3, 1002, 1003, 1 << 62}).Draw(t, "leader epoch")
	return j
}

// forget takes the device's word back.
func (m *model) forget(j registry.Join) {
	delete(m.said[j.Key], j.Device)
	for p, b := range m.holds {
		if p.key == j.Key && b.said.Device == j.Device {
			delete(m.holds, p)
		}
	}
}

// sweep takes back the words that ran out.
func (m *model) sweep(now time.Time) {
	for key, by := range m.said {
		for d, said := range by {
			if !now.Before(m.heard[key][d].Add(registry.Lifetime(said.Left))) {
				delete(by, d)
			}
		}
	}
}

func (m *model) join(t *rapid.T, g *fixture, j registry.Join) {
	p := place{j.Key, j.Site}
	b := m.holds[p]
	if b != nil && !g.now.Before(b.until) {
		b = nil
	}
	if b != nil && b.said.Device == j.Device {
		j.LeaseEpoch = b.epoch
	}
	a, err := g.s.Join(g.Context(), g.now, j)
	if err != nil {
		t.Fatal(err)
	}
	m.forget(j)
	if peers(j) {
		if m.said[j.Key] == nil {
			m.said[j.Key], m.heard[j.Key] = map[wire.DeviceID]registry.Join{}, map[wire.DeviceID]time.Time{}
		}
		m.said[j.Key][j.Device], m.heard[j.Key][j.Device] = j, g.now
	}
	m.checkPeers(t, g.now, j, a)
	mine := m.hold(g.now, j, b)
	if a.Lease.Mine != (mine != nil) {
		t.Fatalf("lease %+v for %+v, want mine: %v", a.Lease, j, mine != nil)
	}
	if mine != nil {
		delete(m.holds, p)
	}
	m.checkLease(t, g.now, j, a.Lease)
	if mine != nil {
		mine.until, mine.epoch, mine.said = g.now.Add(a.Lease.Expires), a.Lease.Epoch, j
		m.holds[p] = mine
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

// hold returns what j's device is to hold, nil for nothing; b is the lease that runs, if any.
func (m *model) hold(now time.Time, j registry.Join, b *belief) *belief {
	switch {
	case !peers(j) || !j.WantLease || j.Left == 0:
		return nil
	case b == nil && (j.Stalled || !m.served(now, j)):
		return &belief{since: now, left: j.Left, fell: now}
	case b == nil:
		return nil
	case b.said.Device != j.Device:
		return m.win(now, j, b)
	case j.Left < b.left:
		b.left, b.fell = j.Left, now
	}
	return b
}

// served reports whether a device of the site is complete.
func (m *model) served(now time.Time, j registry.Join) bool {
	for d, said := range m.said[j.Key] {
		if said.Site == j.Site && said.Left == 0 && now.Before(m.heard[j.Key][d].Add(registry.Lifetime(0))) {
			return true
		}
	}
	return false
}

// win returns what j's device holds when it takes the lease from its holder, nil when it does not.
func (m *model) win(now time.Time, j registry.Join, b *belief) *belief {
	mine := &belief{since: now, left: j.Left, fell: now, barred: b.barred}
	if o := b.ousted; o != nil && now.Before(o.until) && o.said.Device != j.Device {
		mine.ousted = o
	}
	theirs, ours := m.followers(j, b.said.Device), m.followers(j, j.Device)
	switch o := b.ousted; {
	case o != nil && o.said.Device == j.Device && now.Before(o.until) && ours >= theirs:
		mine.since = b.since
		mine.barred = append(slices.Clone(b.barred), barred{b.said.Device, now.Add(registry.BarTime)})
	case takesOver(j, b.said) && b.lets(now, j.Device):
		mine.since = b.since
		if o := mine.ousted; o == nil || theirs > m.followers(j, o.said.Device) {
			mine.ousted = b
		}
	case j.Stalled && ours > theirs && !now.Before(b.since.Add(registry.HoldMin)):
	case j.Stalled && ours == theirs && !now.Before(b.fell.Add(registry.HoldStill)):
	default:
		return nil
	}
	return mine
}

// followers counts the devices of j's swarm and site that follow a device.
func (m *model) followers(j registry.Join, leader wire.DeviceID) (n int) {
	for d, said := range m.said[j.Key] {
		if said.Site == j.Site && said.Follows == leader && d != leader {
			n++
		}
	}
	return n
}

// lets reports whether a device may take over by epoch.
func (b *belief) lets(now time.Time, d wire.DeviceID) bool {
	n := 0
	for _, r := range b.barred {
		if now.Before(r.until) {
			if n++; r.device == d {
				return false
			}
		}
	}
	return n < 2
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
	if b := m.holds[p]; b != nil && now.Before(b.until) && (!l.Held || l.Holder != b.said.Device) && peers(j) {
		t.Fatalf("%s holds the lease of %v until %v, but %s was told %+v", b.said.Device, p, b.until, j.Device, l)
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
}

var _ testing.TB = (*fixture)(nil)
