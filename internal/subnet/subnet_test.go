package subnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"freshet/internal/content"
	"freshet/internal/lan"
	"freshet/internal/memnet"
	"freshet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet runs n devices of one subnet that want a content of 100 MiB. The site's lease is for
// whoever leads.
func fleet(t *testing.T, n int) *world {
	w := newWorld(t, 100)
	g := &memnet.Segment{}
	for i := range n {
		w.add(map[lan.Link]*memnet.Segment{link(2, fmt.Sprintf("10.0.0.%d/24", i+1)): g}, nil)
	}
	return w
}

// TestLeader: one of the fleet leads and fetches, all others follow it and know where it is. It
// is killed, and its deputy goes on at once, as if the lease were its own.
func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 4)
		for _, d := range w.devices {
			w.enter(d, 0)
		}
		<-time.After(500 * time.Millisecond)
		leader := w.one(w.devices...)
		if leader.now().Out {
			t.Error("the leader goes out before it has the lease")
		}
		leader.c.Lease(Lease{Known: true, Mine: true})
		w.connect()
		w.run(3 * time.Second)
		if st := leader.now(); !st.Out || leader.held < 29*mib {
			t.Errorf("the leader with the lease is %+v and holds %d bytes", st, leader.held)
		}
		var deputy *device
		for _, d := range w.without(leader) {
			if d.now().Ready {
				deputy = d
			}
			want := Neighbour{leader.id(), fmt.Sprintf("%s:%d", leader.at, 7000+leader.n), false, true}
			if len(d.met) == 0 || !contains(d.met, want) {
				t.Errorf("device %d met %+v, want %+v among them", d.n, d.met, want)
			}
		}
		if deputy == nil {
			t.Fatal("nobody is the deputy")
		}
		leader.kill()
		w.closed(leader)
		<-time.After(50 * time.Millisecond)
		if st := deputy.now(); st.Role != Leading || !st.Out || st.Epoch != 2 {
			t.Errorf("50 ms after the leader died its deputy is %+v", st)
		}
		w.run(time.Second)
		w.one(w.without(leader)...)
	})
}

func contains(all []Neighbour, n Neighbour) bool {
	for _, o := range all {
		if o == n {
			return true
		}
	}
	return false
}

// TestSilence: without a word and without a closed connection, a leader is missed within a second.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 3)
		for _, d := range w.devices {
			w.enter(d, 0)
		}
		<-time.After(500 * time.Millisecond)
		leader := w.one(w.devices...)
		leader.c.Lease(Lease{Known: true, Mine: true})
		w.run(2 * time.Second)
		leader.kill()
		w.run(time.Second)
		if next := w.one(w.without(leader)...); !next.now().Out {
			t.Errorf("the next leader is %+v", next.now())
		}
	})
}

// TestStop: a device that stops resigns, and its deputy goes on at once.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 3)
		for _, d := range w.devices {
			w.enter(d, 0)
		}
		<-time.After(time.Second)
		leader := w.one(w.devices...)
		leader.c.Lease(Lease{Known: true, Mine: true})
		w.run(time.Second)
		leader.end()
		<-time.After(time.Millisecond)
		next := w.one(w.without(leader)...)
		next.c.Lease(Lease{Known: true, Holder: leader.id()}) // asked before the array knew of the new leader
		if st := next.now(); !st.Out {
			t.Errorf("the successor is %+v while the array has not heard of it", st)
		}
		next.c.Lease(Lease{Known: true, Holder: deviceID(77)})
		if st := next.now(); st.Out {
			t.Errorf("the successor is %+v while another subnet has the lease", st)
		}
	})
}

// TestHolder: who holds everything leads for others without a lease, and the device that holds
// nothing of a question looks in vain.
func TestHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 3)
		w.enter(w.devices[0], 100)
		<-time.After(time.Second)
		if st := w.devices[0].now(); st != (Stand{Role: Idle}) {
			t.Errorf("who holds the content is %+v", st)
		}
		w.enter(w.devices[1], 0)
		<-time.After(time.Second)
		if leader := w.one(w.devices[:2]...); leader.n != 1 || leader.now().Out {
			t.Errorf("device %d leads as %+v, want the holder", leader.n, leader.now())
		}
		w.run(12 * time.Second)
		if st := w.devices[1].now(); st.Role != Idle {
			t.Errorf("after the download the device is %+v", st)
		}
		w.devices[0].c.Leave()
		<-time.After(2 * time.Minute)
		w.enter(w.devices[2], 0)
		w.run(time.Second)
		if leader := w.one(w.devices[1:]...); leader.n != 2 {
			t.Errorf("device %d leads, want the holder that is left", leader.n)
		}
	})
}

