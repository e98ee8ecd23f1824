package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"freshet/internal/client"
	"freshet/internal/identity"
)

// adminOptions are what every command of administration takes.
type adminOptions struct {
	token string
	json  bool
}

func (o *adminOptions) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&o.token, "token", "", "token file, such as STATE/admin.token of the server")
	cmd.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
}

// client returns a client with the token, whose kind must be one of kinds: "admin" where none
// is given.
func (o *adminOptions) client(cmd *cobra.Command, kinds ...string) (*client.Client, error) {
	if o.token == "" {
		return nil, usagef(cmd, "--token FILE is missing: the server's first start writes admin.token into its state directory")
	}
	t, err := identity.ReadToken(o.token)
	if err != nil {
		return nil, err
	}
	want := identity.TokenAdmin
	for _, k := range kinds {
		if k == t.Kind {
			want = k
		}
	}
	if err := t.Require(want, time.Now()); err != nil {
		return nil, fmt.Errorf("token %q: %w", o.token, err)
	}
	return client.New(client.Options{Token: &t})
}

// show prints v as JSON, or rows as a table under the header.
func (o *adminOptions) show(cmd *cobra.Command, v any, header []string, rows [][]string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return printTable(cmd.OutOrStdout(), append([][]string{header}, rows...))
}

// say prints v as JSON, or a line of text.
func (o *adminOptions) say(cmd *cobra.Command, v any, format string, args ...any) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}

// printJSON prints v, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

const (
	columnGap = 2 // blanks between columns
	minColumn = 6 // characters that a column is not cut below
)

// printTable prints rows in columns. On a terminal that is too narrow the widest columns are
// cut; elsewhere nothing is.
func printTable(w io.Writer, rows [][]string) error {
	widths := columnWidths(rows)
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			fit(widths, width)
		}
	}
	var all strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(pad(cell, widths[i]+columnGap))
		}
		all.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, all.String())
	return err
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// fit takes from the widest columns until all are within width, or none can give more.
func fit(widths []int, width int) {
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for total > width {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= minColumn {
			return
		}
		widths[widest]--
		total--
	}
}

// pad returns cell in width characters of which columnGap are blank, cut where it is longer.
func pad(cell string, width int) string {
	n := utf8.RuneCountInString(cell)
	if room := width - columnGap; n > room {
		cell, n = string([]rune(cell)[:room-1])+"…", room
	}
	return cell + strings.Repeat(" ", width-n)
}

// orAll shows a list, or what it means when it is empty.
func orAll(items []string, empty string) string {
	if len(items) == 0 {
		return empty
	}
	return strings.Join(items, " ")
}

// day shows a time of Unix seconds.
func day(unix int64) string { return time.Unix(unix, 0).Format("2006-01-02 15:04") }

// bytesText shows a number of bytes for people.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, prefix := float64(n)/unit, 0
	for ; v >= unit && prefix < 3; prefix++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[prefix])
}

// count shows a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
