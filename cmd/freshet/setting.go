package main

import (
	"github.com/spf13/cobra"

	"freshet/internal/api"
)

func newSettingCommand() *cobra.Command {
	var (
		o    adminOptions
		site string
	)
	list := &cobra.Command{
		Use: "list", Short: "List the settings that are given for the fleet and for sites", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listSettings(cmd, &o) },
	}
	set := &cobra.Command{
		Use: "set NAME VALUE", Aliases: []string{"add"}, Short: "Give a setting a value for the whole fleet, or for a site", Args: takes(2, 2),
		Example: `  freshet setting set DODownloadMode 2 --token admin.token
  freshet setting set lanDatagrams false --site oslo --token admin.token`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return setSetting(cmd, &o, api.Setting{Name: args[0], Value: args[1], Site: site})
		},
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Take a setting's value back", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return removeSetting(cmd, &o, args[0], site) },
	}
	for _, c := range []*cobra.Command{set, rm} {
		c.Flags().StringVar(&site, "site", "", "for the devices of this site only")
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
		rows = append(rows, []string{s.Name, s.Value, scopeOf(s)})
	}
	return o.show(cmd, settings, []string{"SETTING", "VALUE", "FOR"}, rows)
}

// scopeOf says whom a setting is for.
func scopeOf(s api.Setting) string {
	if s.Site != "" {
		return "site " + s.Site
	}
	return s.Provider
}

func setSetting(cmd *cobra.Command, o *adminOptions, q api.Setting) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	s, err := c.SetSetting(cmd.Context(), q)
	if err != nil {
		return err
	}
	return o.say(cmd, s, "%s is %s for the %s", s.Name, s.Value, scopeOf(s))
}

func removeSetting(cmd *cobra.Command, o *adminOptions, name, site string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if site == "" {
		err = c.RemoveSetting(cmd.Context(), name)
	} else {
		err = c.RemoveSiteSetting(cmd.Context(), site, name)
	}
	if err != nil {
		return err
	}
	return o.say(cmd, map[string]string{"name": name}, "setting %s is taken back", name)
}
