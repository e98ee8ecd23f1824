package memory

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"freshet/internal/registry"
	"freshet/internal/registry/registrytest"
	"freshet/internal/wire"
)

func TestConformance(t *testing.T) {
	registrytest.Test(t, func(t *testing.T, s registrytest.Start) registrytest.Engine {
		o := Options{Seed: 1}
		if s.Dir != "" {
			o.Mark = filepath.Join(s.Dir, "leases")
		}
		r, err := New(s.Now, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	})
}

func testJoin(n int) registry.Join {
	return registry.Join{
		Key: registry.Key{Group: "lab"}, Device: wire.DeviceID{byte(n >> 16), byte(n >> 8), byte(n)}, Site: fmt.Sprint("s", n%100),
		Address: netip.MustParseAddrPort("10.0.0.1:7680"), Mode: registry.ModeGroup, Left: int64(n % 3), WantLease: true,
	}
}

// TestForgets wants nothing left of swarms that ran out.
func TestForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	r, err := New(now, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		j := testJoin(n)
		j.Key.HashOfHashes[0] = byte(n % 10)
		if _, err := r.Join(t.Context(), now, j); err != nil {
			t.Fatal(err)
		}
	}
	moving := testJoin(0)
	for n := range 100 {
		moving.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)
		if _, err := r.Join(t.Context(), now, moving); err != nil {
			t.Fatal(err)
		}
	}
	s := r.lock(moving.Key, false)
	if n := len(s.sites[moving.Site].subnets); n != 1 {
		t.Errorf("%d subnets are known where one device is of any", n)
	}
	s.mu.Unlock()
	if err := r.Probed(t.Context(), now, wire.DeviceID{1}, testJoin(1).Address); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n := len(r.probes.by); n != 0 {
		t.Errorf("%d probes are still remembered", n)
	}
	for i := range r.shards {
		if n := len(r.shards[i].swarms); n != 0 {
			t.Errorf("shard %d still has %d swarms", i, n)
		}
	}
	if n := r.mark.running.Load(); n != 0 {
		t.Errorf("%d leases are still counted", n)
	}
}

// TestConcurrent lets joins, leaves and sweeps of the same swarms run at once.
func TestConcurrent(t *testing.T) {
	now := time.Unix(1000, 0)
	r, err := New(now, Options{Mark: filepath.Join(t.TempDir(), "leases")})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 500 {
				j := testJoin(n)
				j.Key.HashOfHashes[0] = byte(n % 3)
				at := now.Add(time.Duration(n) * time.Second)
				switch {
				case n%50 == w:
					if err := r.Sweep(t.Context(), at); err != nil {
						t.Error(err)
					}
				case n%7 == w:
					if err := r.Leave(t.Context(), at, j.Key, j.Device); err != nil {
						t.Error(err)
					}
				default:
					if _, err := r.Join(t.Context(), at, j); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := r.Sweep(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n := r.mark.running.Load(); n != 0 {
		t.Errorf("%d leases are counted after all ran out", n)
	}
	if _, err := os.Stat(r.mark.path); !os.IsNotExist(err) {
		t.Errorf("the mark is still there (%v)", err)
	}
}

// TestMarkUnwritable grants nevertheless.
func TestMarkUnwritable(t *testing.T) {
	now := time.Unix(1000, 0)
	r, err := New(now, Options{Mark: filepath.Join(t.TempDir(), "none", "leases")})
	if err != nil {
		t.Fatal(err)
	}
	j := testJoin(1)
	if a, err := r.Join(t.Context(), now, j); err != nil || !a.Lease.Mine {
		t.Errorf("lease %+v, %v; want mine", a.Lease, err)
	}
	if _, err := New(now, Options{Mark: strings.Repeat("x", 5000)}); err == nil {
		t.Error("a mark that cannot be looked for was taken for absent")
	}
}

// BenchmarkJoin is one join in a swarm of that many devices, 30 peers handed out.
func BenchmarkJoin(b *testing.B) {
	for _, size := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			now := time.Unix(1000, 0)
			r, err := New(now, Options{})
			if err != nil {
				b.Fatal(err)
			}
			for n := range size {
				if _, err := r.Join(b.Context(), now, testJoin(n)); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for b.Loop() {
				if _, err := r.Join(b.Context(), now, testJoin(n%size)); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}
