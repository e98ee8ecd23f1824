package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/services"
)

// freshet runs one command line and returns status, stdout and stderr.
func freshet(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

// adminServer runs a server until the test ends and returns its state directory.
func adminServer(t *testing.T) string {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	s, err := services.Open(t.Context(), services.Options{State: state, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return state
}

func TestAdministration(t *testing.T) {
	state := adminServer(t)
	admin, join := services.TokenFile(state, "admin"), services.TokenFile(state, "join")
	made := filepath.Join(t.TempDir(), "lab.token")
	for _, c := range []struct {
		args   string
		status int
		want   string // in stdout, or in stderr of what fails
	}{
		{"site add oslo 10.1.0.0/16 10.2.0.0/16", 0, "site oslo: 10.1.0.0/16 10.2.0.0/16\n"},
		{"site list", 0, "SITE  PREFIXES\noslo  10.1.0.0/16 10.2.0.0/16\n"},
		{"site add oslo", 2, "freshet site add NAME CIDR..."},
		{"site add bergen 10.1.0.0/16", 1, "exists already"},
		{"site rm oslo", 0, "removed"},
		{"site rm oslo", 1, "freshet site list"},
		{"group add lab", 0, "group lab is added"},
		{"group list", 0, "GROUP    DEVICES\ndefault  0\nlab      0\n"},
		{"group lst", 2, "did you mean list?"},
		{"token add join --group lab --uses 2 -o " + made, 0, "is in " + made},
		{"token add join --group lab -o " + made, 1, "there already"},
		{"token add root", 1, "is not admin, publish, origin or join"},
		{"token list", 0, "unlimited"},
		{"device add", 0, "freshet-join-"},
		{"device list", 0, "ID  NAME  ROLE  GROUP  ENROLLED  STATE\n"},
		{"device rm 00000000000000000000000000000000", 1, "freshet device list"},
		{"setting set DODownloadMode 2", 0, "DODownloadMode is 2 for the fleet\n"},
		{"setting list", 0, "DODownloadMode  2      fleet\n"},
		{"setting set lanDatagrams false --site oslo", 0, "lanDatagrams is false for the site oslo\n"},
		{"setting rm lanDatagrams", 1, "there is no setting lanDatagrams"},
		{"setting rm lanDatagrams --site oslo", 0, "setting lanDatagrams is taken back\n"},
		{"setting set plainSwarm true --site oslo", 1, "cannot come from site"},
		{"setting set DODownloadMod 2", 1, "did you mean DODownloadMode?"},
		{"content list", 0, "ID  VERSION"},
		{"content rm tool", 2, "write ID@VERSION"},
		{"content rm tool@1", 1, "there is no content tool@1"},
		{"content add a b", 2, "--origin"},
		{"site list --token " + join, 1, "administering the fleet takes an admin token"},
		{"site list --token " + state + "/none", 1, "none"},
		{"site list --nothing", 2, "unknown flag"},
		{"sites", 2, "did you mean site?"},
	} {
		args := strings.Fields(c.args)
		if !strings.Contains(c.args, "--token ") {
			args = append(args, "--token", admin)
		}
		if args[0] == "sites" {
			args = args[:1]
		}
		status, stdout, stderr := freshet(t, args...)
		said := stdout
		if c.status != 0 {
			said = stderr
		}
		if status != c.status || !strings.Contains(said, c.want) {
			t.Errorf("freshet %s: status %d, want %d and %q\n%s%s", c.args, status, c.status, c.want, stdout, stderr)
		}
	}
	tok, err := identity.ReadToken(made)
	if err != nil || tok.Kind != identity.TokenJoin {
		t.Errorf("token %v, %v", tok.Kind, err)
	}
	if st, err := os.Stat(made); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
}

func TestJSON(t *testing.T) {
	state := adminServer(t)
	_, out, _ := freshet(t, "group", "list", "--json", "--token", services.TokenFile(state, "admin"))
	var groups []api.Group
	if err := json.Unmarshal([]byte(out), &groups); err != nil || len(groups) != 1 || groups[0].Name != services.DefaultGroup {
		t.Errorf("%q: %v", out, err)
	}
}

func TestMissingFlags(t *testing.T) {
	for _, args := range [][]string{{"site", "list"}, {"server"}, {"server", "--state", "x", "--listen", ":0", "--log", "loud"}, {"version", "now"}} {
		if status, _, stderr := freshet(t, args...); status != exitUsage || !strings.Contains(stderr, "--help") {
			t.Errorf("%q: status %d, %q; want wrong use", args, status, stderr)
		}
	}
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		widths []int
		width  int
		want   []int
	}{
		{[]int{4, 20, 30}, 80, []int{4, 20, 30}},
		{[]int{4, 20, 30}, 38, []int{4, 15, 15}},
		{[]int{4, 20, 30}, 5, []int{4, 6, 6}},
	} {
		got := append([]int(nil), c.widths...)
		fit(got, c.width)
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%v in %d characters: %v, want %v", c.widths, c.width, got, c.want)
				break
			}
		}
	}
	if got := pad("straße-und-mehr", 10); got != "straße-…  " {
		t.Errorf("cut to %q", got)
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 3 << 29: "1.5 GiB", 1 << 52: "4096.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}
