package share

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"freshet/internal/swarm"
)

// from adds origins to what Content Policy says.
func (r *rig) from(urls ...string) {
	r.Helper()
	rec := r.Record()
	rec.ContentURLs = urls
	r.Update(rec)
}

// TestOriginIsNamed: an origin that changed is named, without secrets, though Content Policy names
// it no more.
func TestOriginIsNamed(t *testing.T) {
	r := newRig(t, mib)
	var log bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	r.from("http://gone.example/bytes", "http://name:password@dp.example/bytes?key=secret")
	r.reopen()
	r.from("http://new.example/bytes")
	r.act(&swarm.Action{Kind: swarm.Changed, Source: 1})
	if s := log.String(); !strings.Contains(s, "dp.example/bytes") || strings.Contains(s, "secret") || strings.Contains(s, "password") {
		t.Errorf("the log says %q, want the origin without secrets", s)
	}
}
