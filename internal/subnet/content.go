package subnet

import (
	"slices"
	"sync/atomic"
	"time"

	"freshet/internal/content"
	"freshet/internal/election"
	"freshet/internal/wire"
)

// mib is the unit in which elections count what is held: the manifest need not be there for it.
const mib = 1 << 20

// Role is what a device is in the elections of a content.
type Role uint8

const (
	NoElection Role = iota // no link is open
	Idle                   // it holds the content, or wants it of nobody
	Seeking                // it wants the content, and nobody leads yet
	Following
	Leading
	Alone // it wants the content, and has given up on leaders
)

var roleNames = [...]string{"", "idle", "seeking", "following", "leading", "alone"}

func (r Role) String() string { return roleNames[r] }

// Stand is what this device is in the elections of a content, over all its subnets.
type Stand struct {
	Role     Role
	Out      bool          // it is to fetch from outside the subnet, by all means
	Leader   wire.DeviceID // when it follows
	Epoch    uint64        // of the leader's leadership, or its own
	Priority wire.Priority // asked of it when it leads
	Ready    bool          // it may have to go out at any moment: as the leader's deputy, or since it will probably lead itself
	OutAt    time.Time     // when it goes out since no array answers, as a leader; zero: that is not the reason
}

// Neighbour is a device of the subnet that spoke of a content.
type Neighbour struct {
	Device wire.DeviceID
	At     string // host:port of its swarm
	Wants  bool   // it misses pieces, and does not lead
	Leads  bool   // it is the leader to follow, or to be compared with
}

// Member is a content's swarm on this device. The loop calls it; it posts, and waits for nothing.
type Member interface {
	Stands(Stand)         // what this device is has changed
	Meets(Neighbour)      // somebody was heard who wants or holds the content
	Proves(wire.DeviceID) // take a piece of that device, held already or not, and call Proved
}

// Lease is what the array said last of the site's right to fetch a content.
type Lease struct {
	Known  bool // an array answered
	Mine   bool
	Holder wire.DeviceID // zero: nobody
}

// Content is one content of this device in the elections of its subnets. Its methods may be
// called from any goroutine; a nil Content takes part in none.
type Content struct {
	net    *Subnet
	hoh    content.Digest
	size   int64
	total  uint32 // MiB, at least 1
	member Member
	last   atomic.Uint32 // MiB held, as posted last

	// owned by the loop
	entries    []election.Entry // one for each manifest
	held       uint32           // MiB; total exactly when the content is complete
	wants      bool
	priority   wire.Priority
	gathers    bool
	lease      Lease
	views      map[*brain]*view
	neighbours map[wire.DeviceID]*neighbour
	told       Stand
}

// view is what a brain said last of a content.
type view struct {
	Stand
	since time.Duration // of the role
	last  wire.DeviceID // followed now or before
}

// neighbour is a device of the address book.
type neighbour struct {
	Neighbour
	heard, told time.Duration
}

// Enter begins to take part for a content of size bytes, more than none.
func (s *Subnet) Enter(hoh content.Digest, size int64, m Member) *Content {
	c := &Content{
		net: s, hoh: hoh, size: size, total: uint32((size + mib - 1) / mib), member: m,
		views: map[*brain]*view{}, neighbours: map[wire.DeviceID]*neighbour{},
	}
	s.post(func() {
		s.contents[hoh] = c
		s.touched[c] = struct{}{}
	})
	return c
}

// post adds an event that is about c.
func (c *Content) post(event func(s *Subnet)) {
	if c == nil {
		return
	}
	c.net.post(func() {
		if c.net.contents[c.hoh] == c {
			event(c.net)
			c.net.touched[c] = struct{}{}
		}
	})
}

// each asks every brain.
func (c *Content) each(event func(b *brain, acts []election.Action) []election.Action) {
	for _, b := range c.net.brains {
		c.net.do(b, event(b, nil))
	}
}

// Leave ends it: the content is not here any more.
func (c *Content) Leave() {
	c.post(func(s *Subnet) {
		for _, e := range c.entries {
			c.each(func(b *brain, acts []election.Action) []election.Action {
				return b.OnForget(s.now(), c.hoh, e.Manifest, acts)
			})
		}
		delete(s.contents, c.hoh)
		delete(s.undecided, c)
		c.views = map[*brain]*view{}
	})
}

