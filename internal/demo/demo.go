// Package demo runs a whole fleet on one machine, each role a process of its own: the
// services, a distribution point whose uplink to each site is shaped, and devices spread
// over sites by 127.x addresses. Every device gets the same content at the same time; then
// it counts what crossed each site's WAN link and compares every copy with the source.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"freshet/internal/agent"
	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/localapi"
)

// Options say what to show.
type Options struct {
	Binary  string // the freshet to run
	Path    string // directory to publish
	Devices int    // 1 to 200
	Sites   int    // 1 to Devices
	WAN     string // rate of each site's link, as "origin --uplink" reads it
	Rate    int64  // the same in bytes a second
	Mode    int    // DODownloadMode of the devices; 0: the default
	InTurn  bool   // one site after the other, so that later ones find peers at earlier ones
	Keep    string // directory for the copies; empty: they are removed
	View    View

	Stopping func(agents []int) // called with the agents' process ids before they are stopped; may be nil
}

// View is told how the demo goes.
type View interface {
	Step(text string)                          // a new phase
	Device(i int, p agent.Progress, err error) // progress of device i, from 0
}

// Device is what one device did.
type Device struct {
	Name            string  `json:"name"`
	Site            string  `json:"site"`
	BytesFromPeers  int64   `json:"bytesFromPeers"`
	BytesFromOrigin int64   `json:"bytesFromOrigin"`
	Seconds         float64 `json:"seconds"`
	Verified        bool    `json:"verified"`

	BytesFromOtherSites int64 `json:"bytesFromOtherSites"` // of BytesFromPeers and of what was cancelled on its way
}

// Report is what came of the demo. Bytes of the WAN are payload of the connections, in both
// directions, TLS and HTTP included, counted by the distribution point and the server, and
// the pieces that devices sent to devices of other sites, counted for the receiving site.
type Report struct {
	Content          string    `json:"content"`
	ManifestDigest   string    `json:"manifestDigest"`
	ContentBytes     int64     `json:"contentBytes"`
	Files            int       `json:"files"`
	Sites            int       `json:"sites"`
	WANBytes         int64     `json:"wanBytes"` // of all sites
	WANBytesPerSite  []int64   `json:"wanBytesPerSite"`
	WANCopiesPerSite []float64 `json:"wanCopiesPerSite"`
	Seconds          float64   `json:"seconds"` // of the slowest device
	BoundSeconds     float64   `json:"boundSeconds"`
	TimesBound       float64   `json:"timesBound"`
	Verified         bool      `json:"verified"`
	Devices          []Device  `json:"devices"`

	// What peers sent of WANBytes and of WANBytesPerSite.
	BytesFromOtherSites        int64   `json:"bytesFromOtherSites"`
	BytesFromOtherSitesPerSite []int64 `json:"bytesFromOtherSitesPerSite"`
}

var demoRef = content.Ref{ID: "demo", Version: 1}

// fleet is a running demo.
type fleet struct {
	opt    Options
	dir    string
	admin  *client.Client
	token  identity.Token
	procs  []*process
	server string // address
	origin string // address
}

// Run runs the demo. With an error, the report says what is known nevertheless; it is not
// Verified.
func Run(ctx context.Context, opt Options) (rep Report, err error) {
	if err := opt.check(); err != nil {
		return Report{}, err
	}
	dir, err := os.MkdirTemp(opt.Keep, "freshet-demo-")
	if err != nil {
		return Report{}, err
	}
	f := &fleet{opt: opt, dir: dir}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := f.start(ctx); err != nil {
		return Report{}, f.explain(err)
	}
	if rep, err = f.deliver(ctx); err != nil {
		return rep, f.explain(err)
	}
	if opt.Stopping != nil {
		opt.Stopping(f.agents())
	}
	return rep, nil
}

// agents returns the process ids of the agents.
func (f *fleet) agents() []int {
	var pids []int
	for _, p := range f.procs {
		if strings.HasPrefix(p.name, "device-") {
			pids = append(pids, p.cmd.Process.Pid)
		}
	}
	return pids
}

