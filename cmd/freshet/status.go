package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"freshet/internal/agent"
	"freshet/internal/freshness"
	"freshet/internal/localapi"
)

// agentSocket is where an agent with the usual state directory listens.
const agentSocket = "/var/lib/freshet-agent/freshet.sock"

// localOptions are what every command takes that asks the agent.
type localOptions struct {
	socket string
	json   bool
}

func (o *localOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.socket, "socket", agentSocket, "the agent's socket")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

func newStatusCommand() *cobra.Command {
	var o localOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent of this device holds and does",
		Long: `List the contents in the agent's cache: how much of each is held, and how many bytes came from
and went to whom since the agent began. LEADER is the device that fetches for this one's subnet.
The last column says why a content waits or failed, and in DODownloadMode 3 why devices of other
sites do not hear of this one.

A line below the list counts datagrams of the subnet that were dropped, by reason: damaged, not of
this group, forged, or too many. Those that are normal are in --json alone.

Every user sees the contents that they asked for with "freshet get"; root and the agent's own
user see all.`,
		Example: `  freshet status
  freshet status --socket ./a/freshet.sock --json`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), cmd, &o) },
	}
	o.flags(cmd)
	return cmd
}

// statusOutput is what --json prints.
type statusOutput struct {
	Contents []agent.Status `json:"contents"`
	LAN      agent.LAN      `json:"lan"`
}

func runStatus(ctx context.Context, cmd *cobra.Command, o *localOptions) error {
	c := localapi.Client{Path: o.socket}
	list, err := c.Status(ctx)
	if err != nil {
		return err
	}
	heard, err := c.LAN(ctx)
	if err != nil {
		return err
	}
	if o.json {
		if list == nil {
			list = []agent.Status{}
		}
		return printJSON(cmd.OutOrStdout(), statusOutput{list, heard})
	}
	if err := printTable(cmd.OutOrStdout(), statusRows(list)); err != nil {
		return err
	}
	if text := droppedText(heard); text != "" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	}
	return err
}

func statusRows(list []agent.Status) [][]string {
	rows := [][]string{{"CONTENT", "STATE", "SIZE", "HELD", "PEERS", "LEADER", "FROM PEERS", "FROM ORIGIN", "TO PEERS", "NOTE"}}
	for _, s := range list {
		rows = append(rows, []string{
			s.Ref, s.State, bytesText(s.Size), bytesText(s.Held), strconv.Itoa(s.Peers), leaderText(s),
			bytesText(s.FromPeers), bytesText(s.FromOrigin), bytesText(s.ToPeers), statusNote(s),
		})
	}
	return rows
}

// droppedText says in a line which datagrams were dropped that do not belong on the subnet.
func droppedText(l agent.LAN) string {
	bad := l.Bad()
	if len(bad) == 0 {
		return ""
	}
	text := "Datagrams of the subnet that were dropped:"
	for i, reason := range slices.Sorted(maps.Keys(bad)) {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %d %s", bad[reason], reason)
	}
	return text
}

// leaderText says who fetches for the subnet, and which leadership it is: a device by the
// beginning of its id.
func leaderText(s agent.Status) string {
	switch {
	case s.Leader == "":
		return "-"
	case s.Leader == agent.ThisDevice:
		return fmt.Sprintf("%s, epoch %d", s.Leader, s.Epoch)
	}
	return fmt.Sprintf("%.12s, epoch %d", s.Leader, s.Epoch)
}

// statusNote is what people should know of a content besides the numbers.
func statusNote(s agent.Status) string {
	switch {
	case s.Failed != "":
		return "failed: " + s.Failed
	case s.Simple != "" && s.Waits != "":
		return "simple mode (" + s.Simple + "): " + s.Waits
	case s.Simple != "":
		return "simple mode: " + s.Simple
	case s.Waits != "" && s.Freshness != nil:
		return s.Waits + differencesText(s.Freshness)
	case s.Waits != "":
		return s.Waits
	case s.Lease && s.Held < s.Size:
		return "fetches for its site"
	case s.Freshness != nil && s.Freshness.Outcome != freshness.OK:
		return s.Freshness.Outcome.String() + differencesText(s.Freshness)
	case s.Unreachable != "":
		return "not reached from other sites: " + s.Unreachable
	default:
		return ""
	}
}
