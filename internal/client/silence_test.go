package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/content"
	"freshet/internal/web"
)

func TestSilence(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSilence()
	s.now = func() time.Time { return now }
	failed := errors.New("failed")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for i, step := range []struct {
		why   string
		after time.Duration // since the step before
		took  time.Duration // of the call
		ctx   context.Context
		err   error
		asked bool
	}{
		{"unknown", 0, time.Hour, t.Context(), nil, true},
		{"it answers, if slowly", 0, vainTime - 1, t.Context(), failed, true},
		{"it failed at once", 0, time.Hour, canceled, failed, true},
		{"the caller gave up", 0, vainTime, t.Context(), failed, true},
		{"in vain", 0, 0, nil, nil, false},
		{"still", silentTime - 1, 0, nil, nil, false},
		{"one looks", 1, 0, canceled, failed, true},
		{"who looked gave up", 0, 0, nil, nil, false},
		{"another looks", silentTime, vainTime, expired, failed, true},
		{"the caller's time was up", 0, 0, nil, nil, false},
		{"a third looks", silentTime, time.Millisecond, t.Context(), failed, true},
		{"it refuses at once", 0, vainTime, t.Context(), failed, true},
		{"in vain again", silentTime, time.Millisecond, t.Context(), nil, true},
		{"it speaks", 0, 0, t.Context(), nil, true},
	} {
		now = now.Add(step.after)
		heard, err := s.ask("dp")
		if (err == nil) != step.asked || err != nil && !errors.Is(err, errSilent) {
			t.Fatalf("step %d, %s: %v, want it asked: %v", i, step.why, err, step.asked)
		}
		if _, err := s.ask("other"); err != nil {
			t.Errorf("step %d, %s: another host: %v", i, step.why, err)
		}
		if heard != nil {
			now = now.Add(step.took)
			heard(step.ctx, step.err)
		}
	}
	if len(s.until) != 0 {
		t.Errorf("%d hosts are remembered, and all speak", len(s.until))
	}
}

// TestSilenceOneLooks: of those that come when the time is up, one asks.
func TestSilenceOneLooks(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSilence()
	s.now = func() time.Time { return now }
	heard, _ := s.ask("dp")
	now = now.Add(vainTime)
	heard(t.Context(), errors.New("failed"))
	now = now.Add(silentTime)
	if _, err := s.ask("dp"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask("dp"); !errors.Is(err, errSilent) {
		t.Errorf("a second one: %v, want that it does not wait too", err)
	}
}

// swallow accepts connections and never says a word.
func swallow(t *testing.T) (at string, accepted *atomic.Int32, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = &atomic.Int32{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			accepted.Add(1)
			all = append(all, c)
		}
		for _, c := range all {
			c.Close()
		}
	}()
	stop = func() {
		ln.Close()
		<-done
	}
	t.Cleanup(stop)
	return ln.Addr().String(), accepted, stop
}

// TestDeadServer: a server that swallows all costs one short wait, and the calls that follow
// nothing, until it is back.
func TestDeadServer(t *testing.T) {
	f := newFleet(t)
	at, accepted, stop := swallow(t)
	c := newClient(t, Options{Address: at, Credentials: f.device})
	var later atomic.Int64
	c.silence.vain = time.Millisecond
	c.silence.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	call := func() error {
		_, err := c.call(t.Context(), request{what: "geo", method: http.MethodGet, url: c.serverURL("/geo"), max: maxReply, again: true, wait: 20 * time.Millisecond, http: c.servers})
		return err
	}
	dead := func(why, want string, connections int32) {
		t.Helper()
		err := call()
		if !errors.Is(err, ErrUnreachable) || !Unavailable(err) || !strings.Contains(err.Error(), want) || accepted.Load() != connections {
			t.Errorf("%s: %v after %d connections, want %q after %d", why, err, accepted.Load(), want, connections)
		}
	}
	dead("first", "no reply within 20ms; check the address", 1)
	dead("second", "waiting in vain", 1)
	later.Add(int64(silentTime))
	dead("later", "no reply within 20ms", 2)
	stop()
	listen(t, f.server, at, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { web.WriteJSON(w, api.Geo{}) }))
	later.Add(int64(silentTime))
	c.silence.vain = vainTime
	var err error
	for range 2 {
		_, err = c.call(t.Context(), request{what: "geo", method: http.MethodGet, url: c.serverURL("/geo"), max: maxReply, wait: serviceTime, http: c.servers})
		if err != nil {
			t.Errorf("it is back: %v", err)
		}
	}
}

