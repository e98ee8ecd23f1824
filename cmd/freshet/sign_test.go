package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/origin"
)

// encryptedKey is a minisign key that has a password.
const encryptedKey = "../../internal/identity/testdata/minisign/minisign.key"

// newSigner writes a minisign key without a password, which takes a second and a GiB to try,
// and returns its file and its public key.
func newSigner(t *testing.T) (file, public string) {
	t.Helper()
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "minisign.key")
	if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, pub.String()
}

// TestPublishSigned publishes a content that a key is pinned for: unsigned, then signed, then
// the same again, then changed.
func TestPublishSigned(t *testing.T) {
	server, state, dir := startServices(t), filepath.Join(t.TempDir(), "dp"), t.TempDir()
	opt := origin.Options{State: state, Join: filepath.Join(server, "origin.token"), Root: filepath.Join(t.TempDir(), "root")}
	url, _ := startOrigin(t, opt)
	key, public := newSigner(t)
	if status, _, errs := do(t, "setting", "set", "publisherKeys", "signed*="+public, "--token", filepath.Join(server, "admin.token")); status != exitDone {
		t.Fatalf("setting: status %d %s", status, errs)
	}
	writeFiles(t, dir, map[string]string{"one": "1"})
	publish := func(more ...string) (status int, p published, errs string) {
		t.Helper()
		args := []string{"publish", dir, "--id", "signed-tools", "--token", filepath.Join(server, "publish.token"), "--to", url, "--json"}
		status, out, errs := do(t, append(args, more...)...)
		if status == exitDone && json.Unmarshal([]byte(out), &p) != nil {
			t.Fatalf("published: %q", out)
		}
		return status, p, errs
	}
	if status, _, errs := publish(); status != exitFailed || !strings.Contains(errs, "--sign KEY") {
		t.Errorf("unsigned: status %d %q", status, errs)
	}
	if status, _, errs := publish("--sign", encryptedKey); status != exitFailed || !strings.Contains(errs, passwordEnv) {
		t.Errorf("without a password: status %d %q", status, errs)
	}
	status, first, errs := publish("--sign", key)
	if status != exitDone {
		t.Fatalf("signed: status %d %s", status, errs)
	}
	if status, again, errs := publish("--sign", key, "--sign-expires", "1h"); status != exitDone || again.Generation != first.Generation {
		t.Errorf("signed again: status %d %s, generation %d, want %d", status, errs, again.Generation, first.Generation)
	}
	writeFiles(t, dir, map[string]string{"one": "2"})
	if status, second, errs := publish("--sign", key); status != exitDone || second.Generation <= first.Generation {
		t.Errorf("changed: status %d %s, generation %d after %d", status, errs, second.Generation, first.Generation)
	}
	if status, _, errs := publish("--sign-expires", "-1h"); status != exitUsage || !strings.Contains(errs, "--sign-expires") {
		t.Errorf("expired at once: status %d %q", status, errs)
	}
}

func TestNextGeneration(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ref, digest := content.Ref{ID: "x", Version: 1}, content.Digest{1}
	for name, test := range map[string]struct {
		have api.Content
		want int64
	}{
		"nothing":        {api.Content{ContentId: "x", Version: 2, Generation: 5e9}, now.Unix()},
		"the same bytes": {api.Content{ContentId: "x", Version: 1, Generation: 7, ManifestDigest: digest.String()}, 7},
		"other bytes":    {api.Content{ContentId: "x", Version: 1, Generation: 7}, now.Unix()},
		"clock behind":   {api.Content{ContentId: "x", Version: 1, Generation: now.Unix() + 9}, now.Unix() + 10},
	} {
		if got := nextGeneration([]api.Content{test.have}, ref, digest, now); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// TestSigningKeyIsNoOther: what is not a minisign secret key says so.
func TestSigningKeyIsNoOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("-----BEGIN PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ReadSigningKey(file, nil); err == nil || !strings.Contains(err.Error(), "minisign secret key") {
		t.Errorf("got %v", err)
	}
}
