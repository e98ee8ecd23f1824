package lan

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// sealedAlike returns a datagram, and what it seals, that are the same in every process.
func sealedAlike(f *testing.F, c *clock) (datagram, plain []byte) {
	f.Helper()
	s := sealer(f, c, 1)
	s.boot = 1
	b, err := s.seal(nil, []byte("hello"), [nonceSize]byte{})
	if err != nil {
		f.Fatal(err)
	}
	return b, s.plain[len(signPrefix):]
}

// FuzzOpen: whatever a stranger sends is dropped, and costs no memory.
func FuzzOpen(f *testing.F) {
	c := newClock()
	good, _ := sealedAlike(f, c)
	f.Add(good)
	f.Add(good[:headSize])
	o := opener(f, c)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, m, why := o.Open(near, b)
		if why == Taken && !bytes.Equal(b, good) {
			t.Errorf("a datagram that nobody sealed was taken: %x", b)
		}
		if (why == Taken) != (m != nil) || len(o.senders.known) > 1 || len(o.sources.known) > 1 {
			t.Errorf("%s, message %q, %d senders, %d addresses", why, m, len(o.senders.known), len(o.sources.known))
		}
	})
}

// FuzzRead: a member may seal anything; only what is signed under a pass is taken.
func FuzzRead(f *testing.F) {
	c := newClock()
	_, good := sealedAlike(f, c)
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, why := opener(t, c).read(append([]byte(signPrefix), b...), begin)
		if why == Taken && !bytes.Equal(b, good) {
			t.Errorf("what nobody signed was taken: %x", b)
		}
		if h, message, ok := parse(b); ok {
			back := append([]byte{byte(len(h.signed))}, h.signed...)
			back = binary.BigEndian.AppendUint64(back, h.boot)
			back = binary.BigEndian.AppendUint64(back, h.counter)
			back = binary.BigEndian.AppendUint64(back, uint64(h.time))
			back = append(binary.BigEndian.AppendUint16(back, h.port), message...)
			if !bytes.HasPrefix(b, back) || len(b)-len(back) != 64 {
				t.Errorf("parse, append of %x is %x", b, back)
			}
		}
	})
}
