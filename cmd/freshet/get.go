package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"freshet/internal/agent"
	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/localapi"
)

// agentPatience is how long get waits for an agent that went away, such as one that is being
// restarted, to come back.
const agentPatience = 60 * time.Second

type getOptions struct {
	out, socket string
	noCheck     bool
	foreground  bool
	json        bool
}

func newGetCommand() *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get ID[@VERSION]|URL -o DIR",
		Short: "Get a content from the agent of this device into a directory",
		Long: `Ask the agent of this device for a content, and let it place the files in a directory.
Files appear only whole, checked and durable. What was fetched stays in the agent's cache:
the same command goes on where an interrupted one stopped.

A URL stands for the content that was published under it ("freshet publish --url URL").`,
		Example: `  freshet get firefox@128 -o ./firefox --socket /var/lib/freshet-agent/freshet.sock
  freshet get https://dl.example.com/firefox-128.zip -o ./firefox`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runGet(cmd.Context(), cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "output", "o", "", "directory for the files, made when it is missing")
	f.StringVar(&o.socket, "socket", agentSocket, "the agent's socket")
	f.BoolVar(&o.foreground, "foreground", false, "somebody waits for it: it goes before background downloads")
	f.BoolVar(&o.noCheck, "no-check", false, "leave the check of whole files to their pieces")
	f.BoolVar(&o.json, "json", false, "print one JSON object at the end")
	return cmd
}

func runGet(ctx context.Context, cmd *cobra.Command, name string, o *getOptions) error {
	what, err := wanted(name)
	if err != nil {
		return usagef(cmd, "%v", err)
	}
	if o.out == "" {
		return usagef(cmd, "-o DIR is needed")
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(out)
	if err != nil {
		return err
	}
	defer dir.Close()
	view := newGetView(cmd.ErrOrStderr(), o.json)
	call := localapi.Call{Content: what, NoCheck: o.noCheck, Foreground: o.foreground}
	err = getPatiently(ctx, localapi.Client{Path: o.socket}, call, dir, view)
	view.end()
	if err != nil {
		return err
	}
	last := view.last.Load()
	if o.json {
		return printJSON(cmd.OutOrStdout(), last)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s in %.1f s: %s from peers, %s from the origin, %s from the cache\nmanifest %s\n",
		last.Ref, count(last.Files, "file"), bytesText(last.Size), last.Seconds, bytesText(last.FromPeers), bytesText(last.FromOrigin), bytesText(last.FromCache), last.Manifest)
	if err == nil && last.Simple != "" {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "simple mode, from origins alone: %s\n", last.Simple)
	}
	return err
}

// wanted checks what a get names: a content, or a URL, which is made normal.
func wanted(name string) (string, error) {
	if strings.Contains(name, "://") {
		return api.NormalURL(name)
	}
	ref, err := content.ParseRef(name)
	return ref.String(), err
}

// getPatiently asks again when an agent that had answered goes away.
func getPatiently(ctx context.Context, c localapi.Client, call localapi.Call, dir *os.File, view *getView) error {
	var gone time.Time
	for {
		err := c.Get(ctx, call, dir, func(p agent.Progress) {
			gone = time.Time{}
			view.show(p)
		})
		if !errors.Is(err, localapi.ErrGone) || view.last.Load() == nil {
			return err
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		if time.Since(gone) > agentPatience {
			return err
		}
		view.say("the agent went away; waiting for it to come back")
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// getView shows a bar for each source on a terminal, and nothing elsewhere.
type getView struct {
	bars                 *mpb.Progress // nil: no terminal
	peers, origin, cache *mpb.Bar
	status               *mpb.Bar // why it waits
	line                 atomic.Pointer[string]
	last                 atomic.Pointer[agent.Progress]
}

func newGetView(w io.Writer, quiet bool) *getView {
	v := &getView{}
	f, ok := w.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return v
	}
	v.say("asking the agent")
	v.bars = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())
	bar := func(name string) *mpb.Bar {
		return v.bars.AddBar(0,
			mpb.PrependDecorators(decor.Name(name, decor.WC{W: 14, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WC{W: 22})))
	}
	v.peers, v.origin, v.cache = bar("from peers"), bar("from origin"), bar("from cache")
	v.status = v.bars.AddBar(0, mpb.BarFillerClearOnComplete(), mpb.BarWidth(0), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *v.line.Load() })))
	return v
}

func (v *getView) say(line string) { v.line.Store(&line) }

func (v *getView) show(p agent.Progress) {
	v.last.Store(&p)
	if v.bars == nil {
		return
	}
	line := p.Phase
	if p.Waits != "" {
		line = p.Waits
	}
	if p.Simple != "" {
		line = "simple mode (" + p.Simple + "): " + line
	}
	v.say(fmt.Sprintf("%s, %d peers", line, p.Peers))
	for _, b := range []struct {
		bar *mpb.Bar
		n   int64
	}{{v.peers, p.FromPeers}, {v.origin, p.FromOrigin}, {v.cache, p.FromCache}} {
		b.bar.SetTotal(p.Size, false)
		b.bar.SetCurrent(b.n)
	}
}

// end draws the bars as they are at last, and leaves them.
func (v *getView) end() {
	if v.bars != nil {
		finishBars(v.bars, v.peers, v.origin, v.cache, v.status)
	}
}
