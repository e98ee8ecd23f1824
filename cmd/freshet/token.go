package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"freshet/internal/api"
	"freshet/internal/identity"
)

// tokenOptions are the flags of "freshet token add" and "freshet device add".
type tokenOptions struct {
	group   string
	uses    int
	expires time.Duration
	out     string
}

func newTokenCommand() *cobra.Command {
	var o adminOptions
	var t tokenOptions
	list := &cobra.Command{
		Use: "list", Short: "List the tokens, without their secrets", Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return listTokens(cmd, &o) },
	}
	add := &cobra.Command{
		Use: "add KIND", Short: "Make a token: admin, publish, origin or join", Args: takes(1, 1),
		Example: "  freshet token add join --group lab --uses 50 -o lab.token --token admin.token",
		RunE:    func(cmd *cobra.Command, args []string) error { return addToken(cmd, &o, args[0], &t) },
	}
	t.flags(add, 0)
	rm := &cobra.Command{
		Use: "rm ID", Short: "Make a token worthless", Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return removeToken(cmd, &o, args[0]) },
	}
	cmd := group(&cobra.Command{Use: "token", Short: "Administer tokens: secrets that let a bearer in"}, list, add, rm)
	o.flags(cmd)
	return cmd
}

func (t *tokenOptions) flags(cmd *cobra.Command, uses int) {
	f := cmd.Flags()
	f.StringVar(&t.group, "group", "", "group of the devices that join with it")
	f.IntVar(&t.uses, "uses", uses, "how often a join or origin token can be used; 0: any number of times")
	f.DurationVar(&t.expires, "expires", 365*24*time.Hour, "how long it is good")
	f.StringVarP(&t.out, "output", "o", "", "file to write it to, readable by you alone (default: print it)")
}

func listTokens(cmd *cobra.Command, o *adminOptions) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	tokens, err := c.Tokens(cmd.Context())
	if err != nil {
		return err
	}
	var rows [][]string
	for _, t := range tokens {
		rows = append(rows, []string{t.ID, t.Kind, orDash(t.Group), day(t.Expires), usesText(t.Left)})
	}
	return o.show(cmd, tokens, []string{"ID", "KIND", "GROUP", "EXPIRES", "LEFT"}, rows)
}

func usesText(n int) string {
	if n < 0 {
		return "unlimited"
	}
	return strconv.Itoa(n)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func addToken(cmd *cobra.Command, o *adminOptions, kind string, t *tokenOptions) error {
	if t.uses < 0 || t.expires < time.Second {
		return usagef(cmd, "--uses must not be negative and --expires not be under a second")
	}
	if t.out != "" {
		if _, err := os.Lstat(t.out); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q is there already; choose another file with -o, or remove it", t.out)
		}
	}
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	made, err := c.AddToken(cmd.Context(), api.Token{Kind: kind, Group: t.group, Left: t.uses, Expires: time.Now().Add(t.expires).Unix()})
	if err != nil {
		return err
	}
	if t.out == "" {
		return o.say(cmd, made, "%s", made.Text)
	}
	text, err := identity.ParseToken(made.Text)
	if err != nil {
		return fmt.Errorf("the server's new token %s: %w", made.ID, err)
	}
	if err := identity.WriteToken(t.out, text); err != nil {
		return err
	}
	made.Text = ""
	return o.say(cmd, made, "%s token %s is in %s", made.Kind, made.ID, t.out)
}

func removeToken(cmd *cobra.Command, o *adminOptions, id string) error {
	c, err := o.client(cmd)
	if err != nil {
		return err
	}
	if err := c.RemoveToken(cmd.Context(), id); err != nil {
		return err
	}
	return o.say(cmd, map[string]string{"id": id}, "token %s is removed", id)
}
