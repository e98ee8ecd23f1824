package agent

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// seed draws a seed for a brain.
func seed() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, as its documentation says
	return binary.BigEndian.Uint64(b[:])
}

// jitter returns d, give or take half of it, so that devices do not act all at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(seed()%uint64(d))
}
