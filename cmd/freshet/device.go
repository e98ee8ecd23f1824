package main

import (
	"github.com/spf13/cobra"

	"freshet/internal/identity"
	"freshet/internal/services"
)

func newDeviceCommand() *cobra.Command {
	var o adminOptions
	var t tokenOptions
	list := &cobra.Command{
		Use: "list", Short: "List the devices and distribution points", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listDevices(cmd, &o) },
	}
	add := &cobra.Command{
		Use: "add", Short: "Make a join token for one device", Args: takes(0, 0),
		Example: "  freshet device add --group lab -o pc-17.token --token admin.token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.group == "" {
				t.group = services.DefaultGroup
			}
			return addToken(cmd, &o, identity.TokenJoin, &t)
		},
	}
	t.flags(add, 1)
	rm := &cobra.Command{
		Use: "rm ID", Short: "Put a device or distribution point on the deny list, for good", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return revokeDevice(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "device", Short: "Administer devices and distribution points"}, list, add, rm)
	o.flags(cmd)
	return cmd
}

func listDevices(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	devices, err := c.Devices(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, d := range devices {
		state := "good"
		if d.Revoked {
			state = "revoked"
		}
		rows = append(rows, []string{d.ID, orDash(d.Name), d.Role, orDash(d.Group), day(d.Enrolled), state})
	}
	return o.show(cmd, devices, []string{"ID", "NAME", "ROLE", "GROUP", "ENROLLED", "STATE"}, rows)
}

func revokeDevice(cmd *cobra.Command, o *adminOptions, id string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.RevokeDevice(cmd.Context(), id); err != nil {
		return err
	}
	return o.say(cmd, map[string]string{"id": id}, "%s is on the deny list", id)
}
