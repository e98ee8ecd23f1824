package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/fstest"

	"freshet/internal/api"
	"freshet/internal/lan"
	"freshet/internal/memnet"
	"freshet/internal/policy"
	"freshet/internal/wire"
)

// onSegment enrols and starts a device that is on a subnet: 127.0.1.0/24 where it is 127.0.1.7.
func (f *fleet) onSegment(local string, g *memnet.Segment, change func(*device)) *device {
	f.Helper()
	d := f.enrol(local, f.token("join"))
	h := &memnet.Host{}
	h.Plug(map[lan.Link]*memnet.Segment{{Index: 2, Name: "eth0", Local: netip.PrefixFrom(d.local, 24)}: g})
	d.network = h
	if change != nil {
		change(d)
	}
	d.start()
	<-d.agent.dev.Subnet.Ready()
	return d
}

// leaderOf returns the device that leads a subnet, when it is the only one and all others follow it.
func leaderOf(g *goods, devices ...*device) *device {
	var leader *device
	for _, d := range devices {
		if d.status(g).Role == "leading" {
			if leader != nil {
				return nil
			}
			leader = d
		}
	}
	for _, d := range devices {
		st := d.status(g)
		switch {
		case leader == nil:
			return nil
		case d == leader && st.Leader == ThisDevice && st.Epoch > 0:
		case d != leader && st.Role == "following" && st.Leader == leader.id().String() && !st.Lease:
		default:
			return nil
		}
	}
	return leader
}

// TestElected: each of two subnets of a site elects who fetches for it. One of the two fetches
// from the origin, the other from the first subnet: one copy for all.
func TestElected(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 12*mib)
	f.publish(g, origin)
	var subnets [2][]*device
	for i := range subnets {
		segment := &memnet.Segment{}
		for _, host := range []string{"1", "2", "3"} {
			subnets[i] = append(subnets[i], f.onSegment([]string{"127.0.1.", "127.0.2."}[i]+host, segment, nil))
		}
	}
	release := origin.hold()
	var gets []*getting
	for i := range subnets {
		for _, d := range subnets[i] {
			gets = append(gets, d.begin(g.ref))
		}
	}
	waitFor(t, "a leader on each subnet, one of them with the lease", func() bool {
		first, second := leaderOf(g, subnets[0]...), leaderOf(g, subnets[1]...)
		return first != nil && second != nil && first.status(g).Lease != second.status(g).Lease
	})
	for i := range subnets {
		for _, d := range subnets[i] {
			if got, want := d.agent.leads(g.digest()), d.status(g).Role == "leading"; got != want {
				t.Errorf("device %s leads in mid-download: %v, want %v", d.local, got, want)
			}
		}
	}
	release()
	fromOrigin := int64(0)
	for _, w := range gets {
		fromOrigin += w.right(g).FromOrigin
	}
	size := int64(len(g.bytes))
	if sent, _ := origin.counts(); fromOrigin != size || !about(sent, size) {
		t.Errorf("%d bytes from the origin, which sent %d; want one copy of %d", fromOrigin, sent, size)
	}
	for i := range subnets {
		for _, d := range subnets[i] {
			if st := d.status(g); st.Role != "leading" && st.Role != "idle" || st.Lease {
				t.Errorf("after the download a device is %q, lease %v", st.Role, st.Lease)
			}
		}
	}
}

// TestSuccessor: a leader that stops has a successor on its subnet, which goes on where it was.
func TestSuccessor(t *testing.T) {
	f := newFleet(t)
	origin := f.newDP()
	g := oneFile(t, "app", 12*mib)
	f.publish(g, origin)
	segment := &memnet.Segment{}
	var devices []*device
	for _, local := range []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"} {
		devices = append(devices, f.onSegment(local, segment, nil))
	}
	origin.spoiled(origin.halfThenHang)
	gets := map[*device]*getting{}
	for _, d := range devices {
		gets[d] = d.begin(g.ref)
	}
	var leader *device
	waitFor(t, "everybody to hold half of it", func() bool {
		for _, d := range devices {
			if d.status(g).Held < 6*mib {
				return false
			}
		}
		leader = leaderOf(g, devices...)
		return leader != nil
	})
	leader.stop()
	origin.spoil.Store(nil)
	for d, w := range gets {
		if d != leader {
			w.right(g)
		} else if err := w.wait(); err == nil {
			t.Error("the download of the device that stopped ended well")
		}
	}
	if sent, _ := origin.counts(); !about(sent, int64(len(g.bytes))) {
		t.Errorf("the origin sent %d bytes for a content of %d", sent, len(g.bytes))
	}
}

