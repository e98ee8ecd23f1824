package freshness

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Device names a device of the fleet.
type Device = wire.DeviceID

// Job names a download; the shell gives it, and the same after a restart.
type Job int64

// Kind says what an Action asks the shell to do.
type Kind uint8

// Of downloads: all bear Job and Ref.
const (
	Begin       Kind = 1 + iota // look for the manifest: ask Content Policy, then devices, DP, cache host; each finding is an OnOffer
	Use                         // go on with the manifest Digest; Alone: from DP and cache host only, announced nowhere
	Refuse                      // the manifest Digest offered by Device, where one did, is not taken, for Outcome: ask another giver
	Drop                        // forget the manifest Digest for this download; what was asked under it ends
	Force                       // ask the DP to make sure, with the expected entries; then call OnForced
	Fetch                       // get the manifest Digest from the DP, which just made it
	Broadcast                   // send Hint on the subnet, once
	Tell                        // send Hint to Device alone, and call OnAck with its answer
	LeaveOut                    // take nothing from Device in this download
	Ban                         // ban Device for the manifest Digest
	Readmit                     // who was left out of this download is not any more
	Unban                       // the ban of Device for Digest was not deserved: lift it
	TellCatalog                 // tell the services that the expected metadata differs from their manifest Digest
	Wait                        // the download waits for For, because of Outcome
	Pause                       // the same, when it has waited often: transient, shown to the user
	Deliver                     // every check has passed: the files get their names
)

// Of what the device holds: all bear Ref.
const (
	AskPolicy  Kind = iota + 0x40 // ask Content Policy anew for Ref; then call OnPolicy
	ReadBytes                     // take the SHA-1s of all files of Digest, of their bytes; then call OnSums, or OnUnread
	AskOwn                        // look up this device's own expected metadata and compare Digest with it; then call OnOwn
	Quarantine                    // neither serve nor announce the manifest Digest, nor stand for election with it, for at most For
	Release                       // serve it again, also when Retire did not come that far
	Retire                        // serve Digest to nobody from now on; its names, announcements and pin go, its pieces stay for For as stock of the content id; then call OnGone
	Answer                        // acknowledge Device's hint with Ack
)

// Of the brain.
const (
	Tally Kind = iota + 0x80 // log and count Outcome, with Job, Ref, Digest and Device where they are set
	Save                     // store what State returns before it is needed; the last of an event
)

// Action is one duty of the shell. Duties are done in the order given.
type Action struct {
	Kind    Kind
	Job     Job // 0: of no download
	Ref     content.Ref
	Digest  content.Digest // of a manifest
	Device  Device
	Hint    Hint
	Ack     Ack
	Outcome Outcome
	For     time.Duration
	Alone   bool
}

// Times of the rules.
const (
	MaxRounds     = 5                // failed rounds of a download before it is paused
	MaxBackOff    = 10 * time.Minute // between rounds
	PauseTime     = time.Hour        // between tries of a paused download
	maxRetryAfter = time.Hour        // that a DP may ask for

	startPatience = 10 * time.Minute       // for a manifest, when one was turned down
	forcePatience = 10 * time.Minute       // for a DP, which may read terabytes
	tellPatience  = 2 * time.Second        // for an acknowledgement
	settle        = 250 * time.Millisecond // from a broadcast to the next start: an election's window
	grace         = 5 * time.Second        // in which an answer may have crossed the hint
	namedPause    = time.Minute            // between questions because a device names a higher generation

	CheckTime   = 10 * time.Minute       // that a quarantine lasts at most, and in which a hint is not checked again
	leaderTime  = 2 * time.Second        // that a leader keeps its place
	policyRetry = 5 * time.Second        // first, then doubled
	ownPatience = 5 * time.Second        // for the device's own metadata
	jitterTime  = 500 * time.Millisecond // over which receivers of a broadcast spread their questions
	StockTime   = 24 * time.Hour         // that pieces of a stale content are kept
	MuteTime    = time.Hour
	wrongForAll = 6 // wrong hints that mute a sender for everything
)

// Bounds of memory.
const (
	maxContents   = 16_384 // generations remembered; the least recently used are forgotten
	maxSuperseded = 4      // manifests of lower generations, a content
	maxChecks     = 256
	maxHints      = 16 // senders remembered, a check
	maxSenders    = 4096
	maxMutes      = 16 // contents, a sender; the oldest is forgotten
	maxRecent     = 4096
	maxReading    = 64
	maxRejected   = 64  // a download; one forgotten would be compared and rejected again
	maxPeers      = 256 // told singly, a download
	maxBanned     = 256 // a download
	maxSent       = 8   // hints, a download
)

