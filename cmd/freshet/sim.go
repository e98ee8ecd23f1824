package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"freshet/internal/content"
	"freshet/internal/origin"
	"freshet/internal/sim"
)

const maxSimPieces = 2e8 // of all devices: some 20 bytes of memory each

type simOptions struct {
	devices, liars, silent, sites int
	size                          int64
	up, down, wan                 string
	delay                         time.Duration
	loss                          float64
	seed                          uint64
	kill                          []string
	json                          bool
}

func newSimCommand() *cobra.Command {
	var o simOptions
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a delivery to many devices in virtual time",
		Long: `Run the decisions of many devices, the very code that an agent runs, in virtual time over
links with rate, delay and loss. Nothing is sent. The same options give the same result,
event for event.

Rates are decimal: 100Mbit, 1Gbit (bits a second), 12MB (bytes a second). The bound is what no
system can beat: the largest of size/wan, size/down and devices·size/(wan+devices·up).`,
		Example: `  freshet sim --devices 1000 --liars 10
  freshet sim --devices 50 --sites 3 --wan 100Mbit --delay 20ms --loss 0.01 --kill leader@5s --kill 7@9s`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runSim(cmd, &o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.devices, "devices", 100, "honest devices")
	f.IntVar(&o.liars, "liars", 0, "further devices that claim to hold all and send wrong bytes")
	f.IntVar(&o.silent, "silent", 0, "further devices that claim to hold all and send nothing")
	f.IntVar(&o.sites, "sites", 1, "sites that the devices are spread over")
	f.Int64Var(&o.size, "size", 1e9, "bytes of the content")
	f.StringVar(&o.up, "up", "1Gbit", "rate of each device's uplink")
	f.StringVar(&o.down, "down", "1Gbit", "rate of each device's downlink")
	f.StringVar(&o.wan, "wan", "1Gbit", "rate of each site's link to the origin")
	f.DurationVar(&o.delay, "delay", 250*time.Microsecond, "time that a message takes from one device to another")
	f.Float64Var(&o.loss, "loss", 0, "probability that a piece loses a packet, 0 to 1")
	f.Uint64Var(&o.seed, "seed", 1, "seed of all chance")
	f.StringArrayVar(&o.kill, "kill", nil, "let a device, or each site's leader, vanish: DEVICE@TIME or leader@TIME; may be repeated")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func runSim(cmd *cobra.Command, o *simOptions) error {
	c, err := o.config()
	if err != nil {
		return usagef(cmd, "%v", err)
	}
	begun := time.Now()
	r := sim.Run(c)
	took := time.Since(begun)
	if err := printSim(cmd, o, newSimReport(c, r, took)); err != nil {
		return err
	}
	if r.Unfinished > 0 {
		return fmt.Errorf("%d devices did not get everything within an hour of the simulated time", r.Unfinished)
	}
	return nil
}

// config checks the options.
func (o *simOptions) config() (sim.Config, error) {
	c := sim.Config{
		Seed: o.seed, Devices: o.devices, Liars: o.liars, Silent: o.silent, Sites: o.sites,
		Size: o.size, Delay: o.delay, Loss: o.loss, Kill: map[int]time.Duration{},
	}
	switch {
	case o.devices < 1 || o.liars < 0 || o.silent < 0 || o.devices > 1e6 || o.liars+o.silent > 1e6:
		return c, fmt.Errorf("--devices %d, --liars %d, --silent %d: want 1 to 1000000 devices, and 0 to 1000000 others", o.devices, o.liars, o.silent)
	case o.sites < 1 || o.sites > o.devices:
		return c, fmt.Errorf("--sites %d is not 1 to the number of devices, %d", o.sites, o.devices)
	case o.size < 1 || o.size > 1<<40:
		return c, fmt.Errorf("--size %d is not 1 to %d bytes", o.size, int64(1)<<40)
	case o.loss < 0 || o.loss > 1 || math.IsNaN(o.loss):
		return c, fmt.Errorf("--loss %v is not 0 to 1", o.loss)
	case o.delay < 0 || o.delay > time.Minute:
		return c, fmt.Errorf("--delay %v is not 0 to 1m", o.delay)
	}
	if pieces := o.size/content.PieceSize + 1; pieces > maxSimPieces/int64(o.devices) {
		return c, fmt.Errorf("%d devices with %d pieces each are more than memory holds: at most %d together", o.devices, pieces, int64(maxSimPieces))
	}
	for _, rate := range []struct {
		flag, text string
		to         *float64
	}{{"up", o.up, &c.Up}, {"down", o.down, &c.Down}, {"wan", o.wan, &c.WAN}} {
		n, err := origin.ParseRate(rate.text)
		if err != nil {
			return c, fmt.Errorf("--%s: %w", rate.flag, err)
		}
		*rate.to = float64(n)
	}
	for _, k := range o.kill {
		if err := addKill(&c, k); err != nil {
			return c, err
		}
	}
	return c, nil
}

// addKill takes in a --kill, such as 7@9s or leader@5s.
func addKill(c *sim.Config, text string) error {
	who, when, _ := strings.Cut(text, "@")
	at, err := time.ParseDuration(when)
	if err != nil || at < 0 {
		return fmt.Errorf("--kill %q is not DEVICE@TIME or leader@TIME, such as 7@9s", text)
	}
	if who == "leader" {
		c.KillLeaders = append(c.KillLeaders, at)
		return nil
	}
	i, err := strconv.Atoi(who)
	if err != nil || i < 0 || i >= c.Devices {
		return fmt.Errorf("--kill %q: %q is neither leader nor a device, 0 to %d", text, who, c.Devices-1)
	}
	c.Kill[i] = at
	return nil
}

// simReport is what --json prints.
type simReport struct {
	Devices          int       `json:"devices"`
	Sites            int       `json:"sites"`
	ContentBytes     int64     `json:"contentBytes"`
	SlowestSeconds   float64   `json:"slowestSeconds"`
	BoundSeconds     float64   `json:"boundSeconds"`
	Ratio            float64   `json:"ratio"`
	WANBytes         []int64   `json:"wanBytes"`
	WANCopiesPerSite []float64 `json:"wanCopiesPerSite"`
	WrongBytes       int64     `json:"wrongBytes"`
	WastedBytes      int64     `json:"wastedBytes"`
	Hedges           int       `json:"hedges"`
	Bans             int       `json:"bans"`
	Killed           int       `json:"killed"`
	Unfinished       int       `json:"unfinished"`
	Events           uint64    `json:"events"`
	Seed             uint64    `json:"seed"`
	Seconds          float64   `json:"seconds"`
}

func newSimReport(c sim.Config, r sim.Result, took time.Duration) simReport {
	copies := make([]float64, len(r.WANBytes))
	for i, n := range r.WANBytes {
		copies[i] = float64(n) / float64(c.Size)
	}
	return simReport{
		Devices: c.Devices, Sites: c.Sites, ContentBytes: c.Size, Seed: c.Seed,
		SlowestSeconds: r.Slowest.Seconds(), BoundSeconds: r.Bound.Seconds(), Ratio: r.Ratio(),
		WANBytes: r.WANBytes, WANCopiesPerSite: copies, WrongBytes: r.Wrong, WastedBytes: r.Wasted,
		Hedges: r.Hedges, Bans: r.Bans, Killed: r.Killed, Unfinished: r.Unfinished,
		Events: r.Events, Seconds: took.Seconds(),
	}
}

func printSim(cmd *cobra.Command, o *simOptions, r simReport) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	copies := make([]string, len(r.WANCopiesPerSite))
	for i, n := range r.WANCopiesPerSite {
		copies[i] = strconv.FormatFloat(n, 'f', 3, 64)
	}
	return printTable(cmd.OutOrStdout(), [][]string{
		{"slowest device", fmt.Sprintf("%.3f s", r.SlowestSeconds)},
		{"bound", fmt.Sprintf("%.3f s", r.BoundSeconds)},
		{"slowest ÷ bound", fmt.Sprintf("%.3f", r.Ratio)},
		{"WAN copies of each site", strings.Join(copies, " ")},
		{"wrong, wasted", bytesText(r.WrongBytes) + ", " + bytesText(r.WastedBytes)},
		{"hedges, bans", fmt.Sprintf("%d, %d", r.Hedges, r.Bans)},
		{"killed, unfinished", fmt.Sprintf("%d, %d", r.Killed, r.Unfinished)},
		{"events", fmt.Sprintf("%d in %.2f s", r.Events, r.Seconds)},
	})
}
