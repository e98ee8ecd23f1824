package freshness

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"freshet/internal/content"
)

// State is what a brain remembers over a restart, as plain data. Times are what is left of
// them, since a clock may be set while the device is off.
type State struct {
	Contents []ContentState
	Checks   []CheckState
	Recent   []RecentState
	Senders  []SenderState
	Jobs     []JobState
}

// ContentState is the highest generation of one content.
type ContentState struct {
	Ref        content.Ref
	Generation uint64
	Digest     content.Digest
	Superseded []content.Digest
}

// CheckState is a manifest in quarantine.
type CheckState struct {
	Ref   content.Ref
	Held  Held
	Heard []HeardState
	Left  time.Duration

	Retiring bool `json:",omitempty"` // it was found stale
}

// HeardState is a hint with its sender.
type HeardState struct {
	Hint   Hint
	Sender Device
}

// RecentState is a question that is not to be checked again.
type RecentState struct {
	Ref  content.Ref
	Key  content.Digest
	Left time.Duration
}

// SenderState is a device that was wrong.
type SenderState struct {
	Device Device
	Wrong  int
	All    time.Duration
	Left   time.Duration
	Mutes  []MuteState
}

// MuteState is a content that a device is not heard on.
type MuteState struct {
	Ref  content.Ref
	Left time.Duration
}

// JobState is what a download may not forget.
type JobState struct {
	Job      Job
	Expected Expected // that the rest was found against
	Rejected []content.Digest
	Banned   []Banned
	Rounds   int
	Last     Outcome
}

// Banned is a device that is banned for a manifest.
type Banned struct {
	Device Device
	Digest content.Digest
}

// State returns what to save, in an order that does not depend on chance.
func (b *Brain) State(now time.Duration) State {
	var s State
	for _, ref := range slices.SortedFunc(maps.Keys(b.contents), compareRefs) {
		if k := b.contents[ref]; k.generation > 0 {
			s.Contents = append(s.Contents, ContentState{ref, k.generation, k.digest, slices.Clone(k.superseded)})
		}
	}
	for _, k := range b.checks {
		c := CheckState{Ref: k.ref, Held: k.held, Left: max(k.ends-now, 0), Retiring: k.retiring}
		c.Held.Leads = false // what it leads ends with the process
		for _, h := range k.heard {
			c.Heard = append(c.Heard, HeardState{h.hint, h.sender})
		}
		s.Checks = append(s.Checks, c)
	}
	for key, q := range b.recent {
		if left := q.at + CheckTime - now; left > 0 {
			s.Recent = append(s.Recent, RecentState{key.ref, key.key, left})
		}
	}
	slices.SortFunc(s.Recent, func(x, y RecentState) int {
		return cmp.Or(compareRefs(x.Ref, y.Ref), slices.Compare(x.Key[:], y.Key[:]))
	})
	s.Senders = b.senderStates(now)
	for _, j := range b.jobs {
		s.Jobs = append(s.Jobs, JobState{j.id, j.expected, slices.Clone(j.rejected), slices.Clone(j.banned), j.rounds, j.last})
	}
	s.Jobs = slices.AppendSeq(s.Jobs, maps.Values(b.saved))
	slices.SortFunc(s.Jobs, func(x, y JobState) int { return cmp.Compare(x.Job, y.Job) })
	return s
}

func (b *Brain) senderStates(now time.Duration) []SenderState {
	var out []SenderState
	devices := slices.SortedFunc(maps.Keys(b.senders), func(x, y Device) int { return slices.Compare(x[:], y[:]) })
	for _, device := range devices {
		s := b.senders[device]
		if now >= s.ends {
			continue
		}
		state := SenderState{Device: device, Wrong: s.wrong, All: max(s.all-now, 0), Left: s.ends - now}
		for _, m := range s.mutes {
			if m.until > now {
				state.Mutes = append(state.Mutes, MuteState{m.ref, m.until - now})
			}
		}
		out = append(out, state)
	}
	return out
}

// restore takes a saved state at time 0. Its bounds hold whatever it says.
func (b *Brain) restore(s *State, away time.Duration) {
	left := func(d, most time.Duration) time.Duration { return min(d, most) - away }
	for _, c := range s.Contents[:min(len(s.Contents), maxContents)] {
		old := c.Superseded[max(len(c.Superseded)-maxSuperseded, 0):]
		b.contents[c.Ref] = &known{generation: c.Generation, digest: c.Digest, superseded: slices.Clone(old)}
	}
	for _, c := range s.Checks[:min(len(s.Checks), maxChecks)] {
		k := &check{ref: c.Ref, held: c.Held, ends: max(left(c.Left, CheckTime), 0), yield: never, retiring: c.Retiring}
		for _, h := range c.Heard[:min(len(c.Heard), maxHints)] {
			k.heard = append(k.heard, heard{h.Hint, h.Sender})
		}
		b.checks = append(b.checks, k)
	}
	for _, r := range s.Recent[:min(len(s.Recent), maxRecent)] {
		if l := left(r.Left, CheckTime); l > 0 {
			b.recent[recentKey{r.Ref, r.Key}] = asked{at: l - CheckTime}
		}
	}
	for _, x := range s.Senders[:min(len(s.Senders), maxSenders)] {
		n := &sender{wrong: x.Wrong, all: left(x.All, MuteTime), ends: left(x.Left, MuteTime)}
		for _, m := range x.Mutes[:min(len(x.Mutes), maxMutes)] {
			n.mutes = append(n.mutes, mute{m.Ref, left(m.Left, MuteTime)})
		}
		b.senders[x.Device] = n
	}
	for _, j := range s.Jobs {
		b.saved[j.Job] = j
	}
}

// into gives a download back what it knew. It reports whether that was found against other
// metadata than is expected now; then the download knows its bans alone, to take them back.
func (s *JobState) into(j *job) (changed bool) {
	j.banned = slices.Clone(s.Banned[:min(len(s.Banned), maxBanned)])
	if s.Expected != j.expected && j.expected.State != Unread {
		return true
	}
	j.rejected = slices.Clone(s.Rejected[max(len(s.Rejected)-maxRejected, 0):])
	if s.Last != NoOutcome { // else another version said why
		j.rounds, j.last = min(s.Rounds, MaxRounds), s.Last
	}
	return false
}
