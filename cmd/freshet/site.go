package main

import (
	"github.com/spf13/cobra"

	"freshet/internal/api"
)

func newSiteCommand() *cobra.Command {
	var o adminOptions
	list := &cobra.Command{
		Use: "list", Short: "List the sites and their prefixes", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listSites(cmd, &o) },
	}
	add := &cobra.Command{
		Use: "add NAME CIDR...", Short: "Add a site, or prefixes to one", Args: takes(2, -1),
		Example: "  freshet site add oslo 10.1.0.0/16 2001:db8:1::/48 --token admin.token",
		RunE:    func(cmd *cobra.Command, args []string) error { return addSite(cmd, &o, args[0], args[1:]) },
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Remove a site", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return removeSite(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "site", Short: "Administer sites: places behind one WAN link"}, list, add, rm)
	o.flags(cmd)
	return cmd
}

func listSites(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	sites, err := c.Sites(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, s := range sites {
		rows = append(rows, []string{s.Name, orAll(s.CIDRs, "-")})
	}
	return o.show(cmd, sites, []string{"SITE", "PREFIXES"}, rows)
}

func addSite(cmd *cobra.Command, o *adminOptions, name string, cidrs []string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	s, err := c.AddSite(cmd.Context(), api.Site{Name: name, CIDRs: cidrs})
	if err != nil {
		return err
	}
	return o.say(cmd, s, "site %s: %s", s.Name, orAll(s.CIDRs, "no prefixes"))
}

func removeSite(cmd *cobra.Command, o *adminOptions, name string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.RemoveSite(cmd.Context(), name); err != nil {
		return err
	}
	return o.say(cmd, api.Site{Name: name}, "site %s is removed", name)
}
