package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/api"
)

func newGroupCommand() *cobra.Command {
	var o adminOptions
	list := &cobra.Command{
		Use: "list", Short: "List the groups", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listGroups(cmd, &o) },
	}
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a group", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return addGroup(cmd, &o, args[0]) },
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Remove a group without devices and contents", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return removeGroup(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "group", Short: "Administer groups: devices that may exchange content"}, list, add, rm)
	o.flags(cmd)
	return cmd
}

func listGroups(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	groups, err := c.Groups(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, g := range groups {
		rows = append(rows, []string{g.Name, strconv.Itoa(g.Devices)})
	}
	return o.show(cmd, groups, []string{"GROUP", "DEVICES"}, rows)
}

func addGroup(cmd *cobra.Command, o *adminOptions, name string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	g, err := c.AddGroup(cmd.Context(), api.Group{Name: name})
	if err != nil {
		return err
	}
	return o.say(cmd, g, "group %s is added; make a token for its devices with \"freshet token add join --group %s\"", g.Name, g.Name)
}

func removeGroup(cmd *cobra.Command, o *adminOptions, name string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.RemoveGroup(cmd.Context(), name); err != nil {
		return err
	}
	return o.say(cmd, api.Group{Name: name}, "group %s is removed", name)
}
