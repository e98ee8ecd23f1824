// Package share is one content's swarm on this device: the shell around the brains of packages
// metadata, which brings manifest and hash file, and swarm, which brings the pieces. It joins the
// content's array, talks to peers and origins, writes the store, and serves what is held.
//
//	Share      one goroutine, Run, owns its state; all others post events to its mailbox
//	role       how far the device goes for bytes: as its subnets elect (package subnet), else by the lease
//	link       one peer in a share; its methods run on the connection's reader
//	draft      what comes in simple mode (package simple)
//	Verifiers  of all shares: they hash and write what peers sent
//
// Bytes travel connection reader → verifier → store; a share sees only (peer, run, ok). Which
// shares there are, and who wants them, is the [Daemon]'s affair.
package share

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/buffers"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/fetch"
	"freshet/internal/identity"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/swarm"
	"freshet/internal/wire"
)

// smallContent waits for no lease: after earlyOut the origin is asked (design section 3, 4).
const (
	smallContent = 64 << 10
	earlyOut     = 10 * time.Millisecond
)

// RestEvery is how often a share looks whether it may rest.
const RestEvery = time.Minute

// Device is what all shares of a device have in common. The daemon makes it once and changes
// nothing of it after the first share began.
type Device struct {
	Settings    policy.Settings
	Facts       policy.DeviceFacts
	Credentials *identity.Credentials
	Client      *client.Client // of the services
	HTTP        *http.Client   // of origins; made by [fetch.Client]
	Endpoint    *peer.Endpoint
	Local       netip.Addr // where the device is reached; zero: where its calls come from
	Port        int        // of the swarm listener
	Store       *store.Store
	Records     *records.Book
	Receive     *buffers.Pool // of pieces that arrive
	Parked      *deliver.Lot  // of Receive
	Verifiers   *Verifiers
	Subnet      *subnet.Subnet // nil: no elections
	Log         *slog.Logger
	Guard       Guard // nil: nobody asks

	Resting  time.Duration     // RestEvery
	Patience metadata.Patience // ForegroundPatience, BackgroundPatience
}

// Daemon is what a share asks of the process that runs it. Only Run and what it spawned ask, and
// none of them holds a lock meanwhile: a daemon may call a share's methods while it holds its own.
type Daemon interface {
	// Spawn runs f on a goroutine that is waited for before what Device names is closed. It
	// reports false, and does nothing, when the process is ending.
	Spawn(f func()) bool
	// Callers returns how many downloads wait for a share.
	Callers(*Share) int
	// Retire stops a share unless a download waits for it.
	Retire(*Share)
	// Forget is told of a share that has ended.
	Forget(*Share)
}

