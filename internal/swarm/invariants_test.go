package swarm

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

// shell is what a brain sees of a world in which anything may happen at any time.
type shell struct {
	t       *rapid.T
	s       *Swarm
	runs    int
	now     time.Duration
	led     bool
	reach   Reach
	up      map[Peer]bool
	zone    map[Peer]Zone
	knows   map[Peer]content.Bits // what a peer was told that this device holds
	choked  map[Peer]bool
	banned  map[Peer]bool
	asked   map[[2]int32]bool // peer and run of the requests that were neither answered nor cancelled
	fetches map[int32][2]int32
	changed map[int32]bool
	sending []Action
	proving bool // the actions are those of OnProve
}

const testPeers = 6

func newShell(t *rapid.T, origins int) *shell {
	sh := &shell{
		t: t, runs: rapid.IntRange(1, 100).Draw(t, "runs"),
		led: rapid.Bool().Draw(t, "led"),
		up:  map[Peer]bool{}, zone: map[Peer]Zone{}, knows: map[Peer]content.Bits{}, choked: map[Peer]bool{}, banned: map[Peer]bool{},
		asked: map[[2]int32]bool{}, fetches: map[int32][2]int32{}, changed: map[int32]bool{},
	}
	lens := make([]int, sh.runs)
	for r := range lens {
		lens[r] = rapid.SampledFrom([]int{content.PieceSize, 70_000, 1}).Draw(t, "length")
	}
	held := content.NewBits(sh.runs)
	for _, r := range rapid.SliceOf(rapid.IntRange(0, sh.runs-1)).Draw(t, "held") {
		held.Add(r)
	}
	sh.s = New(Config{
		Seed: rapid.Uint64().Draw(t, "seed"), Runs: sh.runs, Held: held, Origins: origins, Led: sh.led,
		Lens: func(r int) int { return lens[r] },
	})
	return sh
}

// do checks the actions of an event against what the brain was told, and does them.
func (sh *shell) do(acts []Action) {
	s := sh.s
	defer func() { sh.proving = false }()
	for _, a := range acts {
		switch a.Kind {
		case Request:
			if !sh.up[a.Peer] || sh.choked[a.Peer] && !sh.proving || sh.banned[a.Peer] || !s.holds(a.Peer, a.Run) {
				sh.t.Fatalf("run %d is asked of peer %d: connected %v, choked %v, banned %v, holds it %v", a.Run, a.Peer, sh.up[a.Peer], sh.choked[a.Peer], sh.banned[a.Peer], s.holds(a.Peer, a.Run))
			}
			if !sh.mayAsk(a.Peer) {
				sh.t.Fatalf("peer %d is in zone %d and asked; the reach is %d, led %v", a.Peer, sh.zone[a.Peer], sh.reach, sh.led)
			}
			if p := s.peer(a.Peer); p.owed > max(s.window(p), content.PieceSize) {
				sh.t.Fatalf("peer %d owes %d bytes, its window is %d", a.Peer, p.owed, s.window(p))
			}
			sh.asked[[2]int32{int32(a.Peer), a.Run}] = true
		case Cancel:
			delete(sh.asked, [2]int32{int32(a.Peer), a.Run})
		case Tell, Send:
			if !sh.up[a.Peer] || s.pick.Missing(int(a.Run)) {
				sh.t.Fatalf("%+v: connected %v, missing %v", a, sh.up[a.Peer], s.pick.Missing(int(a.Run)))
			}
			if a.Kind == Send {
				sh.sending = append(sh.sending, a)
				sh.checkSlots(a.Peer)
			}
			sh.told(a.Kind, a.Peer, a.Run)
		case TellAll:
			if s.pick.Missing(int(a.Run)) {
				sh.t.Fatalf("all are told of run %d, which is missing", a.Run)
			}
			for p := range sh.knows {
				sh.told(Tell, p, a.Run)
			}
		case Ban:
			sh.banned[a.Peer] = true
			sh.lose(a.Peer)
		case Fetch:
			if sh.reach != ReachAll && (sh.led || !s.wan.alone) || sh.changed[a.Source] || a.Run >= a.End || int(a.End) > sh.runs {
				sh.t.Fatalf("%+v: going out %v, origin changed %v", a, s.GoingOut(), sh.changed[a.Source])
			}
			sh.fetches[a.ID] = [2]int32{a.Run, a.End}
		case Stop:
			delete(sh.fetches, a.ID)
		case Changed:
			sh.changed[a.Source] = true
		}
	}
	sh.check()
}

