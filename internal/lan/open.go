package lan

import (
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"time"

	"freshet/internal/identity"
	"freshet/internal/wire"
)

// Trust says whom a device believes. The functions are called for each datagram and are safe
// for concurrent use.
type Trust struct {
	Self   wire.DeviceID
	Now    func() time.Time         // the clock, corrected by what services say
	Steady func() time.Time         // a clock that nobody corrects or sets; nil: the process's, which is monotonic
	Denied func(wire.DeviceID) bool // nil: nobody is
	Grace  func() bool              // passes live longer: no service answers. nil: never
}

// Opener checks datagrams and takes them apart. It has no I/O and one owner.
type Opener struct {
	trust   Trust
	keys    Keys
	signers []ed25519.PublicKey
	sources *sources
	senders *senders
	plain   []byte // signPrefix, then what was sealed
}

// NewOpener returns an opener that opens nothing before it has keys and signers.
func NewOpener(t Trust) *Opener {
	if t.Steady == nil {
		t.Steady = time.Now
	}
	if t.Denied == nil {
		t.Denied = func(wire.DeviceID) bool { return false }
	}
	if t.Grace == nil {
		t.Grace = func() bool { return false }
	}
	return &Opener{trust: t, sources: newSources(), senders: newSenders(), plain: []byte(signPrefix)}
}

// SetKeys gives the group's LAN keys, and the server's keys that sign passes.
func (o *Opener) SetKeys(k Keys, signers []ed25519.PublicKey) {
	o.keys, o.signers = k, signers
	o.senders.forgetPasses()
}

// header is what stands before the message.
type header struct {
	signed  []byte // the pass
	boot    uint64
	counter uint64
	time    int64 // Unix ms
	port    uint16
}

// Open returns who sent a datagram and its message, which is good until the next call. The
// message is nil unless the reason is [Taken].
func (o *Opener) Open(from netip.Addr, datagram []byte) (Sender, []byte, Reason) {
	if len(datagram) > MaxDatagram {
		return Sender{}, nil, TooLong
	}
	if len(datagram) < headSize+tagSize || datagram[0] != version {
		return Sender{}, nil, Unsealed
	}
	k := o.keys.find(KeyID(datagram[1:]))
	if k == nil {
		return Sender{}, nil, UnknownKey
	}
	steady := o.trust.Steady()
	if !o.sources.allowed(from, steady) {
		return Sender{}, nil, Flood
	}
	plain, err := k.aead.Open(o.plain[:len(signPrefix)], datagram[1+keyIDSize:headSize], datagram[headSize:], datagram[:1+keyIDSize])
	if err != nil {
		o.sources.unopened(from, steady)
		return Sender{}, nil, Unsealed
	}
	o.plain = plain
	sender, message, why := o.read(plain, o.trust.Now())
	switch why {
	case Taken:
		o.sources.good(from, steady)
	case Malformed, BadPass, BadSignature:
		o.sources.forged(from, steady)
	}
	return sender, message, why
}

// read takes apart and checks what was sealed; plain begins with signPrefix.
func (o *Opener) read(plain []byte, now time.Time) (Sender, []byte, Reason) {
	h, message, ok := parse(plain[len(signPrefix):])
	if !ok {
		return Sender{}, nil, Malformed
	}
	claimed, err := identity.ParsePass(h.signed[:len(h.signed)-ed25519.SignatureSize])
	if err != nil {
		return Sender{}, nil, Malformed
	}
	known := o.senders.of(claimed.Device)
	if why := o.cheap(&h, claimed.Device, known, now); why != Taken {
		return Sender{}, nil, why
	}
	pass, ok := o.passOf(&h, known, now)
	if !ok {
		return Sender{}, nil, BadPass
	}
	body, sig := plain[:len(plain)-ed25519.SignatureSize], plain[len(plain)-ed25519.SignatureSize:]
	if !ed25519.Verify(pass.Key[:], body, sig) {
		return Sender{}, nil, BadSignature
	}
	if !o.senders.note(&h, pass, now) {
		return Sender{}, nil, Full
	}
	return Sender{Device: pass.Device, Group: pass.Group, Port: h.port}, message, Taken
}

// cheap makes the checks that need no signature.
func (o *Opener) cheap(h *header, device wire.DeviceID, known *sender, now time.Time) Reason {
	age := now.Sub(time.UnixMilli(h.time))
	switch {
	case device == o.trust.Self:
		return Own
	case age > Window:
		return Old
	case age < -Window:
		return Future
	case !known.fresh(h):
		return Replay
	}
	return Taken
}

// passOf checks the sender's pass; its signature only when it is not the one checked last.
func (o *Opener) passOf(h *header, known *sender, now time.Time) (identity.Pass, bool) {
	var pass identity.Pass
	if known.checked(h.signed) {
		pass = known.pass
	} else {
		var err error
		if pass, err = identity.PassSigned(o.signers, h.signed); err != nil {
			return pass, false
		}
	}
	return pass, pass.Group == o.keys.group && pass.Good(now, o.trust.Grace()) && !o.trust.Denied(pass.Device)
}

// parse takes apart what was sealed. Nothing is copied.
func parse(b []byte) (h header, message []byte, ok bool) {
	if len(b) < 1 {
		return h, nil, false
	}
	n := int(b[0])
	b = b[1:]
	if n <= ed25519.SignatureSize || len(b) < n+fixedSize+1+ed25519.SignatureSize {
		return h, nil, false
	}
	h.signed, b = b[:n], b[n:]
	h.boot, h.counter = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	h.time, h.port = int64(binary.BigEndian.Uint64(b[16:])), binary.BigEndian.Uint16(b[24:])
	message = b[fixedSize : len(b)-ed25519.SignatureSize]
	return h, message, h.counter > 0 && h.time > 0 && len(message) <= wire.MaxLAN
}