// Share is one content's swarm on this device. Fields below "owned by Run" are touched by
// events of its mailbox alone. Its exported methods may be called from any goroutine.
type Share struct {
	dev   *Device
	owner Daemon
	hoh   content.Digest
	self  wire.DeviceID
	log   *slog.Logger
	start time.Time
	box   *mailbox

	layout  atomic.Pointer[content.Layout]  // nil until manifest and hash file are held
	held    atomic.Pointer[store.Entry]     // likewise
	sums    atomic.Pointer[deliver.Sums]    // of held, once a caller wants them
	sought  atomic.Pointer[Sought]          // the manifest, used or not; nil until it is there
	present atomic.Pointer[[]wire.DeviceID] // who is connected
	facts   atomic.Pointer[Facts]
	news    *news
	rejoin  chan struct{} // capacity 1: join the array soon
	claim   chan struct{} // capacity 1: join it now, for its lease
	traffic traffic

	ctx         context.Context // ends the share
	stop        context.CancelFunc
	unwanted    atomic.Bool   // the last download gave up
	alone       atomic.Bool   // neither peers nor arrays are dealt with
	quarantined atomic.Bool   // guard.onHold, as others see it
	used        atomic.Bool   // guard.allowed, likewise
	heard       atomic.Bool   // an array has answered
	ended       chan struct{} // closed when Run has returned

	mu  sync.Mutex // guards rec, and held while it is given back
	rec records.Record

	// owned by Run
	brain   *swarm.Swarm // nil until manifest and hash file are held, and what others have is taken
	acts    []swarm.Action
	links   []*link // by peer number; nil where free
	dialing map[wire.DeviceID]bool
	sources []*fetch.Source
	stops   map[int32]context.CancelFunc // of open fetches
	meta    *metadata.Getter             // nil once manifest and hash file are held
	draft   *draft                       // nil but while one is filled, or becomes an entry
	taking  *store.Entry                 // nil but while it takes pieces from others, before the swarm begins
	always  bool                         // simple mode is the policy
	reason  string                       // why the content came, or comes, in simple mode; empty: it does not
	brought int64                        // bytes of drafts that ended
	refused int64                        // bytes of wrong files in them
	hurry   bool                         // somebody waits for it
	reach   swarm.Reach
	role    role
	peering policy.Decision
	delay   time.Duration // since start, before the device asks an origin for pieces; 0: over
	early   time.Duration // when the device goes out without a lease
	charges map[wire.DeviceID]*charge
	offered int           // peers that the array named last
	metFar  bool          // it named one of another site
	toPeers int64         // bytes to all peers
	moved   time.Duration // when bytes were last gained
	quiet   time.Time     // since when the share has neither links nor callers
	dormant bool          // complete and quiet: the entry may be evicted
	voucher identity.Voucher
	guard   guarded

	bans int // of devices, by this run of the share

	rechecking []*link   // that wait for the cache to be hashed again
	rechecked  time.Time // when that was done last
}

// New returns the share of rec's bytes, which ends with ctx or by Stop. foreground says that
// somebody waits for it. The caller sees to it that Run runs.
func New(ctx context.Context, dev *Device, owner Daemon, rec records.Record, foreground bool) *Share {
	s := &Share{
		dev: dev, owner: owner, hoh: rec.HashOfHashes, self: dev.Credentials.Name().Device, rec: rec, start: time.Now(), box: newMailbox(),
		log:     dev.Log.With("content", rec.Ref.String(), "manifest", rec.Manifest.Short()),
		news:    newNews(),
		rejoin:  make(chan struct{}, 1),
		claim:   make(chan struct{}, 1),
		dialing: map[wire.DeviceID]bool{},
		charges: map[wire.DeviceID]*charge{},
		ended:   make(chan struct{}),
		stops:   map[int32]context.CancelFunc{},
		early:   5 * time.Second,
	}
	s.ctx, s.stop = context.WithCancel(ctx)
	if rec.Size <= smallContent {
		s.early = earlyOut
	}
	s.peering = policy.MayPeer(dev.Settings, dev.Facts, rec.Size)
	if !rec.Peerable {
		s.peering = policy.Decision{Reason: "the content's policy forbids peers"}
	}
	if rec.Size == 0 {
		s.peering = policy.Decision{Reason: "a content without bytes joins no swarm"}
	}
	if s.peering.OK {
		s.delay = policy.HTTPDelay(dev.Settings, foreground, true)
	}
	s.hurry, s.reason = foreground, dev.alwaysSimple(rec.Size)
	s.always = s.reason != ""
	s.alone.Store(!s.peering.OK)
	s.facts.Store(&Facts{Left: rec.Size})
	return s
}

func (s *Share) now() time.Duration { return time.Since(s.start) }

// Record returns what Content Policy said last.
func (s *Share) Record() records.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// Update takes a newer reply of Content Policy: a fresh grant, more origins.
func (s *Share) Update(rec records.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Manifest == s.rec.Manifest {
		before := s.rec.Generation
		if s.rec = s.rec.Renewed(rec); s.rec.Generation != before {
			s.box.post(s.know)
		}
		s.box.post(s.moreSources)
	}
	s.rec.Wanted = s.rec.Wanted || rec.Wanted // also for the same bytes under other names
}

