package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
)

// newRootCommand returns the whole command line. Each verb has a file of its own and a line
// here.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "freshet",
		Short:         "Bring big content to every device of a fleet, once over each WAN link",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%v", err) })
	return group(root,
		newServerCommand(),
		newOriginCommand(),
		newDemoCommand(),
		newAgentCommand(),
		newGetCommand(),
		newStatusCommand(),
		newConfigCommand(),
		newPublishCommand(),
		newManifestCommand(),
		newSiteCommand(),
		newGroupCommand(),
		newTokenCommand(),
		newDeviceCommand(),
		newContentCommand(),
		newSettingCommand(),
		newSimCommand(),
		newBenchCommand(),
		newVersionCommand(),
	)
}

// usageError is a wrong use of the command line: exit status 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef returns a usage error that says where to read on.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Errorf("%w; see \"%s --help\"", fmt.Errorf(format, args...), cmd.CommandPath())}
}

// group returns cmd as a command that only has subcommands.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(subs...)
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef(cmd, "%q is not a command of %q; did you mean %s?", args[0], cmd.CommandPath(), strings.Join(near, " or "))
		}
		return usagef(cmd, "%q is not a command of %q", args[0], cmd.CommandPath())
	}
	return cmd
}

// takes checks the number of arguments: from least to most, -1 for any number.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(cmd, "%q is incomplete: %s", cmd.CommandPath(), cmd.UseLine())
		case most >= 0 && len(args) > most:
			return usagef(cmd, "%q takes no argument %q", cmd.CommandPath(), args[most])
		}
		return nil
	}
}

// logFlag adds --log.
func logFlag(cmd *cobra.Command, level *string) {
	cmd.Flags().StringVar(level, "log", "info", "what to log: debug, info, warn or error")
}

// newLogger logs as text from this level on.
func newLogger(cmd *cobra.Command, w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef(cmd, "--log %q is not debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}