// told notes that a peer was told of a run. Other sites are told of no secret.
func (sh *shell) told(k Kind, p Peer, run int32) {
	if k != Tell || !sh.up[p] {
		return
	}
	sh.knows[p].Add(int(run))
	for _, c := range sh.s.upload.circles {
		if sh.zone[p] == Elsewhere && c.secret.Has(int(run)) {
			sh.t.Fatalf("peer %d elsewhere was told of run %d, which is secret", p, run)
		}
	}
}

// meet lets a peer connect, which is told what is public.
func (sh *shell) meet(p Peer, z Zone) []Action {
	sh.up[p], sh.choked[p], sh.zone[p] = true, false, z
	acts := sh.s.OnPeer(sh.now, p, z, nil)
	sh.knows[p] = sh.s.Public(z)
	return acts
}

func (sh *shell) lose(p Peer) {
	sh.up[p] = false
	delete(sh.knows, p)
	for q := range sh.asked {
		if q[0] == int32(p) {
			delete(sh.asked, q)
		}
	}
	for i := range sh.sending {
		if sh.sending[i].Peer == p {
			sh.sending[i].Peer = None
		}
	}
}

// check counts again what the brain counts as it goes.
func (sh *shell) check() {
	s, t := sh.s, sh.t
	asked, sure, late := make([]int, sh.runs), make([]int, sh.runs), 0
	open, owed := map[Peer]int{}, map[Peer]int64{}
	for _, q := range s.open {
		if !sh.mayAsk(q.peer) {
			t.Fatalf("peer %d in zone %d is asked for run %d still; the reach is %d, led %v", q.peer, sh.zone[q.peer], q.run, sh.reach, sh.led)
		}
		open[q.peer]++
		owed[q.peer] += s.runLen(q.run)
		if q.late {
			late++
			continue
		}
		asked[q.run]++
		if q.sure {
			sure[q.run]++
		}
	}
	if len(s.open) != len(sh.asked) || s.late != late {
		t.Fatalf("%d requests are open and %d late, want %d, %d: %+v, %v", len(s.open), s.late, len(sh.asked), late, s.open, sh.asked)
	}
	for _, f := range s.wan.open {
		for r := f.next; r < f.end; r++ {
			asked[r]++
			sure[r]++
		}
	}
	if len(s.wan.open) > 2 {
		t.Fatalf("%d fetches are open", len(s.wan.open))
	}
	for r := range sh.runs {
		if s.pick.Asked(r) != asked[r] || s.pick.Sure(r) != sure[r] {
			t.Fatalf("run %d: asked %d, sure %d; want %d, %d", r, s.pick.Asked(r), s.pick.Sure(r), asked[r], sure[r])
		}
	}
	sh.checkPeers(open, owed)
	sh.checkSecrets()
	sh.checkMissing()
}

func (sh *shell) checkPeers(open map[Peer]int, owed map[Peer]int64) {
	s, t := sh.s, sh.t
	stuck, connected := 0, 0
	for id := range Peer(testPeers + 1) {
		p := s.peer(id)
		if (p != nil) != sh.up[id] {
			t.Fatalf("peer %d: known %v, connected %v", id, p != nil, sh.up[id])
		}
		if p == nil {
			if int(id)/64 < len(s.room) && (s.room.Has(int(id)) || s.trusted.Has(int(id))) {
				t.Fatalf("peer %d is gone and in a set", id)
			}
			continue
		}
		connected++
		told, queued, confides := 0, 0, 0
		for r := range sh.runs {
			if s.holds(id, int32(r)) {
				told++
			}
		}
		for _, j := range slices.Concat(s.upload.first, s.upload.queue) {
			if j.peer == id {
				queued++
			}
		}
		for _, c := range s.upload.circles {
			for _, r := range c.pending {
				if r.peer == id && !c.has(p.zone) {
					t.Fatalf("peer %+v was told of run %d in another circle", *p, r.run)
				}
				if r.peer == id {
					confides++
				}
			}
		}
		if p.stuck {
			stuck++
		}
		if p.open != open[id] || p.owed != owed[id] || int(s.told[id]) != told || p.queued != queued || p.confides != confides || s.live[p.at] != p {
			t.Fatalf("peer %+v (told %d): want open %d, owed %d, told %d, queued %d, confides %d", *p, s.told[id], open[id], owed[id], told, queued, confides)
		}
		if s.room.Has(int(id)) != s.mayAsk(p) {
			t.Fatalf("peer %+v: in room %v", *p, s.room.Has(int(id)))
		}
	}
	if s.stuck != stuck || s.Peers() != connected {
		t.Fatalf("%d stuck of %d, want %d of %d", s.stuck, s.Peers(), stuck, connected)
	}
}

