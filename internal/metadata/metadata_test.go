package metadata

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

const (
	second = time.Second
	early  = 5 * second
)

// goods is a content's metadata as its publisher has it.
type goods struct{ manifest, hashes []byte }

func makeGoods(t testing.TB, files int) (goods, Config) {
	t.Helper()
	var list []content.File
	var pieces [][]content.Digest
	for i := range files {
		b := make([]byte, 100+i)
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b)
		h := content.NewFileHasher()
		h.Write(b)
		file, p := h.Sum(fmt.Sprintf("%04d", i), false)
		list, pieces = append(list, file), append(pieces, p)
	}
	m, h, err := content.BuildManifest(content.Ref{ID: "app", Version: 1}, list, pieces)
	if err != nil {
		t.Fatal(err)
	}
	g := goods{content.AppendManifest(nil, m), content.AppendHashFileRaw(nil, h)}
	return g, Config{
		Manifest: content.DigestOf(g.manifest), HashOfHashes: m.HashOfHashes, Seed: 1,
		Early: early, Peers: true, Patience: Patience{ForegroundPatience, BackgroundPatience},
	}
}

// part is what an honest peer answers; wrong spoils it.
func (g goods) part(want wire.Type, off uint64, size int, wrong bool) wire.Part {
	all := slices.Clone(g.manifest)
	if want == wire.GetHashFile {
		all = slices.Clone(g.hashes)
	}
	if wrong {
		all[len(all)/2] ^= 1
	}
	rest := all[off:]
	return wire.Part{Of: want, Offset: off, Total: uint64(len(all)), Frame: Pack(rest[:min(len(rest), size)])}
}

// said writes actions as a test expects them.
func said(acts []Action) string {
	var words []string
	for _, a := range acts {
		switch a.Kind {
		case AskPeer:
			words = append(words, fmt.Sprintf("ask peer %d for %s at %d", a.Peer, what(a.Want), a.Offset))
		case AskOrigin:
			words = append(words, fmt.Sprintf("ask origin for %s", what(a.Want)))
		case Late:
			words = append(words, fmt.Sprintf("peer %d is late", a.Peer))
		case Charge:
			words = append(words, fmt.Sprintf("charge peer %d", a.Peer))
		case Failed:
			words = append(words, "origins failed")
		case Without:
			words = append(words, "without: "+a.Reason)
		case Got:
			words = append(words, "got")
		}
	}
	return strings.Join(words, "; ")
}

func what(w wire.Type) string {
	if w == wire.GetManifest {
		return "manifest"
	}
	return "hashes"
}

func expect(t *testing.T, acts []Action, want string) {
	t.Helper()
	if got := said(acts); got != want {
		t.Errorf("actions %q, want %q", got, want)
	}
}

// TestFromPeers: manifest and hash file come in parts from one peer, which is asked for the next
// part at once.
func TestFromPeers(t *testing.T) {
	g, cfg := makeGoods(t, 50)
	m, a := New(cfg, 0), Around{Givers: []Peer{4, 7}}
	expect(t, m.OnTick(0, a, nil), "ask peer 4 for manifest at 0")
	expect(t, m.OnTick(second, a, nil), "")
	expect(t, m.OnPart(second, 7, g.part(wire.GetManifest, 0, 100, false), nil), "")
	expect(t, m.OnPart(second, 4, g.part(wire.GetManifest, 0, 100, false), nil), "ask peer 4 for manifest at 100")
	expect(t, m.OnPart(second, 4, g.part(wire.GetManifest, 0, 100, false), nil), "") // not what was asked for
	expect(t, m.OnPart(second, 4, g.part(wire.GetManifest, 100, 1<<20, false), nil), "ask peer 4 for hashes at 0")
	if w := m.Waits(false); w != "waiting for the hash file from a peer" {
		t.Errorf("it waits: %q", w)
	}
	expect(t, m.OnPart(second, 4, g.part(wire.GetHashFile, 0, 1<<20, false), nil), "got")
	if !slices.Equal(m.Manifest(), g.manifest) || !slices.Equal(m.Hashes(), g.hashes) {
		t.Error("other bytes came out than went in")
	}
	expect(t, m.OnTick(time.Hour, Around{Mine: true}, nil), "")
}