// Config is what New needs.
type Config struct {
	Seed  uint64
	Mode  Mode
	Match content.Match // of the device's own metadata
	State State         // as it was saved, for a restart
	Away  time.Duration // since it was saved
}

// Brain is the state of one device. It is owned by one goroutine.
type Brain struct {
	cfg      Config
	rng      *rand.Rand
	jobs     []*job // in order of their ids
	contents map[content.Ref]*known
	checks   []*check
	reading  []reading
	recent   map[recentKey]asked
	senders  map[Device]*sender
	saved    map[Job]JobState // of downloads that did not start again yet
	dirty    bool             // State is another than when Save was last given
}

// known is what the device knows of one content's generations.
//
// Invariant: generation never falls; digest is not in superseded.
type known struct {
	generation uint64
	digest     content.Digest   // that bears it
	superseded []content.Digest // of lower generations, oldest first
	used       time.Duration
	askAt      time.Duration // not before this is the catalog asked because a device names a higher generation
}

// New returns the brain of a device. OnBoot must be the first event.
func New(cfg Config) *Brain {
	b := &Brain{
		cfg:      cfg,
		rng:      rand.New(rand.NewPCG(cfg.Seed, 0x6672657368)),
		contents: make(map[content.Ref]*known),
		recent:   make(map[recentKey]asked),
		senders:  make(map[Device]*sender),
		saved:    make(map[Job]JobState),
	}
	b.restore(&cfg.State, max(cfg.Away, 0))
	b.cfg.State = State{}
	return b
}

// OnBoot takes up what was under way before the restart.
func (b *Brain) OnBoot(now time.Duration, acts []Action) []Action {
	for _, k := range b.checks {
		if k.retiring {
			acts = retire(k, acts)
			continue
		}
		acts = b.quarantine(now, k, acts)
		acts = b.askPolicy(now, k, acts)
	}
	return b.done(acts)
}

// OnTick does what falls due by now; see Next.
func (b *Brain) OnTick(now time.Duration, acts []Action) []Action {
	for _, j := range slices.Clone(b.jobs) {
		acts = b.tickPeers(now, j, acts)
		acts = b.tickJob(now, j, acts)
	}
	for _, k := range slices.Clone(b.checks) {
		acts = b.tickCheck(now, k, acts)
	}
	return b.done(acts)
}

// Next returns when OnTick has something to do, and whether it ever has without another event.
func (b *Brain) Next() (at time.Duration, ok bool) {
	earliest := func(t time.Duration) {
		if t != never && (!ok || t < at) {
			at, ok = t, true
		}
	}
	for _, j := range b.jobs {
		earliest(j.due)
		for i := range j.peers {
			if j.peers[i].awaited {
				earliest(j.peers[i].due)
			}
		}
	}
	for _, k := range b.checks {
		earliest(k.next())
	}
	return at, ok
}

// never is the due time of what is not due.
const never = time.Duration(1<<63 - 1)

// done ends an event.
func (b *Brain) done(acts []Action) []Action {
	if b.dirty {
		b.dirty = false
		acts = append(acts, Action{Kind: Save})
	}
	return acts
}

// jitter returns d give or take a tenth.
func (b *Brain) jitter(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(b.rng.Int64N(int64(d/5)+1))
}

// knows returns what is known of ref. A content that is new takes the place of the least
// recently used one when there are too many.
func (b *Brain) knows(now time.Duration, ref content.Ref) *known {
	k := b.contents[ref]
	if k == nil {
		if len(b.contents) >= maxContents {
			b.forgetContents()
		}
		k = &known{}
		b.contents[ref] = k
	}
	k.used = now
	return k
}

// forgetContents makes room for a sixteenth, so that it is rare.
func (b *Brain) forgetContents() {
	refs := slices.SortedFunc(maps.Keys(b.contents), func(x, y content.Ref) int {
		return cmp.Or(cmp.Compare(b.contents[x].used, b.contents[y].used), compareRefs(x, y))
	})
	for _, ref := range refs[:len(refs)/16] {
		delete(b.contents, ref)
	}
}

func compareRefs(x, y content.Ref) int {
	return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Version, y.Version))
}

// raise notes a generation that catalog or publisher vouch for.
func (b *Brain) raise(k *known, generation uint64, digest content.Digest) {
	if generation < k.generation || generation == k.generation && digest == k.digest {
		return
	}
	k.superseded = slices.DeleteFunc(k.superseded, func(d content.Digest) bool { return d == digest })
	if generation > k.generation && !k.digest.IsZero() && k.digest != digest {
		k.superseded = append(k.superseded, k.digest)
		if len(k.superseded) > maxSuperseded {
			k.superseded = k.superseded[1:]
		}
	}
	k.generation, k.digest = generation, digest
	b.dirty = true
}
