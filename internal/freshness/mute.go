package freshness

import (
	"slices"
	"time"

	"freshet/internal/content"
)

// sender is a device whose hints were wrong.
//
// Invariant: len(mutes) ≤ maxMutes, wrong < wrongForAll; mutes that have ended may still be there.
type sender struct {
	wrong int           // hints that a source refuted, since ends last passed
	all   time.Duration // until then it is not heard at all; 0: it is
	mutes []mute
	ends  time.Duration // when nothing of this is to be remembered any more
}

// mute is a content that a sender is not heard on.
type mute struct {
	ref   content.Ref
	until time.Duration
}

// muted reports whether a sender is not heard on ref now, or can be heard no more: when so many
// devices were wrong that another could not be remembered.
func (b *Brain) muted(now time.Duration, device Device, ref content.Ref) bool {
	s := b.senders[device]
	if s == nil {
		return len(b.senders) >= maxSenders && !b.forgetSenders(now)
	}
	return s.mutedOn(now, ref)
}

// mutedOn reports whether it is not heard on ref.
func (s *sender) mutedOn(now time.Duration, ref content.Ref) bool {
	return now < s.all || slices.ContainsFunc(s.mutes, func(m mute) bool { return m.ref == ref && now < m.until })
}

// forgetSenders drops those whose time is over. It reports whether there is room.
func (b *Brain) forgetSenders(now time.Duration) bool {
	for device, s := range b.senders {
		if now >= s.ends {
			delete(b.senders, device)
		}
	}
	return len(b.senders) < maxSenders
}

// wrong mutes a sender for ref. One that a source refuted counts; the sixth mutes it for
// everything. One that nobody confirmed does not count: the services may be out of reach.
func (b *Brain) wrong(now time.Duration, device Device, ref content.Ref, counts bool) {
	s := b.senders[device]
	if s == nil {
		if len(b.senders) >= maxSenders && !b.forgetSenders(now) {
			return
		}
		s = &sender{}
		b.senders[device] = s
	}
	b.dirty = true
	if now >= s.ends {
		s.wrong = 0
	}
	if counts {
		s.wrong++
	}
	s.ends = now + MuteTime
	s.mutes = slices.DeleteFunc(s.mutes, func(m mute) bool { return m.ref == ref || now >= m.until })
	s.mutes = append(s.mutes, mute{ref, s.ends})
	if len(s.mutes) > maxMutes {
		s.mutes = s.mutes[1:]
	}
	if s.wrong >= wrongForAll {
		s.all, s.wrong, s.mutes = s.ends, 0, nil
	}
}
