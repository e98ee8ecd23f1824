package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"freshet/internal/agent"
	"freshet/internal/demo"
	"freshet/internal/origin"
)

type demoOptions struct {
	demo.Options
	json bool
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo [PATH]",
		Short: "Show a whole fleet on this machine: one copy over a thin link reaches every device",
		Long: `Run the services, a distribution point behind a shaped link, and devices in several sites,
each a process of its own, on this machine's loopback addresses. Publish PATH (by default the
Go toolchain found here, else this program), let every device get it, and show where its
bytes came from. Nothing is left behind but what --keep asks for.`,
		Example: `  freshet demo
  freshet demo ./updates --devices 16 --sites 2 --wan 50Mbit --keep ./copies --json`,
		Args: takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runDemo(cmd.Context(), cmd, args, &o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.Devices, "devices", 8, "number of devices")
	f.IntVar(&o.Sites, "sites", 1, "number of sites that the devices are spread over")
	f.StringVar(&o.WAN, "wan", "100Mbit", "rate of each site's link to the distribution point")
	f.BoolVar(&o.InTurn, "in-turn", false, "one site after the other: with --mode 2 or 3 later ones find peers at earlier ones")
	f.IntVar(&o.Mode, "mode", 1, "download mode of the devices: 1 peers of the same site, 2 of all sites, 3 of all sites across NATs, 99 no peers")
	f.StringVar(&o.Keep, "keep", "", "leave each device's copy in DIR/device-N")
	f.BoolVar(&o.json, "json", false, "print one JSON object at the end")
	return cmd
}

func runDemo(ctx context.Context, cmd *cobra.Command, args []string, o *demoOptions) (err error) {
	if o.Rate, err = origin.ParseRate(o.WAN); err != nil {
		return usagef(cmd, "--wan: %v", err)
	}
	if !slices.Contains([]int{1, 2, 3, 99}, o.Mode) {
		return usagef(cmd, "--mode %d is not 1, 2, 3 or 99", o.Mode)
	}
	if o.Binary, err = os.Executable(); err != nil {
		return err
	}
	if len(args) > 0 {
		o.Path = args[0]
	} else {
		clean, err := o.defaultPath(ctx)
		if err != nil {
			return err
		}
		defer clean()
	}
	if o.Path, err = filepath.Abs(o.Path); err != nil {
		return err
	}
	if st, err := os.Stat(o.Path); err != nil {
		return err
	} else if !st.IsDir() {
		return usagef(cmd, "%q is not a directory", o.Path)
	}
	if o.Keep != "" {
		if o.Keep, err = filepath.Abs(o.Keep); err != nil {
			return err
		}
	}
	view := newDemoView(cmd.ErrOrStderr(), o.Devices)
	o.View = view
	rep, err := demo.Run(ctx, o.Options)
	view.end()
	if rep.Devices == nil { // it came to nothing
		return err
	}
	if o.json {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), rep))
	}
	return errors.Join(err, printDemo(cmd.OutOrStdout(), &rep))
}

// defaultPath finds something to publish: the Go toolchain, else this program.
func (o *demoOptions) defaultPath(ctx context.Context) (clean func(), err error) {
	if b, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		o.Path = strings.TrimSpace(string(b))
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "freshet-demo-content-")
	if err != nil {
		return nil, err
	}
	o.Path = dir
	clean = func() { os.RemoveAll(dir) }
	in, err := os.Open(o.Binary)
	if err != nil {
		clean()
		return nil, err
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(dir, filepath.Base(o.Binary)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
		if e := out.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		clean()
		return nil, err
	}
	return clean, nil
}

// printDemo prints the tables.
func printDemo(w io.Writer, r *demo.Report) error {
	rows := [][]string{{"DEVICE", "SITE", "FROM PEERS", "FROM ORIGIN", "SECONDS", "SAME AS SOURCE"}}
	for _, d := range r.Devices {
		same := "yes"
		if !d.Verified {
			same = "NO"
		}
		rows = append(rows, []string{d.Name, d.Site, bytesText(d.BytesFromPeers), bytesText(d.BytesFromOrigin), fmt.Sprintf("%.2f", d.Seconds), same})
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	rows = [][]string{{"SITE", "OVER THE WAN", "OF IT FROM PEERS", "COPIES"}}
	for i, n := range r.WANBytesPerSite {
		rows = append(rows, []string{fmt.Sprintf("site-%d", i+1), bytesText(n), bytesText(r.BytesFromOtherSitesPerSite[i]), fmt.Sprintf("%.4f", r.WANCopiesPerSite[i])})
	}
	fmt.Fprintln(w)
	if err := printTable(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s in %s; slowest device %.2f s = %.3f × bound (%.2f s: one copy at the WAN's rate)\n",
		bytesText(r.ContentBytes), count(r.Files, "file"), r.Seconds, r.TimesBound, r.BoundSeconds)
	return err
}

// demoView shows a bar for each device on a terminal, else a line now and then.
type demoView struct {
	w    io.Writer
	n    int
	bars *mpb.Progress // nil: no terminal

	mu    sync.Mutex // guards the following
	bar   []*mpb.Bar
	state []agent.Progress
	said  time.Time
}

func newDemoView(w io.Writer, devices int) *demoView {
	v := &demoView{w: w, n: devices, state: make([]agent.Progress, devices)}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		v.bars = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())
	}
	return v
}

// Step implements demo.View.
func (v *demoView) Step(text string) {
	if v.bars == nil {
		fmt.Fprintln(v.w, text)
		return
	}
	fmt.Fprintln(v.bars, text)
}

// Device implements demo.View.
func (v *demoView) Device(i int, p agent.Progress, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		return
	}
	v.state[i] = p
	if v.bars != nil {
		v.draw()
		return
	}
	if time.Since(v.said) > 5*time.Second {
		v.said = time.Now()
		var held, size int64
		for _, p := range v.state {
			held, size = held+p.Held, size+p.Size
		}
		fmt.Fprintf(v.w, "%s of %s on %d devices\n", bytesText(held), bytesText(size), v.n)
	}
}

// draw updates the bars, which are made when the first device reports.
func (v *demoView) draw() {
	if v.bar == nil {
		for i := range v.n {
			v.bar = append(v.bar, v.bars.AddBar(0,
				mpb.PrependDecorators(decor.Name(fmt.Sprintf("device-%d ", i+1), decor.WC{W: 11, C: decor.DindentRight})),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return v.sources(i) }))))
		}
	}
	for i, b := range v.bar {
		b.SetTotal(max(1, v.state[i].Size), false)
		b.SetCurrent(v.state[i].Held)
	}
}

// sources says where device i has its bytes from.
func (v *demoView) sources(i int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.state[i]
	role := ""
	if p.Lease {
		role = " fetches for its site"
	}
	return fmt.Sprintf(" peers %s, origin %s%s", bytesText(p.FromPeers), bytesText(p.FromOrigin), role)
}

// end draws the bars as they are at last, and leaves them.
func (v *demoView) end() {
	if v.bars == nil {
		return
	}
	v.mu.Lock()
	bars := v.bar
	v.mu.Unlock()
	finishBars(v.bars, bars...)
}

// finishBars draws bars once more and ends them.
func finishBars(p *mpb.Progress, bars ...*mpb.Bar) {
	for _, b := range bars {
		b.Abort(false) // has no effect on a bar that is complete
	}
	p.Wait()
}
