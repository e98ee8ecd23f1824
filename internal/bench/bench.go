// Package bench measures freshet on this machine with the real code paths, and prints each
// figure with its bound and with what rivals reached, measured likewise. Nothing here
// judges: a machine that is busy gives worse figures, so compare runs that alternate.
package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"freshet/internal/agent"
	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/config"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/origin"
	"freshet/internal/policy"
	"freshet/internal/services"
)

// Options say how to measure.
type Options struct {
	Dir  string // for the files, a few times Size; it is removed
	Size int64  // bytes of the large content
	Runs int    // of each measurement
	Out  io.Writer
}

// Figure is one measured thing. Values are in the order of the runs.
type Figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Bound  string    `json:"bound"`  // what it must reach
	Rivals string    `json:"rivals"` // what others reached
}

func figure(name, unit string, values []float64, bound, rivals string) Figure {
	return Figure{Name: name, Unit: unit, Values: values, Median: median(values), Bound: bound, Rivals: rivals}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// fleet is services, a distribution point and agents in this process.
type fleet struct {
	dir    string
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
	state  string // of the server
	root   string // of the distribution point
	admin  *client.Client
	origin context.CancelFunc
	n      int
}

var quiet = slog.New(slog.DiscardHandler)

func newFleet(ctx context.Context, dir string) (*fleet, error) {
	f := &fleet{dir: dir, state: filepath.Join(dir, "server"), root: filepath.Join(dir, "root")}
	f.ctx, f.stop = context.WithCancel(ctx)
	srv, err := services.Open(f.ctx, services.Options{State: f.state, Listen: "127.0.0.1:0", Log: quiet})
	if err != nil {
		f.stop()
		return nil, err
	}
	f.run(func() {
		srv.Run(f.ctx)
		srv.Close()
	})
	token, err := identity.ReadToken(services.TokenFile(f.state, identity.TokenAdmin))
	if err == nil {
		f.admin, err = client.New(client.Options{Token: &token})
	}
	if err == nil {
		_, err = f.admin.AddSite(ctx, api.Site{Name: "bench", CIDRs: []string{"127.0.0.0/8"}})
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fleet) run(do func()) {
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		do()
	}()
}

func (f *fleet) close() {
	f.stop()
	f.wg.Wait()
}

// publish starts the distribution point on what lies in root, and waits until n contents
// are registered.
func (f *fleet) publish(n int) error {
	ctx, stop := context.WithCancel(f.ctx)
	f.origin = stop
	failed := make(chan error, 1)
	f.run(func() {
		failed <- origin.Run(ctx, origin.Options{
			State: filepath.Join(f.dir, "origin"), Listen: "127.0.0.1:0", Root: f.root,
			Join: services.TokenFile(f.state, identity.TokenOrigin), Log: quiet,
		})
	})
	for {
		list, err := f.admin.Contents(f.ctx)
		if err != nil || len(list) >= n {
			return err
		}
		select {
		case err := <-failed:
			return fmt.Errorf("bench: distribution point: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// device is an agent of the fleet.
type device struct {
	*agent.Agent
	stop context.CancelFunc
	done chan struct{}
}

// agent enrols and starts a device with these settings.
func (f *fleet) agent(settings map[string]string) (*device, error) {
	f.n++
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	state := filepath.Join(f.dir, fmt.Sprintf("agent-%d", f.n))
	token, err := identity.ReadToken(services.TokenFile(f.state, identity.TokenJoin))
	if err != nil {
		return nil, err
	}
	cred, _, err := client.Enrol(f.ctx, token, "bench", filepath.Join(state, "identity"), local)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Options{Address: token.Address, Credentials: cred, Local: local, CacheDir: state, Log: quiet})
	if err != nil {
		return nil, err
	}
	layers, err := config.Load(config.Options{Flags: settings})
	if err != nil {
		return nil, err
	}
	resolved, err := policy.Resolve(layers...)
	if err != nil {
		return nil, err
	}
	facts := policy.DeviceFacts{RAM: 1 << 40, Disk: 1 << 50}
	a, err := agent.New(f.ctx, agent.Options{State: state, Settings: resolved, Credentials: cred, Client: c, Facts: facts, Local: local, Log: quiet})
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(f.ctx)
	d := &device{Agent: a, stop: stop, done: make(chan struct{})}
	f.run(func() {
		defer close(d.done)
		a.Run(ctx, ln)
		a.Close()
		os.RemoveAll(state)
	})
	return d, nil
}

func (d *device) end() {
	d.stop()
	<-d.done
}

// get lets d get a content into its cache and returns the last progress.
func (d *device) get(ctx context.Context, name string, noCheck bool) (last agent.Progress, err error) {
	ref, err := content.ParseRef(name)
	if err != nil {
		return last, err
	}
	err = d.Download(ctx, agent.Request{Ref: ref, NoCheck: noCheck}, func(p agent.Progress) { last = p })
	return last, err
}

// cpu is processor time in seconds.
type cpu struct{ user, system float64 }

func (c cpu) since(before cpu) cpu { return cpu{c.user - before.user, c.system - before.system} }
func (c cpu) all() float64         { return c.user + c.system }

// randomFile writes n random bytes.
func randomFile(name string, n int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, n); err != nil {
		return err
	}
	return f.Close()
}

// Congestion names the TCP congestion control of this system; loopback speed hangs on it.
func Congestion() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "the system's default"
	}
	return strings.TrimSpace(string(b))
}
