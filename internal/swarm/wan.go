package swarm

import "time"

// Lease says what the array told of the right to fetch from outside the site.
type Lease uint8

const (
	Unknown Lease = iota // no array answered
	Mine                 // this device fetches
	Other                // another device does
)

// FetchResult says how a fetch ended.
type FetchResult uint8

const (
	FetchDone    FetchResult = iota // every run of it was delivered
	FetchFailed                     // the rest did not come; try again later or elsewhere
	FetchChanged                    // the origin says that it holds other bytes
	FetchStopped                    // ended by a Stop action
)

// fetch is one open range request.
type fetch struct {
	id        int32
	source    int32
	next, end int32 // runs not yet delivered
	at        time.Duration
	heard     time.Duration // last byte
}

// origin is what the brain knows of one origin.
type origin struct {
	failures int
	retryAt  time.Duration
	wrong    int
	changed  bool
}

// wan is the part of the brain that fetches from origins.
//
// Invariant: every run of an open fetch counts once in the picker's asked.
type wan struct {
	lease    Lease
	since    time.Duration // of lease
	alone    bool          // the device gave up on its leader: it goes out itself
	origins  []origin
	open     []fetch
	lastID   int32
	rate     float64       // bytes a second that origins deliver; 0: not known
	rtt      time.Duration // from a fetch to its first byte, smoothed; 0: not known
	patience time.Duration // without a byte for this long a fetch is asked again
}

const (
	maxFetch    = 64 // runs of one range request: 64 MiB where pieces are full
	minPatience = 250 * time.Millisecond
	maxPatience = 30 * time.Second
	maxBackOff  = 30 * time.Second
	endOfRange  = 1 << 20 // bytes before a range's end at which the next is asked for, at least
)

func (w *wan) init(origins int) {
	w.origins = make([]origin, origins)
	w.patience = 4 * minPatience
}

// OnLease notes what the array said of this site's lease.
func (s *Swarm) OnLease(now time.Duration, l Lease, acts []Action) []Action {
	w := &s.wan
	if w.lease != l {
		w.lease, w.since = l, now
	}
	switch {
	case l == Mine:
		w.alone = false
	case l == Other && !w.alone:
		acts = s.stopFetches(acts)
	}
	return s.fillWAN(now, acts)
}

// GoingOut reports whether the device fetches from outside now.
func (s *Swarm) GoingOut() bool { return s.wan.lease == Mine || s.wan.alone }

// tickWAN decides to go out alone, hedges a silent fetch and starts what is due.
func (s *Swarm) tickWAN(now time.Duration, acts []Action) []Action {
	w := &s.wan
	if s.pick.Left() == 0 {
		return acts
	}
	if !s.GoingOut() {
		quiet := now - max(s.progress, w.since)
		w.alone = w.lease == Unknown && quiet >= s.cfg.OutAfter || w.lease == Other && quiet >= s.cfg.StallAfter
	}
	for i := len(w.open) - 1; i >= 0; i-- {
		f := &w.open[i]
		if now-f.heard < w.patience {
			continue
		}
		w.patience = min(2*w.patience, maxPatience)
		acts = append(acts, Action{Kind: Stop, ID: f.id})
		s.failed(now, f.source, 0)
		s.closeFetch(i)
	}
	return s.fillWAN(now, acts)
}

// fillWAN asks an origin for the next gap when no fetch is open, or the open one is near
// its end.
func (s *Swarm) fillWAN(now time.Duration, acts []Action) []Action {
	if !s.GoingOut() || s.pick.Left() == 0 {
		return acts
	}
	w := &s.wan
	switch len(w.open) {
	case 0:
	case 1:
		ahead := max(int64(2*w.rtt.Seconds()*w.rate), endOfRange)
		if s.fetchLeft(&w.open[0]) > ahead {
			return acts
		}
	default:
		return acts
	}
	source, ok := s.source(now)
	if !ok {
		return acts
	}
	gap := s.pick.Gap
	if w.alone {
		gap = s.pick.GapAny
	}
	first, end, ok := gap(maxFetch)
	if !ok {
		return acts
	}
	for r := first; r < end; r++ {
		s.pick.Ask(r)
	}
	w.lastID++
	w.open = append(w.open, fetch{id: w.lastID, source: source, next: int32(first), end: int32(end), at: now, heard: now})
	return append(acts, Action{Kind: Fetch, Source: source, ID: w.lastID, Run: int32(first), End: int32(end)})
}

// source returns the nearest origin that may be asked now.
func (s *Swarm) source(now time.Duration) (int32, bool) {
	for i := range s.wan.origins {
		o := &s.wan.origins[i]
		if !o.changed && now >= o.retryAt {
			return int32(i), true
		}
	}
	return 0, false
}

func (s *Swarm) fetchLeft(f *fetch) int64 {
	var n int64
	for r := f.next; r < f.end; r++ {
		n += s.runLen(r)
	}
	return n
}

