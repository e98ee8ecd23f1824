package arrays

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/registry"
	"freshet/internal/registry/memory"
	"freshet/internal/wire"
)

// counted is a catalog that counts its look-ups. It holds one content, for group lab.
type counted struct {
	asked int
	c     catalog.Content
	err   error
}

const toolURL = "https://dl.example/tool"

func (c *counted) find(known bool, group string) (catalog.Content, error) {
	c.asked++
	if c.err == nil && (!known || group != "lab") {
		return catalog.Content{}, catalog.ErrNotFound
	}
	return c.c, c.err
}

func (c *counted) Readable(_ context.Context, ref content.Ref, group string) (catalog.Content, error) {
	return c.find(ref.ID == "tool", group)
}

func (c *counted) ReadableByURL(_ context.Context, url string, _ uint64, group string) (catalog.Content, error) {
	return c.find(url == toolURL, group)
}

// here is a table of one site, where devices are reached at their connection's source.
type here struct{}

func (here) Site(netip.Addr) string                           { return "here" }
func (here) Reachable(source, reported netip.Addr) netip.Addr { return source }

func TestGenerations(t *testing.T) {
	source := &counted{c: catalog.Content{Generation: 7}}
	now := time.Unix(1000, 0)
	s := New(nil, here{}, source, func() time.Time { return now })
	ask := func(group string, q api.JoinRequest) int64 {
		t.Helper()
		q.HashOfHashes = "given"
		n, err := s.resolve(t.Context(), now, group, &q)
		if err != nil || q.HashOfHashes != "given" {
			t.Fatalf("%q, %v", q.HashOfHashes, err)
		}
		return n
	}
	tool, bad := api.JoinRequest{ContentId: "tool", Version: 1}, api.JoinRequest{ContentId: "../tool", Version: 1}
	for _, step := range []struct {
		why   string
		group string
		q     api.JoinRequest
		want  int64
		asked int
	}{
		{"first", "lab", tool, 7, 1},
		{"remembered", "lab", tool, 7, 1},
		{"another group", "office", tool, 0, 2},
		{"that it may not is remembered", "office", tool, 0, 2},
		{"bad id", "lab", bad, 0, 2},
		{"by bytes alone", "lab", api.JoinRequest{ContentId: "tool"}, 0, 2},
		{"by URL", "lab", api.JoinRequest{AltCatalogId: "HTTPS://dl.example:443/tool"}, 7, 3},
		{"dummy id and URL", "lab", api.JoinRequest{ContentId: "dummy", AltCatalogId: toolURL}, 7, 5},
		{"bad id and URL", "lab", api.JoinRequest{ContentId: "/", AltCatalogId: toolURL}, 7, 6},
		{"bad URL", "lab", api.JoinRequest{AltCatalogId: "tool"}, 0, 6},
	} {
		if got := ask(step.group, step.q); got != step.want || source.asked != step.asked {
			t.Errorf("%s: generation %d after %d look-ups, want %d after %d", step.why, got, source.asked, step.want, step.asked)
		}
	}
	source.err = catalog.ErrNotFound
	now = now.Add(contentAge)
	if got := ask("lab", tool); got != 0 {
		t.Errorf("generation %d of what is gone", got)
	}
	source.err = errors.New("disk")
	other := api.JoinRequest{ContentId: "else", Version: 1}
	if _, err := s.resolve(t.Context(), now, "lab", &other); err == nil {
		t.Error("a broken catalog was taken for none")
	}
}

