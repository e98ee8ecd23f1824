package memory

import (
	"net/netip"
	"time"

	"freshet/internal/registry"
	"freshet/internal/wire"
)

// maxAhead is how far in the future a reported epoch may lie and still be believed: another
// array's clock may be ahead of ours.
const maxAhead = time.Hour

// term is one device's time with a lease.
type term struct {
	holder  wire.DeviceID
	subnet  netip.Prefix // the holder's, by its last join
	leader  int64        // epoch of the holder's leadership there, by its last join
	left    int64        // bytes, the least that the holder told
	fell    time.Time    // when it told that
	since   time.Time    // when it was granted, or taken from one that failed
	expires time.Time
}

// lease is a site's lease. After it ran out it keeps its last holder and epoch, so that the
// same holder goes on with the same epoch when nobody came in between.
//
// Invariant: counted ⇔ it is in mark.running. Without it, ousted and barred are empty.
type lease struct {
	term
	epoch   int64 // 0: never granted
	counted bool
	ousted  term   // whom a higher epoch displaced and, of several, most follow; may come back while it runs
	barred  [2]bar // from taking over by epoch, the last one first
}

type bar struct {
	device wire.DeviceID
	until  time.Time
}

func (l *lease) running(now time.Time) bool { return l.counted && now.Before(l.expires) }

func (l *lease) holds(d wire.DeviceID) bool { return l.counted && l.holder == d }

// settle renews, ends, hands over or grants the lease as j asks. An asker that is served by
// devices of its site gets none that is free.
func (st *site) settle(now time.Time, j registry.Join, served bool, r *Registry) {
	l := &st.lease
	l.lapse(now, &r.mark)
	wants := j.WantLease && j.Left > 0
	switch {
	case l.holds(j.Device) && wants:
		l.hold(now, j)
	case l.holds(j.Device):
		l.end(&r.mark)
	case wants && l.counted:
		st.contest(now, j, r)
	case wants && !served && (j.LeaseEpoch > 0 || !r.quarantined(now)):
		l.grant(now, j, r)
	}
}

// contest decides whether the lease of another device goes over to j's.
func (st *site) contest(now time.Time, j registry.Join, r *Registry) {
	l := &st.lease
	was, ousted := l.term, l.ousted
	more := st.followers[j.Device] - st.followers[was.holder]
	switch {
	case ousted.holder == j.Device && now.Before(ousted.expires) && more >= 0:
		l.barred = [2]bar{{was.holder, now.Add(registry.BarTime)}, l.barred[0]}
		l.pass(now, j, r)
	case l.yields(j) && l.admits(now, j.Device):
		l.pass(now, j, r)
		if !now.Before(l.ousted.expires) || st.followers[was.holder] > st.followers[l.ousted.holder] {
			l.ousted = was
		}
	case j.LeaseEpoch > 0 && r.quarantined(now) && j.Left < l.left:
		l.pass(now, j, r)
	case l.fails(now, j, more):
		l.pass(now, j, r)
		l.since = now
	}
}

// fails reports whether the holder brought nothing to j's device, which so many more devices
// follow, for too long.
func (l *lease) fails(now time.Time, j registry.Join, more int) bool {
	switch {
	case !j.Stalled || more < 0:
		return false
	case more > 0:
		return now.Sub(l.since) >= registry.HoldMin
	}
	return now.Sub(l.fell) >= registry.HoldStill
}

// yields reports whether j's device was elected in the holder's subnet after the holder.
func (l *lease) yields(j registry.Join) bool {
	step := j.LeaderEpoch - l.leader
	return j.Subnet.IsValid() && j.Subnet == l.subnet && 0 < step && step <= registry.MaxEpochStep
}

// admits reports whether a device may take over by epoch.
func (l *lease) admits(now time.Time, d wire.DeviceID) bool {
	barred := 0
	for _, b := range l.barred {
		if now.Before(b.until) {
			if b.device == d {
				return false
			}
			barred++
		}
	}
	return barred < len(l.barred)
}

// hold lets the lease run from now, with its holder's newest word.
func (l *lease) hold(now time.Time, j registry.Join) {
	l.subnet, l.leader = j.Subnet, j.LeaderEpoch
	if j.Left < l.left {
		l.left, l.fell = j.Left, now
	}
	l.expires = now.Add(registry.LeaseTime)
}

// grant gives the lease, which nobody holds, to j's device.
func (l *lease) grant(now time.Time, j registry.Join, r *Registry) {
	l.pass(now, j, r)
	l.counted = true
	r.mark.grant()
}

// pass makes j's device the holder. The epoch stays when it is that device's own lease that goes
// on: the last one here, or one of before this array lost its memory.
func (l *lease) pass(now time.Time, j registry.Join, r *Registry) {
	reported := j.LeaseEpoch
	if reported > now.Add(maxAhead).UnixMilli() {
		reported = 0
	}
	ours := l.holder == j.Device && l.epoch == reported
	before := l.epoch == 0 && r.quarantined(now)
	if reported > 0 && (ours || before) {
		l.epoch = reported
	} else {
		l.epoch = r.nextEpoch(now, max(reported, l.epoch))
	}
	since := now
	if l.counted {
		since = l.since
	}
	l.term = term{holder: j.Device, left: j.Left, fell: now, since: since}
	if l.ousted.holder == j.Device {
		l.ousted = term{}
	}
	l.hold(now, j)
}

// lapse ends a lease that was not renewed.
func (l *lease) lapse(now time.Time, mk *mark) {
	if l.counted && !now.Before(l.expires) {
		l.end(mk)
	}
}

// end ends a lease that is held.
func (l *lease) end(mk *mark) {
	l.counted, l.ousted, l.barred = false, term{}, [2]bar{}
	mk.release()
}

// tell returns what asker is told.
func (l *lease) tell(now time.Time, asker wire.DeviceID) registry.Lease {
	if !l.running(now) {
		return registry.Lease{}
	}
	return registry.Lease{
		Held: true, Mine: l.holder == asker, Holder: l.holder,
		Epoch: l.epoch, Expires: l.expires.Sub(now),
	}
}
