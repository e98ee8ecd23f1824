// Package metadata decides how a device gets a content's manifest and hash file, which a swarm
// needs before it can begin: what came with Content Policy's reply, else from peers (message
// 20), else from the nearest origin, so that one compressed copy of them crosses the WAN. It
// decides as well when a download goes on without a good hash file. It has no I/O: events come
// in with the time, actions go out to the caller's slice.
//
//	manifest ──► hash file ──► Got
//	                 │  ▲
//	                 ▼  │ origins alone are asked again meanwhile
//	              Without (simple mode)
//
// Both are believed only as far as they fit what Content Policy named.
package metadata

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

const (
	peerPause    = 100 * time.Millisecond // before the next peer is asked, when one has none
	peerTimeout  = 3 * time.Second        // for a part from a peer
	firstPause   = 250 * time.Millisecond // after an origin's failure, doubled with the first one
	maxPause     = 30 * time.Second
	maxHashPause = 5 * time.Minute // between questions for the hash file in simple mode, give or take half
)

// What a device is patient for, give or take half.
const (
	ForegroundPatience = 5 * time.Second // while somebody waits for the download
	BackgroundPatience = 5 * time.Minute
)

// Peer is the caller's number for a peer. A number may be another's after OnGone.
type Peer int32

// None is no peer.
const None Peer = -1

// Patience is how long a good hash file is waited for, give or take half, from the first
// question to an origin on, before the download goes on without.
type Patience struct{ Foreground, Background time.Duration }

// Config says what is wanted. All of it is needed.
type Config struct {
	Manifest     content.Digest // that Content Policy named
	HashOfHashes content.Digest // likewise
	Seed         uint64
	Early        time.Duration // when the device goes out though nobody gave it the lease
	Peers        bool          // peers may be asked
	Simple       string        // why no hash file is wanted from the start; empty: it is
	Patience     Patience
}

// Around is how things stand around the device at an event.
type Around struct {
	Mine    bool   // the device fetches from outside
	Unknown bool   // nobody says who does
	Led     bool   // elections say who does: the device never goes out on its own
	Givers  []Peer // that sent nothing wrong yet
	Hurry   bool   // somebody waits for the download
}

// Kind is what an action asks for.
type Kind uint8

const (
	AskPeer   Kind = iota // Peer for the part of Want at Offset
	AskOrigin             // the origins for Want; OnOrigin takes what comes of it
	Late                  // Peer did not answer in time; nothing is to be done
	Charge                // Peer sent wrong metadata, as Err says
	Failed                // the origins failed, as Err says; they are asked again
	Without               // go on without the hash file, as Reason says; there is a Manifest
	Got                   // Manifest and Hashes are there
)

// Action is one duty. Fields that Kind does not name are zero.
type Action struct {
	Kind   Kind
	Peer   Peer
	Want   wire.Type // GetManifest or GetHashFile
	Offset uint64
	Reason string
	Err    error
}

// Getter gets the metadata of one content. It belongs to one goroutine.
type Getter struct {
	cfg      Config
	rand     *rand.Rand
	since    time.Duration // the beginning, or the last part of a peer
	want     wire.Type     // GetManifest, then GetHashFile
	buf      []byte        // of what is wanted, from one giver
	manifest []byte        // whole and of the right digest
	parsed   *content.Manifest
	hashes   []byte
	got      bool // hashes are good; nothing is done any more
	without  bool // simple mode: origins alone are asked

	from     Peer          // asked now
	next     int           // giver asked next
	deadline time.Duration // for from's answer
	pauseTo  time.Duration // peers are not asked before

	asking   bool // an origin is being asked
	failures int  // of origins, since the last success
	lastErr  error
	hold     time.Duration // origins are not asked before
	asked    time.Duration // when an origin was asked for the hash file for the first time; 0: not yet
	patience time.Duration // from then on
}

// New returns a getter that begins now.
func New(cfg Config, now time.Duration) *Getter {
	return &Getter{cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0)), since: now, want: wire.GetManifest, from: None}
}

// Manifest returns the manifest; nil while there is none.
func (g *Getter) Manifest() []byte { return g.manifest }

// Parsed returns the manifest; nil while there is none.
func (g *Getter) Parsed() *content.Manifest { return g.parsed }

// Hashes returns the raw hash file, once Got was said.
func (g *Getter) Hashes() []byte { return g.hashes }

