package share

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"freshet/internal/buffers"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/identity"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/store"
	"freshet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib      = 1 << 20
	patience = 20 * time.Second // how long a test waits for what should come at once
)

// idle is a daemon that runs nothing.
type idle struct{}

func (idle) Spawn(func()) bool  { return false }
func (idle) Callers(*Share) int { return 1 }
func (idle) Retire(*Share)      {}
func (idle) Forget(*Share)      {}

// rig is a share without Run: the test takes the events of its mailbox by itself, and so owns
// what Run would own.
type rig struct {
	*testing.T
	*Share
	endpoint *peer.Endpoint // of the share, plain
	ln       net.Listener
}

// newRig makes a share that has the metadata of a content of n bytes, and none of these.
func newRig(t *testing.T, n int) *rig {
	t.Helper()
	r := &rig{T: t}
	settings, err := policy.Resolve()
	r.want(err)
	ca, err := identity.CreateCA(filepath.Join(t.TempDir(), "ca"), "fleet")
	r.want(err)
	creds, err := ca.IssueCredentials(identity.Name{Role: identity.RoleDevice, Group: "g", Device: wire.DeviceID{1}})
	r.want(err)
	st, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(t.TempDir(), "cache")})
	r.want(err)
	t.Cleanup(func() { r.want(st.Close()) })
	receive := buffers.New(4)
	r.endpoint = &peer.Endpoint{Self: wire.DeviceID{1}, Receive: receive, Send: buffers.New(1)}
	r.Share = New(t.Context(), &Device{
		Settings: settings, Facts: policy.DeviceFacts{RAM: 1 << 40, Disk: 1 << 40}, Credentials: creds,
		HTTP: &http.Client{}, Endpoint: r.endpoint, Store: st, Records: records.NewBook(st, slog.New(slog.DiscardHandler)), Receive: receive, Parked: deliver.NewLot(receive, 1),
		Verifiers: NewVerifiers(receive), Log: slog.New(slog.DiscardHandler),
	}, idle{}, r.goods(st, n), false)
	r.endpoint.Admit = func(identity.Name, peer.Hello) (peer.Hello, error) { return r.Hello(), nil }
	r.ln, err = net.Listen("tcp", "127.0.0.1:0")
	r.want(err)
	t.Cleanup(func() { r.ln.Close() })
	r.reopen()
	t.Cleanup(func() { r.stop(); r.letGo() })
	return r
}

// reopen begins the swarm, anew if there was one.
func (r *rig) reopen() {
	r.Helper()
	r.letGo()
	e, err := r.dev.Store.Get(r.Record().Manifest)
	r.want(err)
	r.sources = nil
	r.beginSwarm(e)
}

func (r *rig) want(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// goods makes the entry of a content of one file.
func (r *rig) goods(st *store.Store, n int) records.Record {
	r.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	h := content.NewFileHasher()
	h.Write(b)
	file, pieces := h.Sum("file.bin", false)
	ref := content.Ref{ID: "app", Version: 1}
	m, hashes, err := content.BuildManifest(ref, []content.File{file}, [][]content.Digest{pieces})
	r.want(err)
	text := content.AppendManifest(nil, m)
	e, err := st.Create(r.Context(), text, content.AppendHashFileRaw(nil, hashes), []string{"g"})
	r.want(err)
	e.Release()
	return records.Record{Ref: ref, Manifest: content.DigestOf(text), HashOfHashes: m.HashOfHashes, Size: m.Size, Peerable: true, Grant: []byte("a grant")}
}

// connect lets a device connect, and returns its link.
func (r *rig) connect(d wire.DeviceID) (k *link) {
	r.Helper()
	there := peer.Endpoint{Self: d, Receive: buffers.New(1), Send: buffers.New(1)}
	there.Admit = func(identity.Name, peer.Hello) (peer.Hello, error) { return peer.Hello{}, nil }
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		raw, err := r.ln.Accept()
		if err != nil {
			r.Error(err)
			return
		}
		c, _, err := r.endpoint.Answer(r.Context(), raw)
		if err != nil {
			r.Error(err)
			return
		}
		r.Answer(c)
	}()
	c, _, err := there.Dial(r.Context(), r.ln.Addr().String(), peer.Hello{HashOfHashes: r.HashOfHashes(), Device: d, Grant: []byte("a grant")})
	r.want(err)
	r.Cleanup(func() { c.Close(); <-answered })
	r.until("a link", func() bool {
		for _, l := range r.live() {
			if l.conn.Device == d {
				k = l
			}
		}
		return k != nil
	})
	return k
}

// until takes events until ok.
func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-r.box.ready:
			for _, event := range r.box.take() {
				event()
				r.perform()
			}
		case <-deadline:
			r.Fatalf("waited too long for %s", what)
		}
	}
}

func (r *rig) banned() []store.Ban {
	r.Helper()
	b, err := r.dev.Store.Bans(r.T.Context(), r.Record().Manifest)
	r.want(err)
	return b
}

// TestCharges: one charge is withdrawn when the device has hashed its cache again, and no
// other. A wrong piece of a device that is gone is not charged to who has its number now.
func TestCharges(t *testing.T) {
	r := newRig(t, 3*mib)
	first, second := wire.DeviceID{8}, wire.DeviceID{9}
	k := r.connect(first)
	r.charge(k)
	r.excuse(k)
	r.charge(k)
	r.excuse(k)
	if bans := r.banned(); len(bans) != 0 {
		t.Errorf("bans %v after two charges, one withdrawn", bans)
	}
	k.conn.Close()
	r.until("the end of the connection", func() bool { return r.linkAt(k.id) != k })
	other := r.connect(second)
	if other.id != k.id {
		t.Fatalf("the second one has number %d, want %d", other.id, k.id)
	}
	for n := range 2 {
		r.ran(k, 0, false, nil)
		r.perform()
		if n == 0 && len(r.banned()) != 1 {
			t.Error("a second charge was withdrawn")
		}
	}
	if r.linkAt(k.id) != other || other.banned {
		t.Error("the successor is banned")
	}
	if c := r.charges[second]; c != nil {
		t.Errorf("the successor is charged: %+v", c)
	}
	if wrong := r.brain.Stats().Wrong; wrong != 2*mib {
		t.Errorf("wrong bytes %d", wrong)
	}
	if bans := r.banned(); len(bans) != 1 || bans[0].Device != first.String() {
		t.Errorf("bans %v, want %s", bans, first)
	}
}
