package origin

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/policy"
	"freshet/internal/web"
)

// Options are those of a distribution point's process.
type Options struct {
	State     string                 // directory
	Listen    string                 // HOST:PORT; port 0: any, see STATE/origin.addr
	Join      string                 // file of the origin token; needed at the first start
	Root      string                 // directory of contents
	Mapped    map[content.Ref]string // contents that lie elsewhere
	Advertise string                 // URL where devices reach this server; empty: found out
	Uplink    int64                  // bytes a second to each site; 0: no limit
	Sites     *Sites                 // by which the uplink is shaped and its bytes counted
	Progress  func(ref content.Ref, done, total int64)
	Log       *slog.Logger
}

const (
	addrFile     = "origin.addr" // below STATE: the bound address
	serverFile   = "server.addr" // below STATE: the server's address, from the token
	identityDir  = "identity"
	servicesDir  = "services"
	refreshEvery = time.Minute     // of grant keys and deny list
	retryEvery   = 5 * time.Second // of what failed: first contact, registration
	renewRetry   = 10 * time.Minute
)

// Run is the distribution point's process: it enrols at its first start, hashes, registers
// and serves until ctx ends.
func Run(ctx context.Context, opt Options) error {
	d, err := start(ctx, opt)
	if err != nil {
		return err
	}
	defer d.point.Close()
	defer d.services.CloseIdle()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return web.Server(ctx, d.listener, d.handler(), opt.Log) })
	g.Go(func() error { return d.load(ctx) })
	g.Go(func() error { return d.point.Watch(ctx) })
	g.Go(func() error { return every(ctx, d.refresh) })
	g.Go(func() error { return d.renew(ctx) })
	return g.Wait()
}

// daemon is a running distribution point.
type daemon struct {
	opt      Options
	creds    *identity.Credentials
	services *client.Client
	point    *Origin
	listener net.Listener // TLS
	metrics  *web.Metrics
	ready    atomic.Bool
	keys     atomic.Pointer[[]ed25519.PublicKey]
	pinned   atomic.Pointer[identity.Publishers]
	denials  *identity.Denials // owned by start, then by the goroutine of refresh
}

func start(ctx context.Context, opt Options) (*daemon, error) {
	if opt.Sites == nil {
		opt.Sites = &Sites{}
	}
	if err := checkAdvertise(opt.Advertise); err != nil { // before a use of the token is spent
		return nil, err
	}
	if err := os.MkdirAll(opt.State, 0o700); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	d := &daemon{opt: opt, metrics: web.NewMetrics()}
	server, err := d.enrol(ctx)
	if err != nil {
		return nil, err
	}
	if d.denials, err = identity.NewDenials(d.creds, filepath.Join(opt.State, identityDir)); err != nil {
		opt.Log.Warn("the deny list is not known before the services tell it", "err", err)
	}
	d.services, err = client.New(client.Options{
		Address: server, Credentials: d.creds, CacheDir: filepath.Join(opt.State, servicesDir), Log: opt.Log,
	})
	if err != nil {
		return nil, err
	}
	d.refresh(ctx) // without the grant keys, who comes at once would be turned away
	ln, err := net.Listen("tcp", opt.Listen)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	if err := d.open(ln, server); err != nil {
		ln.Close()
		return nil, err
	}
	return d, nil
}

// open opens the distribution point behind ln.
func (d *daemon) open(ln net.Listener, server string) error {
	base, err := advertised(d.opt.Advertise, ln.Addr(), server)
	if err != nil {
		return err
	}
	if d.listener, err = d.listen(ln); err != nil {
		return err
	}
	d.point, err = Open(Config{
		State: d.opt.State, Root: d.opt.Root, Mapped: d.opt.Mapped, Self: d.creds.Name().Device, BaseURL: base,
		Keys: d.grantKeys, Grace: d.creds.InGrace, Publishers: d.publishers, Sign: d.creds.SignManifest,
		Register: d.services.Publish, Progress: d.opt.Progress, Log: d.opt.Log,
	})
	if err != nil {
		return err
	}
	d.opt.Log.Info("distribution point listens", "address", ln.Addr().String(), "advertised", base, "root", d.opt.Root)
	return writeLine(filepath.Join(d.opt.State, addrFile), ln.Addr().String())
}

