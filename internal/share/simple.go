package share

import (
	"fmt"

	"freshet/internal/policy"
	"freshet/internal/simple"
	"freshet/internal/store"
	"freshet/internal/subnet"
)

// draft is a draft of a share while it is filled, or becomes an entry (simple mode, design
// section 3, step 3). The device is out of the array and has no peers meanwhile.
type draft struct {
	*simple.Draft
	done  chan struct{} // closed when Run has returned; guards the following
	entry *store.Entry
	err   error
}

// alwaysSimple returns why the device is in simple mode from the start, or nothing.
func (d *Device) alwaysSimple(size int64) string {
	if d.Settings.DownloadMode() != policy.Simple {
		return ""
	}
	return policy.MayPeer(d.Settings, d.Facts, size).Reason
}

// goSimple begins simple mode.
func (s *Share) goSimple(reason string) {
	s.log.Warn("simple mode: the bytes come from origins alone", "reason", reason)
	s.reason = reason
	s.alone.Store(true)
	for _, k := range s.live() {
		k.conn.Close()
	}
	if s.peering.OK {
		s.onLease(subnet.Lease{})
	}
	s.kickJoin()
	s.beginDraft(nil)
}

// beginDraft opens the draft. With a hash file it becomes an entry as it is, else it is filled.
func (s *Share) beginDraft(hashes []byte) {
	m := &draft{done: make(chan struct{}), Draft: simple.New(simple.Options{
		Manifest: s.meta.Manifest(), Group: s.dev.Credentials.Name().Group, Origins: s.Record().ContentURLs,
		Store: s.dev.Store, HTTP: s.dev.HTTP, Header: s.grantHeader, Receive: s.dev.Receive, Log: s.log,
		Changed: func() { s.box.post(func() {}) }, // publish tells of it
	}, hashes)}
	s.draft = m
	began := s.owner.Spawn(func() {
		defer close(m.done)
		m.entry, m.err = m.Run(s.ctx)
		s.box.post(func() { s.drafted(m) })
	})
	if !began {
		close(m.done)
	}
}

// drafted ends simple mode: the draft has become an entry, or nothing more can be done.
func (s *Share) drafted(m *draft) {
	s.draft = nil
	p := m.Progress()
	s.brought += p.Held - p.Before
	s.refused += p.Wrong
	if m.err != nil {
		s.fail(fmt.Errorf("simple mode: %w", m.err))
		return
	}
	if m.Taken() && !s.always {
		s.log.Info("simple mode is left: there is a good hash file")
		s.reason = ""
	}
	s.meta = nil
	s.alone.Store(!s.peering.OK)
	s.opened(m.entry)
	s.kickJoin()
}

// endDraft gives back what a share that ends has of a draft. Its context has ended.
func (s *Share) endDraft() {
	m := s.draft
	if m == nil {
		return
	}
	<-m.done
	if m.entry != nil {
		m.entry.Release()
	}
}

// addSimple lets the figures of simple mode count.
func (s *Share) addSimple(f *Facts) {
	f.Simple = s.reason
	f.Stats.FromOrigin += s.brought
	f.Stats.Wrong += s.refused
	if m := s.draft; m != nil {
		p := m.Progress()
		f.Left -= p.Held
		f.Stats.FromOrigin += p.Held - p.Before
		f.Stats.Wrong += p.Wrong
	}
}
