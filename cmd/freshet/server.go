package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"freshet/internal/services"
)

// serverOptions are the flags of "freshet server".
type serverOptions struct {
	services.Options
	level string
	json  bool
}

func newServerCommand() *cobra.Command {
	var o serverOptions
	cmd := &cobra.Command{
		Use:   "server --state DIR --listen ADDR",
		Short: "Run the services: enrolment, catalog, peer matching, administration",
		Long: `Run the services of a fleet. The first start makes the fleet in the state directory:
its certificate authority, its catalog, the group "default", and the files admin.token,
publish.token, origin.token and join.token. Every later start goes on with it.`,
		Example: `  freshet server --state /var/lib/freshet --listen :7443
  freshet server --state ./state --listen 127.0.0.1:0`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runServer(cmd.Context(), cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.State, "state", "", "state directory, made when it is missing")
	f.StringVar(&o.Listen, "listen", "", "address to listen on, HOST:PORT; port 0 takes a free one")
	f.StringVar(&o.Advertise, "advertise", "", "address that others reach this server at (default: the one it listens on)")
	f.StringSliceVar(&o.Services, "services", nil, "services to run, of "+strings.Join(services.Names(), ",")+" (default: all)")
	f.StringVar(&o.Fleet, "fleet", "", "name of the fleet, for the first start (default: drawn)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	logFlag(cmd, &o.level)
	return cmd
}

func runServer(ctx context.Context, cmd *cobra.Command, o *serverOptions) (err error) {
	if o.State == "" || o.Listen == "" {
		return usagef(cmd, "--state DIR and --listen ADDR are needed")
	}
	if o.Log, err = newLogger(cmd, cmd.ErrOrStderr(), o.level); err != nil {
		return err
	}
	s, err := services.Open(ctx, o.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := o.tell(cmd, s); err != nil {
		return err
	}
	return s.Run(ctx)
}

// tell prints where the server is, and where its tokens are.
func (o *serverOptions) tell(cmd *cobra.Command, s *services.Server) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{"fleet": s.Fleet(), "address": s.Address(), "state": o.State})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "fleet %s: server at %s\ntokens: %s\n", s.Fleet(), s.Address(),
		services.TokenFile(o.State, "{admin,publish,origin,join}"))
	return err
}
