package agent

import (
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/identity"
	"freshet/internal/peer"
	"freshet/internal/wire"
)

// TestGrantByServersClock: whether a grant has expired is judged by the server's clock, which a
// device whose own goes wrong knows from replies.
func TestGrantByServersClock(t *testing.T) {
	want := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ca, err := identity.CreateCA(filepath.Join(t.TempDir(), "ca"), "fleet")
	want(err)
	self, err := ca.IssueCredentials(identity.Name{Role: identity.RoleDevice, Group: "g", Device: wire.DeviceID{1}})
	want(err)
	server, err := ca.IssueCredentials(identity.Name{Role: identity.RoleServer, Device: wire.DeviceID{2}})
	want(err)
	public, private, err := ed25519.GenerateKey(nil)
	want(err)
	hello := peer.Hello{Device: wire.DeviceID{3}, HashOfHashes: content.Digest{4}}
	expires := time.Now().Add(-time.Hour)
	hello.Grant = identity.SignGrant(private, identity.Grant{
		Device: hello.Device, Group: "g", Ref: content.Ref{ID: "app", Version: 1}, HashOfHashes: hello.HashOfHashes, Expires: expires,
	})
	for name, at := range map[string]time.Time{"has expired": time.Now(), "holds": expires.Add(-time.Hour)} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		want(err)
		says := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusNotFound)
		})
		srv := &http.Server{Handler: says}
		go srv.Serve(tls.NewListener(ln, server.ServerConfig(identity.ServerOptions{})))
		c, err := client.New(client.Options{Address: ln.Addr().String(), Credentials: self})
		want(err)
		c.Bootstrap(t.Context()) // for the clock alone: nothing is found there
		c.CloseIdle()
		srv.Close()
		a := &Agent{opt: Options{Credentials: self, Client: c}, keys: []ed25519.PublicKey{public}}
		err = a.checkGrant(identity.Name{Group: "g", Device: hello.Device}, hello)
		if holds := err == nil; holds != (name == "holds") {
			t.Errorf("by the server's clock the grant %s; checking it says %v", name, err)
		}
	}
}