// TestHold: what is in quarantine answers nobody.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 2)
		w.enter(w.devices[0], 100)
		w.devices[0].OnHold(hohOf(1), hohOf(9), true)
		w.enter(w.devices[1], 0)
		w.run(time.Second)
		if st := w.devices[1].now(); st.Role != Leading {
			t.Errorf("beside an entry in quarantine the device is %+v, want it to lead", st)
		}
		w.devices[0].OnHold(hohOf(1), hohOf(9), false)
		w.run(20 * time.Second)
		if st := w.devices[0].now(); st.Role != Idle && st.Role != Leading {
			t.Errorf("out of quarantine the holder is %+v", st)
		}
	})
}

// TestTwoLinks: a device on two subnets that follows in one of them does not go out for the
// other one, which gets the content from it. When the leader is gone it does.
func TestTwoLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1000)
		g1, g2 := &memnet.Segment{}, &memnet.Segment{}
		first := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.1/24"): g1}, nil)
		both := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.2/24"): g1, link(3, "10.0.1.2/24"): g2}, nil)
		second := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.1.3/24"): g2}, nil)
		w.lease = first
		w.enter(first, 0)
		w.run(time.Second)
		w.enter(both, 0)
		w.run(time.Second)
		if st := both.now(); st.Role != Following || st.Leader != first.id() || st.Out {
			t.Errorf("the device on both subnets is %+v, want it to follow", st)
		}
		for _, st := range both.stands {
			if st.Role > Following {
				t.Errorf("it was %+v before it knew who leads", st)
			}
		}
		w.enter(second, 0)
		w.run(2 * time.Second)
		if st := second.now(); st.Role != Following || st.Leader != both.id() || second.held == 0 {
			t.Errorf("the device of the other subnet is %+v and holds %d bytes", st, second.held)
		}
		both.c.Lease(Lease{Known: true, Holder: first.id()})
		first.kill()
		w.run(2 * time.Second)
		if st := both.now(); st.Role != Leading || !st.Out {
			t.Errorf("after the leader's end the device on both subnets is %+v", st)
		}
		if got, want := both.Prefix(), netip.MustParsePrefix("10.0.0.0/24"); got != want {
			t.Errorf("its subnet is %s, want %s", got, want)
		}
		for a, want := range map[string]bool{"10.0.1.77": true, "10.0.2.1": false, "::ffff:10.0.0.9": true} {
			if got := both.Same(netip.MustParseAddr(a)); got != want {
				t.Errorf("%s is of its subnets: %v, want %v", a, got, want)
			}
		}
	})
}

// TestStand: what several brains say is one word to the member.
func TestStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newWorld(t, 10).add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.1/24"): {}, link(3, "10.0.1.1/24"): {}}, nil)
		c := &Content{net: d.Subnet, views: map[*brain]*view{}}
		following, leading := Stand{Role: Following, Leader: deviceID(7), Epoch: 5}, Stand{Role: Leading, Epoch: 3}
		out := leading
		out.Out, out.Epoch = true, 4
		both := leading
		both.Out = true
		fresh, old := decideTime-time.Millisecond, decideTime
		for name, v := range map[string]struct {
			first, second Stand
			since         time.Duration // of the second's role
			want          Stand
			undecided     bool
		}{
			"nothing":                    {Stand{}, Stand{}, 0, Stand{Role: Idle}, false},
			"one leads":                  {leading, Stand{Role: Idle}, 0, leading, false},
			"one follows, one is out":    {following, out, 0, following, false},
			"one is out, one follows":    {out, following, 0, following, false},
			"one is out, one has begun":  {out, Stand{Role: Seeking}, fresh, Stand{Role: Seeking}, true},
			"one is out, one seeks long": {out, Stand{Role: Seeking}, old, out, false},
			"one of two leaders is out":  {leading, out, 0, both, false},
			"one is alone":               {Stand{Role: Seeking}, Stand{Role: Alone, Out: true}, 0, Stand{Role: Alone, Out: true}, false},
		} {
			clear(c.views)
			for i, st := range []Stand{v.first, v.second} {
				if st.Role != NoElection {
					c.views[d.brains[i]] = &view{Stand: st, since: d.Subnet.now() - []time.Duration{old, v.since}[i]}
				}
			}
			if st, undecided := c.stand(); st != v.want || undecided != v.undecided {
				t.Errorf("%s: %+v, undecided %v; want %+v, %v", name, st, undecided, v.want, v.undecided)
			}
		}
	})
}

