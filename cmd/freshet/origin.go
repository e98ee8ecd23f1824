package main

import (
	"sync"

	"github.com/spf13/cobra"

	"freshet/internal/content"
	"freshet/internal/origin"
)

// originOptions are the flags of "freshet origin".
type originOptions struct {
	origin.Options
	contents []string
	uplink   string
	sites    []string
	level    string
}

func newOriginCommand() *cobra.Command {
	var o originOptions
	cmd := &cobra.Command{
		Use: "origin --state DIR --listen ADDR --join FILE --root DIR", Short: "Run a distribution point", Args: takes(0, 0),
		Long: `Run a distribution point: ROOT/ID/VERSION is a content. At its start it hashes what is new
or changed there, registers it with the server, and serves it to devices with a grant;
"freshet publish" brings further contents. The address it listens on is written to
STATE/origin.addr.

Rates are decimal: 100Mbit, 1Gbit (bits a second), 12MB (bytes a second).`,
		Example: `  freshet origin --state /var/lib/freshet-dp --listen :7444 --join origin.token --root /srv/content
  freshet origin --state dp --listen 127.0.0.1:0 --join origin.token --root content \
      --uplink 100Mbit --uplink-site hq=10.0.0.0/8 --uplink-site lab=10.7.0.0/16`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runOrigin(cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.State, "state", "", "state directory, made when it is missing")
	f.StringVar(&o.Listen, "listen", "", "address to listen on, HOST:PORT; port 0 takes a free one")
	f.StringVar(&o.Join, "join", "", "file of the server's origin token, for the first start")
	f.StringVar(&o.Root, "root", "", "directory of contents, ROOT/ID/VERSION; made when it is missing")
	f.StringArrayVar(&o.contents, "content", nil, "ID@VERSION=DIR: a content that lies elsewhere (may be repeated)")
	f.StringVar(&o.Advertise, "advertise", "", "URL that devices reach this server at, https://HOST:PORT/ (default: found out)")
	f.StringVar(&o.uplink, "uplink", "", "rate that what is sent to each site is held to, such as 100Mbit (default: no limit)")
	f.StringArrayVar(&o.sites, "uplink-site", nil, "NAME=CIDR: a site, for --uplink and the byte counters (may be repeated)")
	logFlag(cmd, &o.level)
	return cmd
}

func runOrigin(cmd *cobra.Command, o *originOptions) (err error) {
	if o.State == "" || o.Listen == "" || o.Root == "" {
		return usagef(cmd, "--state DIR, --listen ADDR and --root DIR are needed")
	}
	if o.Log, err = newLogger(cmd, cmd.ErrOrStderr(), o.level); err != nil {
		return err
	}
	if o.Mapped, err = origin.ParseMapped(o.contents); err != nil {
		return usagef(cmd, "--content: %w", err)
	}
	if o.Sites, err = origin.ParseSites(o.sites); err != nil {
		return usagef(cmd, "--uplink-site: %w", err)
	}
	if o.uplink != "" {
		if o.Uplink, err = origin.ParseRate(o.uplink); err != nil {
			return usagef(cmd, "--uplink: %w", err)
		}
	}
	bars := &hashBars{cmd: cmd}
	defer bars.end()
	o.Progress = bars.set
	return origin.Run(cmd.Context(), o.Options)
}

// hashBars shows the hashing at the start, one content after the other.
type hashBars struct {
	cmd *cobra.Command

	mu  sync.Mutex // guards the following
	ref content.Ref
	bar *bytesBar
}

func (h *hashBars) set(ref content.Ref, done, total int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bar == nil || h.ref != ref {
		h.endLocked()
		h.ref, h.bar = ref, newBytesBar(h.cmd.ErrOrStderr(), "hash "+ref.String())
	}
	h.bar.set(done, total)
	if done == total {
		h.endLocked()
	}
}

func (h *hashBars) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked()
}

func (h *hashBars) endLocked() {
	if h.bar != nil {
		h.bar.end()
		h.bar = nil
	}
}
