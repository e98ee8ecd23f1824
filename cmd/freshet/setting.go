package main

import (
	"github.com/spf13/cobra"

	"freshet/internal/api"
)

func newSettingCommand() *cobra.Command {
	var o adminOptions
	list := &cobra.Command{
		Use: "list", Short: "List the settings that are given for the fleet", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listSettings(cmd, &o) },
	}
	set := &cobra.Command{
		Use: "set NAME VALUE", Aliases: []string{"add"}, Short: "Give a setting a value for the whole fleet", Args: takes(2, 2),
		Example: "  freshet setting set DODownloadMode 2 --token admin.token",
		RunE:    func(cmd *cobra.Command, args []string) error { return setSetting(cmd, &o, args[0], args[1]) },
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Take a setting's value back", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return removeSetting(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "setting", Short: "Administer the fleet's settings"}, list, set, rm)
	o.flags(cmd)
	return cmd
}

func listSettings(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	settings, err := c.Settings(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, s := range settings {
		rows = append(rows, []string{s.Name, s.Value, s.Provider})
	}
	return o.show(cmd, settings, []string{"SETTING", "VALUE", "PROVIDER"}, rows)
}

func setSetting(cmd *cobra.Command, o *adminOptions, name, value string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	s, err := c.SetSetting(cmd.Context(), api.Setting{Name: name, Value: value})
	if err != nil {
		return err
	}
	return o.say(cmd, s, "%s is %s for the %s", s.Name, s.Value, s.Provider)
}

func removeSetting(cmd *cobra.Command, o *adminOptions, name string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.RemoveSetting(cmd.Context(), name); err != nil {
		return err
	}
	return o.say(cmd, map[string]string{"name": name}, "setting %s is taken back", name)
}
