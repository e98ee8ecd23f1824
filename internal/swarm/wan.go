package swarm

import "time"

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
	ending    bool  // it is stopped once they are
	writing   bool  // what came last is being written: nobody listens to its origin meanwhile
	at        time.Duration
	heard     time.Duration // last byte; at: none yet
	quiet     time.Duration // since when its origin is silent, as far as this device listened
	from      time.Duration // first byte, or end of the last run delivered
}

// origin is what the brain knows of one origin.
type origin struct {
	failures int
	retryAt  time.Duration
	wrong    int // wrong runs since the last right one
	changed  bool
	unnamed  bool // Content Policy names it no more
}

// wan is the part of the brain that fetches from origins.
//
// Invariant: every run of an open fetch counts once in the picker's asked.
type wan struct {
	reach    Reach
	since    time.Duration // of reach
	alone    bool          // the device gave up on others: it goes out itself
	stint    int           // runs that a follower fetches when it goes out next
	budget   int           // runs that it may fetch yet, now that it does
	jitter   float64       // 0 to 1: how much later than others the device gives up
	origins  []origin
	open     []fetch
	lastID   int32
	rate     float64       // bytes a second that origins deliver; 0: not known
	rtt      time.Duration // from a fetch to its first byte, smoothed; 0: not known
	patience time.Duration // without a byte for this long a fetch is asked again
	ticked   time.Duration // the last tick
	idle     idle
}

const (
	maxFetch    = 1024 // runs of one range request: each new one has to find the link's rate anew
	paidFetch   = 64   // of these, the next ones come whatever peers claim to hold meanwhile
	firstStint  = 8    // runs that a follower fetches when it goes out for the first time, at most
	stintShare  = 32   // the same as a share of all runs
	minPatience = 250 * time.Millisecond
	maxPatience = 30 * time.Second
	maxBackOff  = 30 * time.Second
	maxQuiet    = 5 * time.Second // with nothing new and nothing to wait for, peers' claims keep nobody from an origin
	endOfRange  = 1 << 20         // bytes before a range's end at which the next is asked for, at least
)

func (w *wan) init(cfg *Config, jitter float64) {
	w.origins = make([]origin, cfg.Origins)
	w.patience = 4 * minPatience
	w.jitter = jitter
	w.stint = min(firstStint, 1+cfg.Runs/stintShare)
}

// OnOrigins notes which origins are named by now: those that are known, in their order, and more
// behind them. One that is named no more is asked when no other is to be had.
func (s *Swarm) OnOrigins(now time.Duration, named []bool, acts []Action) []Action {
	w := &s.wan
	w.origins = append(w.origins, make([]origin, max(0, len(named)-len(w.origins)))...)
	for i, is := range named {
		w.origins[i].unnamed = !is
	}
	return s.fillWAN(now, acts)
}

// tickWAN decides to go out alone, hedges a silent fetch and starts what is due.
func (s *Swarm) tickWAN(now time.Duration, acts []Action) []Action {
	if s.pick.Left() == 0 {
		return acts
	}
	w := &s.wan
	quiet := now - max(s.progress, w.since)
	switch {
	case !s.GoingOut() && !s.cfg.Led && quiet >= s.outAfter():
		w.alone = true
		w.budget = w.stint
		w.stint = min(2*w.stint, s.cfg.Runs)
		s.doubtAll()
		acts = s.reviewBeyond(acts)
	case w.alone && s.inStint() && w.budget <= 0 && len(w.open) == 0:
		w.alone, w.since = false, now
		acts = s.reviewBeyond(acts)
	case s.GoingOut() && quiet >= maxQuiet && s.asking() == 0 && len(w.open) == 0:
		s.doubtAll()
	}
	s.cutFetches()
	return s.fillWAN(now, s.stopSilent(now, acts))
}

// cutFetches leaves to peers what they hold by now, but for the runs that come next.
func (s *Swarm) cutFetches() {
	for i := range s.wan.open {
		f := &s.wan.open[i]
		if at, ok := s.pick.FirstHeld(int(f.next)+paidFetch, int(f.end), s.trusted); ok {
			s.shorten(f, int32(at))
		}
	}
}

// shorten lets a fetch end before run end.
func (s *Swarm) shorten(f *fetch, end int32) {
	for f.end > end {
		f.end--
		f.ending = true
		s.pick.Unask(int(f.end), true)
	}
}

