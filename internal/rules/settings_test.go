package rules

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"freshet/internal/config"
	"freshet/internal/policy"
)

var rewrite = flag.Bool("rewrite", false, "write docs/settings.md anew")

const settingsHead = `# Settings

This page is made from the table in ` + "`internal/policy`" + `; change it there, then run
` + "`go test ./internal/rules -run TestSettingsPage -rewrite`" + `.

A value comes from the strongest of these that has one: the defaults (` + "`--profile do`" + ` takes Delivery Optimization's
instead of ours), a TOML file, the environment, flags, and then what the services send: fleet, site, group, device,
content. So, as with Delivery Optimization, what the management sets wins over what the device says. ` + "`freshet config`" + `
shows each value with where it came from.

Settings that begin with DO are Delivery Optimization's, with its units and ranges. MB and GB are 10^6 and 10^9 bytes,
MiB is 2^20 bytes.

| setting | allowed | default | DO's default |
|---|---|---|---|
`

// settingsPage writes docs/settings.md.
func settingsPage() string {
	var b strings.Builder
	b.WriteString(settingsHead)
	for _, s := range policy.Table() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s |\n", s.Name, strings.ToLower(s.Name), s.Range(), orDash(s.Text(s.Default)), orDash(s.Text(s.DODefault)))
	}
	for _, s := range policy.Table() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.Name, s.Help)
		fmt.Fprintf(&b, "`%s` · from %s\n", config.EnvName(s.Name), scopes(s.Scopes))
	}
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func scopes(providers []policy.Provider) string {
	names := make([]string, len(providers))
	for i, p := range providers {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

func TestSettingsPage(t *testing.T) {
	path := filepath.Join(repository(t).root, "docs", "settings.md")
	want := settingsPage()
	if *rewrite {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/settings.md is not what the table of settings says, which people would then believe: go test ./internal/rules -run TestSettingsPage -rewrite")
	}
}