// TestMemoryIsBounded: neither many names nor long ones fill the memory.
func TestMemoryIsBounded(t *testing.T) {
	c := newContents(&counted{})
	for v := range maxContents + 10 {
		if _, err := c.find(t.Context(), time.Unix(1000, 0), catalog.Asked{ID: "tool", Version: uint64(v + 1), Group: "lab"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.by) > maxContents {
		t.Errorf("%d are remembered, at most %d should be", len(c.by), maxContents)
	}
	clear(c.by)
	long := catalog.Asked{ID: strings.Repeat("x", 1<<20), URL: toolURL, Group: "lab"}
	if _, err := c.find(t.Context(), time.Unix(1000, 0), long); err != nil || len(c.by) != 0 {
		t.Errorf("%d are remembered, %v; want none with so long a name", len(c.by), err)
	}
}

// TestByURL: a join that knows its content by the URL alone comes into the swarm of its bytes.
func TestByURL(t *testing.T) {
	hoh := content.DigestOf([]byte("bytes"))
	s, join := newService(t, &counted{c: catalog.Content{Generation: 7, HashOfHashes: hoh}})
	if _, err := join(1, api.JoinRequest{HashOfHashes: hoh.Base64()}); err != nil {
		t.Fatal(err)
	}
	a, err := join(2, api.JoinRequest{AltCatalogId: toolURL})
	if err != nil || a.Generation != 7 || len(a.Peers) != 1 || a.Peers[0].PeerId != (wire.DeviceID{1}).PeerID() {
		t.Errorf("by URL: %+v, %v", a, err)
	}
	var p *api.Problem
	if _, err = join(2, api.JoinRequest{AltCatalogId: toolURL + "s"}); !errors.As(err, &p) || p.Type != "unknown-content" || !strings.Contains(p.Error(), toolURL+"s") {
		t.Errorf("unknown URL: %v", err)
	}
	if _, err = join(2, api.JoinRequest{AltCatalogId: "tool"}); !errors.As(err, &p) || p.Type != "bad-request" {
		t.Errorf("bad URL: %v", err)
	}
	q := api.JoinRequest{AltCatalogId: toolURL, Port: 7680}
	if _, err = s.join(t.Context(), caller{Name: identity.Name{Group: "office"}}, &q); !errors.As(err, &p) || p.Type != "unknown-content" {
		t.Errorf("another group: %v", err)
	}
}

// TestSubnet: a device of the asker's subnet is told as such, and takes over the lease there;
// a subnet that does not hold the device's address counts as none.
func TestSubnet(t *testing.T) {
	_, join := newService(t, &counted{})
	hoh := content.DigestOf([]byte("bytes")).Base64()
	ask := func(n byte, subnet string, epoch api.Number) *api.JoinReply {
		t.Helper()
		a, err := join(n, api.JoinRequest{HashOfHashes: hoh, WantLease: true, Subnet: subnet, LeaderEpoch: epoch})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := ask(1, "10.0.0.7/24", -5) // an address of the link does for its prefix, no epoch is below 0
	if !first.Lease.Mine {
		t.Fatalf("lease %+v, want mine", first.Lease)
	}
	for _, test := range []struct {
		n      byte
		subnet string
		epoch  api.Number
		kind   string
		mine   bool
	}{
		{2, "", 1, "LAN", false},
		{3, "10.0.1.0/24", 1, "LAN", false},
		{4, "10.0.0.0/25", 1, "LAN", false},
		{5, "10.0.0.0/24", 0, "LinkLocal", false},
		{6, "10.0.0.0/24", 1001, "LinkLocal", false},
		{7, "10.0.0.0/24", 1, "LinkLocal", true},
	} {
		a := ask(test.n, test.subnet, test.epoch)
		if p := a.Peers[0]; p.PeerId != (wire.DeviceID{1}).PeerID() || p.Type != test.kind || a.Lease.Mine != test.mine {
			t.Errorf("%+v: first peer %+v, lease %+v", test, p, a.Lease)
		}
	}
	follow := func(leader string) error {
		_, err := join(5, api.JoinRequest{HashOfHashes: hoh, Leader: leader})
		return err
	}
	if err := follow(wire.DeviceID{7}.PeerID()); err != nil {
		t.Fatal(err)
	}
	if again := ask(1, "10.0.0.0/24", 1); again.Lease.Mine || again.Lease.Holder != (wire.DeviceID{7}).PeerID() || again.Lease.Epoch <= first.Lease.Epoch {
		t.Errorf("lease %+v after it was taken over by whom another one follows", again.Lease)
	}
	var p *api.Problem
	if err := follow("7"); !errors.As(err, &p) || !strings.Contains(p.Detail, "Leader") {
		t.Errorf("a leader that is none: %v", err)
	}
	if err := follow(wire.DeviceID{1}.PeerID()); err != nil {
		t.Fatal(err)
	}
	if again := ask(1, "10.0.0.0/24", 1); !again.Lease.Mine {
		t.Errorf("lease %+v of whom another one follows, after it was taken over", again.Lease)
	}
	if _, err := join(1, api.JoinRequest{HashOfHashes: hoh, Subnet: "10.0.0.0"}); !errors.As(err, &p) || !strings.Contains(p.Detail, "Subnet") {
		t.Errorf("a subnet that is none: %v", err)
	}
}

// TestAcrossNATs: a probe counts for the address and port that were dialled.
func TestAcrossNATs(t *testing.T) {
	s, _ := newService(t, &counted{})
	device, source := wire.DeviceID{1}, netip.MustParseAddr("203.0.113.7")
	if err := s.swarms.(registry.Probes).Probed(t.Context(), s.now(), device, netip.AddrPortFrom(source, 7680)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		why    string
		device wire.DeviceID
		source string
		port   uint16
		want   bool
	}{
		{"as probed", device, "203.0.113.7", 7680, true},
		{"another port", device, "203.0.113.7", 7681, false},
		{"it has moved", device, "203.0.113.8", 7680, false},
		{"another device", wire.DeviceID{2}, "203.0.113.7", 7680, false},
	} {
		from := caller{identity.Name{Device: test.device}, netip.MustParseAddr(test.source)}
		if got, err := s.far(t.Context(), s.now(), from, test.port); err != nil || got.IsValid() != test.want {
			t.Errorf("%s: %v, %v; want it to count: %v", test.why, got, err, test.want)
		}
	}
}

// newService returns a service and how device n of group lab joins there.
func newService(t *testing.T, in catalog.Finder) (*Service, func(n byte, q api.JoinRequest) (*api.JoinReply, error)) {
	t.Helper()
	now := time.Unix(1000, 0)
	r, err := memory.New(now, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := New(r, here{}, in, func() time.Time { return now })
	return s, func(n byte, q api.JoinRequest) (*api.JoinReply, error) {
		q.Port, q.Scope, q.Left = 7680, registry.ModeSite, 1
		from := caller{identity.Name{Group: "lab", Device: wire.DeviceID{n}}, netip.AddrFrom4([4]byte{10, 0, 0, n})}
		return s.join(t.Context(), from, &q)
	}
}
