// Package election is the brain that decides which device of a subnet leads: fetches given
// bytes from outside, for all others. One brain serves a device on one subnet, for all its
// contents. It has no I/O, no clock and no goroutine: the shell calls one method per kind of
// event with the time since the brain began, does the actions that come back in their order,
// and calls OnTick when Next says so.
//
// # Rules (design section 6)
//
// Election, per HashOfHashes. A seeker waits up to 50 ms and asks the subnet. Who hears the
// question of a better candidate before keeps silent. Holders that are better than the
// asker answer after 0 to 150 ms, unless they hear a better one. 250 ms after a question the
// best candidate claims: it beats with the epoch after the highest that it accepted. A
// candidate that does not claim in its turn is passed over for ten seconds.
//
// Order: able to go out now; complete; weight; share held in tenths; the smaller SHA-256 of
// device id and HashOfHashes. Weight 0 neither answers nor leads, and goes out alone where
// nobody leads. A device that misses pieces stands only where it wants them and may go out.
//
// Leader. It beats each 250 ms while anyone misses pieces, else each 2 s, and at once when
// asked. It takes the highest priority asked of it in the last 15 s and resigns when it may
// not or cannot go out. It also resigns when nothing came for its patience and another could
// lead. 60 s after the last one wanted something of it, it leads no more. Others tell each
// 5 s what they want and hold; so leaders find deputies.
//
// Followers keep a leader that is heard and makes progress, whoever else claims. They leave it
// when its connection closes and nothing is heard after it, when three beats are missing
// and no piece of it comes, when it resigns, or when no piece came for max(2 s, 4 piece times) and half a second: then
// it is shunned for these bytes for ten minutes. Patience doubles with each leader in a row
// that resigns since nothing came, as an origin may be slow to begin; it is longer where the
// leader does not go out because the site's lease is elsewhere or unknown. The second one
// shunned in a download sends the device out alone: at once in the foreground, in the
// background after 5 to 20 s and not while pieces come.
//
// Failover. The deputy claims at once, or 40 ms after a closed connection, time enough for a
// living leader to beat. Others give it 300 ms and seek then.
//
// Two leaders that hear each other: who holds clearly more pieces wins, then the order. The
// loser yields only to one that has proven itself with a verified piece, as anyone can claim
// to hold more; without that only when both have just been elected, when it has stalled, or
// when it took over from the other, which was not gone, and has brought nothing yet. The
// winner takes an epoch above the loser's, and so the site's lease back.
//
// Names. A question by MetadataHash or (ContentID, Version) asks what there is: the asker gets
// each distinct HashOfHashes, manifest and generation, and whoever decides which is right then
// wants a HashOfHashes. Where nobody knows, the best of those who ask goes to the services,
// and the others wait for up to 10 s.
//
// Site. The epoch of a Lead is what the array is told: the subnet's next leader takes the lease
// over with a higher one. Without an array's word a leader goes out after 45 to 67 s.
//
// # Invariants
//
//   - A device goes out for bytes (GoOut) only while it leads or is alone with them, may go out
//     and misses pieces; as a leader, only where the site's lease allows it.
//   - Lead and StopLeading alternate for a content. Epochs of a device's Leads for a content grow.
//   - An entry on hold answers no question and is no reason to lead. Who puts it on hold has given
//     a leader in mid-download 2 s for its check (package freshness).
//   - An epoch more than 1,000 above the highest accepted one is dropped. Refused claims move
//     nothing; a leader that is followed moves the highest accepted one by 100 at most. Epochs
//     of a content begin anew when a device forgets it.
//   - What others send fills only what has a bound: 64 candidates and 16 shunned devices a
//     content, 1,024 idle contents, 1,024 senders, 64 open questions, one answer of each of 64
//     devices to a question of this device.
package election

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Kind says what an Action asks the shell to do.
type Kind uint8

