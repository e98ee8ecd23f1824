package web

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// Jitter returns d, give or take half of it, so that devices do not ask all at once.
func Jitter(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:]) // never fails, as its documentation says
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d))
}