// stopSilent ends the fetches of origins that have been silent for too long.
func (s *Swarm) stopSilent(now time.Duration, acts []Action) []Action {
	w := &s.wan
	for i := len(w.open) - 1; i >= 0; i-- {
		f := &w.open[i]
		if f.writing || now-f.quiet < w.patience {
			continue
		}
		w.patience = min(2*w.patience, maxPatience)
		acts = append(acts, Action{Kind: Stop, ID: f.id})
		s.failed(now, f.source, 0)
		s.closeFetch(i)
	}
	return acts
}

// listen notes a tick. While the device did not get to run, it did not listen: what an origin
// sent meanwhile waits in the kernel, and a tick may come before it is read.
func (s *Swarm) listen(now time.Duration) {
	w := &s.wan
	deaf := now - w.ticked - TickInterval
	w.ticked = now
	if deaf < TickInterval { // no tick was left out
		return
	}
	w.idle.since = min(now, w.idle.since+deaf)
	for i := range w.open {
		w.open[i].quiet = min(now, w.open[i].quiet+deaf)
	}
}

// inStint reports whether the device goes out though another one is known to. It then fetches a
// few runs at a random place, twice as many each time, and follows again: the leader may
// only be slow, and what many fetch at once crosses the link many times.
func (s *Swarm) inStint() bool {
	return s.wan.alone && s.wan.reach != ReachUnknown && len(s.live) > 0
}

// outAfter returns how long the device waits for a new run before it goes out itself: longer
// where all requests take long. Devices that know each other do so at different times, so that the first one's runs keep
// the others.
func (s *Swarm) outAfter() time.Duration {
	d := max(s.cfg.StallAfter, timeoutFold*s.latency)
	if s.wan.reach == ReachUnknown {
		d = s.cfg.OutAfter
	}
	if len(s.live) == 0 {
		return d
	}
	return d + time.Duration(s.wan.jitter*float64(d))
}

// doubtAll lets the device fetch what none of its peers proves to hold: all had their time,
// and gave nothing.
func (s *Swarm) doubtAll() {
	for _, p := range s.live {
		s.doubt(p)
	}
}

// fillWAN asks an origin for the next gap when no fetch is open, or the open one is near
// its end.
func (s *Swarm) fillWAN(now time.Duration, acts []Action) []Action {
	w := &s.wan
	if !s.GoingOut() || s.pick.Left() == 0 || len(w.open) > 1 {
		return acts
	}
	if len(w.open) == 1 {
		ahead := max(int64(2*w.rtt.Seconds()*w.rate), endOfRange)
		if s.fetchLeft(&w.open[0]) > ahead {
			return acts
		}
	}
	source, ok := s.source(now)
	if !ok {
		return acts
	}
	first, end, ok := s.gap()
	if !ok {
		return acts
	}
	for r := first; r < end; r++ {
		s.pick.Ask(r, true)
	}
	w.budget -= end - first
	w.lastID++
	w.open = append(w.open, fetch{id: w.lastID, source: source, next: int32(first), end: int32(end), at: now, heard: now, quiet: now, from: now})
	return append(acts, Action{Kind: Fetch, Source: source, ID: w.lastID, Run: int32(first), End: int32(end)})
}

// gap returns the runs to fetch next. Who goes out beside others begins at a random place.
func (s *Swarm) gap() (first, end int, ok bool) {
	from, most := 0, maxFetch
	if s.wan.alone { // it may turn out at any time that another fetches too
		most = paidFetch
		if len(s.live) > 0 {
			from = s.rng.IntN(s.cfg.Runs)
		}
	}
	if s.inStint() {
		most = min(most, s.wan.budget)
	}
	if most <= 0 {
		return 0, 0, false
	}
	return s.pick.Gap(from, most, s.trusted)
}

