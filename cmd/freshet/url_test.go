package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"freshet/internal/api"
	"freshet/internal/origin"
	"freshet/internal/services"
)

// TestURLs publishes under URLs, shows and changes them, and gets by one.
func TestURLs(t *testing.T) {
	server, src := startServices(t), t.TempDir()
	files := map[string]string{"a": "one", "d/b": "two"}
	writeFiles(t, src, files)
	url, _ := startOrigin(t, origin.Options{
		State: filepath.Join(t.TempDir(), "dp"), Join: services.TokenFile(server, "origin"), Root: t.TempDir(),
	})
	token := services.TokenFile(server, "publish")
	const zip, latest = "https://dl.example/tool-1.zip", "https://dl.example/latest?a=b"
	publish := func(id string, more ...string) (int, string, string) {
		return do(t, append([]string{"publish", src, "--id", id, "--token", token, "--to", url}, more...)...)
	}
	if status, _, errs := publish("tool", "--url", "ftp://dl.example/tool"); status != exitUsage || !strings.Contains(errs, "--url") {
		t.Errorf("a bad URL: status %d %s", status, errs)
	}
	status, out, errs := publish("tool", "--url", "HTTPS://dl.example:443/tool-1.zip", "--url", latest, "--json")
	var made struct{ URLs []string }
	if err := json.Unmarshal([]byte(out), &made); status != exitDone || err != nil || fmt.Sprint(made.URLs) != "["+latest+" "+zip+"]" {
		t.Fatalf("publish: status %d, %v\n%s%s", status, err, out, errs)
	}
	if status, _, errs := publish("other", "--url", zip); status != exitFailed || !strings.Contains(errs, zip) || !strings.Contains(errs, `"tool"`) {
		t.Errorf("another's URL: status %d %s", status, errs)
	}
	if _, out, _ := do(t, "content", "list", "--token", token); strings.Contains(out, "other") || !strings.Contains(out, latest+" "+zip) {
		t.Errorf("content list:\n%s", out)
	}
	if status, out, errs := do(t, "content", "show", "tool", "--token", token); status != exitDone || !strings.Contains(out, "urls") || !strings.Contains(out, zip) {
		t.Errorf("content show: status %d %s\n%s", status, errs, out)
	}

	state := shortDir(t)
	socket := filepath.Join(state, "freshet.sock")
	background(t, func(ctx context.Context) error {
		var said strings.Builder
		if status := run(ctx, []string{"agent", "--state", state, "--join", services.TokenFile(server, "join"), "--listen", "127.0.0.1:0"}, io.Discard, &said); status != exitDone {
			return fmt.Errorf("the agent ended with status %d: %s", status, &said)
		}
		return nil
	})
	until(t, "the agent's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	dir := filepath.Join(t.TempDir(), "out")
	if status, out, errs := do(t, "get", zip+"#top", "-o", dir, "--socket", socket); status != exitDone || !strings.Contains(out, "tool@1") {
		t.Fatalf("get by URL: status %d %s%s", status, out, errs)
	}
	if got := readFiles(t, dir); !maps.Equal(got, files) {
		t.Errorf("got %v, want %v", got, files)
	}
	unknown := "https://dl.example/none"
	if status, _, errs := do(t, "get", unknown, "-o", t.TempDir(), "--socket", socket); status != exitFailed || !strings.Contains(errs, unknown) || !strings.Contains(errs, "publish --url") {
		t.Errorf("unknown URL: status %d %s", status, errs)
	}
	if status, _, errs := do(t, "get", "ftp://dl.example/x", "-o", t.TempDir(), "--socket", socket); status != exitUsage {
		t.Errorf("bad URL: status %d %s", status, errs)
	}

	for want, urls := range map[string][]string{latest: {"--url", latest}, "": {"--url", ""}} {
		status, out, errs := do(t, append([]string{"content", "set", "tool@1", "--token", token, "--json"}, urls...)...)
		var c api.Content
		if err := json.Unmarshal([]byte(out), &c); status != exitDone || err != nil || strings.Join(c.URLs, " ") != want {
			t.Errorf("content set %q: status %d, %v %s%s", urls, status, err, out, errs)
		}
	}
	for _, wrong := range [][]string{{"set", "tool@1"}, {"set", "tool", "--url", zip}, {"set", "tool@1", "--url", "x"}, {"show", "../x"}} {
		if status, _, errs := do(t, append(append([]string{"content"}, wrong...), "--token", token)...); status != exitUsage {
			t.Errorf("content %q: status %d %s", wrong, status, errs)
		}
	}
	if status, _, errs := do(t, "content", "show", "none", "--token", token); status != exitFailed || !strings.Contains(errs, "content list") {
		t.Errorf("content show of none: status %d %s", status, errs)
	}
}
