package share

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"freshet/internal/subnet"
	"freshet/internal/wire"
)

// TestGiven: a manifest that is used is given before there is an entry, as is the publisher's
// signature; one that is not used is not.
func TestGiven(t *testing.T) {
	r := newRig(t, 3*mib)
	rec := r.Record()
	rec.Signature = []byte("signature")
	r.Update(rec)
	if got := r.given(wire.GetSignature); string(got) != "signature" {
		t.Errorf("the signature given is %q", got)
	}
	e := r.held.Swap(nil)
	manifest := e.ManifestBytes()
	r.sought.Store(&Sought{Bytes: manifest, Parsed: e.Manifest()})
	for _, c := range []struct {
		allowed, held    bool
		manifest, hashes bool
	}{{false, false, false, false}, {true, false, true, false}, {true, true, true, true}} {
		r.used.Store(c.allowed)
		if c.held {
			r.held.Store(e)
		}
		if m, h := r.given(wire.GetManifest), r.given(wire.GetHashFile); bytes.Equal(m, manifest) != c.manifest || (len(h) > 0) != c.hashes {
			t.Errorf("%+v: it gives %d bytes of manifest and %d of hash file", c, len(m), len(h))
		}
	}
}

// TestWaitsForLease: a leader without an array's word says when it goes out, in tens of seconds.
func TestWaitsForLease(t *testing.T) {
	r := newRig(t, 3*mib)
	for in, want := range map[time.Duration]string{
		-time.Second: "about 10 s", 9 * time.Second: "about 10 s", 11 * time.Second: "about 20 s", 59 * time.Second: "about 60 s",
	} {
		r.role.stand = subnet.Stand{Role: subnet.Leading, OutAt: time.Now().Add(in)}
		if got := r.waits(&Facts{Left: 1}, &Facts{}); !strings.HasPrefix(got, "waiting for the lease: no array answers") || !strings.HasSuffix(got, want) {
			t.Errorf("in %v: %q, want it to end with %q", in, got, want)
		}
	}
	f := &Facts{Left: 1}
	f.Stats.FromPeers = 1
	if got := r.waits(f, &Facts{}); got != "" {
		t.Errorf("while pieces come it says %q", got)
	}
}

// TestStalled: the array is told when nothing came for long though it named who gives, and not of
// the time in which it did not answer.
func TestStalled(t *testing.T) {
	r := newRig(t, 3*mib)
	stalled := func(after time.Duration) bool {
		r.start = r.start.Add(-after)
		r.publish()
		return r.Facts().Stalled
	}
	if stalled(time.Minute) {
		t.Error("it is stalled while no array answers")
	}
	r.onLease(subnet.Lease{Known: true})
	if stalled(stallTime / 2) {
		t.Error("it is stalled when the array has just answered")
	}
	if !stalled(stallTime) {
		t.Error("it is not stalled though nothing comes")
	}
	r.onLease(subnet.Lease{})
	if stalled(time.Second) {
		t.Error("it is stalled when no array answers any more")
	}
}

// TestGrantStays: what a distribution point says of a content does not take its grant away, in the
// share or in what is kept.
func TestGrantStays(t *testing.T) {
	r := newRig(t, mib)
	rec := r.Record()
	rec.Granted = time.Now()
	r.Update(rec)
	r.want(r.Want(t.Context(), true))
	rec.Grant, rec.Granted = nil, time.Time{}
	r.Update(rec)
	r.want(r.dev.Records.Keep(t.Context(), rec))
	kept, err := r.dev.Records.Get(t.Context(), rec.Manifest)
	if got := r.Record(); err != nil || len(got.Grant) == 0 || len(kept.Grant) == 0 || got.Granted.IsZero() || kept.Granted.IsZero() {
		t.Errorf("the grant is gone: the share has %+v, kept is %+v, %v", got, kept, err)
	}
}
