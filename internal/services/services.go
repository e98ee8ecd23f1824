// Package services puts the server together: catalog, registry, the services' handlers, the
// table of who may call what, and one TLS listener for all of it.
//
// # State directory
//
//	ca/                 the fleet's certificate authority
//	grant.key           signs grants, tickets and the deny list
//	catalog.db          the catalog (SQLite, with its -wal and -shm)
//	metadata/           manifests and hash files by digest
//	leases              there while leases may be running (see package registry)
//	lock                locked while a server runs on the directory
//	server.addr         the address that the server is bound to, HOST:PORT
//	admin.token, publish.token, origin.token, join.token
//
// The first start makes all of it, with the group "default". Every later start goes on with
// it. A token file whose address is no longer the server's is written anew; where no usable
// admin token is left, one is made: whoever may write the directory is an administrator
// anyway. Everything is readable by its owner alone.
package services

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"freshet/internal/blob"
	"freshet/internal/catalog/sqlite"
	"freshet/internal/devices"
	"freshet/internal/geo"
	"freshet/internal/identity"
	"freshet/internal/registry/memory"
	"freshet/internal/web"
)

// Files of the state directory.
const (
	caDir       = "ca"
	catalogFile = "catalog.db"
	metadataDir = "metadata"
	leasesFile  = "leases"
	lockFile    = "lock"
	AddressFile = "server.addr"
)

// DefaultGroup is the group that the first start makes.
const DefaultGroup = "default"

// Periods of the server's upkeep.
const (
	sweepEvery  = 5 * time.Second  // of the registry
	reloadEvery = 10 * time.Second // of what other servers of the fleet may have changed
	renewEvery  = time.Hour        // a look at the server's own certificate
)

// Options of a server.
type Options struct {
	State     string   // directory, made when missing
	Listen    string   // HOST:PORT; port 0: any that is free
	Advertise string   // HOST or HOST:PORT that others reach it at; empty: what Listen is bound to
	Services  []string // names of Names; empty: all
	Fleet     string   // name of a new fleet; empty: one is drawn
	Log       *slog.Logger
}

// Server is an open server.
type Server struct {
	opt     Options
	log     *slog.Logger
	lock    *os.File
	ln      net.Listener
	address string // HOST:PORT that others reach it at

	ca      *identity.CA
	self    *identity.Credentials
	key     ed25519.PrivateKey
	catalog *sqlite.Catalog
	files   *blob.Files
	coder   *blob.Coder
	swarms  *memory.Registry
	locator *geo.Locator
	denied  *devices.Denied
	prober  *devices.Prober
	metrics *web.Metrics
}

// Open opens or makes the state directory and binds the address. Call Run, then Close.
func Open(ctx context.Context, opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	for _, name := range opt.Services {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("server: there is no service %q; the services are %q", name, Names())
		}
	}
	s := &Server{opt: opt, log: opt.Log, metrics: web.NewMetrics()}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("server: open %q: %w", opt.State, err), s.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(s.opt.State, 0o700); err != nil {
		return err
	}
	if s.lock, err = lockState(s.path(lockFile)); err != nil {
		return err
	}
	if err := s.openIdentity(); err != nil {
		return err
	}
	if s.catalog, err = sqlite.Open(ctx, s.path(catalogFile)); err != nil {
		return err
	}
	if s.files, err = blob.OpenFiles(s.path(metadataDir)); err != nil {
		return err
	}
	if s.coder, err = blob.NewCoder(); err != nil {
		return err
	}
	if s.swarms, err = memory.New(time.Now(), memory.Options{Seed: seed(), Mark: s.path(leasesFile), Log: s.log}); err != nil {
		return err
	}
	if s.locator, err = geo.NewLocator(ctx, s.catalog); err != nil {
		return err
	}
	if s.denied, err = devices.NewDenied(ctx, s.catalog, s.key); err != nil {
		return err
	}
	s.self.SetDenied(s.denied.Has)
	s.prober = devices.NewProber(s.self, s.swarms, time.Now, s.log)
	if err := s.bind(); err != nil {
		return err
	}
	if err := s.openTokens(ctx); err != nil {
		return err
	}
	// Last of all: whoever waits for this file finds everything else there.
	return writeFile(s.path(AddressFile), s.ln.Addr().String()+"\n")
}

func (s *Server) path(name string) string { return filepath.Join(s.opt.State, name) }

// bind listens and finds the address that others use.
func (s *Server) bind() (err error) {
	if s.ln, err = net.Listen("tcp", s.opt.Listen); err != nil {
		return fmt.Errorf("listen: %w; choose another address with --listen", err)
	}
	s.address, err = advertised(s.ln.Addr().(*net.TCPAddr), s.opt.Advertise)
	return err
}

// Address returns HOST:PORT that others reach the server at.
func (s *Server) Address() string { return s.address }

// Fleet returns the fleet's name.
func (s *Server) Fleet() string { return s.ca.Fleet() }

// Run serves until ctx ends, then lets requests under way finish.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(ctx)
	}()
	meter := web.NewMeter(s.metrics, s.locator.Label)
	config := s.self.ServerConfig(identity.ServerOptions{Optional: true})
	err := web.Server(ctx, tls.NewListener(meter.Listener(s.ln), config), s.Handler(), s.log)
	stop()
	<-kept
	return errors.Join(err, s.swarms.Sweep(context.WithoutCancel(ctx), time.Now()))
}

// Close releases the state directory.
func (s *Server) Close() error {
	var errs []error
	if s.ln != nil {
		if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.catalog != nil {
		errs = append(errs, s.catalog.Close())
	}
	if s.files != nil {
		errs = append(errs, s.files.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// keep does the server's upkeep until ctx ends.
func (s *Server) keep(ctx context.Context) {
	sweep, reload, renew := time.NewTicker(sweepEvery), time.NewTicker(reloadEvery), time.NewTicker(renewEvery)
	defer sweep.Stop()
	defer reload.Stop()
	defer renew.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			err = s.swarms.Sweep(ctx, time.Now())
		case <-reload.C:
			err = s.reload(ctx)
		case <-renew.C:
			err = s.renew(time.Now())
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("upkeep", "err", err)
		}
	}
}

// reload reads again what is held in memory of the catalog.
func (s *Server) reload(ctx context.Context) error {
	return errors.Join(s.locator.Reload(ctx), s.denied.Reload(ctx))
}

// renew issues the server's own certificate anew at half its life.
func (s *Server) renew(now time.Time) error {
	if now.Before(s.self.RenewAt()) {
		return nil
	}
	csr, err := s.self.CSR()
	if err != nil {
		return err
	}
	chain, err := s.ca.Issue(csr, s.self.Name())
	if err != nil {
		return err
	}
	return s.self.Replace(chain, s.ca.Roots())
}
