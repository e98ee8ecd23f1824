// Package registry is the soft state of an array: who holds or downloads which bytes, and
// which device of each site fetches them from outside. All of it may be lost at any time;
// devices tell it again.
//
// # Swarms
//
// A swarm is a group and a HashOfHashes ([Key]). A device is in it from its first join until
// it leaves, or until it has been silent for two of its intervals and a half ([Lifetime]). What is handed out is of
// the same swarm, and of the same site unless both devices asked for the whole group. A device
// in [ModeAcross] is handed out beyond its site only at an address where it is known to be
// reached from outside ([Join].Far).
//
// # Probes
//
// That address comes from a probe: a service dialled the device's port. The registry remembers
// it for [ProbeTime], so that every array knows it ([Probes]).
//
// # Leases
//
// Each site of a swarm has at most one lease: the device that holds it fetches these bytes from
// outside. It lasts [LeaseTime] and is renewed every [LeaseRenew]. It ends when its holder
// leaves, is complete or wants it no more, and when it is not renewed. Its epoch grows with
// each change of holder: it is max(last + 1, Unix milliseconds), so that it also grows over
// a restart.
//
// A running lease belongs to its holder's subnet ([Join].Subnet). Each subnet elects who fetches
// for it; when that is another device now, the lease follows it without a wait: a device of the
// holder's subnet that wants it and leads with a higher [Join].LeaderEpoch, by at most
// [MaxEpochStep], has it at once. The old holder learns it from its next join. See Contests.
//
// While a device of the site is complete, all others can have every piece from it. So no
// lease is granted then, except to a device that says it is stalled: the complete one may
// serve nobody. A lease that is held goes on until it ends as above, and may be taken over.
//
// Nobody is told that a lease has ended; devices learn it when they join. So those that lead
// their subnets and wait for the lease come again after [IntervalWaiting], or more slowly where
// many wait: at most [WaitingJoins] of a site in such a time.
//
// # Contests
//
// Everything in a join but device and site is its sender's word, and any member may lie. Of two
// that want one lease the array therefore believes neither, but the other devices of the site:
// each says whom it follows ([Join].Follows), which the election of its subnet has decided, where
// a leader that is heard and gives pieces is not displaced.
//
//   - Who was displaced by a higher epoch, and wants the lease again while its own would still
//     run, is alive and did not agree. It has the lease back, unless more devices follow the
//     holder; and that one may not take over this lease by epoch for [BarTime]. While two are
//     barred, nobody may. Of several that were displaced, whom most follow comes back.
//   - A device that is stalled takes the lease from a holder that fewer devices follow, [HoldMin]
//     after it was granted or taken in this way last; from one that as many follow, once its Left
//     has not fallen for [HoldStill].
//   - Of two that report a running lease to an array that starts empty, who has less left has it.
//
// So a member displaces no leader that more devices follow: it has the lease until the leader's
// next join, due within [LeaseRenew], and the leader does not notice. Several members that join in
// turns have it twice in each BarTime; and once two are barred, the successor of a leader that dies
// has to wait until the lease has run out.
//
// A member that gets the lease where nobody holds it, takes it over from a leader that died, or
// reports it after a restart, keeps it until the leader is stalled and HoldMin is over, whatever it
// says of its Left, epoch and subnet: for about 11 s nothing comes from outside, which is less than
// followers wait before they give their leader up. It may do so for each content, death and restart.
// No further copy crosses the WAN: the leader goes on with what it lacks.
//
// Not promised: where nobody follows the leader (it is alone on its subnet, or there are no
// elections), a member that holds the lease keeps it while the Left that it tells falls, however
// slowly. Where more devices lie than follow the leader, the lease is theirs. And where a holder
// passes a piece on now and then, nobody is stalled.
//
// What is known of a contest ends with the lease. Words of devices that have run out may count
// until they are swept.
//
// # Starting empty
//
// An array that lost its memory does not know who was fetching; for its first [Quarantine] it
// grants only to a device that reports a running lease, so that the holder keeps it and no
// second one begins. A fleet's first download must not wait for that. So an engine remembers
// one bit outside its memory, written before the first lease is granted and cleared when no
// lease is running any more: whether leases may be running. Only an engine that finds the bit
// set starts with the quarantine. Where nothing was ever granted, or all downloads had ended
// when the array stopped, there is nothing to wait for.
//
// The time is always given; engines have no clock.
package registry