// TestBadGivers: one that is late, gone or has nothing is left for the next; one that lies is
// charged; nothing of it is joined to what another one gives.
func TestBadGivers(t *testing.T) {
	g, cfg := makeGoods(t, 50)
	m, a := New(cfg, 0), Around{Givers: []Peer{0, 1, 2, 3}}
	expect(t, m.OnTick(0, a, nil), "ask peer 0 for manifest at 0")
	expect(t, m.OnPart(0, 0, g.part(wire.GetManifest, 0, 100, false), nil), "ask peer 0 for manifest at 100")
	expect(t, m.OnTick(3*second, a, nil), "peer 0 is late; ask peer 1 for manifest at 0")
	m.OnGone(0)
	m.OnGone(1)
	expect(t, m.OnTick(3*second, a, nil), "ask peer 2 for manifest at 0")
	expect(t, m.OnPart(3*second, 2, wire.Part{Of: wire.GetManifest}, nil), "")
	expect(t, m.OnTick(3*second+peerPause-1, a, nil), "")
	expect(t, m.OnTick(3*second+peerPause, a, nil), "ask peer 3 for manifest at 0")
	expect(t, m.OnPart(4*second, 3, g.part(wire.GetManifest, 0, 1<<20, true), nil), "charge peer 3")
	if m.Manifest() != nil {
		t.Error("a wrong manifest is believed")
	}
	expect(t, m.OnTick(4*second, a, nil), "ask peer 0 for manifest at 0")
}

// TestGoesOut: origins are asked by who holds the lease, and by others only when nobody gives
// for too long; where elections say who goes out, never.
func TestGoesOut(t *testing.T) {
	_, cfg := makeGoods(t, 3)
	cfg.Peers = false
	for name, c := range map[string]struct {
		around Around
		after  time.Duration
	}{
		"the lease":                 {Around{Mine: true}, 0},
		"no array, no peer":         {Around{Unknown: true}, early},
		"no array, silent peers":    {Around{Unknown: true, Givers: []Peer{1}}, early},
		"another leads, not there":  {Around{}, early},
		"another leads, it is here": {Around{Givers: []Peer{1}}, 4 * early},
	} {
		m := New(cfg, second)
		if c.after > 0 {
			if acts := m.OnTick(second+c.after-1, c.around, nil); len(acts) != 0 {
				t.Errorf("%s: %q before its time", name, said(acts))
			}
		}
		if got := said(m.OnTick(second+c.after, c.around, nil)); got != "ask origin for manifest" {
			t.Errorf("%s: %q", name, got)
		}
	}
	m := New(cfg, second)
	if acts := m.OnTick(time.Hour, Around{Led: true}, nil); len(acts) != 0 {
		t.Errorf("whom the elections did not choose: %q", said(acts))
	}
	if got := said(m.OnTick(time.Hour, Around{Led: true, Mine: true}, nil)); got != "ask origin for manifest" {
		t.Errorf("whom the elections chose: %q", got)
	}
}

