package origin

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/policy"
)

// publisher is who signs a content, by a key that may be pinned.
type publisher struct {
	t   *testing.T
	key minisign.PrivateKey
	pin policy.PublisherKey // for the content
}

func newPublisher(t *testing.T) publisher {
	t.Helper()
	public, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return publisher{t, key, policy.PublisherKey{Pattern: string(testRef.ID), Key: public.String()}}
}

func (p publisher) sign(manifest []byte, expires time.Duration, groups ...string) []byte {
	p.t.Helper()
	sig, err := identity.SignFor(p.key, manifest, identity.Terms{Generation: 1, Groups: groups, Expires: time.Now().Add(expires)})
	if err != nil {
		p.t.Fatal(err)
	}
	return sig
}

// pinned returns what a distribution point is told when the publisher's key is pinned.
func (p publisher) pinned() func() identity.Publishers {
	return func() identity.Publishers { return identity.Publishers{Keys: []policy.PublisherKey{p.pin}} }
}

// TestReadWithoutGrant: a device of the content's group reads without a grant where none can
// be had, and where a pinned publisher's signature stands for one.
func TestReadWithoutGrant(t *testing.T) {
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	e, _ := o.current(testRef)
	manifest, err := o.files.Manifest(t.Context(), e.record.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	p, stranger := newPublisher(t), newPublisher(t)
	const later = time.Hour
	staff, lab := []string{"staff"}, []string{"lab"}
	mine, other := e.record.Manifest, content.Digest{9}
	tests := map[string]struct {
		state  standing
		grace  bool
		status int
	}{
		"registered":                {standing{known: mine}, false, 404},
		"never registered":          {standing{}, false, 404},
		"never, and refused":        {standing{alone: true}, true, 404},
		"the catalog's is other":    {standing{known: other}, false, 200},
		"refused":                   {standing{known: mine, groups: staff, alone: true}, false, 200},
		"refused, of others":        {standing{known: mine, groups: lab, alone: true}, false, 404},
		"no service answers":        {standing{known: mine, groups: staff}, true, 200},
		"none, of others":           {standing{known: mine, groups: lab}, true, 404},
		"signed for the group":      {standing{known: mine, groups: staff, signature: p.sign(manifest, later, "staff")}, false, 200},
		"signed for all":            {standing{known: mine, signature: p.sign(manifest, later, "*")}, false, 200},
		"signed, never registered":  {standing{signature: p.sign(manifest, later, "lab", "staff")}, false, 200},
		"signed for others":         {standing{known: mine, signature: p.sign(manifest, later, "lab")}, false, 404},
		"signed, and expired":       {standing{known: mine, signature: p.sign(manifest, -later, "staff")}, false, 404},
		"signed for, not allowed":   {standing{known: mine, groups: lab, signature: p.sign(manifest, later, "staff")}, false, 404},
		"signed by a key not known": {standing{known: mine, signature: stranger.sign(manifest, later, "staff")}, false, 404},
		"another manifest's":        {standing{known: mine, signature: p.sign([]byte("x"), later, "staff")}, false, 404},
	}
	read := func(name string, status int) {
		t.Helper()
		for _, path := range []string{"/bytes/" + mine.String(), "/metadata/" + mine.String(), "/pieceshash/" + e.hoh.String() + ".bin"} {
			if resp, _, _ := b.do(b.client(b.device), "GET", base+path); resp.StatusCode != status {
				t.Errorf("%s: %s: status %d, want %d", name, path, resp.StatusCode, status)
			}
			for who, cr := range map[string]*identity.Credentials{"nobody": nil, "an origin": b.origin} {
				if resp, _, _ := b.do(b.client(cr), "GET", base+path); resp.StatusCode != 404 {
					t.Errorf("%s: %s by %s: status %d, want 404", name, path, who, resp.StatusCode)
				}
			}
		}
	}
	for name, test := range tests {
		e.registered(test.state)
		o.cfg.Grace, o.cfg.Publishers = func() bool { return test.grace }, p.pinned()
		read(name, test.status)
		if asked, _, _, _ := b.ask(b.client(b.device), base, testRef, api.LszRequest{}); (asked == 200) != (test.status == 200 || test.state.known == mine && test.state.groups == nil) {
			t.Errorf("%s: asked to make sure: status %d", name, asked)
		}
	}
	e.registered(standing{known: mine, signature: p.sign(manifest, later, "staff")})
	o.cfg.Grace, o.cfg.Publishers = func() bool { return false }, nil
	read("no keys pinned", 404)
}

// TestSignatureOfAnother: a distribution point that holds the bytes of what was published
// elsewhere is told the publisher's signature when it registers, and knows it over a restart.
func TestSignatureOfAnother(t *testing.T) {
	b := newBench(t)
	b.place(testRef, map[string][]byte{"a": {1}})
	o, _ := b.open(nil)
	e, _ := o.current(testRef)
	manifest, err := o.files.Manifest(t.Context(), e.record.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t)
	sig := p.sign(manifest, time.Hour, "staff")
	o.cfg.Register = func(context.Context, api.PublishRequest) (api.Content, error) {
		return api.Content{ContentId: "tools", Generation: 7, Signature: sig}, nil
	}
	if !o.RegisterAll(t.Context()) {
		t.Fatal("not registered")
	}
	o.Close()
	o, base := b.open(nil)
	o.cfg.Publishers = p.pinned()
	for who, want := range map[*identity.Credentials]int{b.device: 200, b.issue(identity.RoleDevice, "lab", 7): 404} {
		if resp, _, _ := b.do(b.client(who), "GET", base+"/bytes/"+e.record.Manifest.String()); resp.StatusCode != want {
			t.Errorf("group %q: status %d, want %d", who.Name().Group, resp.StatusCode, want)
		}
	}
	h := o.holding(testRef)
	h.record.Signature = p.sign(manifest, time.Hour, "lab")
	if err := o.serve(h); err != nil {
		t.Fatal(err)
	}
	if resp, _, _ := b.do(b.client(b.device), "GET", base+"/bytes/"+e.record.Manifest.String()); resp.StatusCode != 404 {
		t.Errorf("published again and signed for others: status %d, want 404", resp.StatusCode)
	}
	e, _ = o.current(testRef)
	write(t, filepath.Join(b.root, pathOf(testRef)), map[string][]byte{"a": {2}})
	<-o.reread(testRef, false).done
	if now, _ := o.current(testRef); now.record.Manifest == e.record.Manifest || now.standing().signature != nil {
		t.Errorf("manifest %s after a change, signature %q", now.record.Manifest.Short(), now.standing().signature)
	}
}

// TestPinnedKeys: a distribution point takes the fleet's pinned keys from the services' last
// word, and those of nobody else.
func TestPinnedKeys(t *testing.T) {
	b := newBench(t)
	p := newPublisher(t)
	kv := api.KeyValue{GrantKeys: [][]byte{b.key.Public().(ed25519.PublicKey)}}
	word := func(settings ...api.Setting) []policy.PublisherKey {
		t.Helper()
		kv.Settings = settings
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "services.json"), api.JSON(map[string]any{"KeyValue": kv}), 0o600); err != nil {
			t.Fatal(err)
		}
		services, err := client.New(client.Options{Address: "127.0.0.1:1", Credentials: b.origin, CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer services.CloseIdle()
		d := &daemon{opt: Options{Log: slog.New(slog.DiscardHandler)}, creds: b.origin, services: services}
		if d.denials, err = identity.NewDenials(b.origin, dir); err != nil {
			t.Fatal(err)
		}
		d.refresh(t.Context())
		return d.publishers().Keys
	}
	set := api.Setting{Name: "publisherKeys", Value: p.pin.Pattern + "=" + p.pin.Key, Provider: "fleet"}
	if keys := word(api.Setting{Name: "DODownloadMode", Value: "1", Provider: "fleet"}, set); !slices.Equal(keys, []policy.PublisherKey{p.pin}) {
		t.Errorf("keys %v, want the fleet's", keys)
	}
	of := set
	of.Provider = "site"
	if keys := word(of); len(keys) != 0 {
		t.Errorf("keys %v of a site", keys)
	}
	of = set
	of.Value = "garbled"
	if keys := word(of); len(keys) != 0 {
		t.Errorf("keys %v of a garbled setting", keys)
	}
}