// TestHome: of two subnets where a device leads, the array is told the one of its own address.
func TestHome(t *testing.T) {
	for home, want := range map[string]string{"": "10.0.0.0/24 2", "10.0.0.1": "10.0.0.0/24 2", "10.0.1.1": "10.0.1.0/24 1", "10.9.9.9": "invalid Prefix 2"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1000)
			g := &memnet.Segment{}
			other := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.9/24"): g}, nil)
			w.enter(other, 0)
			w.run(time.Second)
			d := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.1/24"): g, link(3, "10.0.1.1/24"): {}}, func(o *Options) {
				o.Home = func() netip.Addr {
					at, _ := netip.ParseAddr(home)
					return at
				}
			})
			w.enter(d, 0)
			w.run(time.Second)
			other.end()
			w.run(time.Second)
			if st := d.now(); st.Role != Leading || fmt.Sprint(d.Prefix(), " ", st.Epoch) != want {
				t.Errorf("at %q the device is %+v on %s, want %s", home, st, d.Prefix(), want)
			}
		})
	}
}

// TestDatagramsOff: without datagrams a device knows its subnets, for the array to bring those of them
// together, and elects nobody.
func TestDatagramsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		on := map[lan.Link]*memnet.Segment{link(3, "10.0.1.1/24"): {}, link(2, "10.0.0.1/24"): {}}
		d := w.add(on, func(o *Options) { o.LAN.On = func() bool { return false } })
		<-d.Ready()
		near, far := netip.MustParseAddr("10.0.1.9"), netip.MustParseAddr("10.0.2.9")
		if got := d.Prefix().String(); got != "10.0.0.0/24" || !d.Same(near) || d.Same(far) || d.Subnet.Open() {
			t.Errorf("on %s, the same subnet as %s: %v, as %s: %v, open: %v", got, near, d.Same(near), far, d.Same(far), d.Subnet.Open())
		}
		d.Plug(map[lan.Link]*memnet.Segment{link(3, "10.0.1.1/24"): {}})
		<-time.After(lan.DefaultPoll + time.Second)
		if got := d.Prefix().String(); got != "10.0.1.0/24" {
			t.Errorf("with one interface gone on %s", got)
		}
	})
}

// TestBegin: nothing is sent before datagrams may begin, and what is wanted meanwhile waits for
// nothing.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := make(chan struct{})
		s := New(Options{
			LAN: lan.Options{Trust: lan.Trust{Self: deviceID(1), Now: time.Now}, Network: &memnet.Host{}}, Begin: begin,
			Seed: func() uint64 { return 1 }, Log: slog.New(slog.DiscardHandler),
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		for i := range maxEvents {
			s.Enter(hohOf(i), mib, &device{}).Know(entryOf(hohOf(1), hohOf(2)))
		}
		synctest.Wait()
		select {
		case <-s.Ready():
			t.Error("the links are known before anybody looked")
		default:
		}
		close(begin)
		<-s.Ready()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestLinksVanish: without a link there is no election; on another subnet it begins anew, and on
// the same one with another address it goes on.
func TestLinksVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1000)
		g, other := &memnet.Segment{}, &memnet.Segment{}
		home := map[lan.Link]*memnet.Segment{link(2, "10.0.0.1/24"): g}
		d := w.add(home, nil)
		w.enter(d, 0)
		next := func(on map[lan.Link]*memnet.Segment) Stand {
			d.Plug(on)
			<-time.After(lan.DefaultPoll)
			w.run(2 * time.Second)
			return d.now()
		}
		if st := next(home); st.Role != Leading || st.Epoch != 1 {
			t.Errorf("alone, the device is %+v", st)
		}
		if st := next(map[lan.Link]*memnet.Segment{link(2, "10.0.0.5/24"): g}); st.Role != Leading || st.Epoch != 1 {
			t.Errorf("with another address the device is %+v, want it to lead on", st)
		}
		before := len(d.stands)
		if st := next(map[lan.Link]*memnet.Segment{link(2, "10.0.9.5/24"): other}); st.Role != Leading {
			t.Errorf("in another subnet the device is %+v", st)
		}
		if len(d.stands) == before {
			t.Error("it led on from one subnet to the other")
		}
		if st := next(nil); st != (Stand{}) || d.Subnet.Open() || len(d.c.views) > 0 {
			t.Errorf("without a link the device is %+v, with %d views of subnets", st, len(d.c.views))
		}
		if st := next(home); st.Role != Leading {
			t.Errorf("back again, the device is %+v", st)
		}
	})
}