func (s *Swarm) findFetch(id int32) int {
	for i := range s.wan.open {
		if s.wan.open[i].id == id {
			return i
		}
	}
	return -1
}

// closeFetch takes fetch i out of the books.
func (s *Swarm) closeFetch(i int) {
	w := &s.wan
	f := w.open[i]
	for r := f.next; r < f.end; r++ {
		s.pick.Unask(int(r))
	}
	w.open = append(w.open[:i], w.open[i+1:]...)
}

// OnFetchBytes notes that a fetch is alive: bytes of it came.
func (s *Swarm) OnFetchBytes(now time.Duration, id int32) {
	i := s.findFetch(id)
	if i < 0 {
		return
	}
	f := &s.wan.open[i]
	if f.heard == f.at {
		s.wan.rtt = time.Duration(smooth(float64(s.wan.rtt), float64(now-f.at), 0.25))
	}
	f.heard = now
	s.wan.patience = max(minPatience, 4*s.wan.rtt, s.wan.patience/2)
}

// OnFetched notes that a fetch delivered its next run. ok says that it verified and is
// written. A wrong run from an origin is read once more; wrong again means that the source
// has changed (design section 3, step 5).
func (s *Swarm) OnFetched(now time.Duration, id int32, run int32, ok bool, acts []Action) []Action {
	i := s.findFetch(id)
	if i >= 0 {
		f := &s.wan.open[i]
		took := max(now-f.heard, time.Microsecond)
		s.wan.rate = smooth(s.wan.rate, float64(s.runLen(run))/took.Seconds(), 0.25)
		s.OnFetchBytes(now, id)
		for f.next <= run && f.next < f.end {
			s.pick.Unask(int(f.next))
			f.next++
		}
	}
	if !ok {
		return s.wrongFetch(now, i, run, acts)
	}
	acts, fresh := s.accept(now, run, &s.stats.FromOrigin, acts)
	if fresh {
		acts = s.reveal(now, run, acts)
	}
	if s.pick.Left() == 0 {
		acts = s.stopFetches(acts)
	}
	return s.fillWAN(now, acts)
}

func (s *Swarm) wrongFetch(now time.Duration, i int, run int32, acts []Action) []Action {
	s.stats.Wrong += s.runLen(run)
	if i < 0 {
		return acts
	}
	f := s.wan.open[i]
	o := &s.wan.origins[f.source]
	o.wrong++
	acts = append(acts, Action{Kind: Stop, ID: f.id})
	s.closeFetch(i)
	if o.wrong >= 2 {
		return s.changed(now, f.source, acts)
	}
	return s.fillWAN(now, acts)
}

func (s *Swarm) changed(now time.Duration, source int32, acts []Action) []Action {
	o := &s.wan.origins[source]
	if !o.changed {
		o.changed = true
		acts = append(acts, Action{Kind: Changed, Source: source})
	}
	return s.fillWAN(now, acts)
}

// OnFetchEnd notes the end of a fetch. retryAfter is what the origin asked for; 0: nothing.
func (s *Swarm) OnFetchEnd(now time.Duration, id int32, res FetchResult, retryAfter time.Duration, acts []Action) []Action {
	i := s.findFetch(id)
	if i < 0 {
		return s.fillWAN(now, acts)
	}
	source := s.wan.open[i].source
	s.closeFetch(i)
	switch res {
	case FetchDone:
		s.wan.origins[source].failures = 0
	case FetchFailed:
		s.failed(now, source, retryAfter)
	case FetchChanged:
		return s.changed(now, source, acts)
	case FetchStopped:
	}
	return s.fillWAN(now, acts)
}

// failed makes an origin wait, twice as long each time.
func (s *Swarm) failed(now time.Duration, source int32, retryAfter time.Duration) {
	o := &s.wan.origins[source]
	wait := min(maxBackOff, 100*time.Millisecond<<min(o.failures, 10))
	o.failures++
	o.retryAt = now + max(retryAfter, wait/2+time.Duration(s.rng.Int64N(int64(wait))))
}

// stopFetches ends all open fetches.
func (s *Swarm) stopFetches(acts []Action) []Action {
	for i := len(s.wan.open) - 1; i >= 0; i-- {
		if f := &s.wan.open[i]; f.next < f.end {
			acts = append(acts, Action{Kind: Stop, ID: f.id})
		}
		s.closeFetch(i)
	}
	return acts
}

// Stranded reports whether runs are missing that nobody can give now: no peer holds them,
// and the device may go out but every origin has changed.
func (s *Swarm) Stranded() bool {
	if s.pick.Left() == 0 || !s.GoingOut() {
		return false
	}
	for i := range s.wan.origins {
		if !s.wan.origins[i].changed {
			return false
		}
	}
	_, _, ok := s.pick.Gap(1)
	return ok
}
