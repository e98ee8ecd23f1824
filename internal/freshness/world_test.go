package freshness

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"freshet/internal/content"
)

// This file is a small fleet around real brains in virtual time: a catalog, DPs, a cache host,
// devices of one subnet, hostile members. The model is coarse where freshness does not look (bytes
// take a while and arrive) and free where it does: what is held, named, offered, answered, lost;
// who reaches the services and whom; when a device is killed, what it had saved, how long it is off.

// manifest is one issue of the content. Its MetadataHash is its digest.
type manifest struct {
	digest     content.Digest
	generation uint64 // 0: the catalog never named it
	signed     bool   // by a pinned publisher, with its generation
	unhashed   bool   // the manifest has no SHA-1, and metadata has nothing else
	extends    bool   // it has all files of the issue before it, and more
}

func issue(n int) manifest {
	return manifest{digest: content.DigestOf(fmt.Appendf(nil, "issue %d", n))}
}

// nature of a DP.
type nature uint8

const (
	honest nature = iota // says what its bytes are
	frozen               // its bytes are the first issue, for ever or until healed
	liar                 // calls anything fitting
)

type dp struct {
	nature nature
	bytes  int  // issue that its files are
	owner  bool // of the catalog's entry: may renew it
}

// entry is what a device holds.
type entry struct {
	issue      int
	generation uint64
	since      time.Duration // when its quarantine began, restarts included; never: it is not in one
	held       bool          // in quarantine
	retiring   bool          // it is on its way out
	doomed     bool          // likewise, and that was saved
	unhashed   bool          // its SHA-1 is not known before the bytes were read
	alone      bool
}

func (e *entry) served() bool { return !e.held && !e.retiring }

type device struct {
	id       int
	name     Device
	boot     time.Duration // global time at its local 0
	rate     float64       // local seconds a second
	brain    *Brain
	life     int  // of its process: what belongs to an older one is void
	down     bool // it was killed, and is not back
	booting  bool
	saving   bool // State is written soon
	saved    State
	savedAt  time.Duration // global
	cut      bool          // it does not reach the services
	side     bool          // of a split
	deaf     bool
	expected Expected
	match    content.Match
	mode     Mode
	store    []*entry
	job      Job
	done     bool
	why      Outcome // of the pause, while it lasts
	round    int     // of Begin: what belongs to an older one is late
	left     map[Device]bool
	banned   map[Banned]bool
	seen     uint64 // highest generation that the catalog told it, as far as it was saved
	kept     uint64 // seen, as it was saved last
	highest  uint64 // generation of its brain, likewise
	checks   map[recentKey]time.Duration
	timer    int // of the last wake; older ones are void
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

type world struct {
	rng     *rand.Rand
	q       queue
	seq     int
	now     time.Duration
	issues  []manifest
	catalog int // issue that it names
	dps     []dp
	devs    []*device
	hostile []Device
	loss    float64
	up      bool // the services answer
	split   bool // devices of one side hear nothing of the other
	cached  int  // issue that the cache host has
	events  int
	err     error
	trace   func(format string, args ...any)
}

func (w *world) fail(d *device, format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v, device %d: %s", w.now, d.id, fmt.Sprintf(format, args...))
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.q, event{w.now + d, w.seq, do})
}

// lag is the way of a message.
func (w *world) lag() time.Duration {
	return time.Millisecond + time.Duration(w.rng.Int64N(int64(50*time.Millisecond)))
}

func (w *world) run(until time.Duration) {
	for len(w.q) > 0 && w.err == nil {
		e := heap.Pop(&w.q).(event)
		if e.at > until {
			break
		}
		w.now = e.at
		if w.events++; w.events > 500_000 {
			w.err = fmt.Errorf("at %v: the fleet never rests", w.now)
		}
		e.do()
	}
}

func (w *world) issueOf(d content.Digest) int {
	for i := range w.issues {
		if w.issues[i].digest == d {
			return i
		}
	}
	return -1
}

// local is a device's own time.
func (w *world) local(d *device) time.Duration {
	return time.Duration(float64(w.now-d.boot) * d.rate)
}

