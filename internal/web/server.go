package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the server.
const (
	headerTimeout  = 10 * time.Second // of a request's header, and of the TLS handshake
	idleTimeout    = 2 * time.Minute  // of a connection between requests
	drainTimeout   = 10 * time.Second // for requests under way when the server stops
	maxHeaderBytes = 32 << 10
)

// Server serves handler on ln until ctx ends, then lets requests under way finish for up to
// 10 s. TLS is ln's own (tls.NewListener); HTTP/1.1 is what is spoken. It closes ln and
// returns nil after a stop that ctx asked for.
func Server(ctx context.Context, ln net.Listener, handler http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			log.Info("requests were cut off at the stop", "address", ln.Addr().String(), "err", err)
			srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !unhook() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("web: serve %s: %w", ln.Addr(), err)
}

// Metrics holds a process's counters and gauges. There is one per process, handed to whoever
// counts; [Health] serves it in Prometheus' text format.
type Metrics = prometheus.Registry

// NewMetrics returns an empty registry.
func NewMetrics() *Metrics { return prometheus.NewRegistry() }

// Health returns a handler of /healthz (the process answers), /readyz (ready returns nil) and
// /metrics. ready may be nil.
func Health(metrics *Metrics, ready func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if ready == nil {
			plain(w, http.StatusOK, "ready")
			return
		}
		if err := ready(r.Context()); err != nil {
			plain(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
