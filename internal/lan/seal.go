package lan

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"freshet/internal/identity"
	"freshet/internal/wire"
)

// Sealer makes datagrams. It is safe for concurrent use.
type Sealer struct {
	now  func() time.Time
	boot uint64

	mu      sync.Mutex // guards the following
	counter uint64     // of the last datagram
	keys    Keys
	speaker *identity.Speaker // nil: none yet
	port    uint16
	plain   []byte // to build in
}

// NewSealer returns a sealer that cannot seal before it has keys and a speaker. now is the
// clock, corrected by what services say.
func NewSealer(now func() time.Time) *Sealer {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return &Sealer{now: now, boot: binary.BigEndian.Uint64(b[:])}
}

// SetKeys gives the group's keys.
func (s *Sealer) SetKeys(k Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = k
}

// SetSpeaker gives the key and the pass to speak with, and the TCP port of the swarm.
func (s *Sealer) SetSpeaker(sp *identity.Speaker, port uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.speaker, s.port = sp, port
}

// Seal appends a datagram that holds message. [ErrNoKey], [ErrNoPass].
func (s *Sealer) Seal(dst, message []byte) ([]byte, error) {
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // never fails
	return s.seal(dst, message, nonce)
}

func (s *Sealer) seal(dst, message []byte, nonce [nonceSize]byte) ([]byte, error) {
	if len(message) == 0 || len(message) > wire.MaxLAN {
		return dst, fmt.Errorf("lan: message of %d bytes, want 1 to %d", len(message), wire.MaxLAN)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	k := s.keys.current(now)
	switch {
	case k == nil:
		return dst, ErrNoKey
	case s.speaker == nil || s.speaker.Signed == nil || s.speaker.Pass.Group != s.keys.group:
		return dst, ErrNoPass
	}
	s.counter++
	s.plain = append(append(s.plain[:0], signPrefix...), byte(len(s.speaker.Signed)))
	s.plain = append(s.plain, s.speaker.Signed...)
	s.plain = binary.BigEndian.AppendUint64(s.plain, s.boot)
	s.plain = binary.BigEndian.AppendUint64(s.plain, s.counter)
	s.plain = binary.BigEndian.AppendUint64(s.plain, uint64(now.UnixMilli()))
	s.plain = binary.BigEndian.AppendUint16(s.plain, s.port)
	s.plain = append(s.plain, message...)
	s.plain = append(s.plain, ed25519.Sign(s.speaker.Key, s.plain)...)
	return sealed(dst, k, nonce, s.plain[len(signPrefix):]), nil
}

// sealed appends head and sealed plain.
func sealed(dst []byte, k *key, nonce [nonceSize]byte, plain []byte) []byte {
	at := len(dst)
	dst = append(append(append(dst, version), k.id[:]...), nonce[:]...)
	return k.aead.Seal(dst, nonce[:], plain, dst[at:at+1+keyIDSize])
}
