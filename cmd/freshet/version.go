package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return printVersion(cmd, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printVersion(cmd *cobra.Command, asJSON bool) error {
	version, commit := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "commit": commit, "go": runtime.Version(), "platform": platform})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "freshet %s %s %s\n", version, runtime.Version(), platform)
	return err
}
