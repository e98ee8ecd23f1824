package share

import (
	"slices"
	"time"

	"freshet/internal/store"
	"freshet/internal/wire"
)

const recheckEvery = 10 * time.Minute // of a cache that peers call wrong

// recheck hashes the whole entry again: this end sent a wrong piece (design section 10).
// Nothing unchecked is served meanwhile, as the store sees to. However many say so, it is
// done once in recheckEvery: the disk has other work.
func (k *link) recheck() {
	s := k.s
	s.box.post(func() {
		if slices.Contains(s.rechecking, k) {
			return
		}
		if !s.rechecked.IsZero() && time.Since(s.rechecked) < recheckEvery {
			k.acknowledge()
			return
		}
		e := s.Use()
		if e == nil {
			return
		}
		s.rechecking = append(s.rechecking, k)
		if len(s.rechecking) > 1 || !s.owner.Spawn(func() { s.hashAgain(e) }) { // one check answers all
			e.Release()
		}
	})
}

// acknowledge says that the cache was hashed again.
func (k *link) acknowledge() {
	k.conn.Post(func(b []byte) []byte { return wire.AppendAck(b, wire.Ack{Of: wire.WrongPiece}) })
}

// hashAgain hashes all of e, fetches what was wrong again, and tells those who asked.
func (s *Share) hashAgain(e *store.Entry) {
	defer e.Release()
	before := e.HeldRuns()
	bad, err := e.Recheck(s.ctx)
	s.log.Warn("a peer found a piece wrong; the cache was hashed again", "wrong", bad, "err", err)
	held := e.HeldRuns()
	s.box.post(func() {
		for r := range before.All {
			if !held.Has(r) {
				s.damaged(int32(r), s.rechecking...)
			}
		}
		for _, k := range s.rechecking {
			k.acknowledge()
		}
		s.rechecking, s.rechecked = nil, time.Now()
	})
}
