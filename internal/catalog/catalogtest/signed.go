package catalogtest

import (
	"testing"
	"time"

	"freshet/internal/catalog"
)

// testSigned: a signature brings its generation, stays with its bytes, and goes with them.
func testSigned(t *testing.T, e Engine) {
	p := sample("tool", 1, "one")
	p.Content.Signature, p.Generation = []byte("signature"), now.Unix()+7
	first := publish(t, e, p, now)
	same(t, "generation", first.Generation, now.Unix()+7)
	got, err := e.Content(t.Context(), p.Content.Ref)
	wantNil(t, err)
	same(t, "content", got, first)
	same(t, "signature", string(got.Signature), "signature")

	again := publish(t, e, sample("tool", 1, "one"), now.Add(time.Hour))
	same(t, "signature of the same digest", string(again.Signature), "signature")
	same(t, "generation of the same digest", again.Generation, first.Generation)
	p.Generation--
	_, err = e.Publish(t.Context(), p, now)
	wantErr(t, err, catalog.ErrOlder)
	p.Generation += 2
	same(t, "signed anew", publish(t, e, p, now).Generation, first.Generation+1)

	other := sample("tool", 1, "two")
	other.Generation = p.Generation
	_, err = e.Publish(t.Context(), other, now)
	wantErr(t, err, catalog.ErrOlder)
	other.Generation = 0
	unsigned := publish(t, e, other, now)
	same(t, "generation of what follows", unsigned.Generation, p.Generation+1)
	same(t, "signature of what follows", len(unsigned.Signature), 0)
}

// testDifferences: each device's last word on the current manifest is kept, and no other.
func testDifferences(t *testing.T, e Engine) {
	c := publish(t, e, sample("tool", 1, "one"), now)
	d := catalog.Difference{Ref: c.Ref, Device: device(1), Manifest: c.ManifestDigest, MetadataHash: digest("hash"), Summary: "1 changed", At: now}
	wantNil(t, e.AddDifference(t.Context(), d))
	d.Summary, d.At = "2 changed", now.Add(time.Second)
	wantNil(t, e.AddDifference(t.Context(), d))
	second := d
	second.Device, second.At = device(2), now.Add(time.Minute)
	wantNil(t, e.AddDifference(t.Context(), second))
	got, err := e.Differences(t.Context(), c.Ref)
	wantNil(t, err)
	same(t, "differences", got, []catalog.Difference{second, d})
	all, err := e.Contents(t.Context())
	wantNil(t, err)
	same(t, "count", all[0].Differs, 2)

	for name, ref := range map[string]catalog.Difference{
		"other manifest":  {Ref: c.Ref, Manifest: digest("x")},
		"unknown content": {Ref: sample("none", 1, "").Content.Ref, Manifest: c.ManifestDigest},
	} {
		if err := e.AddDifference(t.Context(), ref); err == nil {
			t.Errorf("%s: was kept", name)
		}
	}
	wantErr(t, e.AddDifference(t.Context(), catalog.Difference{Ref: c.Ref, Manifest: digest("x")}), catalog.ErrChanged)

	publish(t, e, sample("tool", 1, "one"), now)
	got, err = e.Differences(t.Context(), c.Ref)
	wantNil(t, err)
	same(t, "after the same digest", len(got), 2)
	publish(t, e, sample("tool", 1, "two"), now)
	got, err = e.Differences(t.Context(), c.Ref)
	wantNil(t, err)
	same(t, "after a re-issue", len(got), 0)
}