// TestStalledReply: a reply that stops in the midst of its body is not waited for.
func TestStalledReply(t *testing.T) {
	f := newFleet(t)
	over := make(chan struct{})
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("{"))
		http.NewResponseController(w).Flush()
		<-over
	}))
	t.Cleanup(func() { close(over) })
	c := newClient(t, Options{Address: at, Credentials: f.device})
	_, err := c.call(t.Context(), request{what: "geo", method: http.MethodGet, url: c.serverURL("/geo"), max: maxReply, again: true, wait: 500 * time.Millisecond, http: c.servers})
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no reply within 500ms") {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// TestSlowReply: a reply that goes on is waited for, however long it takes in all.
func TestSlowReply(t *testing.T) {
	f := newFleet(t)
	at, _ := listen(t, f.server, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			<-tick.C
			w.Write([]byte(" "))
			http.NewResponseController(w).Flush()
		}
	}))
	c := newClient(t, Options{Address: at, Credentials: f.device})
	r, err := c.call(t.Context(), request{what: "geo", method: http.MethodGet, url: c.serverURL("/geo"), max: maxReply, wait: 500 * time.Millisecond, http: c.servers})
	if err != nil || len(r.body) != 20 {
		t.Errorf("%d bytes, %v; want 20", len(r.body), err)
	}
}

func TestCheckLsz(t *testing.T) {
	digest := content.DigestOf(nil)
	good := api.LszReply{ContentId: "tools", Version: 3, Outcome: api.LszFits, ManifestDigest: digest.String(), HashOfHashes: digest.Base64()}
	for why, c := range map[string]struct {
		change func(*api.LszReply)
		asked  uint64
		want   string
	}{
		"as asked":         {func(*api.LszReply) {}, 3, ""},
		"the newest":       {func(*api.LszReply) {}, 0, ""},
		"another version":  {func(*api.LszReply) {}, 4, "it is for tools@3"},
		"no version":       {func(r *api.LszReply) { r.Version = 0 }, 0, "it is for tools@0"},
		"another content":  {func(r *api.LszReply) { r.ContentId = "x" }, 3, "it is for x@3"},
		"no outcome":       {func(r *api.LszReply) { r.Outcome = "" }, 3, "outcome"},
		"no digest":        {func(r *api.LszReply) { r.ManifestDigest = "" }, 3, "digest"},
		"bad HashOfHashes": {func(r *api.LszReply) { r.HashOfHashes = digest.String() }, 3, "base64"},
	} {
		r := good
		c.change(&r)
		err := checkLsz(&r, content.Ref{ID: "tools", Version: c.asked})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", why, err, c.want)
		}
	}
}

// TestOriginsAreKept: without services, the distribution points are those that they named last.
func TestOriginsAreKept(t *testing.T) {
	f, s := newFleet(t), &fakeServices{origins: []string{"https://dp1:7444", "https://dp2:7444"}}
	at, stop := listen(t, f.server, "127.0.0.1:0", s)
	s.at = at
	opt := Options{Address: at, Credentials: f.device, CacheDir: t.TempDir()}
	c := newClient(t, opt)
	if got := c.Origins(); got != nil {
		t.Errorf("before any word: %q", got)
	}
	if _, _, err := c.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	for why, c := range map[string]*Client{"in mid-life": c, "after a restart": newClient(t, opt)} {
		if got := c.Origins(); strings.Join(got, " ") != "https://dp1:7444 https://dp2:7444" {
			t.Errorf("%s: %q", why, got)
		}
	}
}
