package guard

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/policy"
	"freshet/internal/records"
)

// unserved runs a test in a world in which no service answers, and a publisher's key is pinned. rec is
// what somebody else than a service says of an issue, with a signature that holds.
func unserved(t *testing.T, pinned bool, test func(w *world, i *issue, rec records.Record)) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pin := func(o *Options) {
		if pinned {
			o.Publishers.Keys = []policy.PublisherKey{{Pattern: "app", Key: strings.Split(public.String(), "\n")[0]}}
		}
	}
	inWorld(t, pin, func(w *world) {
		w.set(func() {
			w.policy = func() (*api.ContentPolicy, error) { return nil, fmt.Errorf("%w: off", client.ErrUnreachable) }
		})
		i, _ := twoIssues(t)
		rec, err := records.Of(i.answer(0))
		if err != nil {
			t.Fatal(err)
		}
		terms := identity.Terms{Generation: 3, Groups: []string{"lab"}, Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
		if rec.Signature, err = identity.SignFor(private, i.bytes, terms); err != nil {
			t.Fatal(err)
		}
		test(w, i, rec)
	})
}

// TestSilenceVouchesForNothing: what others than services named, and nobody vouches for, is not
// believed the more the longer Content Policy says nothing.
func TestSilenceVouchesForNothing(t *testing.T) {
	for _, source := range []freshness.Source{freshness.FromOrigin, freshness.FromDevice} {
		unserved(t, false, func(w *world, i *issue, rec records.Record) {
			d := w.startWith(Request{Record: rec, Source: source, Device: freshness.Device{7}}, i)
			d.wants(" seek")
			w.check("finding", w.finding(), "not-believed missing[] extra[] changed[]")
			rest(2 * time.Hour)
			if got := d.take(); strings.Contains(got, "use") || !strings.Contains(got, " wait:not-believed ask seek") {
				t.Errorf("from source %d, in two hours it was ordered%s", source, got)
			}
			d.job.End()
		})
	}
}

// TestSignedForAnother: a publisher's word on one content says nothing of another one.
func TestSignedForAnother(t *testing.T) {
	unserved(t, true, func(w *world, i *issue, rec records.Record) {
		rec.Ref.Version++
		d := w.startWith(Request{Record: rec, Source: freshness.FromDevice}, i)
		d.wants(" seek")
		f, _ := w.g.Finding(rec.Ref)
		w.check("finding", f.Outcome, freshness.Unsigned)
		d.job.End()
	})
}

// TestRemembered: what a publisher signed is judged by that again, and never by what a device
// claimed; what brought a grant was Content Policy's word.
func TestRemembered(t *testing.T) {
	for _, tt := range []struct {
		grant  []byte
		pinned bool
		want   string
	}{
		{nil, true, " seek use"},
		{nil, false, " seek"},
		{[]byte("grant"), false, " seek use"},
	} {
		unserved(t, tt.pinned, func(w *world, i *issue, rec records.Record) {
			rec.Grant = tt.grant
			d := w.startWith(Remembered(rec), i)
			d.wants(tt.want)
			d.job.End()
		})
	}
}