// checkSlots: no peer has more than half of the slots.
func (sh *shell) checkSlots(p Peer) {
	n := 0
	for _, a := range sh.sending {
		if a.Peer == p {
			n++
		}
	}
	if most := max(sh.s.cfg.Slots/2, 1); n > most {
		sh.t.Fatalf("%d runs are being sent to peer %d, at most %d may be", n, p, most)
	}
}

// checkSecrets looks for every secret run of a circle in exactly one list of it.
func (sh *shell) checkSecrets() {
	u := &sh.s.upload
	for _, c := range u.circles {
		lists := slices.Concat(c.backlog, c.confirmed)
		for _, r := range c.pending {
			lists = append(lists, r.run)
		}
		slices.Sort(lists)
		if secret := c.secret.Count(); len(lists) != secret || len(slices.Compact(lists)) != secret {
			sh.t.Fatalf("%d secret runs, in lists %v: backlog %v, pending %+v, confirmed %v", secret, lists, c.backlog, c.pending, c.confirmed)
		}
		for _, r := range lists {
			if !c.secret.Has(int(r)) || sh.s.pick.Missing(int(r)) {
				sh.t.Fatalf("run %d is in a list: secret %v, missing %v", r, c.secret.Has(int(r)), sh.s.pick.Missing(int(r)))
			}
		}
	}
	if u.sending != len(sh.sending) || u.sending > sh.s.cfg.Slots {
		sh.t.Fatalf("%d are being sent, want %d, at most %d", u.sending, len(sh.sending), sh.s.cfg.Slots)
	}
}

// holds reports whether the peer told that it holds run.
func (s *Swarm) holds(id Peer, run int32) bool {
	return s.peer(id) != nil && run >= 0 && int(run) < s.cfg.Runs && s.pick.Has(int(run), int(id))
}

// checkMissing compares the bytes that are said to be missing with the runs that are.
func (sh *shell) checkMissing() {
	var want int64
	for r := range sh.s.cfg.Runs {
		if sh.s.pick.Missing(r) {
			want += sh.s.runLen(int32(r))
		}
	}
	if got := sh.s.Missing(); got != want {
		sh.t.Fatalf("%d bytes are said to be missing, %d are", got, want)
	}
}

// event lets something happen to peer p and run r.
func (sh *shell) event(what int, p Peer, r int32) []Action {
	s := sh.s
	switch what {
	case 0:
		if !sh.up[p] && !sh.banned[p] {
			return sh.meet(p, Zone(r%3))
		}
	case 1:
		sh.lose(p)
		return s.OnPeerGone(sh.now, p, nil)
	case 2:
		holds := content.NewBits(sh.runs)
		for i := r; int(i) < sh.runs; i += 1 + r%3 {
			holds.Add(int(i))
		}
		return s.OnHolds(sh.now, p, holds, nil)
	case 3, 4:
		return s.OnHave(sh.now, p, r, nil)
	case 5:
		sh.choked[p] = !sh.choked[p] && sh.up[p]
		return s.OnChoke(sh.now, p, sh.choked[p], nil)
	case 6, 7, 8, 9:
		return sh.answer(what, p, r)
	case 10:
		sh.now += time.Duration(r) * 100 * time.Millisecond
		return s.OnTick(sh.now, nil)
	case 11:
		return sh.goAsFar(Reach(r % 4))
	case 12:
		s.OnAcknowledged(p)
	case 13, 14:
		return s.OnRequest(sh.now, p, r, nil)
	case 15:
		s.OnCancel(p, r)
	case 16:
		if len(sh.sending) > 0 {
			a := sh.sending[0]
			sh.sending = sh.sending[1:]
			return s.OnSent(sh.now, a.Peer, a.Run, r%4 > 0, nil)
		}
	case 17:
		return s.OnDamaged(sh.now, r, nil)
	case 18, 19, 20:
		return sh.fetched(what, r)
	case 21:
		return sh.prove(p)
	case 22:
		if sh.up[p] {
			sh.zone[p] = Zone(r % 3)
		}
		return s.OnZone(sh.now, p, Zone(r%3), nil)
	case 23:
		return s.OnOrigins(sh.now, []bool{r%2 == 0, r%3 == 0, r%5 == 0, true}[:r%5], nil)
	}
	return nil
}