// Know tells of a manifest of the content. What is held, and whether it is on hold, is said
// elsewhere.
func (c *Content) Know(e election.Entry) {
	c.post(func(*Subnet) {
		e.HashOfHashes, e.Total = c.hoh, c.total
		if i := c.entry(e.Manifest); i >= 0 {
			e.OnHold = c.entries[i].OnHold
			c.entries[i] = e
		} else {
			c.entries = append(c.entries, e)
		}
		for b := range c.views {
			c.tell(b)
		}
	})
}

func (c *Content) entry(manifest content.Digest) int {
	return slices.IndexFunc(c.entries, func(e election.Entry) bool { return e.Manifest == manifest })
}

func (c *Content) hold(manifest content.Digest, on bool) {
	if i := c.entry(manifest); i >= 0 {
		c.entries[i].OnHold = on
	}
	c.each(func(b *brain, acts []election.Action) []election.Action {
		return b.OnHold(c.net.now(), c.hoh, manifest, on, acts)
	})
}

// tell lets a brain know what it is to know: entries, lease, and that the content is wanted.
func (c *Content) tell(b *brain) {
	now := c.net.now()
	c.net.do(b, c.append(b, nil))
	c.net.do(b, b.OnLease(now, c.hoh, c.leaseOf(b), nil))
	if c.wants {
		c.want(b)
	}
}

// append tells a brain the entries.
func (c *Content) append(b *brain, acts []election.Action) []election.Action {
	c.view(b) // it is to know of changes
	for _, e := range c.entries {
		e.Held = c.held
		acts = b.OnEntry(c.net.now(), e, acts)
	}
	return acts
}

// want tells a brain that the content is wanted.
func (c *Content) want(b *brain) {
	v := c.view(b)
	if v.Role == Idle {
		v.become(c.net.now(), Seeking)
	}
	c.net.do(b, b.OnWant(c.net.now(), c.hoh, c.priority, nil))
	c.net.do(b, b.OnGather(c.net.now(), c.hoh, c.gathers, nil))
}

// view returns what a brain said last.
func (c *Content) view(b *brain) *view {
	v := c.views[b]
	if v == nil {
		v = &view{Stand: Stand{Role: Idle}}
		c.views[b] = v
	}
	return v
}

// become enters a role.
func (v *view) become(now time.Duration, r Role) {
	v.Stand, v.since = Stand{Role: r, Out: v.Out}, now
}

// Want tells that the device wants the content's bytes, or how urgently it wants them now.
func (c *Content) Want(p wire.Priority) {
	c.post(func(s *Subnet) {
		first := !c.wants
		c.wants, c.priority = true, p
		for _, b := range s.brains {
			if first {
				c.tell(b)
			} else {
				c.want(b)
			}
		}
	})
}

// Gather tells whether devices of the subnet that the array named, or will name, are being connected
// with: an election in which nobody is heard waits for them.
func (c *Content) Gather(on bool) {
	c.post(func(s *Subnet) {
		c.gathers = on
		c.each(func(b *brain, acts []election.Action) []election.Action {
			return b.OnGather(s.now(), c.hoh, on, acts)
		})
	})
}

// Unwant tells that it does not any more.
func (c *Content) Unwant() {
	c.post(func(s *Subnet) {
		c.wants = false
		c.each(func(b *brain, acts []election.Action) []election.Action {
			return b.OnUnwant(s.now(), c.hoh, acts)
		})
		c.rest()
	})
}

// rest ends the search of a device that wants nothing more.
func (c *Content) rest() {
	for _, v := range c.views {
		if v.Role != Leading {
			v.become(c.net.now(), Idle)
		}
	}
}

// Held tells how many bytes are held.
func (c *Content) Held(bytes int64) {
	if c == nil {
		return
	}
	held := uint32(bytes / mib)
	if bytes >= c.size {
		held = c.total
	}
	if c.last.Swap(held) == held {
		return
	}
	c.post(func(*Subnet) { c.piece(held, wire.DeviceID{}) })
}

// Proved tells that a device gave a verified run.
func (c *Content) Proved(by wire.DeviceID) {
	c.post(func(*Subnet) { c.piece(c.held, by) })
}

