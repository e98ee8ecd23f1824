// Package lan carries messages between the devices of a subnet in sealed datagrams: the envelope
// (design section 4.5), and the shell that sends and receives it on every interface.
//
// # Envelope
//
// UDP, at most [MaxDatagram] bytes. Integers are big-endian.
//
//	offset  bytes  field
//	0       1      version, 1
//	1       8      id of the group's LAN key
//	9       24     nonce, random
//	33      n+16   XChaCha20-Poly1305 with that key; version and key id are its additional data
//
// Sealed in it:
//
//	u8 length | the sender's LAN pass, signed (package identity)
//	u64 boot id: random, one for each start of the sender
//	u64 counter: 1 for the first datagram of the boot, then one more for each
//	i64 time: Unix milliseconds
//	u16 TCP port of the sender's swarm; 0: it lets nobody in
//	the message, 1 to [wire.MaxLAN] bytes
//	64  Ed25519 signature by the pass's key over "freshet lan v1" 0x00 and all before it
//
// The LAN key keeps strangers out: they read nothing and what they send does not open. The
// signature keeps members apart: none speaks for another.
//
// # What is dropped
//
// A datagram counts only when its key is known, it opens, its time is within [Window] of the
// receiver's clock, it has not come before, its pass is signed by the server, good, for the
// group of the key and not denied, and its signature fits. Checks come in the order of their
// cost. What fails is dropped unread and counted by its [Reason]. A source address from which
// much fails is bounded, unless good datagrams came from it lately: addresses are easily
// forged, and nobody shall be silenced by what others send in their name.
//
// A datagram sent on several interfaces or protocols is the same one, so a receiver that hears
// it twice takes the first and counts the other as [Replay].
package lan

import (
	"errors"
	"time"

	"freshet/internal/wire"
)

// Limits and places.
const (
	MaxDatagram = 1200              // bytes, so that it fits every link
	Window      = 120 * time.Second // that a sender's clock and the receiver's may differ by
	Port        = 7680              // UDP, unless set otherwise
	GroupV4     = "239.255.76.80"
	GroupV6     = "ff12::7680"
)

const (
	version    = 1
	keyIDSize  = 8
	nonceSize  = 24
	headSize   = 1 + keyIDSize + nonceSize
	tagSize    = 16
	fixedSize  = 8 + 8 + 8 + 2 // boot id, counter, time, port
	signPrefix = "freshet lan v1\x00"
)

// Errors of sending.
var (
	ErrNoKey  = errors.New("lan: no LAN key is known yet; KeyValue gives it")
	ErrNoPass = errors.New("lan: no LAN pass that is good; the server gives it")
	ErrOff    = errors.New("lan: no interface is open for datagrams")
)

// Sender is who sent a datagram, as its pass says.
type Sender struct {
	Device wire.DeviceID
	Group  string
	Port   uint16 // TCP, of its swarm; 0: it lets nobody in
}
