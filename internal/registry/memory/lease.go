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

// lease is a site's lease. After it ran out it keeps its last holder and epoch, so that the
// same holder goes on with the same epoch when nobody came in between.
//
// Invariant: counted ⇔ it is in mark.running.
type lease struct {
	holder  wire.DeviceID
	epoch   int64        // 0: never granted
	subnet  netip.Prefix // the holder's, by its last join
	leader  int64        // epoch of the holder's leadership there, by its last join
	expires time.Time
	counted bool
}

func (l *lease) running(now time.Time) bool { return l.counted && now.Before(l.expires) }

func (l *lease) holds(d wire.DeviceID) bool { return l.counted && l.holder == d }

// settle renews, ends, hands over or grants the lease as j asks. An asker that is served by
// devices of its site keeps a lease that it or its subnet holds, and gets no new one.
func (l *lease) settle(now time.Time, j registry.Join, served bool, r *Registry) {
	l.lapse(now, &r.mark)
	wants := j.WantLease && j.Left > 0
	switch {
	case l.holds(j.Device) && wants:
		l.hold(now, j)
	case l.holds(j.Device):
		l.end(&r.mark)
	case wants && l.yields(j):
		l.end(&r.mark)
		l.grant(now, j, r)
	case wants && !l.counted && !served && (j.LeaseEpoch > 0 || !r.quarantined(now)):
		l.grant(now, j, r)
	}
}

// yields reports whether the lease goes over to j's device: it is held, and j's device was
// elected in the holder's subnet after the holder.
func (l *lease) yields(j registry.Join) bool {
	step := j.LeaderEpoch - l.leader
	return l.counted && j.Subnet.IsValid() && j.Subnet == l.subnet && 0 < step && step <= registry.MaxEpochStep
}

// hold lets the lease run from now, with j's device and its newest word.
func (l *lease) hold(now time.Time, j registry.Join) {
	l.holder, l.subnet, l.leader = j.Device, j.Subnet, j.LeaderEpoch
	l.expires = now.Add(registry.LeaseTime)
}

// grant gives the lease to j's device. The epoch stays when it is that device's own lease
// that goes on: the last one here, or one of before this array lost its memory.
func (l *lease) grant(now time.Time, j registry.Join, r *Registry) {
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
	l.hold(now, j)
	l.counted = true
	r.mark.grant()
}

// lapse ends a lease that was not renewed.
func (l *lease) lapse(now time.Time, mk *mark) {
	if l.counted && !now.Before(l.expires) {
		l.end(mk)
	}
}

// end ends a lease that is held.
func (l *lease) end(mk *mark) {
	l.counted = false
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
