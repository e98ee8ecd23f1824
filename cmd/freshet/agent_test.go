package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"freshet/internal/agent"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/localapi"
	"freshet/internal/origin"
	"freshet/internal/services"
	"freshet/internal/web"
)

// until polls until ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// process is this program, running as a process of its own.
type process struct {
	*exec.Cmd
	out, errs bytes.Buffer
	done      chan error
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("freshet", args...), done: make(chan error, 1)}
	p.Stdout, p.Stderr = &p.out, &p.errs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("freshet %s:\n%s%s", strings.Join(args, " "), &p.out, &p.errs)
		}
	})
	return p
}

// startAgent starts an agent and waits for its socket.
func startAgent(t *testing.T, server, state string, args ...string) (p *process, socket string) {
	t.Helper()
	socket = filepath.Join(state, "freshet.sock")
	os.Remove(socket)
	p = startProcess(t, append([]string{"agent", "--state", state, "--join", services.TokenFile(server, "join"), "--listen", "127.0.0.1:0"}, args...)...)
	until(t, "the agent's socket", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return p, socket
}

// shortDir returns a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "freshet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var sentBytes = regexp.MustCompile(`^freshet_wan_sent_bytes_total\{.*\} ([0-9.e+]+)$`)

// sentBy returns what a distribution point has sent.
func sentBy(t *testing.T, server, url string) (sum int64) {
	t.Helper()
	token, err := identity.ReadToken(services.TokenFile(server, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := identity.BearerConfig(token, identity.RoleOrigin)
	if err != nil {
		t.Fatal(err)
	}
	c := web.Client(cfg, netip.Addr{})
	defer c.CloseIdleConnections()
	resp, err := c.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	for lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20)); lines.Scan(); {
		if m := sentBytes.FindStringSubmatch(lines.Text()); m != nil {
			n, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += int64(n)
		}
	}
	return sum
}

// TestKilledAgent kills an agent with SIGKILL in mid-download and starts it again: the get that
// waits completes by itself, and no more is fetched twice than was not journalled: what came
// within a second (design section 10), and what was on its way.
func TestKilledAgent(t *testing.T) {
	const (
		size   = 64 << 20
		rate   = 16 << 20 // bytes a second
		kill   = size / 100 * 60
		onWay  = 4 << 20 // in the buffers of both ends
		commit = rate / 4
	)
	server := startServices(t)
	src := t.TempDir()
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(body)
	if err := os.WriteFile(filepath.Join(src, "big.bin"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	ref := content.Ref{ID: "big", Version: 1}
	url, _ := startOrigin(t, origin.Options{
		State: filepath.Join(t.TempDir(), "dp"), Join: services.TokenFile(server, "origin"), Root: t.TempDir(),
		Mapped: map[content.Ref]string{ref: src}, Uplink: rate,
	})
	until(t, "the content to be published", func() bool {
		_, out, _ := freshet(t, "content", "list", "--token", services.TokenFile(server, "admin"))
		return strings.Contains(out, "big")
	})
	state := shortDir(t)
	first, socket := startAgent(t, server, state)
	out := filepath.Join(t.TempDir(), "out")
	get := startProcess(t, "get", "big", "-o", out, "--socket", socket, "--json")
	until(t, "the download to be under way", func() bool { return held(t, socket) >= kill })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	if _, err := os.Stat(filepath.Join(out, "big.bin")); err == nil {
		t.Error("the file has its name before it is complete")
	}
	startAgent(t, server, state)
	if err := <-get.done; err != nil {
		t.Fatalf("get: %v", err)
	}
	got, err := os.ReadFile(filepath.Join(out, "big.bin"))
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("the file differs (%v)", err)
	}
	var last agent.Progress
	if err := json.Unmarshal(get.out.Bytes(), &last); err != nil || last.Phase != "done" || last.Size != size || last.FromCache == 0 {
		t.Errorf("get printed %s, %v", &get.out, err)
	}
	twice := sentBy(t, server, url) - size
	t.Logf("%.1f MiB fetched twice, %.1f MiB in the cache at the restart", float64(twice)/(1<<20), float64(last.FromCache)/(1<<20))
	if limit := int64(rate + commit + onWay); twice > limit {
		t.Errorf("%d bytes were fetched twice, want at most %d", twice, limit)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 1 {
		t.Errorf("%d entries in the destination (%v), want the file alone", len(entries), err)
	}
}

// held returns how many bytes an agent holds; 0 while it does not answer.
func held(t *testing.T, socket string) (sum int64) {
	t.Helper()
	list, err := localapi.Client{Path: socket}.Status(t.Context())
	if err != nil {
		return 0
	}
	for _, s := range list {
		sum += s.Held
	}
	return sum
}

// TestStoppedAgent: an agent that ends in an orderly way does not end a get either.
func TestStoppedAgent(t *testing.T) {
	server, src := startServices(t), t.TempDir()
	writeFiles(t, src, map[string]string{"f": strings.Repeat("0123456789abcdef", 8<<20/16)})
	ref := content.Ref{ID: "some", Version: 1}
	startOrigin(t, origin.Options{
		State: filepath.Join(t.TempDir(), "dp"), Join: services.TokenFile(server, "origin"), Root: t.TempDir(),
		Mapped: map[content.Ref]string{ref: src}, Uplink: 4 << 20,
	})
	until(t, "the content to be published", func() bool {
		_, out, _ := freshet(t, "content", "list", "--token", services.TokenFile(server, "admin"))
		return strings.Contains(out, "some")
	})
	state := shortDir(t)
	first, socket := startAgent(t, server, state)
	out := filepath.Join(t.TempDir(), "out")
	get := startProcess(t, "get", "some", "-o", out, "--socket", socket)
	until(t, "the download to be under way", func() bool { return held(t, socket) > 0 })
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-first.done; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	startAgent(t, server, state)
	if err := <-get.done; err != nil {
		t.Errorf("get: %v", err)
	}
}

// TestGetStatuses: what get and its like say, and their exit statuses.
func TestGetStatuses(t *testing.T) {
	server, state := startServices(t), shortDir(t)
	socket := filepath.Join(state, "freshet.sock")
	background(t, func(ctx context.Context) error {
		var errs bytes.Buffer
		args := []string{"agent", "--state", state, "--join", services.TokenFile(server, "join"), "--listen", "127.0.0.1:0"}
		if status := run(ctx, args, io.Discard, &errs); status != exitDone {
			return fmt.Errorf("the agent ended with status %d: %s", status, &errs)
		}
		return nil
	})
	until(t, "the agent's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	file := filepath.Join(t.TempDir(), "file")
	writeFiles(t, filepath.Dir(file), map[string]string{"file": "x"})
	none := filepath.Join(t.TempDir(), "none.sock")
	for name, test := range map[string]struct {
		args   []string
		status int
		says   []string // in stderr; in stdout of what succeeds
	}{
		"no content":         {[]string{"get"}, exitUsage, []string{"get ID[@VERSION]"}},
		"bad id":             {[]string{"get", "../x", "-o", "y"}, exitUsage, []string{`"../x"`, "--help"}},
		"no directory":       {[]string{"get", "x"}, exitUsage, []string{"-o DIR"}},
		"no agent":           {[]string{"get", "x", "-o", t.TempDir(), "--socket", none}, exitFailed, []string{none, `is "freshet agent" running`}},
		"a file":             {[]string{"get", "x", "-o", file, "--socket", socket}, exitFailed, []string{file}},
		"unknown":            {[]string{"get", "x", "-o", t.TempDir(), "--socket", socket}, exitFailed, []string{"x"}},
		"unknown version":    {[]string{"get", "x@9", "-o", t.TempDir(), "--socket", socket}, exitFailed, []string{"x@9"}},
		"status, no agent":   {[]string{"status", "--socket", none}, exitFailed, []string{none}},
		"status, argument":   {[]string{"status", "x"}, exitUsage, []string{`"x"`}},
		"status":             {[]string{"status", "--socket", socket}, exitDone, []string{"CONTENT", "NOTE"}},
		"config":             {[]string{"config", "--socket", socket, "--json"}, exitDone, []string{`"name": "DODownloadMode"`, `"provider": "default"`}},
		"agent, no state":    {[]string{"agent"}, exitUsage, []string{"--state DIR"}},
		"agent, bad set":     {[]string{"agent", "--state", t.TempDir(), "--set", "x"}, exitUsage, []string{"NAME=VALUE"}},
		"agent, bad listen":  {[]string{"agent", "--state", t.TempDir(), "--listen", "x"}, exitUsage, []string{"--listen"}},
		"agent, wrong token": {[]string{"agent", "--state", t.TempDir(), "--join", services.TokenFile(server, "publish")}, exitFailed, []string{"join token"}},
		"agent, same cache":  {[]string{"agent", "--state", state, "--listen", "127.0.0.1:0"}, exitFailed, []string{"in use by another process"}},
	} {
		status, stdout, stderr := freshet(t, test.args...)
		said := stderr
		if status == exitDone {
			said = stdout
		}
		if status != test.status {
			t.Errorf("%s: status %d, want %d\n%s", name, status, test.status, stderr)
		}
		for _, w := range test.says {
			if !strings.Contains(said, w) {
				t.Errorf("%s: says %q, want %q in it", name, said, w)
			}
		}
	}
}
