package share

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"freshet/internal/subnet"
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

// TestOriginsAreAdded: a share that has no origin waits; one that Content Policy names later is used
// at once, one that is named again is not another one, and one that is named no more stays.
func TestOriginsAreAdded(t *testing.T) {
	r := newRig(t, mib)
	r.onLease(subnet.Lease{Known: true, Mine: true})
	r.review()
	r.tick()
	if r.publish(); r.Facts().Failed != nil || !strings.HasPrefix(r.Facts().Waits, "no origin is named") {
		t.Errorf("without an origin the share says %q, failed: %v", r.Facts().Waits, r.Facts().Failed)
	}
	for _, c := range []struct{ says, want string }{
		{"http://a.example", "http://a.example"},
		{"http://b.example http://a.example", "http://a.example http://b.example"},
		{"http://b.example", "http://a.example http://b.example"},
	} {
		r.from(strings.Fields(c.says)...)
		for _, event := range r.box.take() {
			event()
		}
		var got []string
		for _, o := range r.sources {
			got = append(got, o.Name())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("after %s the origins are %s, want %s", c.says, s, c.want)
		}
	}
	if len(r.acts) != 1 || r.acts[0].Kind != swarm.Fetch || r.acts[0].Source != 0 {
		t.Errorf("the brain wants %+v, want one fetch of the first origin", r.acts)
	}
	r.acts = nil
}
