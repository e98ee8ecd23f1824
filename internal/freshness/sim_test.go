package freshness

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"freshet/internal/content"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run TestSeeds with this seed alone, and print what happens")
	seedsFlag = flag.Int("seeds", 1000, "how many seeds TestSeeds runs")
)

const (
	troubleEnds = time.Hour     // then services answer, DPs are right, hostile members are silent
	allEnds     = 5 * time.Hour // a paused download is tried hourly
)

// scenario draws a fleet and its troubles.
func scenario(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 3))
	w := &world{rng: rng, up: true, loss: rng.Float64() * 0.3}
	for n := range 2 + rng.IntN(2) {
		w.issues = append(w.issues, issue(n))
	}
	w.issues[0].generation = 1 + rng.Uint64N(1000)
	signed := rng.IntN(3) == 0
	for n := range w.issues {
		w.issues[n].signed = signed
		w.issues[n].unhashed = rng.IntN(6) == 0
		w.issues[n].extends = n > 0 && rng.IntN(4) == 0
	}
	for range 1 + rng.IntN(3) {
		w.dps = append(w.dps, dp{nature: nature(rng.IntN(3)), owner: rng.IntN(2) == 0})
	}
	for i := range 2 + rng.IntN(29) {
		w.addDevice(i)
	}
	for i := range rng.IntN(4) {
		sum := content.DigestOf(fmt.Appendf(nil, "hostile %d", i))
		w.hostile = append(w.hostile, Device(sum[:16]))
	}
	for n := 1; n < len(w.issues); n++ {
		w.reissue(n)
	}
	w.troubles()
	for _, d := range w.devs {
		w.after(0, func() { w.boot(d) })
	}
	return w
}

// addDevice adds a device: a holder of the first issue, or a downloader, or both in turn.
func (w *world) addDevice(i int) {
	sum := content.DigestOf(fmt.Appendf(nil, "device %d", i))
	d := &device{
		id: i, name: Device(sum[:16]), rate: 0.95 + w.rng.Float64()/10,
		left: map[Device]bool{}, banned: map[Banned]bool{}, checks: map[recentKey]time.Duration{},
		deaf: w.rng.IntN(10) == 0, side: w.rng.IntN(2) == 0,
	}
	if w.rng.IntN(5) == 0 {
		d.match = content.Subset
	}
	if w.rng.IntN(6) == 0 {
		d.mode = Mode(w.rng.IntN(3))
	}
	if w.rng.IntN(3) > 0 {
		d.expect(w, 0)
	}
	w.devs = append(w.devs, d)
	if w.rng.IntN(2) == 0 {
		e := &entry{generation: w.issues[0].generation, since: never, unhashed: w.rng.IntN(5) == 0}
		d.store = append(d.store, e)
		return
	}
	w.after(w.soon(), func() {
		d.job = Job(1 + i)
		w.start(d)
	})
}

// soon is some time before the troubles end, more often early.
func (w *world) soon() time.Duration {
	return time.Second + time.Duration(w.rng.Float64()*w.rng.Float64()*float64(troubleEnds-2*time.Second))
}

// expect sets a device's metadata to an issue.
func (d *device) expect(w *world, n int) {
	d.expected = Expected{State: IsExpected, Hash: w.issues[n].digest, Algorithm: content.SHA1Algorithm}
}

// reissue changes the content: the DPs' bytes, the catalog (sometimes only when a DP is forced)
// and the devices' metadata, each in its own time.
func (w *world) reissue(n int) {
	for i := range w.dps {
		p := &w.dps[i]
		if p.nature != frozen {
			w.after(w.soon(), func() { p.bytes = max(p.bytes, n) })
		}
	}
	w.after(w.soon(), func() { w.cached = max(w.cached, n) })
	w.after(w.soon(), func() {
		if w.rng.IntN(2) == 0 {
			w.publish(n)
		}
	})
	for _, d := range w.devs {
		if d.expected.State != IsExpected || w.rng.IntN(5) == 0 {
			continue // it has none, or learns it last
		}
		w.after(w.soon(), func() {
			if w.issueOf(d.expected.Hash) < n {
				d.expect(w, n)
				w.tellExpected(d)
			}
		})
	}
}

func (w *world) tellExpected(d *device) {
	if d.job != 0 && !d.done && !d.down {
		w.do(d, d.brain.OnExpected(w.local(d), d.job, d.expected, nil))
	}
}

