package freshness

import "time"

// lives is after for the process that runs on d now: when it was killed, nothing happens.
func (w *world) lives(d *device, after time.Duration, do func()) {
	life := d.life
	w.after(after, func() {
		if d.life == life {
			do()
		}
	})
}

// kill ends a device's process without a word, for a while.
func (w *world) kill(d *device, off time.Duration) {
	if d.down {
		return
	}
	d.life++
	d.down, d.saving = true, false
	w.after(off, func() { w.boot(d) })
}

// boot starts a device's brain from what it saved.
func (w *world) boot(d *device) {
	away := time.Duration(float64(w.now-d.savedAt) * d.rate)
	d.brain = New(Config{Seed: w.rng.Uint64(), Mode: d.mode, Match: d.match, State: d.saved, Away: away})
	d.boot, d.down = w.now, false
	d.seen, d.highest = d.kept, d.generation()
	clear(d.left)
	for key := range d.checks {
		if _, known := d.brain.recent[key]; !known {
			delete(d.checks, key) // that it was checked was not saved
		}
	}
	for _, e := range d.store {
		e.held, e.retiring = false, false // the brain says it again
	}
	d.booting = true
	w.do(d, d.brain.OnBoot(0, nil))
	d.booting = false
	for _, e := range d.store {
		if e.served() {
			e.since = never
		}
		if e.doomed && !e.retiring {
			w.fail(d, "issue %d was retired, and is back after a restart", e.issue)
		}
	}
	if !d.done && d.job != 0 {
		w.start(d)
	}
}

// generation is the highest that d's brain knows.
func (d *device) generation() uint64 {
	if k := d.brain.contents[theRef]; k != nil {
		return k.generation
	}
	return 0
}

// save writes the state within a second, as the shell does. What comes before is in it.
func (w *world) save(d *device) {
	if d.saving {
		return
	}
	d.saving = true
	w.lives(d, time.Duration(w.rng.Int64N(int64(time.Second))), func() {
		d.saving = false
		d.saved, d.savedAt, d.kept = d.brain.State(w.local(d)), w.now, d.seen
		for _, e := range d.store {
			e.doomed = e.retiring
		}
	})
}