// enrol loads the credentials, or gets them with the token. It returns the server's address.
func (d *daemon) enrol(ctx context.Context) (server string, err error) {
	dir, addr := filepath.Join(d.opt.State, identityDir), filepath.Join(d.opt.State, serverFile)
	d.creds, err = identity.LoadCredentials(dir)
	if err == nil {
		return d.server(addr)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if d.opt.Join == "" {
		return "", fmt.Errorf("origin: %q holds no identity yet: give the server's origin.token with --join FILE", d.opt.State)
	}
	token, err := identity.ReadToken(d.opt.Join)
	if err != nil {
		return "", err
	}
	if err := token.Require(identity.TokenOrigin, time.Now()); err != nil {
		return "", fmt.Errorf("join with %q: %w", d.opt.Join, err)
	}
	if err := writeLine(addr, token.Address); err != nil {
		return "", err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "origin" // it is for people only
	}
	d.creds, _, err = client.Enrol(ctx, token, name, dir, netip.Addr{})
	return token.Address, err
}

// server returns the server's address: of the token, when it is of the same fleet, since it
// may be newer, else the one that was kept.
func (d *daemon) server(path string) (string, error) {
	if d.opt.Join != "" {
		if t, err := identity.ReadToken(d.opt.Join); err == nil && t.Fleet == d.creds.Name().Fleet {
			return t.Address, writeLine(path, t.Address)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("origin: the server's address: %w; give the server's origin.token with --join FILE", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// writeLine writes a small file that others may read at any time: it appears by rename.
func writeLine(path, line string) error {
	if err := os.WriteFile(path+".new", []byte(line+"\n"), 0o644); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	return nil
}

// checkAdvertise checks the URL that the user gave, if any.
func checkAdvertise(given string) error {
	u, err := url.Parse(given)
	if given != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return fmt.Errorf("origin: --advertise %q is not of the form https://HOST:PORT/", given)
	}
	return nil
}

// advertised returns the URL where devices reach this server. When it listens on all
// addresses, it is the one by which this machine reaches the server.
func advertised(given string, bound net.Addr, server string) (string, error) {
	if given != "" {
		return baseURL(given), nil
	}
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("origin: %w", err)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		c, err := net.Dial("udp", server) // chooses a source address and sends nothing
		if err != nil {
			return "", fmt.Errorf("origin: own address towards %q: %w; give it with --advertise", server, err)
		}
		host, _, err = net.SplitHostPort(c.LocalAddr().String())
		c.Close()
		if err != nil {
			return "", fmt.Errorf("origin: own address: %w; give it with --advertise", err)
		}
	}
	return "https://" + net.JoinHostPort(host, port) + "/", nil
}

// listen counts, shapes and encrypts what ln accepts, from the wire inwards.
func (d *daemon) listen(ln net.Listener) (net.Listener, error) {
	ln = web.NewMeter(d.metrics, d.opt.Sites.Of).Listener(ln)
	if d.opt.Uplink > 0 {
		buckets := map[string]*web.Bucket{}
		for _, site := range append([]string{OtherSite}, d.opt.Sites.Names()...) {
			b, err := web.NewBucket(d.opt.Uplink, web.MaxBurst)
			if err != nil {
				return nil, fmt.Errorf("origin: uplink: %w", err)
			}
			buckets[site] = b
		}
		ln = web.Shape(ln, func(a netip.Addr) *web.Bucket { return buckets[d.opt.Sites.Of(a)] })
	}
	// Publishers have no certificate: they show a ticket.
	cfg := d.creds.ServerConfig(identity.ServerOptions{Roles: []identity.Role{identity.RoleDevice, identity.RoleOrigin}, Optional: true})
	cfg.DynamicRecordSizingDisabled = true // records are full from the first one on
	return tls.NewListener(ln, cfg), nil
}

func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	health := web.Health(d.metrics, func(context.Context) error {
		if !d.ready.Load() {
			return errors.New("contents are being hashed")
		}
		return nil
	})
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		mux.Handle("GET "+path, health)
	}
	mux.Handle("/", d.admit(d.point.Handler()))
	return web.Log(mux, d.opt.Log)
}

// admit closes the connections of devices that were denied since they opened them.
func (d *daemon) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			if peer, err := identity.PeerName(*r.TLS); err == nil && d.creds.Denied(peer.Device) {
				w.Header().Set("Connection", "close")
				web.Problem(w, r, *problem(http.StatusForbidden, "revoked", "this device was revoked", ""))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (d *daemon) grantKeys() []ed25519.PublicKey {
	if k := d.keys.Load(); k != nil {
		return *k
	}
	return nil
}

func (d *daemon) publishers() identity.Publishers {
	if p := d.pinned.Load(); p != nil {
		return *p
	}
	return identity.Publishers{}
}

// load hashes what lies in the directories and then registers, again and again, what the
// server does not know.
func (d *daemon) load(ctx context.Context) error {
	if err := d.point.Load(ctx); err != nil && ctx.Err() == nil {
		d.opt.Log.Error("some contents are not served", "err", err)
	}
	d.ready.Store(true)
	return every(ctx, func(ctx context.Context) time.Duration {
		d.point.RegisterAll(ctx)
		return retryEvery
	})
}

// refresh gets the grant keys, the publishers' keys that the fleet pins, and the deny list, and
// says when to do so again. Without services they are those of the last reply.
func (d *daemon) refresh(ctx context.Context) time.Duration {
	_, kv, err := d.services.Bootstrap(ctx)
	if err != nil {
		d.opt.Log.Warn("no word from the services", "err", err)
		return retryEvery
	}
	keys, err := identity.ParseGrantKeys(kv.GrantKeys)
	if err != nil {
		d.opt.Log.Error("the services' grant keys are not believed", "err", err)
		return retryEvery
	}
	d.keys.Store(&keys)
	if pinned, err := pinnedBy(kv.Settings); err != nil {
		d.opt.Log.Error("the fleet's publishers' keys are not taken", "err", err)
	} else {
		d.pinned.Store(&pinned)
	}
	signed, tag, err := d.services.DenyList(ctx, d.denials.Tag())
	if err == nil && signed != nil {
		err = d.denials.Take(keys, signed, tag)
	}
	if err != nil {
		d.opt.Log.Warn("deny list", "err", err)
	}
	return refreshEvery
}

// pinnedBy returns the publishers' keys that the fleet's settings pin.
func pinnedBy(settings []api.Setting) (identity.Publishers, error) {
	l := policy.Layer{Provider: policy.Fleet}
	for _, s := range settings {
		if s.Provider == string(policy.Fleet) { // a site's are of no use here, and pin nothing
			l.Entries = append(l.Entries, policy.Entry{Name: s.Name, Value: s.Value, At: "KeyValue"})
		}
	}
	resolved, err := policy.Resolve(l)
	if err != nil {
		return identity.Publishers{}, err
	}
	return identity.PublishersOf(resolved), nil
}

// renew renews the certificate at half of its life.
func (d *daemon) renew(ctx context.Context) error {
	return every(ctx, func(ctx context.Context) time.Duration {
		if time.Now().Before(d.creds.RenewAt()) {
			return time.Until(d.creds.RenewAt())
		}
		if _, err := d.services.Renew(ctx, filepath.Join(d.opt.State, identityDir)); err != nil {
			d.opt.Log.Error("the certificate is not renewed", "expires", d.creds.Expires(), "err", err)
			return renewRetry
		}
		d.opt.Log.Info("the certificate is renewed", "expires", d.creds.Expires())
		return time.Until(d.creds.RenewAt())
	})
}

// every calls do at once, and again after the time that it returns, until ctx ends.
func every(ctx context.Context, do func(context.Context) time.Duration) error {
	for {
		timer := time.NewTimer(max(do(ctx), time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}