// reaches reports whether d is answered by the services.
func (w *world) reaches(d *device) bool { return w.up && !d.cut }

// hears reports whether a message between two devices arrives.
func (w *world) hears(d, from *device) bool {
	return !d.down && (!w.split || d.side == from.side) && w.rng.Float64() >= w.loss
}

func (w *world) start(d *device) {
	if d.down {
		return // it does when it is back
	}
	w.do(d, d.brain.OnStart(w.local(d), Start{Job: d.job, Ref: theRef, Match: d.match, Expected: d.expected}, nil))
}

// do carries out actions and sets the next wake.
func (w *world) do(d *device, acts []Action) {
	for _, a := range acts {
		if w.trace != nil {
			w.trace("%v device %d: %+v", w.now, d.id, a)
		}
		w.act(d, a)
	}
	if g := d.generation(); g < d.highest {
		w.fail(d, "its generation fell from %d to %d", d.highest, g)
	} else {
		d.highest = g
	}
	at, ok := d.brain.Next()
	if !ok {
		return
	}
	d.timer++
	timer := d.timer
	wake := d.boot + time.Duration(float64(at)/d.rate) + time.Microsecond
	w.lives(d, max(wake-w.now, time.Microsecond), func() {
		if timer == d.timer {
			w.do(d, d.brain.OnTick(w.local(d), nil))
		}
	})
}

func (w *world) act(d *device, a Action) {
	switch a.Kind {
	case Begin, Use, Deliver, Drop, Fetch, Force, Pause, Wait:
		w.download(d, a)
	case Broadcast:
		for _, to := range w.devs {
			if to != d && w.hears(to, d) {
				w.after(w.lag(), func() { w.hint(to, d.name, a.Hint, nil) })
			}
		}
	case Tell:
		if to := w.named(a.Device); to != nil && !to.deaf && w.hears(to, d) {
			w.after(w.lag(), func() {
				w.hint(to, d.name, a.Hint, func(ack Ack) {
					if w.hears(d, to) {
						w.lives(d, w.lag(), func() { w.do(d, d.brain.OnAck(w.local(d), a.Job, to.name, ack, nil)) })
					}
				})
			})
		}
	case LeaveOut:
		d.left[a.Device] = true
	case Readmit:
		clear(d.left)
	case Ban:
		d.banned[Banned{a.Device, a.Digest}] = true
	case Unban:
		delete(d.banned, Banned{a.Device, a.Digest})
	case Save:
		w.save(d)
	default:
		w.hold(d, a)
	}
}

// hold does what concerns a device's store.
func (w *world) hold(d *device, a Action) {
	e := d.entry(w.issueOf(a.Digest))
	switch a.Kind {
	case AskPolicy:
		w.askPolicy(d, nil)
	case AskOwn:
		w.lives(d, w.lag()/10, func() {
			w.do(d, d.brain.OnOwn(w.local(d), Own{theRef, a.Digest, d.expected, w.fit(d, w.issueOf(a.Digest))}, nil))
		})
	case ReadBytes:
		if e == nil {
			return
		}
		w.lives(d, time.Second, func() {
			e.unhashed = false
			w.do(d, d.brain.OnSums(w.local(d), theRef, w.held(e), nil))
		})
	case Quarantine:
		if a.For > CheckTime {
			w.fail(d, "quarantine of %v", a.For)
		}
		if e == nil {
			return
		}
		e.held = true
		w.watch(d, e)
	case Release:
		if e != nil {
			e.held, e.retiring, e.since = false, false, never
		}
	case Retire:
		w.retire(d, a, e)
	}
}

// watch sees that a quarantine ends in time, restarts included.
func (w *world) watch(d *device, e *entry) {
	if e.since != never {
		return
	}
	began := w.now
	e.since = began
	w.after(time.Duration(float64(CheckTime)/d.rate)+time.Second, func() {
		if e.since == began && e.held && !e.retiring && !d.down && d.entry(e.issue) == e {
			w.fail(d, "issue %d is in quarantine for more than ten minutes", e.issue)
		}
	})
}