// TestDatagramsSwitch: a setting of the site turns datagrams off on agents that run, and on again.
func TestDatagramsSwitch(t *testing.T) {
	f := newFleet(t)
	d := f.onSegment("127.0.1.1", &memnet.Segment{}, func(d *device) {
		d.resolve = func(set []api.Setting) (policy.Settings, error) {
			l := policy.Layer{Provider: policy.Site}
			for _, s := range set {
				l.Entries = append(l.Entries, policy.Entry{Name: s.Name, Value: s.Value})
			}
			return policy.Resolve(l)
		}
	})
	a := d.agent
	want := func(on bool) {
		t.Helper()
		f.want(a.bootstrap(t.Context()))
		if a.datagrams.Load() != on {
			t.Errorf("datagrams are on: %v, want %v", !on, on)
		}
	}
	want(true)
	_, err := f.admin.SetSetting(t.Context(), api.Setting{Name: "lanDatagrams", Value: "false", Site: "here"})
	f.want(err)
	want(false)
	f.want(f.admin.RemoveSiteSetting(t.Context(), "here", "lanDatagrams"))
	want(true)
	for _, set := range []map[string]string{{"lanDatagrams": "false"}, {"DODownloadMode": "0"}} {
		other := f.onSegment("127.0.1.9", &memnet.Segment{}, func(d *device) { d.set = set })
		if other.agent.datagrams.Load() || other.agent.dev.Subnet.Open() {
			t.Errorf("with %v a link is open", set)
		}
		if p := other.agent.dev.Subnet.Prefix(); p.String() != "127.0.1.0/24" {
			t.Errorf("with %v the array is told the subnet %s", set, p)
		}
		other.stop()
	}
	if p := f.device("127.0.0.7").agent.dev.Subnet.Prefix(); p.IsValid() {
		t.Errorf("a device at a loopback address is on the subnet %s", p)
	}
}

// TestKeysOfDisk: where no service answers at the start, an agent speaks with the keys and the
// pass that it was given before.
func TestKeysOfDisk(t *testing.T) {
	f := newFleet(t)
	d := f.onSegment("127.0.1.1", &memnet.Segment{}, nil)
	speaks := func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil }
	waitFor(t, "keys and a pass", speaks)
	d.stop()
	f.stop()
	d.start()
	waitFor(t, "those of the disk", speaks)
}

// TestLAN: what came from the subnet is counted, and what of it does not belong there.
func TestLAN(t *testing.T) {
	f, segment := newFleet(t), &memnet.Segment{}
	var devices []*device
	for _, at := range []string{"127.0.1.1", "127.0.1.2"} {
		d := f.onSegment(at, segment, nil)
		waitFor(t, "keys and a pass", func() bool { return d.agent.dev.Subnet.LAN().Send(0, []byte("m")) == nil })
		devices = append(devices, d)
	}
	before := devices[0].agent.LAN()
	f.want(devices[1].agent.dev.Subnet.LAN().Send(0, []byte{byte(wire.LANValidate)}))
	waitFor(t, "the datagram to be counted", func() bool { return devices[0].agent.LAN().Dropped["malformed"] == 1 })
	if l := devices[0].agent.LAN(); l.Heard != before.Heard || l.Dropped["own"] == 0 || len(l.Bad()) != 1 || l.Bad()["malformed"] != 1 {
		t.Errorf("before it was %+v, now %+v, of which %v do not belong there", before, l, l.Bad())
	}
}

// TestConditions: what is set about power, network and weight counts, else what is found.
func TestConditions(t *testing.T) {
	for want, set := range map[string][]policy.Entry{
		"false false 50": nil,
		"true false 50":  {{Name: "onBattery", Value: "yes"}},
		"false true 7":   {{Name: "metered", Value: "yes"}, {Name: "onBattery", Value: "no"}, {Name: "leaderWeight", Value: "7"}},
	} {
		settings, err := policy.Resolve(policy.Layer{Provider: policy.Flag, Entries: set})
		if err != nil {
			t.Fatal(err)
		}
		a := &Agent{opt: Options{Settings: settings}}
		c := a.conditions()
		if got := fmt.Sprint(c.Battery, c.Metered, " ", a.weight(lan.Link{Name: "eth0"})); got != want || !c.MayGoOut {
			t.Errorf("with %v the conditions are %+v and battery, metered and weight %s, want %s", set, c, got, want)
		}
		a.machine = machine{proc: fstest.MapFS{"loadavg": &fstest.MapFile{Data: []byte("9.00 1 1 1/1 1\n")}}, cpus: 4}
		if c := a.conditions(); !c.Busy {
			t.Errorf("with a load of 9 on 4 CPUs the conditions are %+v, want busy", c)
		}
	}
}
