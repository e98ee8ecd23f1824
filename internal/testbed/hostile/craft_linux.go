package hostile

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/lan"
	"freshet/internal/wire"
)

// Layout of a datagram, see package lan.
const (
	keyIDSize = 8
	headSize  = 1 + keyIDSize + chacha20poly1305.NonceSizeX
	counting  = 8 + 8 + 8 + 2 // boot id, counter, time and port
)

// voice is what a member speaks with in its subnet.
type voice struct {
	given   []api.LANKey
	keys    lan.Keys // given
	speaker *identity.Speaker
	now     func() time.Time
}

// forger makes datagrams that must not be taken, of what it has heard and of a key it was given.
type forger struct {
	voice
	aeads map[string]cipher.AEAD // by key id
	heard [][]byte               // datagrams of others, the latest maxHeard
	next  int                    // of heard, to be replaced
	draw  dice
	hoh   content.Digest    // that it speaks of
	aged  [][]byte          // sealed with clocks that are wrong
	kept  map[string][]byte // what was signed last, by kind
	uses  int               // of kept
}

const (
	maxHeard = 64
	clocks   = 32 // datagrams for each wrong clock
	signings = 64 // uses of datagrams that were signed, before they are signed anew: it costs time
	wrongBy  = time.Hour
)

func newForger(v voice, hoh content.Digest) (*forger, error) {
	f := &forger{
		voice: v, aeads: map[string]cipher.AEAD{}, hoh: hoh, kept: map[string][]byte{},
	}
	for _, k := range v.given {
		aead, err := chacha20poly1305.NewX(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("hostile: lan key: %w", err)
		}
		f.aeads[string(k.ID)] = aead
	}
	for _, by := range []time.Duration{-wrongBy, wrongBy} {
		s := lan.NewSealer(func() time.Time { return v.now().Add(by) })
		s.SetKeys(v.keys)
		s.SetSpeaker(v.speaker, swarmPort)
		for range clocks {
			b, err := s.Seal(nil, f.claim(wire.DeviceID{}, 1).AppendLAN(nil))
			if err != nil {
				return nil, err
			}
			f.aged = append(f.aged, b)
		}
	}
	return f, nil
}

// claim is a heartbeat of a leader.
func (f *forger) claim(deputy wire.DeviceID, epoch uint64) wire.Heartbeat {
	return wire.Heartbeat{Weight: topWeight, Beats: []wire.Beat{{
		HashOfHashes: f.hoh, Epoch: epoch, Held: 1, Total: 1, Rate: 1, Device: deputy,
		Flags: wire.Leads | wire.Able | wire.Stands | wire.Moving | wire.Outside, Priority: wire.Foreground,
	}}}
}

// dice are numbers that look like drawn ones, and are the same in each run (splitmix64).
type dice uint64

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	n := uint64(*d)
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// below is from 0 to n-1.
func (d *dice) below(n int) int { return int(d.next() % uint64(n)) }

// hear keeps a datagram of another device.
func (f *forger) hear(b []byte) {
	b = append([]byte(nil), b...)
	if len(f.heard) < maxHeard {
		f.heard = append(f.heard, b)
		return
	}
	f.heard[f.next] = b
	f.next = (f.next + 1) % maxHeard
}

// kinds are what flood sends, one after the other.
var kinds = []string{"random", "replayed", "damaged", "cut", "aged", "unknown key", "stolen pass", "own pass"}

// make returns a datagram of a kind; nil where nothing was heard yet that it needs.
func (f *forger) make(kind string) []byte {
	switch kind {
	case "random":
		b := make([]byte, 1+f.draw.below(lan.MaxDatagram+100))
		rand.Read(b)
		return b
	case "aged":
		return f.aged[f.draw.below(len(f.aged))]
	case "own pass", "stolen pass":
		return f.signed(kind)
	}
	if len(f.heard) == 0 {
		return nil
	}
	b := append([]byte(nil), f.heard[f.draw.below(len(f.heard))]...)
	switch kind {
	case "damaged":
		b[f.draw.below(len(b))] ^= 1 << f.draw.below(8)
	case "cut":
		b = b[:f.draw.below(len(b))]
	case "unknown key":
		rand.Read(b[1:headSize])
	}
	return b
}

// signed returns a datagram in another's name, made anew now and then.
func (f *forger) signed(kind string) []byte {
	f.uses++
	if b := f.kept[kind]; b != nil && f.uses%signings > 1 {
		return b
	}
	pass := f.ownPass()
	if kind == "stolen pass" {
		if len(f.heard) == 0 {
			return nil
		}
		var err error
		if pass, err = f.steal(f.heard[f.draw.below(len(f.heard))]); err != nil {
			return nil
		}
	}
	f.kept[kind] = f.seal(pass, f.claim(wire.DeviceID{}, f.draw.next()|1).AppendLAN(nil))
	return f.kept[kind]
}

// ownPass is a pass in another's name that this member signed itself.
func (f *forger) ownPass() []byte {
	p := f.speaker.Pass
	rand.Read(p.Device[:])
	return identity.SignPass(f.speaker.Key, p)
}

// steal returns the pass of the device that sent a datagram.
func (f *forger) steal(b []byte) ([]byte, error) {
	if len(b) < headSize {
		return nil, errors.New("hostile: too short")
	}
	aead := f.aeads[string(b[1:1+keyIDSize])]
	if aead == nil {
		return nil, errors.New("hostile: sealed with another key")
	}
	plain, err := aead.Open(nil, b[1+keyIDSize:headSize], b[headSize:], b[:1+keyIDSize])
	if err != nil || len(plain) == 0 || len(plain) < 1+int(plain[0]) {
		return nil, errors.Join(err, errors.New("hostile: no pass in it"))
	}
	return plain[1 : 1+int(plain[0])], nil
}

// seal makes a datagram that bears a pass, signed with this member's key whoever the pass is of.
func (f *forger) seal(pass, message []byte) []byte {
	k := current(f.given, f.now())
	const prefix = "freshet lan v1\x00"
	plain := append([]byte(prefix), byte(len(pass)))
	plain = append(plain, pass...)
	plain = binary.BigEndian.AppendUint64(plain, f.draw.next())
	plain = binary.BigEndian.AppendUint64(plain, 1)
	plain = binary.BigEndian.AppendUint64(plain, uint64(f.now().UnixMilli()))
	plain = binary.BigEndian.AppendUint16(plain, swarmPort)
	plain = append(plain, message...)
	plain = append(plain, ed25519.Sign(f.speaker.Key, plain)...)
	b := make([]byte, headSize, headSize+len(plain)+chacha20poly1305.Overhead)
	b[0] = 1
	copy(b[1:], k.ID)
	rand.Read(b[1+keyIDSize:])
	return f.aeads[string(k.ID)].Seal(b, b[1+keyIDSize:], plain[len(prefix):], b[:1+keyIDSize])
}

// current returns the key that is sealed with now.
func current(keys []api.LANKey, now time.Time) api.LANKey {
	best := keys[0]
	for _, k := range keys {
		if k.Starts <= now.Unix() && k.Starts >= best.Starts {
			best = k
		}
	}
	return best
}
