package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/localapi"
)

func newConfigCommand() *cobra.Command {
	var o localOptions
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the settings of this device's agent, and who set each",
		Long: `List every setting that the agent runs with and its provider: default, file, env, flag, or a
scope of the fleet's administration.`,
		Example: `  freshet config --socket ./a/freshet.sock`,
		Args:    takes(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runConfig(cmd.Context(), cmd, &o) },
	}
	o.flags(cmd)
	return cmd
}

func runConfig(ctx context.Context, cmd *cobra.Command, o *localOptions) error {
	list, err := localapi.Client{Path: o.socket}.Config(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), list)
	}
	rows := [][]string{{"SETTING", "VALUE", "UNIT", "PROVIDER"}}
	for _, s := range list {
		rows = append(rows, []string{s.Name, settingText(s.Value), s.Unit, string(s.Provider)})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

// settingText shows a value as it came in JSON: whole numbers without an exponent.
func settingText(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}