// TestWithout: without a good hash file the download goes on when patience is over, asks the
// origins alone from then on, and takes a good one.
func TestWithout(t *testing.T) {
	g, cfg := makeGoods(t, 3)
	m, a := New(cfg, 0), Around{Mine: true, Hurry: true}
	expect(t, m.OnTick(second, a, nil), "ask origin for manifest")
	expect(t, m.OnOrigin(second, a, Reply{Want: wire.GetManifest, Bytes: g.manifest}, nil), "ask origin for hashes")
	now, without := second, ""
	for without == "" && now < time.Minute {
		if m.Asking() {
			expect(t, m.OnOrigin(now, a, Reply{Want: wire.GetHashFile, Err: errors.New("one\ntwo")}, nil), "origins failed")
		}
		now += 50 * time.Millisecond
		if acts := m.OnTick(now, a, nil); len(acts) > 0 && acts[0].Kind == Without {
			without = said(acts)
		}
	}
	if waited := now - second; without != "without: one; two" || waited < ForegroundPatience/2 || waited > 2*ForegroundPatience {
		t.Fatalf("%q after %s", without, waited)
	}
	a = Around{Givers: []Peer{1}}
	for m.Asking() == false && now < time.Hour {
		now += second
		if acts := m.OnTick(now, a, nil); len(acts) > 0 {
			expect(t, acts, "ask origin for hashes")
		}
	}
	expect(t, m.OnOrigin(now, a, Reply{Want: wire.GetHashFile, Bytes: g.hashes[1:]}, nil), "origins failed")
	for m.Asking() == false && now < 2*time.Hour {
		now += second
		m.OnTick(now, a, nil)
	}
	expect(t, m.OnOrigin(now, a, Reply{Want: wire.GetHashFile, Bytes: g.hashes}, nil), "got")
}

// TestHasten: who was in simple mode before waits no more.
func TestHasten(t *testing.T) {
	g, cfg := makeGoods(t, 3)
	m, a := New(cfg, 0), Around{Mine: true}
	if acts, err := m.OnInline(g.manifest, nil, nil); err != nil || len(acts) != 0 {
		t.Fatalf("%q, %v", said(acts), err)
	}
	expect(t, m.OnTick(second, a, nil), "ask origin for hashes")
	expect(t, m.OnOrigin(second, a, Reply{Want: wire.GetHashFile, Err: errors.New("gone")}, nil), "origins failed")
	m.Hasten()
	expect(t, m.OnTick(second, a, nil), "without: gone")
}

// TestInline: what came with Content Policy's reply is believed no more than the rest.
func TestInline(t *testing.T) {
	g, cfg := makeGoods(t, 3)
	other, _ := makeGoods(t, 4)
	for name, c := range map[string]struct {
		manifest, hashes []byte
		acts             string
		wrong            bool
	}{
		"nothing":          {},
		"both":             {g.manifest, g.hashes, "got", false},
		"another manifest": {other.manifest, other.hashes, "", true},
		"other hashes":     {g.manifest, other.hashes, "", true},
	} {
		acts, err := New(cfg, 0).OnInline(c.manifest, c.hashes, nil)
		if said(acts) != c.acts || (err != nil) != c.wrong {
			t.Errorf("%s: %q, %v", name, said(acts), err)
		}
	}
	renamed := cfg // the same bytes under other names
	renamed.Manifest = content.Digest{1}
	if _, err := New(renamed, 0).OnInline(g.manifest, g.hashes, nil); err == nil {
		t.Error("a manifest of another digest is believed")
	}
	cfg.Simple = "the policy says so"
	m := New(cfg, 0)
	if _, err := m.OnInline(g.manifest, nil, nil); err != nil {
		t.Fatal(err)
	}
	expect(t, m.OnTick(0, Around{}, nil), "without: the policy says so")
	expect(t, m.OnTick(time.Hour, Around{Mine: true}, nil), "")
}

// FuzzUnpack: whatever a frame holds, it unpacks to at most what the part may be.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{}, uint64(0), uint64(1))
	f.Add(Pack([]byte("hello")), uint64(3), uint64(8))
	f.Add(Pack(make([]byte, 3*wire.MaxPart)), uint64(0), uint64(3*wire.MaxPart))
	f.Fuzz(func(t *testing.T, frame []byte, off, total uint64) {
		if off > total {
			return // ParsePart refuses it
		}
		b, err := Unpack(wire.Part{Of: wire.GetManifest, Offset: off, Total: total, Frame: frame})
		if err == nil && (len(b) == 0 || len(b) > wire.MaxPart || uint64(len(b)) > total-off) {
			t.Errorf("%d bytes of %d at %d", len(b), total, off)
		}
	})
}