const (
	Broadcast   Kind = 1 + iota // send Message to all on the subnet
	Send                        // send Message to Device alone
	Find                        // somebody asks for Subject: if the store holds it, call OnEntry within a second
	Lead                        // lead Content with Priority; the array is told Epoch, which takes over the subnet's lease
	Raise                       // Content is led with Epoch from now on. The array is told, which gives the lease back that a rival took
	StopLeading                 // lead Content no more, for Reason; Device leads now, if set. The array is told
	Follow                      // take Content from Device, which leads with Epoch, and from others of the subnet
	StandBy                     // this device may have to go out for Content at any moment: Device, which leads, has named it its deputy, or it is about to lead itself
	GoAlone                     // nobody is followed in Content any more
	GoOut                       // Content may be fetched from outside the subnet from now on
	StayIn                      // not any more
	Hurry                       // Content is led with Priority from now on
	Prove                       // take a piece of Content from Device, held already or not, verify it and call OnPiece
	Shun                        // Device led Content and nothing came
	Found                       // what the subnet holds of Subject is Holdings
	AskOutside                  // nobody on the subnet holds Subject, and it falls to this device to ask the services
)

// Action is one duty of the shell.
type Action struct {
	Kind     Kind
	Priority wire.Priority
	Reason   wire.ResignReason
	Content  content.Digest // HashOfHashes
	Device   wire.DeviceID
	Epoch    uint64
	Message  wire.LANMessage
	Subject  wire.Subject
	Holdings []Holding
}

// Weights of devices by class; any from 0 to wire.MaxWeight may be set.
const (
	WeightServer   = 61
	WeightDesktop  = 50
	WeightLaptop   = 40
	WeightWireless = 30
)

// Conditions are what a device's weight and right to go out depend on.
type Conditions struct {
	MayGoOut bool // policy
	Battery  bool // on battery
	Metered  bool
	Busy     bool
}

// Config is what New needs.
type Config struct {
	Self       wire.DeviceID
	Seed       uint64
	Weight     uint8 // of the device's class or as set; 0: never answers, never leads
	Conditions Conditions

	LeaseWait   time.Duration // without an array's word, a leader goes out after this, up to half as long again; 0: 45 s
	MaxContents int           // contents kept that are neither wanted nor led; 0: 1,024
}

// Times and bounds of the protocol.
const (
	window       = 250 * time.Millisecond // from a question to the choice
	readyTime    = 100 * time.Millisecond // before the choice; answers have come by then
	maxGather    = time.Second            // for devices that are being connected with
	maxAskWait   = 50 * time.Millisecond  // before a question
	maxAnswer    = 150 * time.Millisecond // before an answer
	claimWait    = 350 * time.Millisecond // for the claim of the best candidate
	deputyWait   = 300 * time.Millisecond // for the claim of the deputy
	closedWait   = 40 * time.Millisecond  // for a sign of life of a leader whose connection closed
	fresh        = 600 * time.Millisecond // how long a candidate counts in an election
	known        = 15 * time.Second       // how long it counts as deputy, and its priority
	fastBeat     = 250 * time.Millisecond
	slowBeat     = 2 * time.Second
	reportTime   = 5 * time.Second // between the beats of those who do not lead
	answerBeat   = 50 * time.Millisecond
	missedBeats  = 3
	beatSlack    = 25 * time.Millisecond
	passTime     = 10 * time.Second // for a candidate that did not claim
	shunTime     = 10 * time.Minute
	unprovenTime = time.Minute // for a rival that proved nothing
	proofTime    = 10 * time.Second
	proofEvery   = 2 * time.Second
	freshLeader  = 500 * time.Millisecond // how long a leader without a new piece is just elected
	linger       = time.Minute
	demandTime   = 8 * time.Second  // after a sign of somebody who wants the bytes
	unableTime   = 30 * time.Second // after the device itself could not fetch
	minPatience  = 2 * time.Second
	pieceTimes   = 4
	maxClaimed   = 10 * time.Second       // of the piece time that a leader's rate claims
	otherLease   = 15 * time.Second       // patience while another subnet holds the lease
	maxTurns     = 3                      // doublings of the patience
	leaderFirst  = 500 * time.Millisecond // a stalled leader resigns before others shun it, and pieces take their time
	aloneMin     = 5 * time.Second
	aloneSpread  = 15 * time.Second
	aloneQuiet   = 2 * time.Second // no piece for this long before a background download goes out alone
	minRetry     = time.Second     // between elections that nobody won
	maxRetry     = 30 * time.Second
	fewPieces    = 8
	maxShuns     = 2    // shunned leaders until a device goes out alone
	maxJump      = 1000 // of an epoch over the highest accepted one
	maxStep      = 100  // that one leader raises it by; so those who accepted a jump are still heard by those who did not

	maxCandidates = 64
	maxShunned    = 16
	maxNames      = 8
	maxRivals     = 4
	maxReplies    = 4
	maxIdleLed    = 256 // contents that a device leads for others' sake alone
	maxSenders    = 1024
	maxPending    = 64
	maxHoldings   = 8     // different ones that are found
	questionRate  = 50.0  // questions a second that are heard of one sender
	questionBurst = 256.0 // at once
)