import (
	"context"
	"net/netip"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Times.
const (
	LeaseTime  = 10 * time.Second // a lease that is not renewed ends after it
	LeaseRenew = 3 * time.Second  // the holder joins again after it
	Quarantine = 20 * time.Second // after an empty start with leases outstanding

	IntervalWaiting    = 1 * time.Second  // ± Jitter: leads its subnet, and waits for the lease
	IntervalLeaderless = 3 * time.Second  // ± Jitter: downloading, and nobody of the site holds the lease or is complete
	IntervalPartial    = 10 * time.Second // ± Jitter: downloading
	IntervalComplete   = 60 * time.Second // ± Jitter: holds all

	// LeaseLate is how old a lease is when its holder has missed a renewal and others are told
	// to come again when it ends, at most AfterLease later.
	LeaseLate  = LeaseRenew + 1500*time.Millisecond
	AfterLease = 500 * time.Millisecond

	// HoldMin is how long a holder has to bring something before a stalled device that more
	// follow takes over: less than the 15 s for which followers stay with a leader that has no
	// lease.
	HoldMin   = 10 * time.Second
	HoldStill = 1 * time.Minute // the same where as many follow; a piece takes its time over a thin link
	BarTime   = 1 * time.Minute // who took over from a leader that lives may not again

	ProbeTime = time.Hour // that a probe's result counts

	Jitter = 0.2 // of an interval, to either side
)

// WaitingJoins is how many leaders of a site that wait for one lease join within an
// [IntervalWaiting].
const WaitingJoins = 8

// MaxEpochStep is how much higher a leader's epoch may be than the holder's to take over its
// lease: elections go up step by step, so a jump is none of theirs.
const MaxEpochStep = 1000

// Lifetime returns how long the entry of a device with so many bytes left lives after a
// join: two intervals and a half.
func Lifetime(left int64) time.Duration {
	if left == 0 {
		return IntervalComplete * 5 / 2
	}
	return IntervalPartial * 5 / 2
}

// Numbers of peers in an answer.
const (
	PeersDefault = 30
	PeersMax     = 255
)

// Download modes (DODownloadMode) that peer; all others get no peers and no lease.
const (
	ModeSite   = 1 // same site
	ModeGroup  = 2 // the whole group
	ModeAcross = 3 // the whole group, also across NATs
)

// Key names a swarm.
type Key struct {
	Group        string
	HashOfHashes content.Digest
}

// Join is a device's word on one swarm.
type Join struct {
	Key         Key
	Device      wire.DeviceID
	Site        string
	Address     netip.AddrPort // of its swarm port; checked by the caller
	Far         netip.AddrPort // in ModeAcross, the same for other sites; zero: it is not handed out to them
	Mode        int            // download mode
	Left        int64          // bytes not held yet; 0: complete
	PeersWanted int            // 0: PeersDefault; at most PeersMax
	WantLease   bool
	Stalled     bool          // no new piece for 5 s, though others may hold them
	LeaseEpoch  int64         // of the lease that it believes to hold; 0: none
	LeaderEpoch int64         // of its leadership in Subnet; 0: it leads none, or nobody was elected
	Follows     wire.DeviceID // leader that it takes the bytes from; zero: none
	// Subnet is the prefix of its link, masked; it holds Address. The zero prefix: not known.
	Subnet netip.Prefix
}

// Peer is a device of the swarm.
type Peer struct {
	Device     wire.DeviceID
	Address    netip.AddrPort
	SameSite   bool
	SameSubnet bool  // of the same site and of the asker's subnet
	Left       int64 // bytes
}

// Lease says who of the asker's site fetches from outside.
type Lease struct {
	Held    bool
	Mine    bool
	Holder  wire.DeviceID
	Epoch   int64
	Expires time.Duration // from now
}

// Answer is what a join brings.
type Answer struct {
	Peers []Peer // the lease's holder, then those of the asker's and of the holder's subnet, then others
	Lease Lease
	Next  time.Duration // when to join again
}

// Swarms keeps the swarms. Implementations are safe for concurrent use.
type Swarms interface {
	// Join enters or renews the device and answers it.
	Join(ctx context.Context, now time.Time, j Join) (Answer, error)
	// Leave takes the device out; its lease ends at once.
	Leave(ctx context.Context, now time.Time, key Key, device wire.DeviceID) error
	// Sweep forgets what has run out; call it every few seconds.
	Sweep(ctx context.Context, now time.Time) error
}

// Probes remembers which devices were reached from outside. Implementations are safe for
// concurrent use.
type Probes interface {
	// Probed notes where a device was reached, for [ProbeTime]; the zero address says that it
	// was not, and takes an earlier word back.
	Probed(ctx context.Context, now time.Time, device wire.DeviceID, at netip.AddrPort) error
	// Reached returns where a device was reached last; zero when it was not, or that is too old.
	Reached(ctx context.Context, now time.Time, device wire.DeviceID) (netip.AddrPort, error)
}
