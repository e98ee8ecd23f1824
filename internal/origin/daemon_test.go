package origin

import (
	"log/slog"
	"net/http/httptest"
	"testing"

	"freshet/internal/api"
	"freshet/internal/identity"
	"freshet/internal/wire"
)

// TestDeniedOnOpenConnection: who was revoked gets nothing more over the connection that it has.
func TestDeniedOnOpenConnection(t *testing.T) {
	b, o, _, _ := registeredBench(t, map[string][]byte{"a": {1}})
	d := &daemon{creds: b.origin}
	srv := httptest.NewUnstartedServer(d.admit(o.Handler()))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.TLS = b.origin.ServerConfig(identity.ServerOptions{Optional: true})
	srv.StartTLS()
	defer srv.Close()
	c := b.client(b.device)
	if status, _, _, p := b.ask(c, srv.URL, testRef, api.LszRequest{}); status != 200 {
		t.Fatalf("status %d, %v", status, p)
	}
	b.origin.SetDenied(func(id wire.DeviceID) bool { return id == b.device.Name().Device })
	if status, _, _, p := b.ask(c, srv.URL, testRef, api.LszRequest{}); status != 403 || p.Type != "revoked" {
		t.Errorf("status %d, %v; want 403, revoked", status, p)
	}
	if _, err := c.Post(srv.URL, "", nil); err == nil {
		t.Error("the device was let in again")
	}
}
