package share

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/store"
	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// later is a daemon that runs what is spawned when it is told to.
type later struct {
	idle
	spawned *[]func()
}

func (l later) Spawn(f func()) bool {
	*l.spawned = append(*l.spawned, f)
	return true
}

// keeps makes a whole entry of the bytes of goods under another name.
func (r *rig) keeps(n int) {
	r.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	h := content.NewFileHasher()
	h.Write(b)
	file, pieces := h.Sum("other.bin", false)
	m, hashes, err := content.BuildManifest(content.Ref{ID: "other", Version: 1}, []content.File{file}, [][]content.Digest{pieces})
	r.want(err)
	e, err := r.dev.Store.Create(r.T.Context(), content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, hashes), []string{"g"})
	r.want(err)
	defer e.Release()
	for run := range e.Layout().Runs() {
		at := e.Layout().Run(run)
		r.want(e.Write(run, b[at.Offset:at.Offset+int64(at.Len)]))
	}
}

// open has a share that has begun nothing take its entry up, and returns what it spawned.
func (r *rig) open() (e *store.Entry, spawned func()) {
	r.Helper()
	r.letGo()
	r.layout.Store(nil)
	r.brain = nil
	var all []func()
	r.owner = later{spawned: &all}
	e, err := r.dev.Store.Get(r.Record().Manifest)
	r.want(err)
	r.opened(e)
	if len(all) != 1 || r.brain != nil {
		r.Fatalf("%d goroutines began, the swarm has begun: %t; want one that takes pieces first", len(all), r.brain != nil)
	}
	return e, all[0]
}

// TestTaking: while pieces are taken from other contents the share goes on as one that has no
// metadata yet, and then fetches only what it did not find.
func TestTaking(t *testing.T) {
	r := newRig(t, 3*mib)
	r.keeps(3 * mib)
	_, take := r.open()
	r.onLease(subnet.Lease{Known: true})
	r.start = r.start.Add(-time.Minute)
	r.tick()
	k := r.connect(wire.DeviceID{8})
	r.publish()
	if f := r.Facts(); f.Stalled || f.Left != 3*mib || !strings.HasPrefix(f.Waits, "taking pieces") {
		t.Errorf("while it takes: %+v", f)
	}
	take()
	r.publish()
	if left := r.Facts().Left; left != 0 {
		t.Errorf("%d bytes are left though all are taken", left)
	}
	r.until("the swarm", func() bool { return r.brain != nil })
	r.publish()
	if f := r.Facts(); f.Left != 0 || f.Waits != "" || !k.introduced || r.held.Load() == nil {
		t.Errorf("when all is taken: %+v, the peer is introduced: %t", f, k.introduced)
	}
}

// TestEndWhileTaking: a share that ends meanwhile leaves the entry to nobody.
func TestEndWhileTaking(t *testing.T) {
	r := newRig(t, 3*mib)
	e, take := r.open()
	r.stop()
	r.letGo()
	take()
	r.want(r.dev.Store.Remove(t.Context(), e.Digest()))
}

// TestTakingStands: a device that takes pieces from its own cache stands for election with them, since
// others may have none; and what it looks for others may see at once.
func TestTakingStands(t *testing.T) {
	r := newRig(t, 3*mib)
	rec := r.Record()
	rec.Wanted = true
	r.Update(rec)
	r.keeps(2 * mib)
	r.sought.Store(nil)
	_, take := r.open()
	if r.Sought() == nil {
		t.Error("the manifest is not shown before its pieces are taken")
	}
	r.role.stand = subnet.Stand{Role: subnet.Leading, Epoch: 1}
	take()
	r.publish()
	if f := r.Facts(); f.Left != mib || !f.WantsLease {
		t.Errorf("while it takes: %+v", f)
	}
}

// TestHavesWithoutLayout: who tells too much one by one before the layout is known is connected anew,
// and then tells it at once.
func TestHavesWithoutLayout(t *testing.T) {
	r := newRig(t, 3*mib)
	r.open()
	k := r.connect(wire.DeviceID{8})
	for range maxHaves + 1 {
		if r.linkOf(k.conn.Device) == nil {
			t.Fatal("it was gone before")
		}
		k.Message(k.conn, wire.Message{Kind: wire.Have})
		for _, event := range r.box.take() {
			event()
		}
	}
	r.until("the end of the connection", func() bool { return r.linkOf(k.conn.Device) == nil })
}

// TestFailsWhileOpening: a share whose entry cannot be made says so, and waits for nothing.
func TestFailsWhileOpening(t *testing.T) {
	r := newRig(t, 3*mib)
	r.letGo()
	r.brain, r.meta = nil, nil
	if r.publish(); r.Facts().Waits == "" {
		t.Error("it does not say that the entry is being made")
	}
	r.fail(errors.New("no room"))
	if r.publish(); r.Facts().Failed == nil || r.Facts().Waits != "" {
		t.Errorf("after it failed: %+v", r.Facts())
	}
	r.tick()
}