func (o *Options) check() error {
	switch {
	case o.Devices < 1 || o.Devices > 200:
		return fmt.Errorf("demo: %d devices: choose 1 to 200", o.Devices)
	case o.Sites < 1 || o.Sites > o.Devices:
		return fmt.Errorf("demo: %d sites for %d devices: choose 1 to %d", o.Sites, o.Devices, o.Devices)
	case o.Sites > 1 && !manyLoopbacks():
		return errors.New("demo: this system has no loopback address but 127.0.0.1, which makes one site; use --sites 1")
	}
	if o.Keep == "" {
		return nil
	}
	if err := os.MkdirAll(o.Keep, 0o755); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for i := range o.Devices {
		if name := o.copyOf(i); exists(name) {
			return fmt.Errorf("demo: %q exists; remove it, or keep the copies elsewhere", name)
		}
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// manyLoopbacks reports whether all of 127.0.0.0/8 is this machine's.
func manyLoopbacks() bool {
	ln, err := net.Listen("tcp", "127.1.0.1:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

// site returns the name and prefix of site s, from 0.
func (o *Options) site(s int) (name, cidr string) {
	if !manyLoopbacks() {
		return "site-1", "127.0.0.0/8"
	}
	return fmt.Sprintf("site-%d", s+1), fmt.Sprintf("127.%d.0.0/16", s+1)
}

// address returns where device i listens.
func (o *Options) address(i int) string {
	if !manyLoopbacks() {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.%d.0.%d:0", i%o.Sites+1, i/o.Sites+1)
}

func (o *Options) copyOf(i int) string {
	return filepath.Join(o.Keep, fmt.Sprintf("device-%d", i+1))
}

// start brings up server, distribution point and agents.
func (f *fleet) start(ctx context.Context) error {
	f.opt.View.Step("starting the services")
	if err := f.startServer(ctx); err != nil {
		return err
	}
	f.opt.View.Step("publishing " + f.opt.Path)
	if err := f.startOrigin(ctx); err != nil {
		return err
	}
	f.opt.View.Step(fmt.Sprintf("starting %d devices", f.opt.Devices))
	return f.startAgents(ctx)
}

func (f *fleet) startServer(ctx context.Context) error {
	state := filepath.Join(f.dir, "server")
	if err := f.run("server", "server", "--state", state, "--listen", "127.0.0.1:0"); err != nil {
		return err
	}
	addr, err := f.await(ctx, filepath.Join(state, "server.addr"))
	if err != nil {
		return err
	}
	f.server = addr
	if f.token, err = identity.ReadToken(filepath.Join(state, "admin.token")); err != nil {
		return err
	}
	if f.admin, err = client.New(client.Options{Token: &f.token}); err != nil {
		return err
	}
	for s := range f.opt.Sites {
		name, cidr := f.opt.site(s)
		if _, err := f.admin.AddSite(ctx, api.Site{Name: name, CIDRs: []string{cidr}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) startOrigin(ctx context.Context) error {
	state := filepath.Join(f.dir, "origin")
	root := filepath.Join(f.dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	args := []string{"origin", "--state", state, "--listen", "127.0.0.1:0", "--root", root,
		"--join", filepath.Join(f.dir, "server", "origin.token"),
		"--content", demoRef.String() + "=" + f.opt.Path, "--uplink", f.opt.WAN}
	for s := range f.opt.Sites {
		name, cidr := f.opt.site(s)
		args = append(args, "--uplink-site", name+"="+cidr)
	}
	if err := f.run("origin", args...); err != nil {
		return err
	}
	addr, err := f.await(ctx, filepath.Join(state, "origin.addr"))
	if err != nil {
		return err
	}
	f.origin = addr
	return f.poll(ctx, "the distribution point to publish", func() (bool, error) {
		list, err := f.admin.Contents(ctx)
		return len(list) > 0, err
	})
}

func (f *fleet) startAgents(ctx context.Context) error {
	for i := range f.opt.Devices {
		args := []string{"agent", "--state", f.agentState(i), "--log", "warn",
			"--join", filepath.Join(f.dir, "server", "join.token"), "--listen", f.opt.address(i)}
		if f.opt.Mode != 0 {
			args = append(args, "--set", fmt.Sprintf("DODownloadMode=%d", f.opt.Mode))
		}
		if err := f.run(f.agentName(i), args...); err != nil {
			return err
		}
	}
	for i := range f.opt.Devices {
		if _, err := f.await(ctx, f.socket(i)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) agentName(i int) string  { return fmt.Sprintf("device-%d", i+1) }
func (f *fleet) agentState(i int) string { return filepath.Join(f.dir, f.agentName(i)) }
func (f *fleet) socket(i int) string     { return filepath.Join(f.agentState(i), "freshet.sock") }

// deliver lets every device get the content at the same time. With an error, the report says
// what is known nevertheless.
func (f *fleet) deliver(ctx context.Context) (Report, error) {
	list, err := f.admin.Contents(ctx)
	if err != nil {
		return Report{}, err
	}
	rep := Report{
		Content: demoRef.String(), ManifestDigest: list[0].ManifestDigest, ContentBytes: list[0].Size, Files: list[0].Files,
		Sites: f.opt.Sites, BoundSeconds: float64(list[0].Size) / float64(f.opt.Rate),
		Devices: make([]Device, f.opt.Devices),
	}
	f.opt.View.Step(fmt.Sprintf("every device gets %s", rep.Content))
	before, err := f.wanBytes(ctx)
	if err != nil {
		return Report{}, err
	}
	dest, err := f.getAll(ctx, rep.Devices)
	if err != nil {
		return Report{}, err
	}
	countErr := f.count(ctx, &rep, before)
	f.opt.View.Step("comparing every copy with the source")
	err = errors.Join(f.verify(ctx, &rep, dest), countErr)
	rep.Verified = err == nil
	return rep, err
}

// getAll lets all devices get the content and returns where each put it.
func (f *fleet) getAll(ctx context.Context, devices []Device) (dest []string, err error) {
	for i := range devices {
		d := filepath.Join(f.dir, f.agentName(i), "out")
		if f.opt.Keep != "" {
			d = f.opt.copyOf(i)
		}
		dest = append(dest, d)
	}
	if !f.opt.InTurn {
		return dest, f.getSome(ctx, devices, dest, func(int) bool { return true })
	}
	for site := range f.opt.Sites {
		if err := f.getSome(ctx, devices, dest, func(i int) bool { return i%f.opt.Sites == site }); err != nil {
			return nil, err
		}
	}
	return dest, nil
}

// getSome lets some of the devices get the content.
func (f *fleet) getSome(ctx context.Context, devices []Device, dest []string, which func(i int) bool) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range devices {
		if which(i) {
			g.Go(func() error { return f.get(ctx, i, dest[i], &devices[i]) })
		}
	}
	return g.Wait()
}

// count fills in what crossed the WAN since before.
func (f *fleet) count(ctx context.Context, rep *Report, before []int64) error {
	after, err := f.wanBytes(ctx)
	if err != nil {
		return err
	}
	for i := range after {
		rep.WANBytesPerSite = append(rep.WANBytesPerSite, after[i]-before[i])
	}
	far, err := f.betweenSites(ctx)
	rep.addPeers(far)
	for _, n := range rep.WANBytesPerSite {
		rep.WANBytes += n
		rep.WANCopiesPerSite = append(rep.WANCopiesPerSite, float64(n)/float64(max(rep.ContentBytes, 1)))
	}
	return err
}

// get lets device i get the content.
func (f *fleet) get(ctx context.Context, i int, dest string, d *Device) error {
	if err := os.Mkdir(dest, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer dir.Close()
	d.Name = f.agentName(i)
	d.Site, _ = f.opt.site(i % f.opt.Sites)
	started := time.Now()
	err = localapi.Client{Path: f.socket(i)}.Get(ctx, localapi.Call{Content: demoRef.String()}, dir, func(p agent.Progress) {
		d.BytesFromPeers, d.BytesFromOrigin = p.FromPeers, p.FromOrigin
		f.opt.View.Device(i, p, nil)
	})
	d.Seconds = time.Since(started).Seconds()
	if err != nil {
		f.opt.View.Device(i, agent.Progress{}, err)
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// verify compares every copy with the source, and fills in what follows from all devices.
func (f *fleet) verify(ctx context.Context, rep *Report, dest []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range dest {
		g.Go(func() error {
			if err := sameTree(ctx, f.opt.Path, dest[i]); err != nil {
				return fmt.Errorf("demo: %s has other bytes than the source: %w", f.agentName(i), err)
			}
			rep.Devices[i].Verified = true
			return nil
		})
		rep.Seconds = max(rep.Seconds, rep.Devices[i].Seconds)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if rep.BoundSeconds > 0 {
		rep.TimesBound = rep.Seconds / rep.BoundSeconds
	}
	return nil
}

// wanBytes returns what crossed each site's link so far, in both directions.
func (f *fleet) wanBytes(ctx context.Context) ([]int64, error) {
	sum := make([]int64, f.opt.Sites)
	for _, from := range []struct {
		addr string
		role identity.Role
	}{{f.server, identity.RoleServer}, {f.origin, identity.RoleOrigin}} {
		bySite, err := f.metered(ctx, from.addr, from.role)
		if err != nil {
			return nil, err
		}
		for s := range sum {
			name, _ := f.opt.site(s)
			sum[s] += bySite[name]
		}
	}
	return sum, nil
}

// addrPort checks what a process wrote as its address.
func addrPort(s string) (string, error) {
	s = strings.TrimSpace(s)
	if _, err := netip.ParseAddrPort(s); err != nil {
		return "", fmt.Errorf("demo: %q is no address: %w", s, err)
	}
	return s, nil
}
