package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"freshet/internal/origin"
	"freshet/internal/services"
)

// do runs a command line and returns its exit status and output.
func do(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&o)
	root.SetErr(&e)
	if err := root.ExecuteContext(t.Context()); err != nil {
		return statusOf(err), o.String(), err.Error()
	}
	return exitDone, o.String(), e.String()
}

func statusOf(err error) int {
	if _, wrong := err.(*usageError); wrong {
		return exitUsage
	}
	return exitFailed
}

// background runs f until the test ends or the returned function is called.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// startServices runs the services and returns their state directory.
func startServices(t *testing.T) string {
	t.Helper()
	state := filepath.Join(t.TempDir(), "server")
	s, err := services.Open(t.Context(), services.Options{State: state, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	background(t, s.Run)
	return state
}

// startOrigin runs a distribution point and returns its URL.
func startOrigin(t *testing.T, o origin.Options) (url string, stop func()) {
	t.Helper()
	addr := filepath.Join(o.State, "origin.addr")
	os.Remove(addr)
	o.Listen, o.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	stop = background(t, func(ctx context.Context) error { return origin.Run(ctx, o) })
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the distribution point does not listen")
		}
		if b, err := os.ReadFile(addr); err == nil {
			tick.Stop()
			return "https://" + strings.TrimSpace(string(b)), stop
		}
	}
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPublish takes a directory from a publisher to the catalog, by upload and in place, with
// a restart of the distribution point in between.
func TestPublish(t *testing.T) {
	server, state, dir := startServices(t), filepath.Join(t.TempDir(), "dp"), t.TempDir()
	opt := origin.Options{State: state, Join: filepath.Join(server, "origin.token"), Root: filepath.Join(t.TempDir(), "root")}
	url, stop := startOrigin(t, opt)
	files := map[string]string{"empty": "", "one": "1", "deep/er/file": "text", "big": strings.Repeat("0123456789abcdef", 200_000)}
	writeFiles(t, dir, files)
	token := filepath.Join(server, "publish.token")

	if status, _, errs := do(t, "publish", dir, "--id", "x", "--token", token); status != exitFailed || !strings.Contains(errs, "--to URL") {
		t.Errorf("no distribution point known: status %d %q", status, errs)
	}
	status, out, errs := do(t, "publish", dir, "--id", "x", "--version", "2", "--token", token, "--to", url)
	if status != exitDone {
		t.Fatalf("publish: status %d: %s", status, errs)
	}
	if got := readFiles(t, filepath.Join(opt.Root, "x", "2")); !maps.Equal(got, files) {
		t.Errorf("the distribution point has %d files, or other ones", len(got))
	}
	manifest := filepath.Join(t.TempDir(), "m")
	if status, digest, errs := do(t, "manifest", "create", dir, "--id", "x", "--version", "2", "-o", manifest); status != exitDone || digest != out {
		t.Errorf("manifest create: status %d, digest %q, want %q, %s", status, digest, out, errs)
	}
	stop()

	opt.Join = "" // it has its identity
	url, _ = startOrigin(t, opt)
	status, text, errs := do(t, "publish", dir, "--id", "x", "--version", "2", "--token", token, "--to", url, "--in-place", "--json")
	var again published
	if status != exitDone || json.Unmarshal([]byte(text), &again) != nil || again.ManifestDigest+"\n" != out || again.Files != len(files) {
		t.Errorf("in place: status %d, %q %s, want digest %q", status, text, errs, out)
	}
	writeFiles(t, dir, map[string]string{"one": "2"})
	status, _, errs = do(t, "publish", dir, "--id", "x", "--version", "2", "--token", token, "--to", url, "--in-place")
	if status != exitFailed || !strings.Contains(errs, `file "one"`) {
		t.Errorf("in place with another file: status %d %q, want its name", status, errs)
	}
	if status, text, errs := do(t, "content", "list", "--token", token, "--json"); status != exitDone || !strings.Contains(text, strings.TrimSpace(out)) {
		t.Errorf("catalog: status %d %q %s, want manifest %s", status, text, errs, out)
	}
}

func TestPublishRefuses(t *testing.T) {
	server, dir := startServices(t), t.TempDir()
	writeFiles(t, dir, map[string]string{"one": "1"})
	token := func(kind string) string { return filepath.Join(server, kind+".token") }
	tests := map[string]struct {
		args   []string
		status int
		says   string
	}{
		"no id":        {[]string{"--token", token("publish")}, exitUsage, "--id"},
		"bad id":       {[]string{"--id", "../x", "--token", token("publish")}, exitUsage, `"../x"`},
		"version 0":    {[]string{"--id", "x", "--version", "0", "--token", token("publish")}, exitUsage, "version"},
		"no token":     {[]string{"--id", "x"}, exitUsage, "--token"},
		"join token":   {[]string{"--id", "x", "--token", token("join"), "--to", "https://127.0.0.1:1"}, exitFailed, "join token"},
		"nobody there": {[]string{"--id", "x", "--token", token("publish"), "--to", "https://127.0.0.1:1"}, exitFailed, "127.0.0.1:1"},
		"no group":     {[]string{"--id", "x", "--token", token("publish"), "--to", "https://127.0.0.1:1", "--group", "nobody"}, exitFailed, "nobody"},
		"follow place": {[]string{"--id", "x", "--token", token("publish"), "--in-place", "--follow"}, exitUsage, "--follow"},
	}
	for name, test := range tests {
		status, _, errs := do(t, append([]string{"publish", dir}, test.args...)...)
		if status != test.status || !strings.Contains(errs, test.says) {
			t.Errorf("%s: status %d %q, want %d and %q", name, status, errs, test.status, test.says)
		}
	}
}

func TestOriginRefuses(t *testing.T) {
	server := startServices(t)
	base := []string{"origin", "--listen", "127.0.0.1:0", "--root", t.TempDir(), "--state"}
	tests := map[string]struct {
		args   []string
		status int
		says   string
	}{
		"no token":    {nil, exitFailed, "--join FILE"},
		"join token":  {[]string{"--join", filepath.Join(server, "join.token")}, exitFailed, "origin token"},
		"bad rate":    {[]string{"--uplink", "fast"}, exitUsage, "100Mbit"},
		"bad site":    {[]string{"--uplink-site", "hq"}, exitUsage, "NAME=CIDR"},
		"bad content": {[]string{"--content", "x=/y"}, exitUsage, "ID@VERSION=DIR"},
		"bad url":     {[]string{"--join", filepath.Join(server, "origin.token"), "--advertise", "http://x"}, exitFailed, "https://HOST:PORT/"},
	}
	for name, test := range tests {
		status, _, errs := do(t, append(append(base[:len(base):len(base)], filepath.Join(t.TempDir(), "dp")), test.args...)...)
		if status != test.status || !strings.Contains(errs, test.says) {
			t.Errorf("%s: status %d %q, want %d and %q", name, status, errs, test.status, test.says)
		}
	}
	if status, _, errs := do(t, "origin"); status != exitUsage || !strings.Contains(errs, "--state") {
		t.Errorf("no flags: status %d %q", status, errs)
	}
}

func TestManifestVerbs(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "m")
	writeFiles(t, dir, map[string]string{"a": "1", "b/c": "22", "d": ""})
	status, digest, errs := do(t, "manifest", "create", dir, "--id", "x", "-o", file, "--hash-file", file+".phf")
	if status != exitDone {
		t.Fatalf("create: status %d %s", status, errs)
	}
	var facts manifestFacts
	status, out, _ := do(t, "manifest", "show", file, "--json")
	if status != exitDone || json.Unmarshal([]byte(out), &facts) != nil || facts.ManifestDigest+"\n" != digest || len(facts.Files) != 3 || facts.Pieces != 2 {
		t.Errorf("show: status %d %s", status, out)
	}
	if status, out, _ := do(t, "manifest", "show", file); status != exitDone || !strings.Contains(out, "b/c") || !strings.Contains(out, facts.MetadataHash) {
		t.Errorf("show as text: status %d %s", status, out)
	}
	if status, out, _ := do(t, "manifest", "hash", file); status != exitDone || out != facts.MetadataHash+"\n" {
		t.Errorf("hash: status %d %q, want %q", status, out, facts.MetadataHash)
	}
	if status, out, _ := do(t, "manifest", "verify", file, dir); status != exitDone || !strings.HasPrefix(out, "ok: 3 files") {
		t.Errorf("verify: status %d %q", status, out)
	}
	writeFiles(t, dir, map[string]string{"a": "2", "e": "new"})
	if err := os.Remove(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	want := "changed  \"a\"\nmissing  \"d\"\nextra    \"e\"\n"
	if status, out, errs := do(t, "manifest", "verify", file, dir); status != exitFailed || out != want || !strings.Contains(errs, "3 files differ") {
		t.Errorf("verify after changes: status %d %q %q, want 1 %q", status, out, errs, want)
	}

	const metadata = `<Content ContentId="u" Version="1"><FileContent Name="windows6.1-kb2705219-v2-x64.cab" Hash="8E8E0175D46B5A8D52C4856FA3D282FAA12ACD63" HashAlgorithm="SHA1" Size="1"/></Content>`
	writeFiles(t, dir, map[string]string{"m.xml": metadata})
	const vector = "e2036040fd5468d5ca4c3f23e29133e7a813c9dd08b63a2e906bdde161b531b5\n"
	if status, out, errs := do(t, "manifest", "hash", "--expect", filepath.Join(dir, "m.xml")); status != exitDone || out != vector {
		t.Errorf("hash --expect: status %d %q %s, want %q", status, out, errs, vector)
	}
	for _, wrong := range [][]string{{"hash"}, {"hash", file, "--expect", "y"}, {"hash", file, "--algorithm", "md5"}, {"create", dir, "--id", "x"}, {"create", dir, "-o", file}} {
		if status, _, errs := do(t, append([]string{"manifest"}, wrong...)...); status != exitUsage {
			t.Errorf("%q: status %d %q, want 2", wrong, status, errs)
		}
	}
	for _, failing := range [][]string{{"show", dir}, {"show", file + ".phf"}, {"verify", file, filepath.Join(dir, "none")}, {"hash", "--expect", file}} {
		if status, _, errs := do(t, append([]string{"manifest"}, failing...)...); status != exitFailed || errs == "" {
			t.Errorf("%q: status %d %q, want 1", failing, status, errs)
		}
	}
}
