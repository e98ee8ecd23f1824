package main

import (
	"bytes"
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
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/guard"
	"freshet/internal/localapi"
)

// agentPatience is how long get waits for an agent that went away, such as one that is being
// restarted, to come back.
const agentPatience = 60 * time.Second

type getOptions struct {
	out, socket string
	expect      string // file of expected metadata
	match       string
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

A URL stands for the content that was published under it ("freshet publish --url URL").

With --expect the files must be those of a management system's <Content> document; without, what
the device's own metadata says of the content decides, if it says anything. A content that does
not fit is not placed: get waits, and says why, until one is there or it is interrupted.`,
		Example: `  freshet get firefox@128 -o ./firefox --socket /var/lib/freshet-agent/freshet.sock
  freshet get fbb5724a-aa0f-47f9-908a-47068fd8ad6f@1 -o ./kb --expect metadata.xml
  freshet get https://dl.example.com/firefox-128.zip -o ./firefox`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runGet(cmd.Context(), cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "output", "o", "", "directory for the files, made when it is missing")
	f.StringVar(&o.socket, "socket", agentSocket, "the agent's socket")
	f.BoolVar(&o.foreground, "foreground", false, "somebody waits for it: it goes before background downloads")
	f.BoolVar(&o.noCheck, "no-check", false, "leave the check of whole files to their pieces")
	f.StringVar(&o.expect, "expect", "", "file with a <Content> document that says what the files must be")
	f.StringVar(&o.match, "match", "exact", "with --expect: exact, or subset: the content may hold more files")
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
	call := localapi.Call{Content: what, NoCheck: o.noCheck, Foreground: o.foreground, Match: o.match}
	if call.Metadata, err = o.metadata(cmd); err != nil {
		return err
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
	err = getPatiently(ctx, localapi.Client{Path: o.socket}, call, dir, view)
	view.end()
	if err != nil {
		return err
	}
	return printGot(cmd, view.last.Load(), o.json)
}

// printGot tells what came, and where from.
func printGot(cmd *cobra.Command, last *agent.Progress, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), last)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s in %.1f s: %s from peers, %s from the origin, %s from the cache\nmanifest %s\n",
		last.Ref, count(last.Files, "file"), bytesText(last.Size), last.Seconds, bytesText(last.FromPeers), bytesText(last.FromOrigin), bytesText(last.FromCache), last.Manifest)
	if f := last.Freshness; err == nil && f != nil {
		what := "freshness"
		if f.Outcome == freshness.OK {
			what = "expected metadata"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s\n", what, f.Outcome, differencesText(f))
	}
	if err == nil && last.Simple != "" {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "simple mode, from origins alone: %s\n", last.Simple)
	}
	return err
}

// metadata reads the file of --expect, and sees that the agent will take it.
func (o *getOptions) metadata(cmd *cobra.Command) ([]byte, error) {
	if _, err := content.ParseMatch(o.match); err != nil {
		return nil, usagef(cmd, "--match %q is not exact or subset", o.match)
	}
	if o.expect == "" {
		if cmd.Flags().Changed("match") {
			return nil, usagef(cmd, "--match is about the metadata of --expect; the device's own has the setting metadataMatch")
		}
		return nil, nil
	}
	f, err := os.Open(o.expect)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, expected.MaxSize+1))
	if err == nil {
		_, err = expected.Parse(bytes.NewReader(b))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.expect, err)
	}
	return b, nil
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
	plain                io.Writer // where there are no bars: for why it waits; nil: nowhere
	waits                string    // told there last
	status               *mpb.Bar  // why it waits
	line                 atomic.Pointer[string]
	last                 atomic.Pointer[agent.Progress]
}

func newGetView(w io.Writer, quiet bool) *getView {
	v := &getView{}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		v.plain = w
	}
	if quiet || v.plain != nil {
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
		v.showPlain(p)
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

// showPlain tells, where there are no bars, why nothing can be used yet: that may take long.
func (v *getView) showPlain(p agent.Progress) {
	why := ""
	if p.Phase == "waiting" && p.Freshness != nil {
		why = p.Waits
	}
	if why == v.waits || v.plain == nil {
		return
	}
	if v.waits = why; why != "" {
		fmt.Fprintf(v.plain, "waiting: %s%s\n", why, differencesText(p.Freshness))
	}
}

// differencesText names some of the files that differ.
func differencesText(f *guard.Finding) string {
	var parts []string
	for _, list := range []struct {
		kind  string
		names []string
	}{{"missing", f.Missing}, {"extra", f.Extra}, {"changed", f.Changed}, {"unhashed", f.Unhashed}} {
		if len(list.names) > 0 {
			parts = append(parts, fmt.Sprintf("%s: %s", list.kind, strings.Join(list.names, ", ")))
		}
	}
	if f.More > 0 {
		parts = append(parts, fmt.Sprintf("%d more", f.More))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// end draws the bars as they are at last, and leaves them.
func (v *getView) end() {
	if v.bars != nil {
		finishBars(v.bars, v.peers, v.origin, v.cache, v.status)
	}
}
