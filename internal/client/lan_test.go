package client

import (
	"bytes"
	"crypto/ed25519"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// passer issues LAN passes that end after life, in a group.
type passer struct {
	key   ed25519.PrivateKey
	life  time.Duration
	group string
	calls atomic.Int32
	down  atomic.Bool
}

func (p *passer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q api.LANPassRequest
	if err := web.ReadJSON(w, r, 1<<16, &q); err != nil || r.URL.Path != "/v1/lanpass" || p.down.Load() {
		web.Problem(w, r, api.Problem{Status: 500, Title: "not now"})
		return
	}
	p.calls.Add(1)
	n, err := identity.PeerName(*r.TLS)
	if err != nil {
		web.Fail(w, r, err)
		return
	}
	pass := identity.Pass{Device: n.Device, Key: [32]byte(q.Key), Group: p.group, Expires: time.Now().Add(p.life)}
	web.WriteJSON(w, api.LANPassReply{Pass: identity.SignPass(p.key, pass)})
}

func TestSpeaker(t *testing.T) {
	f, dir := newFleet(t), t.TempDir()
	p := &passer{key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), life: identity.PassLife, group: "lab"}
	at, _ := listen(t, f.server, "127.0.0.1:0", p)
	c := newClient(t, Options{Address: at, Credentials: f.device})
	first, err := c.Speaker(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.VerifyPass([]ed25519.PublicKey{p.key.Public().(ed25519.PublicKey)}, first.Signed, time.Now(), false); err != nil {
		t.Error(err)
	}
	again, err := newClient(t, Options{Address: at, Credentials: f.device}).Speaker(t.Context(), dir)
	if err != nil || !bytes.Equal(again.Signed, first.Signed) || p.calls.Load() != 1 {
		t.Errorf("a good pass is asked for again (%v, %d calls)", err, p.calls.Load())
	}
	half, err := first.With(identity.SignPass(p.key, identity.Pass{Device: first.Pass.Device, Key: first.Pass.Key, Group: "lab",
		Expires: time.Now().Add(identity.PassLife/2 - time.Hour)}))
	if err != nil {
		t.Fatal(err)
	}
	if err := half.Save(dir); err != nil {
		t.Fatal(err)
	}
	p.down.Store(true)
	if s, err := c.Speaker(t.Context(), dir); err == nil || s == nil || !bytes.Equal(s.Signed, half.Signed) {
		t.Errorf("past half life without services: got %v, %v; want the old pass and the error", s, err)
	}
	p.down.Store(false)
	if s, err := c.Speaker(t.Context(), dir); err != nil || !s.Key.Equal(first.Key) || !s.Pass.Expires.After(half.Pass.Expires) {
		t.Errorf("past half life: got %v, %v; want a longer pass for the same key", s, err)
	}
}

// A pass of another group is of no use, neither one kept from before nor a new one.
func TestSpeakerOfAnotherGroup(t *testing.T) {
	f, dir := newFleet(t), t.TempDir()
	p := &passer{key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), life: identity.PassLife, group: "field"}
	at, _ := listen(t, f.server, "127.0.0.1:0", p)
	c := newClient(t, Options{Address: at, Credentials: f.device})
	s, err := c.Speaker(t.Context(), dir)
	wantError(t, err, "another device or group")
	if s != nil {
		t.Error("the pass was taken")
	}
}

func TestLANKeysAreKept(t *testing.T) {
	c := newClient(t, Options{Address: "127.0.0.1:1", Credentials: newFleet(t).device, CacheDir: filepath.Join(t.TempDir(), "c")})
	keys := []api.LANKey{{ID: []byte("12345678"), Secret: api.Secret(strings.Repeat("k", 32)), Starts: 5}}
	if err := c.store(&services{KeyValue: api.KeyValue{Group: "lab", LANKeys: keys}}); err != nil {
		t.Fatal(err)
	}
	s, ok := c.known()
	if !ok || len(s.KeyValue.LANKeys) != 1 || !bytes.Equal(s.KeyValue.LANKeys[0].Secret, keys[0].Secret) || s.KeyValue.LANKeys[0].Starts != 5 {
		t.Errorf("got %v, %v", s, ok)
	}
	st, err := os.Stat(filepath.Join(c.opt.CacheDir, servicesFile))
	if err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600: the file holds LAN keys", st.Mode(), err)
	}
}

func TestClock(t *testing.T) {
	sent := time.Unix(1_800_000_000, 0)
	for name, tt := range map[string]struct {
		date string
		trip time.Duration
		want time.Duration
	}{
		"right":        {sent.UTC().Format(http.TimeFormat), 0, 0},
		"nearly right": {sent.Add(time.Second).UTC().Format(http.TimeFormat), 0, 0},
		"behind":       {sent.Add(5 * time.Minute).UTC().Format(http.TimeFormat), time.Second, 5 * time.Minute},
		"ahead":        {sent.Add(-5 * time.Minute).UTC().Format(http.TimeFormat), 0, 500*time.Millisecond - 5*time.Minute},
		"slow":         {sent.Add(5 * time.Minute).UTC().Format(http.TimeFormat), 11 * time.Second, 7},
		"no date":      {"", 0, 7},
	} {
		var k clock
		k.offset.Store(7)
		k.learn(http.Header{"Date": {tt.date}}, sent, sent.Add(tt.trip))
		if got := time.Duration(k.offset.Load()); got != tt.want {
			t.Errorf("%s: offset %v, want %v", name, got, tt.want)
		}
	}
	f := newFleet(t)
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		web.WriteJSON(w, api.LANPassReply{})
	}))
	c := newClient(t, Options{Address: at, Credentials: f.device})
	c.Speaker(t.Context(), t.TempDir()) // the pass is not good; its time is
	if d := time.Until(c.Now()); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("the clock is corrected by %v, want an hour", d)
	}
}
