// Package agent is the device daemon: it takes part in the swarms of its contents, serves
// what it holds, and downloads what it is asked for (design section 3).
//
//	Agent     listens, knows the shares (package share), owns the store, the buffers and the
//	          verifiers that they have in common, and keeps credentials and keys fresh
//	Download  one caller's wish: it waits for the share, checks whole files, places them
//
// Lock order: Agent.turnover, Agent.mu, then a download's, then what a share or the store locks by itself.
package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"freshet/internal/api"
	"freshet/internal/buffers"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/deliver"
	"freshet/internal/fetch"
	"freshet/internal/guard"
	"freshet/internal/identity"
	"freshet/internal/jobs"
	"freshet/internal/lan"
	"freshet/internal/metadata"
	"freshet/internal/peer"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/share"
	"freshet/internal/store"
	"freshet/internal/wire"
)

const (
	keysWait   = 5 * time.Second // for the services' first word, before a peer is turned away
	evictEvery = 10 * time.Minute
)

// maxDownloads is how many downloads run at once; others wait, foreground ones first.
const maxDownloads = 16

// Options are what New needs.
type Options struct {
	State       string // directory; STATE/cache is the store
	Settings    policy.Settings
	Credentials *identity.Credentials
	Client      *client.Client
	Facts       policy.DeviceFacts
	Local       netip.Addr // address to call from and to be reached at; zero: the system's choice
	Log         *slog.Logger

	Network lan.Network                                  // of datagrams; nil: this machine's interfaces
	Resolve func([]api.Setting) (policy.Settings, error) // with what the services say now; nil: they stay as they are

	leaseWait time.Duration // see [election.Config]; tests have less of it
}

// Agent is the daemon. Its methods may be called from any goroutine.
type Agent struct {
	opt      Options
	log      *slog.Logger
	dev      share.Device // complete once Run knows the port
	endpoint peer.Endpoint
	booted   chan struct{} // closed when the services were asked for the first time
	resumed  chan struct{} // closed when what was served before is again
	stages   deliver.Stages
	denials  *identity.Denials // owned by keepCredentials
	machine  machine
	busy     busy          // owned by New, then by keepConditions
	look     time.Duration // between two looks at files with expected metadata

	datagrams atomic.Bool                // are sent to the subnet
	home      atomic.Pointer[netip.Addr] // from which the services are called; nil: not known

	unreachable atomic.Pointer[string] // why the server does not reach the swarm port; nil: it does, or was not asked

	turnover sync.Mutex // held while an entry is retired, or taken up again

	mu        sync.Mutex // guards the following
	ctx       context.Context
	guard     *guard.Guard                    // from Run on
	holds     map[content.Digest]bool         // manifests in quarantine
	retiring  map[content.Digest]func()       // of those: which are to go, until the guard says otherwise; ends the tries
	downloads map[*download]bool              // under way, or waiting
	shares    map[content.Digest]*share.Share // by HashOfHashes
	calls     map[*share.Share]callers
	queue     *jobs.Queue
	start     map[jobs.ID]chan struct{} // closed when the download may run
	lastID    jobs.ID
	keys      []ed25519.PublicKey // that sign grants
	closed    bool
	wg        sync.WaitGroup
}

// New opens the store and prepares an agent; Run starts it.
func New(ctx context.Context, opt Options) (*Agent, error) {
	st, err := store.Open(ctx, store.Options{
		Dir: filepath.Join(opt.State, "cache"), Log: opt.Log, MaxAge: opt.Settings.MaxCacheAge(),
		Limit: func(free, used int64) int64 { return policy.CacheLimit(opt.Settings, free, used) },
	})
	if err != nil {
		return nil, err
	}
	receive := buffers.New(opt.Settings.PieceBuffers())
	a := &Agent{
		opt: opt, log: opt.Log,
		shares: map[content.Digest]*share.Share{},
		calls:  map[*share.Share]callers{},
		queue:  jobs.New(maxDownloads), machine: thisMachine(),
		start:  map[jobs.ID]chan struct{}{},
		booted: make(chan struct{}), resumed: make(chan struct{}),
		look:  lookEvery,
		holds: map[content.Digest]bool{}, retiring: map[content.Digest]func(){}, downloads: map[*download]bool{},
	}
	if a.denials, err = identity.NewDenials(opt.Credentials, filepath.Join(opt.State, "identity")); err != nil {
		a.log.Warn("the deny list is not known before the services tell it", "err", err)
	}
	a.dev = share.Device{
		Settings: opt.Settings, Facts: opt.Facts, Credentials: opt.Credentials, Client: opt.Client,
		HTTP:     fetch.Client(opt.Credentials.ClientConfig(identity.RoleOrigin), opt.Local),
		Endpoint: &a.endpoint, Local: opt.Local,
		Store: st, Records: records.NewBook(st, opt.Log),
		Receive: receive, Parked: deliver.NewLot(receive, opt.Settings.PieceBuffers()/6), Verifiers: share.NewVerifiers(receive),
		Log:     opt.Log,
		Resting: share.RestEvery, Patience: metadata.Patience{Foreground: metadata.ForegroundPatience, Background: metadata.BackgroundPatience},
	}
	a.endpoint = peer.Endpoint{
		Self: opt.Credentials.Name().Device, Credentials: opt.Credentials, Local: opt.Local,
		Receive: receive, Send: buffers.New(opt.Settings.UploadSlots()), Admit: a.admit, Accept: a.admitDialled,
	}
	if opt.Settings.PlainSwarm() {
		a.endpoint.Credentials = nil
	}
	a.dev.Subnet = a.newSubnet()
	return a, nil
}