const never = time.Duration(math.MaxInt64)

// Election is the state of one device on one subnet. It is owned by one goroutine.
type Election struct {
	cfg      Config
	cond     Conditions
	rng      *rand.Rand
	contests map[content.Digest]*contest
	list     []*contest // the same, in the order of their beginning, so that one seed gives one run
	lookups  []*lookup
	pending  []pending // questions for what was not known, oldest first
	senders  map[wire.DeviceID]*sender
	due      time.Duration // no timer is due before
}

// New returns the brain of a device that holds and wants nothing yet.
func New(cfg Config) *Election {
	if cfg.LeaseWait == 0 {
		cfg.LeaseWait = 45 * time.Second
	}
	if cfg.MaxContents == 0 {
		cfg.MaxContents = 1024
	}
	cfg.Weight = min(cfg.Weight, wire.MaxWeight)
	return &Election{
		cfg:      cfg,
		cond:     cfg.Conditions,
		rng:      rand.New(rand.NewPCG(cfg.Seed, 0x656c656374)),
		contests: map[content.Digest]*contest{},
		senders:  map[wire.DeviceID]*sender{},
		due:      never,
	}
}

// Next returns when OnTick is due, or the longest duration when nothing is.
func (e *Election) Next() time.Duration { return e.due }

// OnTick does what falls due by now.
func (e *Election) OnTick(now time.Duration, acts []Action) []Action {
	if now < e.due {
		return acts
	}
	e.due = never
	for _, c := range e.list {
		acts = e.fireDue(now, c, acts)
		e.due = min(e.due, slices.Min(c.at[:]))
	}
	for i := len(e.lookups) - 1; i >= 0; i-- {
		l := e.lookups[i]
		acts = e.tickLookup(now, l, acts)
		e.due = min(e.due, l.at)
	}
	return acts
}

// OnConditions notes what has changed about the device.
func (e *Election) OnConditions(now time.Duration, cond Conditions, acts []Action) []Action {
	e.cond = cond
	for _, c := range e.list {
		if c.role == leading && !c.complete() && !cond.MayGoOut {
			acts = e.resign(now, c, wire.Unable, acts)
		}
		if c.role == waiting && c.at[seekTimer] != never && cond.MayGoOut {
			e.set(c, seekTimer, now) // there may be a leader now
		}
		acts = e.settle(now, c, acts)
	}
	return acts
}

// OnLeave tells that the device is about to leave the subnet: to stop, sleep or change its
// address. It resigns what it leads. The brain is not used after it.
func (e *Election) OnLeave(now time.Duration, acts []Action) []Action {
	for _, c := range e.list {
		if c.role == leading {
			acts = e.resign(now, c, wire.Unable, acts)
		}
		acts = e.settle(now, c, acts)
	}
	return acts
}

// upTo returns a random duration below d.
func (e *Election) upTo(d time.Duration) time.Duration {
	return time.Duration(e.rng.Int64N(int64(d)))
}

// set arms a timer of c, or moves it.
func (e *Election) set(c *contest, t timer, at time.Duration) {
	c.at[t] = at
	e.due = min(e.due, at)
}

// sender is how much one device may ask yet.
type sender struct {
	heard  time.Duration
	tokens float64
}

// admits reports whether one more question of a device is heard.
func (e *Election) admits(now time.Duration, from wire.DeviceID) bool {
	s := e.senders[from]
	if s == nil {
		if len(e.senders) >= maxSenders {
			e.forgetSender()
		}
		s = &sender{heard: now, tokens: questionBurst}
		e.senders[from] = s
	}
	s.tokens = min(questionBurst, s.tokens+questionRate*(now-s.heard).Seconds())
	s.heard = now
	if s.tokens < 1 {
		return false
	}
	s.tokens--
	return true
}

// forgetSender drops the sender that was silent for longest.
func (e *Election) forgetSender() {
	var oldest wire.DeviceID
	at := never
	for id, s := range e.senders {
		if s.heard < at || s.heard == at && slices.Compare(id[:], oldest[:]) < 0 {
			oldest, at = id, s.heard
		}
	}
	delete(e.senders, oldest)
}
