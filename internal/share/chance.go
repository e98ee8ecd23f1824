package share

import (
	"crypto/rand"
	"encoding/binary"
)

// Seed draws a seed for a brain.
func Seed() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, as its documentation says
	return binary.BigEndian.Uint64(b[:])
}
