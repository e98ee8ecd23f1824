package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"freshet/internal/agent"
	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/config"
	"freshet/internal/identity"
	"freshet/internal/localapi"
	"freshet/internal/policy"
)

// agentOptions are the flags of "freshet agent".
type agentOptions struct {
	state, join, listen, file, profile, level string
	set                                       []string
}

func newAgentCommand() *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent --state DIR --join FILE",
		Short: "Run the device daemon: download, verify, keep and serve content",
		Long: `Run the daemon of a device. The first start enrols the device with the join token; later
starts need none. Programs on the device talk to it over STATE/freshet.sock.`,
		Example: `  freshet agent --state /var/lib/freshet-agent --join join.token
  freshet agent --state ./a --join join.token --listen 127.0.0.2:7680 --set DODownloadMode=2`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.state, "state", "", "state directory, made when it is missing")
	f.StringVar(&o.join, "join", "", "join token, for the first start")
	f.StringVar(&o.listen, "listen", ":7680", "address of the swarm port; with a host, calls are made from it too")
	f.StringVar(&o.file, "config", "", "TOML file of settings")
	f.StringVar(&o.profile, "profile", "", "whose defaults: freshet or do")
	f.StringArrayVar(&o.set, "set", nil, "a setting, NAME=VALUE; may be given several times")
	logFlag(cmd, &o.level)
	return cmd
}

func runAgent(ctx context.Context, cmd *cobra.Command, o *agentOptions) (err error) {
	if o.state == "" {
		return usagef(cmd, "--state DIR is needed")
	}
	log, err := newLogger(cmd, cmd.ErrOrStderr(), o.level)
	if err != nil {
		return err
	}
	local, err := localAddress(o.listen)
	if err != nil {
		return usagef(cmd, "--listen: %v", err)
	}
	layers, err := o.layers(cmd)
	if err != nil {
		return err
	}
	if o.state, err = filepath.Abs(o.state); err != nil {
		return err
	}
	if err := os.MkdirAll(o.state, 0o711); err != nil {
		return err
	}
	cred, server, err := o.enrol(ctx, local)
	if err != nil {
		return err
	}
	services, err := client.New(client.Options{Address: server, Credentials: cred, Local: local, CacheDir: o.state, Log: log})
	if err != nil {
		return err
	}
	settings, err := fleetSettings(ctx, services, layers, log)
	if err != nil {
		return err
	}
	a, err := agent.New(ctx, agent.Options{
		State: o.state, Settings: settings, Credentials: cred, Client: services,
		Facts: deviceFacts(o.state), Local: local, Log: log,
		Resolve: func(set []api.Setting) (policy.Settings, error) { return withServices(layers, set) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return serveAgent(ctx, cmd, o, a, log)
}

// serveAgent opens the two ports and runs until ctx ends.
func serveAgent(ctx context.Context, cmd *cobra.Command, o *agentOptions, a *agent.Agent, log *slog.Logger) error {
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	socket := filepath.Join(o.state, "freshet.sock")
	sock, err := localapi.Listen(socket)
	if err != nil {
		ln.Close()
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx, ln) })
	g.Go(func() error { return localapi.Serve(ctx, sock, a, log) })
	fmt.Fprintf(cmd.OutOrStdout(), "device %s: swarm port at %s, socket %s\n", a.Device(), ln.Addr(), socket)
	return g.Wait()
}

// localAddress is the host of a listen address, when it is one address and not all.
func localAddress(listen string) (netip.Addr, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.Addr{}, err
	}
	if host == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.IsUnspecified() {
		return netip.Addr{}, err
	}
	return addr, nil
}

func (o *agentOptions) layers(cmd *cobra.Command) ([]policy.Layer, error) {
	flags := map[string]string{}
	for _, s := range o.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, usagef(cmd, "--set %q is not NAME=VALUE", s)
		}
		flags[name] = value
	}
	return config.Load(config.Options{Profile: o.profile, File: o.file, Environ: os.Environ(), Flags: flags})
}

// enrol returns the device's credentials and the server's address: those of an earlier
// start, or new ones for the join token.
func (o *agentOptions) enrol(ctx context.Context, local netip.Addr) (*identity.Credentials, string, error) {
	dir := filepath.Join(o.state, "identity")
	addressFile := filepath.Join(o.state, "server")
	cred, err := identity.LoadCredentials(dir)
	if err == nil && o.join == "" {
		b, err := os.ReadFile(addressFile)
		return cred, strings.TrimSpace(string(b)), err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if o.join == "" {
		return nil, "", fmt.Errorf("%s holds no certificate: give --join FILE with a join token once", o.state)
	}
	token, tokenErr := identity.ReadToken(o.join)
	if tokenErr != nil {
		return nil, "", tokenErr
	}
	if err != nil { // not enrolled yet
		host, _ := os.Hostname()
		if cred, _, err = client.Enrol(ctx, token, host, dir, local); err != nil {
			return nil, "", err
		}
	}
	return cred, token.Address, os.WriteFile(addressFile, []byte(token.Address+"\n"), 0o600)
}

// fleetSettings adds what the fleet's administrator set. Without services the local layers
// are good until the next start.
func fleetSettings(ctx context.Context, c *client.Client, layers []policy.Layer, log *slog.Logger) (policy.Settings, error) {
	_, kv, err := c.Bootstrap(ctx)
	if err != nil {
		log.Warn("no service answers: starting without the fleet's settings", "err", err)
		return policy.Resolve(layers...)
	}
	return withServices(layers, kv.Settings)
}

// withServices resolves local layers with what the services say.
func withServices(layers []policy.Layer, set []api.Setting) (policy.Settings, error) {
	layers = slices.Clone(layers)
	byProvider := map[policy.Provider]*policy.Layer{}
	for _, s := range set {
		p := policy.Provider(s.Provider)
		if byProvider[p] == nil {
			byProvider[p] = &policy.Layer{Provider: p}
		}
		byProvider[p].Entries = append(byProvider[p].Entries, policy.Entry{Name: s.Name, Value: s.Value, At: "KeyValue"})
	}
	for _, p := range []policy.Provider{policy.Fleet, policy.Site, policy.Group, policy.Device} {
		if l := byProvider[p]; l != nil {
			layers = append(layers, *l)
		}
	}
	return policy.Resolve(layers...)
}