func (c *Content) piece(held uint32, from wire.DeviceID) {
	c.held = held
	c.each(func(b *brain, acts []election.Action) []election.Action {
		return b.OnPiece(c.net.now(), c.hoh, from, held, acts)
	})
	if held == c.total {
		c.wants = false
		c.rest()
	}
}

// Alive tells that a device gave a verified run: it is there, though its datagrams may be late.
func (c *Content) Alive(device wire.DeviceID) {
	c.post(func(s *Subnet) {
		for _, b := range s.brains {
			b.OnAlive(s.now(), c.hoh, device)
		}
	})
}

// Progress tells that something came that is no whole MiB yet.
func (c *Content) Progress() {
	c.post(func(s *Subnet) {
		for _, b := range s.brains {
			b.OnProgress(s.now(), c.hoh)
		}
	})
}

// Rate tells how fast the content comes from outside the subnet, in bytes a second.
func (c *Content) Rate(rate float64) {
	c.post(func(s *Subnet) {
		for _, b := range s.brains {
			b.OnRate(c.hoh, rate)
		}
	})
}

// Unable tells that the device tried and cannot fetch the content from outside.
func (c *Content) Unable() {
	c.post(func(s *Subnet) {
		c.each(func(b *brain, acts []election.Action) []election.Action {
			return b.OnUnable(s.now(), c.hoh, acts)
		})
	})
}

// Lease tells what the array said.
func (c *Content) Lease(l Lease) {
	c.post(func(*Subnet) {
		c.lease = l
		for _, b := range c.net.brains {
			c.net.do(b, b.OnLease(c.net.now(), c.hoh, c.leaseOf(b), nil))
		}
	})
}

// leaseOf returns whether a brain's subnet holds the lease: by this device, or by the leader
// that it follows, or followed before it took over. Of two leaders of one subnet who do not
// hear each other yet, only the holder may go out.
func (c *Content) leaseOf(b *brain) election.Lease {
	v := c.views[b]
	switch l := &c.lease; {
	case !l.Known:
		return election.LeaseUnknown
	case l.Mine, v != nil && !l.Holder.IsZero() && l.Holder == v.last:
		return election.LeaseOurs
	}
	return election.LeaseOther
}

// settle tells the member what this device is, if that has changed.
func (c *Content) settle() {
	st, open := c.stand()
	if open {
		c.net.undecided[c] = struct{}{}
	} else {
		delete(c.net.undecided, c)
	}
	if st != c.told {
		c.told = st
		c.member.Stands(st)
	}
}

// stand puts together what the brains said. undecided says that time alone will change it.
func (c *Content) stand() (st Stand, undecided bool) {
	out, decided, home := false, true, c.net.Prefix()
	for _, b := range c.net.brains {
		v := c.views[b]
		if v == nil {
			v = &view{Stand: Stand{Role: Idle}}
		}
		switch {
		case v.Role == Following:
			return v.Stand, false
		case v.Role == Seeking && c.net.now() < v.since+decideTime:
			decided = false
		}
		if rank[v.Role] > rank[st.Role] || rank[v.Role] == rank[st.Role] && b.net == home {
			st = v.Stand
		}
		out = out || v.Out
	}
	if !decided && rank[st.Role] > rank[Seeking] {
		return Stand{Role: Seeking}, true
	}
	st.Out = out
	if !out && st.Role == Leading {
		st.OutAt = c.outAt()
	}
	return st, false
}

// outAt returns when the first brain lets the device go out without an array's word.
func (c *Content) outAt() time.Time {
	var first time.Time
	for _, b := range c.net.brains {
		if d, ok := b.GoesOut(c.hoh); ok {
			if at := c.net.start.Add(d); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	return first
}

// rank says how much a role says of the device, where none of its brains follows. Of two that
// say the same, the one of the device's own subnet counts ([Subnet.Prefix]): the array is told
// that subnet and the epoch of its leader.
var rank = [...]int{NoElection: 0, Idle: 1, Seeking: 2, Alone: 3, Leading: 4, Following: 5}

// decides returns when the last brain that seeks has had its time.
func (c *Content) decides() time.Duration {
	var at time.Duration
	for _, v := range c.views {
		if v.Role == Seeking {
			at = max(at, v.since+decideTime)
		}
	}
	return at
}