// troubles draws outages, for all and for single devices, splits, kills and hostile members, and
// their end.
func (w *world) troubles() {
	for range w.rng.IntN(3) {
		w.outage(&w.up, true)
	}
	for range w.rng.IntN(3) {
		w.outage(&w.split, false)
	}
	for range w.rng.IntN(1 + len(w.devs)/2) {
		w.outage(&w.devs[w.rng.IntN(len(w.devs))].cut, false)
	}
	for range w.rng.IntN(12) {
		d := w.devs[w.rng.IntN(len(w.devs))]
		w.after(w.soon(), func() { w.kill(d, w.off()) })
	}
	for _, h := range w.hostile {
		for range w.rng.IntN(40) {
			w.after(w.soon(), func() { w.attack(h) })
		}
	}
	w.after(troubleEnds, func() {
		last := len(w.issues) - 1
		w.up, w.split = true, false
		w.publish(last)
		for i := range w.dps {
			w.dps[i] = dp{nature: honest, bytes: last, owner: true}
		}
		w.cached = last
		for _, d := range w.devs {
			d.cut = false
			if d.expected.State == IsExpected && !w.has(d, last) {
				d.expect(w, last)
				w.tellExpected(d)
			}
			w.after(time.Hour, func() { // its next join; a download that waits wakes by itself
				if d.down || d.job != 0 && !d.done {
					return
				}
				g := w.issues[w.catalog].generation
				w.do(d, d.brain.OnGeneration(w.local(d), News{theRef, g, w.holds(d)}, nil))
			})
		}
	})
}

// outage turns something into its opposite for a while.
func (w *world) outage(what *bool, well bool) {
	w.after(w.soon(), func() { *what = !well })
	w.after(w.soon(), func() { *what = well })
}

// off is how long a device is off after it was killed: often a moment, at times longer than
// whatever was under way.
func (w *world) off() time.Duration {
	return time.Second + time.Duration(w.rng.Float64()*w.rng.Float64()*float64(30*time.Minute))
}

// attack is what a hostile member says: hints of all kinds, claims, other manifests.
func (w *world) attack(h Device) {
	d := w.devs[w.rng.IntN(len(w.devs))]
	if d.down {
		return
	}
	known := w.issues[w.rng.IntN(len(w.issues))].digest
	odd := content.DigestOf(fmt.Appendf(nil, "odd %d", w.rng.IntN(8)))
	switch w.rng.IntN(6) {
	case 0:
		w.hint(d, h, Hint{Ref: theRef, Rejected: known}, nil)
	case 1:
		w.hint(d, h, Hint{Ref: theRef, Algorithm: content.SHA1Algorithm, Wanted: odd}, func(Ack) {})
	case 2:
		w.hint(d, h, Hint{Ref: theRef, Algorithm: content.SHA256Algorithm, Wanted: known}, func(Ack) {})
	case 3:
		w.do(d, d.brain.OnGeneration(w.local(d), News{theRef, 1<<63 - w.rng.Uint64N(100), w.holds(d)}, nil))
	case 4:
		w.do(d, d.brain.OnNamed(w.local(d), Named{d.job, h, odd, w.rng.Uint64N(1 << 40)}, nil))
	case 5:
		o := Offer{Job: d.job, Digest: odd, Source: FromDevice, Device: h, Fit: content.FitUnknown}
		if d.expected.State == IsExpected && d.mode != Off {
			o.Fit = content.Differs
		}
		w.offer(d, o)
	}
}

// check returns what is wrong at the end: a download that should have come to an end.
func (w *world) check() error {
	if w.err != nil {
		return w.err
	}
	for _, d := range w.devs {
		if d.job != 0 && !d.done {
			return fmt.Errorf("device %d never had its content: %s, phase %d, expects issue %d, catalog names %d",
				d.id, d.brain.Reason(d.job), d.brain.job(d.job).phase, w.issueOf(d.expected.Hash), w.catalog)
		}
		if n := len(d.brain.checks); n > 0 {
			return fmt.Errorf("device %d still checks %d entries", d.id, n)
		}
		for _, e := range d.store {
			if !e.served() {
				return fmt.Errorf("device %d has issue %d in quarantine at the end", d.id, e.issue)
			}
			if e.issue != w.catalog && e.generation != 0 && !w.wants(d, e.issue) {
				return fmt.Errorf("device %d serves issue %d at the end, the catalog names %d", d.id, e.issue, w.catalog)
			}
		}
	}
	return nil
}

// TestSeeds runs fleets with everything that may go wrong in them.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		w := scenario(*seedFlag)
		w.trace = t.Logf
		w.run(allEnds)
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *seedsFlag
	if testing.Short() {
		n /= 10
	}
	for seed := uint64(1); seed <= uint64(n); seed++ {
		w := scenario(seed)
		w.run(allEnds)
		if err := w.check(); err != nil {
			t.Fatalf("seed %d (go test -run TestSeeds -seed %d): %v", seed, seed, err)
		}
	}
}

// TestSeedReplays runs one fleet twice.
func TestSeedReplays(t *testing.T) {
	var runs [2][]string
	for i := range runs {
		w := scenario(7)
		w.trace = func(format string, args ...any) { runs[i] = append(runs[i], fmt.Sprintf(format, args...)) }
		w.run(allEnds)
	}
	if len(runs[0]) == 0 || len(runs[0]) != len(runs[1]) {
		t.Fatalf("%d actions, then %d", len(runs[0]), len(runs[1]))
	}
	for i := range runs[0] {
		if runs[0][i] != runs[1][i] {
			t.Fatalf("action %d: %s, then %s", i, runs[0][i], runs[1][i])
		}
	}
}