// source returns the nearest origin that may be asked now.
func (s *Swarm) source(now time.Duration) (int32, bool) {
	for _, unnamed := range []bool{false, true} {
		for i := range s.wan.origins {
			o := &s.wan.origins[i]
			if o.unnamed == unnamed && !o.changed && now >= o.retryAt {
				return int32(i), true
			}
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
		s.pick.Unask(int(r), true)
	}
	w.open = append(w.open[:i], w.open[i+1:]...)
}

// OnFetchBytes notes that a fetch is alive: bytes of it came.
func (s *Swarm) OnFetchBytes(now time.Duration, id int32) {
	i := s.findFetch(id)
	if i < 0 {
		return
	}
	s.endIdle(now)
	f := &s.wan.open[i]
	if f.heard == f.at {
		s.wan.rtt = time.Duration(smooth(float64(s.wan.rtt), float64(now-f.at), 0.25))
		f.from = now
	}
	f.heard = now
	for i := range s.wan.open { // one connection may take the whole link
		if o := &s.wan.open[i]; o.source == f.source {
			o.quiet = now
		}
	}
	s.wan.patience = max(minPatience, 4*s.wan.rtt, s.wan.patience/2)
}

// OnFetchWriting notes that a fetch has brought its next run, which is being verified and written:
// a slow disk is no silent origin. OnFetched, or the fetch's end, follows.
func (s *Swarm) OnFetchWriting(now time.Duration, id int32) {
	s.OnFetchBytes(now, id)
	if i := s.findFetch(id); i >= 0 {
		s.wan.open[i].writing = true
	}
}

// OnFetched notes that a fetch delivered its next run. ok says that it verified and is
// written. A wrong run from an origin is read once more; wrong again means that the source
// has changed (design section 3, step 5).
func (s *Swarm) OnFetched(now time.Duration, id int32, run int32, ok bool, acts []Action) []Action {
	i := s.findFetch(id)
	if i >= 0 {
		s.advance(now, &s.wan.open[i], run)
	}
	if !ok {
		return s.wrongFetch(now, i, run, acts)
	}
	if i >= 0 {
		o := &s.wan.origins[s.wan.open[i].source]
		o.wrong, o.failures = 0, 0
	}
	acts, fresh := s.accept(now, run, &s.stats.FromOrigin, acts)
	if fresh {
		acts = s.reveal(now, run, Elsewhere, acts)
	}
	switch {
	case s.pick.Left() == 0:
		acts = s.stopFetches(acts)
	case i >= 0 && s.wan.open[i].ending && s.wan.open[i].next == s.wan.open[i].end:
		acts = append(acts, Action{Kind: Stop, ID: id})
		s.closeFetch(i)
	}
	return s.fillWAN(now, acts)
}

// advance books run as delivered by f, and learns the rate.
func (s *Swarm) advance(now time.Duration, f *fetch, run int32) {
	if now > f.from {
		s.wan.rate = smooth(s.wan.rate, float64(s.runLen(run))/(now-f.from).Seconds(), 0.25)
	}
	s.OnFetchBytes(now, f.id)
	f.from, f.writing = now, false
	for f.next <= run && f.next < f.end {
		s.pick.Unask(int(f.next), true)
		f.next++
	}
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

// changed uses an origin no more.
func (s *Swarm) changed(now time.Duration, source int32, acts []Action) []Action {
	w := &s.wan
	if !w.origins[source].changed {
		w.origins[source].changed = true
		acts = append(acts, Action{Kind: Changed, Source: source})
	}
	for i := len(w.open) - 1; i >= 0; i-- {
		if w.open[i].source == source {
			acts = append(acts, Action{Kind: Stop, ID: w.open[i].id})
			s.closeFetch(i)
		}
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
	if f := &s.wan.open[i]; res == FetchDone && f.next < f.end {
		res = FetchFailed
	}
	s.closeFetch(i)
	switch res {
	case FetchFailed:
		s.failed(now, source, retryAfter)
	case FetchChanged:
		return s.changed(now, source, acts)
	case FetchDone, FetchStopped:
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

// endFetches lets each fetch bring the run under way, and leaves the rest of it to others. One
// of which nothing came yet ends at once.
func (s *Swarm) endFetches(acts []Action) []Action {
	for i := len(s.wan.open) - 1; i >= 0; i-- {
		f := &s.wan.open[i]
		if f.heard == f.at {
			acts = append(acts, Action{Kind: Stop, ID: f.id})
			s.closeFetch(i)
			continue
		}
		s.shorten(f, f.next+1)
	}
	return acts
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
// and the device may go out but every origin has changed. Without an origin it waits for peers.
func (s *Swarm) Stranded() bool {
	if s.pick.Left() == 0 || !s.GoingOut() || len(s.wan.origins) == 0 {
		return false
	}
	for i := range s.wan.origins {
		if !s.wan.origins[i].changed {
			return false
		}
	}
	return s.pick.Orphaned()
}