// HashOfHashes returns which bytes the share is of.
func (s *Share) HashOfHashes() content.Digest { return s.hoh }

// Facts returns how things stand. They are not to be changed.
func (s *Share) Facts() *Facts { return s.facts.Load() }

// News returns a channel that is closed when Facts say something else.
func (s *Share) News() <-chan struct{} { return s.news.wait() }

// Far returns the bytes from and to devices of other sites, as far as the array said who is.
func (s *Share) Far() (from, to int64) { return s.traffic.far() }

// AppendTraffic appends with whom this device exchanged bytes of the share.
func (s *Share) AppendTraffic(out []Traffic) []Traffic { return s.traffic.appendTo(out, s.hoh) }

// Alone reports whether neither peers nor arrays are dealt with.
func (s *Share) Alone() bool { return s.alone.Load() }

// Hurry tells the share whether somebody waits for it.
func (s *Share) Hurry(on bool) {
	s.box.post(func() {
		s.hurry = on
		if on {
			s.hasten()
		}
	})
}

// Wake has a share that rests take up its content, and fetch it anew when it was evicted.
func (s *Share) Wake() { s.box.post(func() { s.wake(true) }) }

// Damaged tells the share that the store found a run wrong and dropped it.
func (s *Share) Damaged(run int) { s.box.post(func() { s.damaged(int32(run)) }) }

// Answer runs a connection that a peer opened until it ends.
func (s *Share) Answer(c *peer.Conn) {
	s.link(s.ctx, c, s.guess(addressOf(c)), false)
}

// Stop ends the share.
func (s *Share) Stop() { s.stop() }

// Abandon ends the share, whose content nobody wants any more.
func (s *Share) Abandon() {
	s.unwanted.Store(true)
	s.stop()
}

// Stopped reports whether the share is ending or has ended.
func (s *Share) Stopped() bool { return s.ctx.Err() != nil }

// Ended returns a channel that is closed when Run has returned.
func (s *Share) Ended() <-chan struct{} { return s.ended }

// Hello is what this end shows to peers.
func (s *Share) Hello() peer.Hello {
	return peer.Hello{HashOfHashes: s.hoh, Device: s.self, Grant: s.Record().Grant}
}

// Want saves whether a download of the content has begun and not ended.
func (s *Share) Want(ctx context.Context, wanted bool) error {
	s.mu.Lock()
	s.rec.Wanted = wanted
	manifest := s.rec.Manifest
	s.mu.Unlock()
	return s.dev.Records.Change(ctx, manifest, s.kept)
}

// kept changes what is kept to the record as it is by now.
func (s *Share) kept(old *records.Record) bool {
	rec := s.Record()
	*old = old.Renewed(rec)
	old.Wanted = rec.Wanted
	return true
}

// Use returns the entry, which the caller releases; nil until manifest and hash file are held.
func (s *Share) Use() *store.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.held.Load()
	if e != nil {
		e.Use()
	}
	return e
}

// letGo gives the entry back.
func (s *Share) letGo() {
	s.mu.Lock()
	e, sums := s.held.Swap(nil), s.sums.Swap(nil)
	s.mu.Unlock()
	if s.taking != nil {
		s.taking.Release()
		s.taking = nil
	}
	if sums != nil {
		sums.Close()
	}
	if e != nil {
		e.Release()
	}
}

// Sums returns the sums of e, with SHA-1s where sha1 says so, which are taken from now on if e is
// what the share fetches. Sums without SHA-1s give way to such with: what they hashed is read back.
func (s *Share) Sums(e *store.Entry, sha1 bool) *deliver.Sums {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e != s.held.Load() {
		return deliver.NewSums(e, s.dev.Parked, sha1)
	}
	sums := s.sums.Load()
	if sums != nil && (sums.SHA1() || !sha1) {
		return sums
	}
	if sums != nil {
		sums.Close()
	}
	sums = deliver.NewSums(e, s.dev.Parked, sha1)
	s.sums.Store(sums)
	return sums
}