// TestOverConnections: where datagrams are dropped, connected devices of the subnet elect over
// their connections; those of other subnets are not heard.
func TestOverConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1000)
		g := &memnet.Segment{}
		g.Hush(true)
		for i := range 3 {
			w.add(map[lan.Link]*memnet.Segment{link(2, fmt.Sprintf("10.0.0.%d/24", i+1)): g}, nil)
		}
		foreign := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.1.4/24"): &memnet.Segment{}}, nil)
		w.lease = w.devices[1]
		for _, d := range w.devices {
			w.enter(d, 0)
		}
		w.run(time.Second)
		for _, d := range w.devices {
			if st := d.now(); st.Role != Leading || st.Out != (d == w.lease) {
				t.Errorf("on its own, device %d is %+v", d.n, st)
			}
		}
		w.connect()
		w.run(10 * time.Second)
		if leader := w.one(w.devices[:3]...); leader != w.lease {
			t.Errorf("device %d leads, want the one that has the lease and so the pieces", leader.n)
		}
		if st := foreign.now(); st.Role != Leading {
			t.Errorf("a device of another subnet is %+v, want it to lead there", st)
		}
		g.Hush(false)
		w.run(31 * time.Second)
		leader := w.one(w.devices[:3]...)
		leader.kill()
		w.closed(leader)
		w.run(time.Second)
		next := w.one(w.devices[0], w.devices[2])
		if !next.now().Out {
			t.Errorf("the next leader is %+v", next.now())
		}
	})
}

// TestAddressBook: it is bounded, forgets the oldest, and is not told of again and again.
func TestAddressBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		d := w.add(map[lan.Link]*memnet.Segment{link(2, "10.0.0.1/16"): &memnet.Segment{}}, nil)
		w.enter(d, 10)
		say := func(n int) {
			q := wire.Question{Subject: wire.Subject{By: wire.ByHashOfHashes, Digest: hohOf(1)}}
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), lan.Port)
			d.handle(lan.Datagram{
				Sender: lan.Sender{Device: wire.DeviceID{byte(n), byte(n >> 8), 3: 1}, Port: 7680}, From: from,
				Link: link(2, "10.0.0.1/16"), Message: q.AppendLAN(nil),
			})
		}
		for n := range 2 * maxSeen {
			say(n)
			<-time.After(time.Millisecond)
		}
		synctest.Wait()
		b := d.brains[0]
		if len(b.seen) != maxSeen || len(d.c.neighbours) != maxNeighbours {
			t.Errorf("%d devices and %d neighbours are remembered, want %d and %d", len(b.seen), len(d.c.neighbours), maxSeen, maxNeighbours)
		}
		if !b.hears(d.Subnet.now(), wire.DeviceID{0xff, 7, 3: 1}) || b.hears(d.Subnet.now(), wire.DeviceID{0, 0, 3: 1}) {
			t.Error("the last one is not known, or the first one is")
		}
		d.met = nil
		for range 20 {
			say(5)
			<-time.After(time.Second)
		}
		synctest.Wait()
		if len(d.met) != 4 || d.met[0].At != "10.0.0.5:7680" || !d.met[0].Wants {
			t.Errorf("in 20 s one neighbour was told of as %+v, want four times", d.met)
		}
	})
}

// TestSeek: a name is asked of the subnet; where nobody knows it, one of those who ask is to ask
// the services, and the others hear what it found.
func TestSeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 3)
		subject := wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "app"}}
		answers := make(chan error, 3)
		for _, d := range w.devices[:2] {
			go func() {
				h, err := d.Seek(t.Context(), subject, wire.Foreground)
				if err == nil && (len(h) != 1 || h[0].HashOfHashes != hohOf(1) || h[0].Manifest != hohOf(9) || h[0].Generation != 3 || !h[0].Swarm.IsValid()) {
					err = fmt.Errorf("found %+v", h)
				}
				answers <- err
			}()
		}
		<-time.After(2 * time.Second)
		if err := <-answers; !errors.Is(err, ErrAskOutside) {
			t.Fatalf("the first answer is %v, want %v", err, ErrAskOutside)
		}
		if len(answers) != 0 {
			t.Fatal("the second device did not wait")
		}
		w.enter(w.devices[2], 100)
		if err := <-answers; err != nil {
			t.Errorf("the second answer is %v, want what the third device holds", err)
		}
		w.devices[0].Sought(subject)
		w.devices[1].Sought(subject)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if h, err := w.devices[0].Seek(ctx, subject, wire.Foreground); err != nil || len(h) != 1 {
				t.Errorf("asked again, the subnet holds %+v, %v", h, err)
			}
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.devices[0].Seek(ctx, subject, wire.Background); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a seek that is given up ends with %v", err)
		}
		synctest.Wait()
		if len(w.devices[0].seeks) != 0 {
			t.Error("it goes on")
		}
		w.devices[0].Plug(nil)
		<-time.After(lan.DefaultPoll)
		if _, err := w.devices[0].Seek(t.Context(), subject, wire.Background); !errors.Is(err, ErrAskOutside) {
			t.Errorf("without a link, a seek ends with %v", err)
		}
	})
}

