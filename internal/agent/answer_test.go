package agent

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"freshet/internal/identity"
	"freshet/internal/wire"
)

// TestServerFails: what Content Policy said last is good enough while it fails, or is asked too much,
// and not when it says no.
func TestServerFails(t *testing.T) {
	f := newFleet(t)
	g := oneFile(t, "app", mib)
	f.publish(g, f.newDP())
	d := f.device("127.0.0.1")
	d.get(g)
	f.stop()
	cred, err := f.ca.IssueCredentials(identity.Name{Role: identity.RoleServer, Device: wire.DeviceID{2}})
	f.want(err)
	ln, err := net.Listen("tcp", f.addr)
	f.want(err)
	var says atomic.Int64
	srv := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(says.Load()))
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(tls.NewListener(ln, cred.ServerConfig(identity.ServerOptions{})))
	}()
	defer func() { srv.Close(); <-done }()
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusTooManyRequests} {
		says.Store(int64(status))
		if p := d.get(g); p.FromCache != p.Size {
			t.Errorf("while the service says %d: %+v", status, p)
		}
	}
	says.Store(http.StatusForbidden)
	d.begin(g.ref).fails("403")
}