// Asking reports whether an origin is being asked.
func (g *Getter) Asking() bool { return g.asking }

// OnInline takes what Content Policy sent along: nothing, a manifest, or both. An error says
// what of it is wrong.
func (g *Getter) OnInline(manifest, hashes []byte, acts []Action) ([]Action, error) {
	if manifest == nil {
		return acts, nil
	}
	acts, err := g.gotManifest(manifest, acts)
	if err == nil && !g.got && hashes != nil {
		acts, err = g.gotHashFile(hashes, acts)
	}
	return acts, err
}

// OnTick asks whoever may be asked.
func (g *Getter) OnTick(now time.Duration, a Around, acts []Action) []Action {
	switch {
	case g.got:
		return acts
	case g.without:
		if g.cfg.Simple == "" && !g.asking && now >= g.hold {
			return g.askOrigin(now, a, acts)
		}
		return acts
	}
	if reason, yes := g.withoutHashes(now, a); yes {
		g.without = true
		g.leave()
		return append(acts, Action{Kind: Without, Reason: reason})
	}
	if g.from != None && now >= g.deadline {
		acts = append(acts, Action{Kind: Late, Peer: g.from, Want: g.want})
		g.leave()
	}
	switch {
	case g.asking || g.from != None:
	case g.mayAskOrigin(now, a):
		acts = g.askOrigin(now, a, acts)
	case g.cfg.Peers && now >= g.pauseTo && len(a.Givers) > 0:
		g.from = a.Givers[g.next%len(a.Givers)]
		g.next++
		acts = g.askPart(now, acts)
	}
	return acts
}

// withoutHashes returns why the download goes on without a hash file now, if it does: the
// device may ask the origin, and has had no good one from anybody for too long.
func (g *Getter) withoutHashes(now time.Duration, a Around) (reason string, yes bool) {
	switch {
	case g.parsed == nil:
		return "", false
	case g.cfg.Simple != "":
		return g.cfg.Simple, true
	case g.asked == 0 || now-g.asked < g.patience || !g.mayGoOut(now, a) || len(g.buf) > 0:
		return "", false
	case g.lastErr == nil:
		return "nobody who has the hash file answers", true
	}
	return oneLine(g.lastErr), true
}

// mayAskOrigin reports whether the device may fetch the metadata from outside now.
func (g *Getter) mayAskOrigin(now time.Duration, a Around) bool {
	return now >= g.hold && g.mayGoOut(now, a)
}

// mayGoOut reports whether the device is to go out, or nobody said who is for too long.
func (g *Getter) mayGoOut(now time.Duration, a Around) bool {
	if a.Mine || a.Led {
		return a.Mine
	}
	waited := now - g.since
	return waited >= g.cfg.Early && (a.Unknown || len(a.Givers) == 0) || waited >= 4*g.cfg.Early
}

// leave waits for the giver no more. Parts of two givers are never joined: a wrong one must
// have one author.
func (g *Getter) leave() { g.from, g.buf = None, nil }

func (g *Getter) askPart(now time.Duration, acts []Action) []Action {
	g.deadline = now + peerTimeout
	return append(acts, Action{Kind: AskPeer, Peer: g.from, Want: g.want, Offset: uint64(len(g.buf))})
}

func (g *Getter) askOrigin(now time.Duration, a Around, acts []Action) []Action {
	g.asking = true
	if g.parsed != nil && g.asked == 0 {
		g.asked, g.patience = now, g.jitter(g.cfg.Patience.Background)
		if a.Hurry {
			g.patience = g.jitter(g.cfg.Patience.Foreground)
		}
	}
	return append(acts, Action{Kind: AskOrigin, Want: g.want})
}

// jitter returns d, give or take half of it, so that devices do not act all at once.
func (g *Getter) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(g.rand.Int64N(int64(d)))
}

// OnGone stops waiting for a peer that is gone.
func (g *Getter) OnGone(p Peer) {
	if g.from == p {
		g.leave()
	}
}

// OnPart takes a part from a peer. It keeps none of the part's bytes.
func (g *Getter) OnPart(now time.Duration, from Peer, p wire.Part, acts []Action) []Action {
	if g.got || from == None || g.from != from || p.Of != g.want || p.Offset != uint64(len(g.buf)) {
		return acts
	}
	if p.Total == 0 { // it has none itself yet
		g.leave()
		g.pauseTo = now + peerPause
		return acts
	}
	acts, err := g.join(now, p, acts)
	switch {
	case err != nil: // this device's copy is not asked for again
		g.leave()
		return append(acts, Action{Kind: Charge, Peer: from, Err: err})
	case g.got:
		return acts
	}
	return g.askPart(now, acts)
}