// Close gives the store back. Run has returned before.
func (a *Agent) Close() error {
	a.dev.HTTP.CloseIdleConnections()
	a.opt.Client.CloseIdle()
	return a.dev.Store.Close()
}

// Run serves the swarm port on ln until ctx ends.
func (a *Agent) Run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := a.newGuard(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.ctx, a.guard, a.dev.Guard = ctx, g, g
	if at, ok := ln.Addr().(*net.TCPAddr); ok {
		a.dev.Port = at.Port
	}
	a.mu.Unlock()
	a.spawn(func() { g.Run(ctx) })
	<-g.Booted()
	a.spawn(func() { a.dev.Verifiers.Run(ctx) })
	a.spawn(func() { a.keepCredentials(ctx) })
	a.spawn(func() { a.runSubnet(ctx) })
	if a.opt.Settings.DownloadMode() == policy.AcrossNAT {
		a.spawn(func() { a.keepProbed(ctx) })
	}
	a.spawn(func() { a.evict(ctx) })
	if err := a.resume(ctx); err != nil {
		a.log.Warn("reading what was served before", "err", err)
	}
	close(a.resumed)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err = a.accept(ctx, ln)
	cancel()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.wg.Wait()
	return err
}

// spawn runs f until it returns; Run waits for it.
func (a *Agent) spawn(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spawnLocked(f)
}

func (a *Agent) spawnLocked(f func()) bool {
	if a.closed {
		return false
	}
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		f()
	}()
	return true
}

// accept answers peers. A failing accept (too many open files) is tried again: serving goes
// on.
func (a *Agent) accept(ctx context.Context, ln net.Listener) error {
	wait := 5 * time.Millisecond
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			wait = 5 * time.Millisecond
			if !a.spawn(func() { a.answer(ctx, raw) }) {
				raw.Close()
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("agent: swarm listener: %w", err)
		default:
			a.log.Warn("accepting a peer", "err", err)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
			wait = min(2*wait, time.Second)
		}
	}
}

func (a *Agent) answer(ctx context.Context, raw net.Conn) {
	c, theirs, err := a.endpoint.Answer(ctx, raw)
	if err != nil {
		a.log.Debug("peer not admitted", "err", err)
		return
	}
	s := a.shareOf(theirs.HashOfHashes)
	if s == nil {
		c.Close()
		return
	}
	s.Answer(c)
}

func (a *Agent) grantKeys() []ed25519.PublicKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys
}

// bootstrap asks Geo and KeyValue, and takes the keys that sign grants.
func (a *Agent) bootstrap(ctx context.Context) error {
	_, kv, err := a.opt.Client.Bootstrap(ctx)
	if err != nil {
		return err
	}
	keys, err := identity.ParseGrantKeys(kv.GrantKeys)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.keys = keys
	a.mu.Unlock()
	a.refreshLAN(ctx, kv)
	return nil
}

// keepCredentials bootstraps, and renews the certificate at half of its life.
func (a *Agent) keepCredentials(ctx context.Context) {
	var once sync.Once
	for {
		wait := time.Minute
		if err := a.bootstrap(ctx); err != nil {
			a.log.Warn("services do not answer; going on with what they said last", "err", err)
			wait = 5 * time.Second
		} else if err := a.refreshDenied(ctx); err != nil {
			a.log.Warn("deny list", "err", err)
		}
		once.Do(func() { close(a.booted) })
		if time.Now().After(a.opt.Credentials.RenewAt()) {
			if _, err := a.opt.Client.Renew(ctx, filepath.Join(a.opt.State, "identity")); err != nil {
				a.log.Warn("renewing the certificate", "err", err, "expires", a.opt.Credentials.Expires())
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// refreshDenied gets the list of devices that no one deals with any more, and leaves those that
// are connected.
func (a *Agent) refreshDenied(ctx context.Context) error {
	signed, tag, err := a.opt.Client.DenyList(ctx, a.denials.Tag())
	if err != nil || signed == nil {
		return err
	}
	err = a.denials.Take(a.grantKeys(), signed, tag)
	a.mu.Lock()
	shares := slices.Collect(maps.Values(a.shares))
	a.mu.Unlock()
	for _, s := range shares {
		s.Part(a.opt.Credentials.Denied)
	}
	return err
}

// evict removes what is unused for too long, again and again.
func (a *Agent) evict(ctx context.Context) {
	tick := time.NewTicker(evictEvery)
	defer tick.Stop()
	for {
		if _, err := a.dev.Store.Evict(ctx, 0); err != nil && ctx.Err() == nil {
			a.log.Warn("evicting from the cache", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Device returns the device's id.
func (a *Agent) Device() wire.DeviceID { return a.opt.Credentials.Name().Device }