// TestSoughtTwice: two callers were told to ask outside; when the second one is done, a third one
// that began after the first was done is not left waiting.
func TestSoughtTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fleet(t, 1).devices[0]
		subject := wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "app"}}
		for range 2 {
			if _, err := d.Seek(t.Context(), subject, wire.Background); !errors.Is(err, ErrAskOutside) {
				t.Fatalf("a seek ends with %v, want %v", err, ErrAskOutside)
			}
		}
		d.Sought(subject)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		third := make(chan error, 1)
		go func() {
			_, err := d.Seek(ctx, subject, wire.Background)
			third <- err
		}()
		synctest.Wait()
		d.Sought(subject)
		if err := <-third; !errors.Is(err, ErrAskOutside) {
			t.Errorf("the third seek ends with %v, want %v", err, ErrAskOutside)
		}
	})
}

// TestFindByMetadata: a question by MetadataHash is answered from what shares told.
func TestFindByMetadata(t *testing.T) {
	w := struct{ sha1, sha256 content.Digest }{content.Digest{1}, content.Digest{2}}
	e := entryOf(w.sha1, w.sha256)
	for _, c := range []struct {
		s    wire.Subject
		want bool
	}{
		{wire.Subject{By: wire.ByMetadataHash, Algorithm: content.SHA1Algorithm, Digest: w.sha1}, true},
		{wire.Subject{By: wire.ByMetadataHash, Algorithm: content.SHA256Algorithm, Digest: w.sha1}, false},
		{wire.Subject{By: wire.ByMetadataHash, Algorithm: content.SHA256Algorithm, Digest: w.sha256}, true},
		{wire.Subject{By: wire.ByMetadataHash, Algorithm: content.SHA256Algorithm}, false},
		{wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "app", Version: 2}}, false},
		{wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "app", Version: 1}}, true},
		{wire.Subject{By: wire.ByRef, Ref: content.Ref{ID: "other"}}, false},
	} {
		if got := e.Fits(&c.s); got != c.want {
			t.Errorf("%+v: %v, want %v", c.s, got, c.want)
		}
	}
}

// TestMalformed: a message that means nothing is counted; one of a type to come is not.
func TestMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 2)
		short := wire.Validate{Ref: content.Ref{ID: "app", Version: 1}, Algorithm: content.SHA1Algorithm}.AppendLAN(nil)
		for _, message := range [][]byte{short[:len(short)-1], {0x7f}} {
			if err := w.devices[0].LAN().Send(0, message); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := w.devices[1].LAN().Drops(); got["malformed"] != 1 || got["taken"] != 1 {
			t.Errorf("counted %v, want one malformed and one taken", got)
		}
	})
}

// TestHints: what one device broadcasts reaches all others, with its sender.
func TestHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 3)
		v := wire.Validate{Ref: content.Ref{ID: "app", Version: 1}, Rejected: hohOf(4)}
		w.devices[1].SendHint(v)
		synctest.Wait()
		for _, d := range w.devices {
			var want []Hint
			if d.n != 2 {
				want = []Hint{{Validate: v, From: deviceID(2), Index: 2}}
			}
			if len(d.hints) != len(want) || len(want) > 0 && d.hints[0] != want[0] {
				t.Errorf("device %d heard %+v, want %+v", d.n, d.hints, want)
			}
		}
	})
}

// TestAfterTheEnd: nobody waits for a subnet that has stopped.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fleet(t, 1)
		d := w.devices[0]
		w.enter(d, 0)
		d.end()
		for range 2 * maxEvents {
			d.c.Progress()
		}
		if _, err := d.Seek(t.Context(), wire.Subject{By: wire.ByRef}, wire.Background); !errors.Is(err, ErrAskOutside) {
			t.Errorf("a seek after the end: %v", err)
		}
		var none *Content
		none.Want(wire.Foreground)
		none.Held(5)
		none.Leave()
	})
}
