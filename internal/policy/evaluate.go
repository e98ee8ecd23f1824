package policy

import (
	"fmt"
	"math"
	"time"
)

const (
	mb = 1_000_000     // bytes
	gb = 1_000_000_000 // bytes
)

// Mode is DODownloadMode. Every mode stays inside the group of the device's certificate.
type Mode int

// The modes.
const (
	HTTPOnly   Mode = 0  // no peers; services and piece hashes are used
	SameSite   Mode = 1  // DO's LAN
	WholeGroup Mode = 2  // DO's Group
	AcrossNAT  Mode = 3  // DO's Internet
	Simple     Mode = 99 // neither peers nor the services that lead to them
)

// Peers reports whether the mode allows peers at all.
func (m Mode) Peers() bool { return m == SameSite || m == WholeGroup || m == AcrossNAT }

// Reaches reports whether devices of one group may exchange content, when both are at the
// same site and when they are not.
func (m Mode) Reaches(sameSite bool) bool {
	return m == SameSite && sameSite || m == WholeGroup || m == AcrossNAT
}

// DeviceFacts are what a device's own limits are compared with.
type DeviceFacts struct {
	RAM  int64 // bytes of memory
	Disk int64 // bytes of capacity of the cache's disk
}

// Decision is an answer with its reason, which names the setting and its provider. A yes has none.
type Decision struct {
	OK     bool
	Reason string
}

// MayPeer says whether a device may exchange a content of size bytes with peers.
func MayPeer(s Settings, d DeviceFacts, size int64) Decision {
	if !s.DownloadMode().Peers() {
		return s.no(downloadMode, "which allows no peers")
	}
	limits := []struct {
		key   key
		have  int64
		least int64
		what  string
	}{
		{minRAMAllowedToPeer, d.RAM, s.MinRAMAllowedToPeer(), "the device has"},
		{minDiskSizeAllowedToPeer, d.Disk, s.MinDiskSizeAllowedToPeer(), "the cache's disk has"},
		{minFileSizeToCache, size, s.MinFileSizeToCache(), "the content has"},
	}
	for _, l := range limits {
		if l.have < l.least {
			return s.no(l.key, fmt.Sprintf("%s %s", l.what, amount(l.have)))
		}
	}
	return Decision{OK: true}
}

// no refuses because of setting k: "DOMinRAMAllowedToPeer is 4 GB (fleet), the device has 2.1 GB".
func (s Settings) no(k key, why string) Decision {
	v, def := s.value(k), &table[k]
	unit := def.Unit
	if unit != "" {
		unit = " " + unit
	}
	return Decision{Reason: fmt.Sprintf("%s is %s%s (%s), %s", def.Name, def.Text(v.number), unit, v.Provider, why)}
}

// amount writes a size, rounded down, so that what is too little never looks enough.
func amount(n int64) string {
	if n < mb {
		return fmt.Sprintf("%d bytes", n)
	}
	unit, name := int64(mb), "MB"
	if n >= gb {
		unit, name = gb, "GB"
	}
	tenths := n / (unit / 10)
	return fmt.Sprintf("%d.%d %s", tenths/10, tenths%10, name)
}

// CacheLimit returns how many bytes the cache may hold when its disk has free bytes left and
// the cache has used bytes of it; math.MaxInt64 for no limit. It changes as the disk fills.
func CacheLimit(s Settings, free, used int64) int64 {
	switch absolute := s.number(absoluteMaxCacheSize); {
	case absolute == 0:
		return math.MaxInt64
	case absolute > 0:
		return absolute * gb
	}
	return (free + used) / 100 * s.number(maxCacheSize)
}

// HTTPDelay returns how long a download waits for peers before it asks an HTTP source. One that
// may not use peers never waits.
func HTTPDelay(s Settings, foreground, mayPeer bool) time.Duration {
	switch {
	case !mayPeer:
		return 0
	case foreground:
		return s.seconds(delayForegroundDownloadFromHTTP)
	}
	return s.seconds(delayBackgroundDownloadFromHTTP)
}