// join adds a part to those before, and takes the whole if it was the last.
func (g *Getter) join(now time.Duration, p wire.Part, acts []Action) ([]Action, error) {
	limit := uint64(content.MaxManifest)
	if g.want == wire.GetHashFile {
		limit = uint64(content.MaxHashFile)
	}
	b, err := Unpack(p)
	if err != nil {
		return acts, err
	}
	if p.Total > limit {
		return acts, fmt.Errorf("%d bytes are too many", p.Total)
	}
	g.buf = append(g.buf, b...)
	g.since = now
	switch {
	case uint64(len(g.buf)) < p.Total:
		return acts, nil
	case g.want == wire.GetManifest:
		return g.gotManifest(g.buf, acts)
	default:
		return g.gotHashFile(g.buf, acts)
	}
}

// gotManifest takes a manifest that must be the one that Content Policy named.
func (g *Getter) gotManifest(b []byte, acts []Action) ([]Action, error) {
	if d := content.DigestOf(b); d != g.cfg.Manifest {
		return acts, fmt.Errorf("manifest is %s, Content Policy says %s", d.Short(), g.cfg.Manifest.Short())
	}
	p, err := content.ParseManifest(b)
	if err != nil {
		return acts, err
	}
	if p.HashOfHashes != g.cfg.HashOfHashes {
		return acts, errors.New("the manifest's HashOfHashes is not what Content Policy says")
	}
	g.manifest, g.parsed, g.buf, g.want = b, p, nil, wire.GetHashFile
	if p.Size == 0 {
		return g.gotHashFile(nil, acts)
	}
	return acts, nil
}

// gotHashFile takes the hash file, which must fit the manifest.
func (g *Getter) gotHashFile(raw []byte, acts []Action) ([]Action, error) {
	if _, err := content.ParseHashFileRaw(raw, g.parsed); err != nil {
		g.buf = nil
		return acts, err
	}
	g.leave()
	g.hashes, g.got = raw, true
	return append(acts, Action{Kind: Got}), nil
}

// OnOrigin takes what the origins said when they were asked for want.
func (g *Getter) OnOrigin(now time.Duration, a Around, r Reply, acts []Action) []Action {
	g.asking = false
	if g.got {
		return acts
	}
	err := r.Err
	switch {
	case err != nil:
	case r.Want == wire.GetHashFile:
		acts, err = g.gotHashFile(r.Bytes, acts)
	case g.parsed == nil:
		acts, err = g.gotManifest(r.Bytes, acts)
	}
	if err != nil {
		g.originFailed(now, err)
		return append(acts, Action{Kind: Failed, Err: err})
	}
	g.failures, g.lastErr = 0, nil
	if !g.got && !g.without && g.parsed != nil && g.cfg.Simple == "" && g.mayAskOrigin(now, a) {
		return g.askOrigin(now, a, acts)
	}
	return acts
}

// Reply is what the origins answered.
type Reply struct {
	Want  wire.Type // as asked
	Bytes []byte
	Err   error
}

// originFailed lets the next question wait, longer each time.
func (g *Getter) originFailed(now time.Duration, err error) {
	g.lastErr = err
	g.failures++
	most := maxPause
	if g.without {
		most = g.jitter(maxHashPause)
	}
	g.hold = now + min(most, firstPause<<min(g.failures, 11))
}

// Hasten ends the patience for a hash file: the download was in simple mode before.
func (g *Getter) Hasten() {
	if g.parsed != nil && !g.without {
		g.patience = 0
	}
}

// Waits says, for people, why nothing arrives yet. arrayUnknown says that no array answers.
func (g *Getter) Waits(arrayUnknown bool) string {
	what := "manifest"
	if g.parsed != nil {
		what = "hash file"
	}
	switch {
	case g.asking:
		return "waiting for the " + what + " from the origin"
	case g.lastErr != nil:
		return "waiting for the " + what + ": " + oneLine(g.lastErr)
	case g.from != None:
		return "waiting for the " + what + " from a peer"
	case arrayUnknown:
		return "waiting for the array"
	default:
		return "waiting for a peer that has the " + what
	}
}

// oneLine writes joined errors beside each other.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