// answer lets peer p answer a request, wrongly or not, refuse it, or send what was not asked.
func (sh *shell) answer(what int, p Peer, r int32) []Action {
	for q := range sh.asked {
		if q[0] == int32(p) && (q[1] < r || r%5 == 0) {
			r = min(r, q[1])
		}
	}
	if !sh.up[p] {
		return nil
	}
	delete(sh.asked, [2]int32{int32(p), r})
	if what == 9 {
		return sh.s.OnRefused(sh.now, p, r, nil)
	}
	sh.now += time.Millisecond
	return sh.s.OnRun(sh.now, p, r, what != 8, nil)
}

// fetched lets the oldest fetch deliver its next run or end.
func (sh *shell) fetched(what int, r int32) []Action {
	if len(sh.s.wan.open) == 0 {
		return nil
	}
	f := sh.s.wan.open[0]
	switch {
	case f.next == f.end:
		delete(sh.fetches, f.id)
		return sh.s.OnFetchEnd(sh.now, f.id, FetchDone, 0, nil)
	case what == 20:
		delete(sh.fetches, f.id)
		return sh.s.OnFetchEnd(sh.now, f.id, FetchResult(r%4), 0, nil)
	}
	sh.now += time.Millisecond
	return sh.s.OnFetched(sh.now, f.id, f.next, r%7 > 0, nil)
}

// TestInvariants lets anything happen and counts again after each event; then it leaves the
// device with one good source, which must be enough.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sh := newShell(t, 2)
		n := rapid.IntRange(0, 300).Draw(t, "events")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "events' seed"), 4))
		for range n {
			sh.do(sh.event(rng.IntN(24), Peer(rng.IntN(testPeers)), int32(rng.IntN(sh.runs))))
		}
		if rapid.Bool().Draw(t, "by a peer") {
			sh.finishByPeer()
		} else {
			sh.finishByOrigin()
		}
		sh.settle()
	})
}

// settle lets what is to be sent be sent. Then every peer knows of every run.
func (sh *shell) settle() {
	s := sh.s
	for end := sh.now + 20*time.Minute; s.Left() == 0 && !s.Idle() && sh.now < end; {
		if len(sh.sending) > 0 {
			a := sh.sending[0]
			sh.sending = sh.sending[1:]
			sh.do(s.OnSent(sh.now, a.Peer, a.Run, true, nil))
			continue
		}
		sh.now += TickInterval
		sh.do(s.OnTick(sh.now, nil))
	}
	for p, knows := range sh.knows {
		if n := knows.Count(); s.Left() == 0 && n != sh.runs {
			sh.t.Fatalf("peer %d in zone %d was told of %d runs of %d", p, sh.zone[p], n, sh.runs)
		}
	}
}

// finishByPeer lets a good peer come that holds all; the others hold on to what was asked of
// them.
func (sh *shell) finishByPeer() {
	const good = testPeers
	sh.do(sh.meet(good, SameSubnet))
	sh.do(sh.s.OnHolds(sh.now, good, content.FullBits(sh.runs), nil))
	for end := sh.now + 20*time.Minute; sh.s.Left() > 0 && sh.now < end; {
		sh.now += TickInterval
		sh.do(sh.s.OnTick(sh.now, nil))
		for _, q := range sh.s.open {
			if q.peer == good {
				delete(sh.asked, [2]int32{good, q.run})
				sh.do(sh.s.OnRun(sh.now, good, q.run, true, nil))
				break
			}
		}
	}
	if sh.s.Left() > 0 {
		sh.t.Fatalf("%d runs are missing, though a good peer has them: %+v", sh.s.Left(), sh.s.open)
	}
}

// finishByOrigin gives the device the lease and an origin that answers, unless all have
// changed.
func (sh *shell) finishByOrigin() {
	if len(sh.changed) == len(sh.s.wan.origins) {
		return
	}
	sh.do(sh.goAsFar(ReachAll))
	for end := sh.now + 20*time.Minute; sh.s.Left() > 0 && sh.now < end; {
		sh.now += TickInterval
		sh.do(sh.s.OnTick(sh.now, nil))
		if len(sh.s.wan.open) == 0 {
			continue
		}
		if f := sh.s.wan.open[0]; f.next < f.end {
			sh.do(sh.s.OnFetched(sh.now, f.id, f.next, true, nil))
		} else {
			sh.do(sh.s.OnFetchEnd(sh.now, f.id, FetchDone, 0, nil))
		}
	}
	if sh.s.Left() > 0 {
		sh.t.Fatalf("%d runs are missing, though the origin has them: %+v", sh.s.Left(), sh.s.open)
	}
}