// retire drops an entry; nothing current may be. What was retired before a kill is without
// another question.
func (w *world) retire(d *device, a Action, e *entry) {
	gone := w.issueOf(a.Digest)
	if gone == w.catalog && !d.booting {
		w.fail(d, "issue %d is retired, and the catalog names it", gone)
	}
	if w.wants(d, gone) && !d.booting {
		w.fail(d, "issue %d is retired, and its own metadata names it", gone)
	}
	if e != nil {
		e.retiring, e.since = true, never
	}
	reading := time.Duration(w.rng.Float64() * w.rng.Float64() * float64(20*time.Minute)) // by somebody
	w.lives(d, reading, func() {
		if e != nil && !e.retiring { // it was released
			return
		}
		d.store = slices.DeleteFunc(d.store, func(x *entry) bool { return x == e })
		w.do(d, d.brain.OnGone(w.local(d), theRef, a.Digest, nil))
	})
}

func (d *device) entry(issue int) *entry {
	for _, e := range d.store {
		if e.issue == issue {
			return e
		}
	}
	return nil
}

func (w *world) named(name Device) *device {
	for _, d := range w.devs {
		if d.name == name {
			return d
		}
	}
	return nil
}

// offered compares an issue's manifest with a device's metadata.
func (w *world) offered(d *device, n int) content.Fit {
	if fit := w.fit(d, n); fit == content.FitUnknown || n < 0 || !w.issues[n].unhashed {
		return fit
	}
	return content.NeedsBytes
}

// fit compares an issue's bytes with a device's metadata.
func (w *world) fit(d *device, n int) content.Fit {
	switch {
	case d.expected.State != IsExpected || d.mode == Off:
		return content.FitUnknown
	case w.has(d, n):
		return content.Fits
	}
	return content.Differs
}

// wants reports whether a device's metadata names an issue, and counts.
func (w *world) wants(d *device, n int) bool { return d.mode == Enforce && w.fit(d, n) == content.Fits }

// has reports whether an issue has the files that a device expects, and under exact no others.
func (w *world) has(d *device, n int) bool {
	for ; n >= 0; n-- {
		if w.issues[n].digest == d.expected.Hash {
			return true
		}
		if d.match == content.Exact || !w.issues[n].extends {
			return false
		}
	}
	return false
}

func (w *world) held(e *entry) Held {
	h := Held{Digest: w.issues[e.issue].digest, Generation: e.generation, SHA1Sum: w.issues[e.issue].digest}
	if e.unhashed {
		h.SHA1Sum = content.Digest{}
	}
	return h
}

func (w *world) holds(d *device) []Held {
	var all []Held
	for _, e := range d.store {
		all = append(all, w.held(e))
	}
	return all
}

// hint delivers Validate Metadata and watches that the same is not checked twice.
func (w *world) hint(d *device, from Device, h Hint, answer func(Ack)) {
	if d.down {
		return
	}
	before := len(d.brain.checks) + len(d.brain.reading)
	acts := d.brain.OnHint(w.local(d), Received{h, from, answer != nil, w.holds(d)}, nil)
	if len(d.brain.checks)+len(d.brain.reading) > before {
		key := recentKey{theRef, h.key()}
		if at, ok := d.checks[key]; ok && float64(w.now-at)*d.rate < float64(CheckTime) {
			w.fail(d, "the same hint is checked again after %v", w.now-at)
		}
		d.checks[key] = w.now
	}
	for _, a := range acts {
		if a.Kind == Answer && answer != nil {
			answer(a.Ack)
		}
	}
	w.do(d, acts)
}

// askPolicy answers unless the services are out of reach; then tells of the generation, as a
// join's reply does.
func (w *world) askPolicy(d *device, then func(n int)) {
	w.lives(d, w.lag(), func() {
		if !w.reaches(d) {
			return
		}
		n, g := w.catalog, w.issues[w.catalog].generation
		w.lives(d, w.lag(), func() {
			d.seen = max(d.seen, g)
			w.do(d, d.brain.OnPolicy(w.local(d), theRef, Policy{true, w.issues[n].digest, g}, nil))
			w.do(d, d.brain.OnGeneration(w.local(d), News{theRef, g, w.holds(d)}, nil))
			if then != nil {
				then(n)
			}
		})
	})
}
