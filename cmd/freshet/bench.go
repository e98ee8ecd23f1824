package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"freshet/internal/bench"
)

type benchOptions struct {
	bench.Options
	mib  int64
	json bool
}

// benches are what can be measured, by name.
var benches = []struct {
	name, what string
	run        func(context.Context, bench.Options) ([]bench.Figure, error)
}{
	{"onetoone", "one device to one device, beside a bare pipe", bench.OneToOne},
	{"small", "time for a content of 1 KiB", bench.Small},
	{"memory", "memory of an agent while it moves the content", bench.Memory},
}

func newBenchCommand() *cobra.Command {
	var o benchOptions
	var names []string
	for _, b := range benches {
		names = append(names, b.name+" ("+b.what+")")
	}
	cmd := &cobra.Command{
		Use:   "bench [NAME...]",
		Short: "Measure freshet on this machine, each figure beside its bound",
		Long:  "Measure freshet on this machine: " + strings.Join(names, ", ") + ". All by default.",
		Args:  takes(0, -1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runBench(cmd.Context(), cmd, args, &o) },
	}
	f := cmd.Flags()
	f.Int64Var(&o.mib, "mib", 1024, "size of the large content in MiB")
	f.IntVar(&o.Runs, "runs", 5, "runs of each measurement")
	f.StringVar(&o.Dir, "dir", "", "directory for a few copies of the content (default: a temporary one)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func runBench(ctx context.Context, cmd *cobra.Command, args []string, o *benchOptions) error {
	o.Size, o.Out = o.mib<<20, cmd.ErrOrStderr()
	if o.json {
		o.Out = io.Discard
	}
	parent := o.Dir
	var all []bench.Figure
	for _, b := range benches {
		if len(args) > 0 && !has(args, b.name) {
			continue
		}
		dir, err := os.MkdirTemp(parent, "freshet-bench-")
		if err != nil {
			return err
		}
		o.Dir = dir
		figures, err := b.run(ctx, o.Options)
		os.RemoveAll(dir)
		if err != nil {
			return fmt.Errorf("bench %s: %w", b.name, err)
		}
		all = append(all, figures...)
	}
	if len(all) == 0 {
		return usagef(cmd, "%q is none of the benchmarks", args)
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"WHAT", "MEDIAN", "OF", "UNIT", "BOUND", "OTHERS"}}
	for _, f := range all {
		rows = append(rows, []string{f.Name, fmt.Sprintf("%.2f", f.Median), fmt.Sprintf("%.2f", f.Values), f.Unit, f.Bound, f.Rivals})
	}
	if err := printTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\nTCP congestion control: %s\n", bench.Congestion())
	return err
}

func has(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
