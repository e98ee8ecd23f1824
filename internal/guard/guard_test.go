package guard

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"freshet/internal/api"
	"freshet/internal/client"
	"freshet/internal/content"
	"freshet/internal/expected"
	"freshet/internal/freshness"
	"freshet/internal/identity"
	"freshet/internal/policy"
	"freshet/internal/records"
	"freshet/internal/wire"
)

// twoIssues returns the first issue and the one after it.
func twoIssues(t *testing.T) (old, next *issue) {
	t.Helper()
	return makeIssue(t, map[string]string{"a": "one", "b": "two"}), makeIssue(t, map[string]string{"a": "one", "b": "three"})
}

func (w *world) check(what string, got, want any) {
	w.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (w *world) finding() string {
	f, ok := w.g.Finding(theRef)
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%s missing%q extra%q changed%q", f.Outcome, f.Missing, f.Extra, f.Changed)
}

// TestNothingExpected: what Content Policy names is used without a question more, and no time
// passes.
func TestNothingExpected(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		begun := time.Now()
		d := w.start(old, 1)
		d.wants(" seek use")
		d.done(old)
		d.wants(" deliver")
		w.check("time", time.Since(begun), time.Duration(0))
		w.check("questions", w.questions(), 0)
		w.check("finding", w.finding(), "none")
		w.said("outcome=fits content=app@1 manifest=" + old.digest().Short())
		d.job.End()
	})
}

// TestDiffers: what the catalog names does not fit. The catalog is told, the distribution point
// makes sure, and the new issue is used.
func TestDiffers(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(next)
		w.set(func() {
			w.sure = func(base string) (*api.LszReply, error) {
				w.policy = func() (*api.ContentPolicy, error) { return next.answer(2), nil }
				return &api.LszReply{Outcome: api.LszFits, ManifestDigest: next.digest().String()}, nil
			}
		})
		d := w.start(old, 1, next)
		d.wants(" seek drop ask ask seek use")
		w.check("finding", w.finding(), `fits missing[] extra[] changed[]`)
		w.check("told", len(w.told()), 1)
		if x := w.told()[0]; x.ManifestDigest != old.digest().String() || x.Summary != `1 changed: changed "b"` || len(x.MetadataHash) != 64 {
			t.Errorf("the catalog was told %+v", x)
		}
		w.check("forced", w.forcings(), 1)
		if q := w.question(0); !q.Force || q.Match != "exact" || len(q.Files) != 2 || q.Files[1].Algorithm != "SHA1" {
			t.Errorf("the distribution point was asked %+v", q)
		}
		d.done(next)
		d.wants(" deliver")
		d.job.End()
	})
}

// TestOriginStale: rounds are bounded, then tried hourly; other metadata ends the wait at once.
func TestOriginStale(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(next)
		w.names(old, 1)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) { return nil, &client.OriginStale{Problem: &api.Problem{}} }
		})
		d := w.start(old, 1, next)
		d.wants(" seek drop ask wait:origin-stale")
		w.check("finding", w.finding(), `origin-stale missing[] extra[] changed["b"]`)
		w.check("distribution points asked", w.forcings(), 2)
		w.said("outcome=expected-differs content=app@1")
		w.said("outcome=origin-stale content=app@1")
		rest(time.Hour)
		if n := w.forcings(); n != 2*freshness.MaxRounds {
			t.Errorf("%d questions to two distribution points in an hour, want those of %d rounds", n, freshness.MaxRounds)
		}
		rest(24 * time.Hour)
		if n := w.forcings() - 2*freshness.MaxRounds; n < 2*20 || n > 2*28 {
			t.Errorf("%d questions in a day of hourly tries", n)
		}
		if got := d.take(); !strings.HasSuffix(got, " wait:origin-stale") || strings.Contains(got, "use") {
			t.Errorf("ordered%s", got)
		}
		w.expects(old)
		rest(16 * time.Second)
		d.wants(" readmit ask seek use")
		d.job.End()
	})
}

// TestOriginDiffers: the distribution point's files fit and the catalog names others: this
// download takes them from there alone, vouched for by its signature.
func TestOriginDiffers(t *testing.T) {
	var dp *identity.Credentials
	signed := true
	inWorld(t, func(o *Options) { o.Trust = func() identity.OriginTrust { return dp.OriginTrust() } }, func(w *world) {
		ca, err := identity.CreateCA(filepath.Join(t.TempDir(), "ca"), "fleet")
		if err == nil {
			dp, err = ca.IssueCredentials(identity.Name{Role: identity.RoleOrigin, Device: wire.DeviceID{1}})
		}
		if err != nil {
			t.Fatal(err)
		}
		old, next := twoIssues(t)
		w.expects(next)
		w.names(old, 1)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) {
				r := &api.LszReply{
					ContentId: "app", Version: 1, Outcome: api.LszDiffers, ManifestDigest: next.digest().String(),
					HashOfHashes: next.parsed.HashOfHashes.Base64(), Size: next.parsed.Size, ContentUrl: "https://dp1/bytes/x",
					PublisherSignature: []byte("of nobody who is pinned"),
				}
				if signed {
					r.Signature, err = dp.SignManifest(next.digest())
				}
				return r, err
			}
		})
		d := w.start(old, 1, next)
		d.mu.Lock()
		for _, o := range d.orders {
			if o.Kind == Seek && o.Digest == next.digest() && (o.Record.Peerable || len(o.Record.ContentURLs) != 1) {
				t.Errorf("it is to be announced, or got elsewhere: %+v", o.Record)
			}
		}
		d.mu.Unlock()
		d.wants(" seek drop ask seek use")
		w.said("alone=true")
		d.job.End()
		signed = false
		d = w.start(old, 1, next)
		d.wants(" seek drop ask seek")
		w.check("finding", w.finding(), `not-believed missing[] extra[] changed[]`)
		d.job.End()
	})
}

// TestServicesSilent: what was known before goes on; a service that says no ends the download.
func TestServicesSilent(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		silent := fmt.Errorf("%w: off", client.ErrUnreachable)
		w.set(func() { w.policy = func() (*api.ContentPolicy, error) { return nil, silent } })
		rec, err := records.Of(old.answer(3))
		if err != nil {
			t.Fatal(err)
		}
		d := w.startWith(Request{Record: rec}, old)
		d.wants(" seek use")
		d.job.End()
		w.expects(next)
		w.set(func() { w.sure = func(string) (*api.LszReply, error) { return nil, silent } })
		d = w.startWith(Request{Record: rec}, old, next)
		d.wants(" seek drop ask wait:origin-unavailable")
		rest(12 * time.Second) // nothing was kept: the download's own record is
		d.wants(" ask seek ask wait:origin-unavailable")
		kept, err := records.Of(old.answer(4))
		if err != nil {
			t.Fatal(err)
		}
		kept.ContentURLs = kept.ContentURLs[:1]
		w.set(func() { w.last = &kept })
		before := w.forcings()
		rest(45 * time.Second)
		d.wants(" ask seek ask wait:origin-unavailable")
		w.check("distribution points of what was kept", w.forcings()-before, 1)
		w.set(func() {
			w.policy = func() (*api.ContentPolicy, error) {
				return nil, &api.Problem{Status: http.StatusNotFound, Title: "gone"}
			}
		})
		rest(4 * time.Minute)
		d.wants(" ask fail")
		d.job.End()
		older, err := records.Of(old.answer(2))
		if err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.metadata = nil })
		d = w.startWith(Request{Record: older}, old)
		d.wants(" seek wait:older-generation")
		d.job.End()
	})
}

// TestUnread: while the metadata cannot be read nothing is used; when it can, at once.
func TestUnread(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		w.set(func() {
			w.metadata = func() (expected.Content, error) { return expected.Content{}, errors.New("broken") }
		})
		d := w.start(old, 1)
		d.wants(" wait:expected-unread")
		w.names(old, 1)
		w.expects(old)
		rest(16 * time.Second)
		d.wants(" readmit ask seek use")
		w.set(func() {
			w.metadata = func() (expected.Content, error) { return expected.Content{}, errors.New("broken") }
		})
		rest(time.Minute)
		d.wants("")
		d.job.End()
		w.set(func() { w.metadata = nil })
		d = w.start(old, 1)
		d.wants(" seek use")
		w.set(func() {
			w.metadata = func() (expected.Content, error) { return expected.Content{}, errors.New("broken") }
		})
		rest(time.Minute) // it is still as it was: nothing is expected
		d.wants("")
		d.done(old)
		d.wants(" deliver")
		d.job.End()
	})
}

// TestGenerationWakes: a download that waits goes on when the catalog has a higher generation.
func TestGenerationWakes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(next)
		w.names(old, 1)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) {
				return nil, &client.OriginStale{RetryAfter: time.Hour, Problem: &api.Problem{}}
			}
		})
		d := w.start(old, 1, next)
		d.wants(" seek drop ask wait:origin-stale")
		rest(10 * time.Minute)
		d.wants("")
		w.names(next, 2)
		rest(2 * time.Minute)
		d.wants(" ask seek use")
		d.job.End()
	})
}

// TestModes: report uses what differs and says so, off compares nothing.
func TestModes(t *testing.T) {
	old, next := twoIssues(t)
	differs := `expected-differs missing[] extra[] changed["b"]`
	for _, tt := range []struct {
		mode    freshness.Mode
		is      *issue
		orders  string
		finding string // when its bytes are there
		told    int
	}{
		{freshness.Report, old, " seek use:expected-differs", differs, 1},
		{freshness.Report, old.bare(), " seek use:bytes-needed", differs, 1},
		{freshness.Report, old.claiming(next), " seek use", differs, 1},
		{freshness.Report, next.bare(), " seek use:bytes-needed", `fits missing[] extra[] changed[]`, 0},
		{freshness.Off, old, " seek use", "none", 0},
	} {
		inWorld(t, func(o *Options) { o.Mode = tt.mode }, func(w *world) {
			w.expects(next)
			d := w.start(tt.is, 1)
			d.wants(tt.orders)
			d.done(tt.is)
			d.wants(" deliver")
			w.check("finding", w.finding(), tt.finding)
			w.check("the catalog was told", len(w.told()), tt.told)
			d.job.End()
		})
	}
}

// TestCallersMetadata: it decides in the device's own metadata's place, and must speak of the
// content.
func TestCallersMetadata(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(next)
		rec, err := records.Of(old.answer(1))
		if err != nil {
			t.Fatal(err)
		}
		d := w.startWith(Request{Record: rec, Answered: true, Metadata: []expected.Content{old.expect()}}, old)
		d.wants(" seek use")
		part := old.expect()
		part.Files = part.Files[:1]
		e := w.startWith(Request{Record: rec, Answered: true, Metadata: []expected.Content{part}, Match: content.Subset}, old)
		e.wants(" seek use")
		rest(time.Minute) // the provider's word is another one
		d.wants("")
		other := old.expect()
		other.Ref.Version = 2
		if _, err := w.g.Start(context.Background(), Request{Record: rec, Metadata: []expected.Content{other}}); err == nil {
			t.Error("metadata of another version is taken")
		}
		d.job.End()
		e.job.End()
	})
}

// TestBytes: a manifest without SHA-1 is used on trial, and its bytes decide.
func TestBytes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		g := next.bare()
		w.expects(next)
		d := w.start(g, 1)
		d.wants(" seek use:bytes-needed")
		d.done(g)
		d.wants(" deliver")
		d.job.End()
		if kept, ok := w.Summed(g.digest()); !ok || !slices.Equal(kept, g.sha1s()) {
			t.Errorf("kept %v, %t", kept, ok)
		}
		w.check("finding", w.finding(), `fits missing[] extra[] changed[]`)
		w.expects(old)
		w.names(g, 1)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) { return nil, &client.OriginStale{Problem: &api.Problem{}} }
		})
		d = w.start(g, 1)
		d.wants(" seek use:bytes-needed")
		d.done(g)
		d.wants(" drop ask wait:origin-stale")
		w.check("finding", w.finding(), `origin-stale missing[] extra[] changed["b"]`)
		d.job.End()
	})
}

// TestFalseSHA1: a manifest that claims the metadata's SHA-1s with other bytes fits until the
// bytes are there. Then it is treated as any that differs; without a word on the bytes as well.
func TestFalseSHA1(t *testing.T) {
	for name, done := range map[string]func(*getter, *issue){
		"other bytes": (*getter).done,
		"no word":     func(d *getter, _ *issue) { d.job.Done(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				old, next := twoIssues(t)
				g := old.claiming(next)
				w.expects(next)
				w.names(g, 1)
				w.set(func() {
					w.sure = func(string) (*api.LszReply, error) { return nil, &client.OriginStale{Problem: &api.Problem{}} }
				})
				d := w.start(g, 1)
				d.wants(" seek use")
				done(d, g)
				d.wants(" drop ask wait:origin-stale")
				w.check("the catalog was told", len(w.told()), 1)
				if told := w.told(); name == "other bytes" && len(told) > 0 {
					w.check("finding", w.finding(), `origin-stale missing[] extra[] changed["b"]`)
					w.check("told", told[0].Summary, `1 changed: changed "b"`)
				}
				d.job.End()
			})
		})
	}
}

// TestUnsigned: where a key is pinned, only what it signed is taken.
func TestUnsigned(t *testing.T) {
	inWorld(t, func(o *Options) {
		o.Publishers = identity.Publishers{Keys: []policy.PublisherKey{{Pattern: "app*", Key: "x"}}}
	}, func(w *world) {
		old, _ := twoIssues(t)
		d := w.start(old, 1)
		d.wants(" seek wait:unsigned")
		d.job.End()
	})
}

// hear gives the guard a hint that came singly and returns the acknowledgement.
func (w *world) hear(from byte, v wire.Validate) string {
	w.t.Helper()
	ack := make(chan string, 2)
	w.g.Hint(freshness.Device{from}, v, func(body []byte) {
		a, err := freshness.ParseAck(body)
		if err != nil {
			w.t.Error(err)
		}
		ack <- a.String()
	})
	synctest.Wait()
	select {
	case a := <-ack:
		return a
	default:
		return "none"
	}
}

// TestHintConfirmed: the catalog has a higher generation: the copy goes.
func TestHintConfirmed(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.hold(old, 1)
		w.set(func() {
			w.policy = func() (*api.ContentPolicy, error) { return nil, fmt.Errorf("%w: off", client.ErrUnreachable) }
		})
		w.check("acknowledged", w.hear(9, wire.Validate{Ref: theRef, Rejected: old.digest()}), "checking")
		w.check("on hold", w.onHold(old), true)
		w.check("gone", len(w.retired()), 0)
		w.names(next, 2)
		rest(10 * time.Second)
		w.check("gone", w.retired(), []content.Digest{old.digest()})
		w.check("finding", w.finding(), "hint-confirmed missing[] extra[] changed[]")
		w.check("not held", w.hear(9, wire.Validate{Ref: theRef, Rejected: old.digest()}), "nothing")
	})
}

// TestHintRefuted: the catalog names the copy: it is served again, and the sender is not heard.
func TestHintRefuted(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.hold(old, 1)
		w.names(old, 1)
		wanted, err := next.expect().MetadataHash()
		if err != nil {
			t.Fatal(err)
		}
		v := wire.Validate{Ref: theRef, Algorithm: content.SHA1Algorithm, Wanted: wanted}
		w.check("acknowledged", w.hear(9, v), "checking")
		rest(time.Second)
		w.check("on hold", w.onHold(old), false)
		w.check("gone", len(w.retired()), 0)
		w.check("the same from another one", w.hear(8, v), "kept")
		w.check("again", w.hear(9, wire.Validate{Ref: theRef, Rejected: old.digest()}), "ignored")
		w.check("no hash", w.hear(8, wire.Validate{Ref: theRef}), "none")
		w.check("questions", w.questions(), 1)
		w.check("refuted", w.g.Counts()[freshness.HintRefuted], 1)
	})
}

// TestHintOwn: the device's own metadata rejects the copy, and the catalog names another one.
func TestHintOwn(t *testing.T) {
	for _, bare := range []bool{false, true} {
		inWorld(t, nil, func(w *world) {
			old, next := twoIssues(t)
			held := old
			if bare {
				held = old.bare()
			}
			w.hold(held, 5)
			w.names(makeIssue(t, map[string]string{"c": "other"}), 5)
			w.expects(next)
			wanted, err := next.expect().MetadataHash()
			if err != nil {
				t.Fatal(err)
			}
			w.g.Hint(freshness.Device{9}, wire.Validate{Ref: theRef, Algorithm: content.SHA1Algorithm, Wanted: wanted}, nil)
			rest(2 * time.Second)
			w.check("gone", w.retired(), []content.Digest{held.digest()})
			w.check("readings", w.readings() > 0, bare)
		})
	}
}

// TestHeldUnknown: an error in looking up what is held takes nothing out of quarantine, and does not
// keep the bytes from being read for the next question.
func TestHeldUnknown(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		held := old.bare()
		w.hold(held, 5)
		w.names(makeIssue(t, map[string]string{"c": "other"}), 5)
		w.expects(next)
		w.set(func() { w.broken = true })
		w.check("acknowledged", w.hear(9, wire.Validate{Ref: theRef, Rejected: held.digest()}), "checking")
		rest(time.Minute)
		w.check("readings", w.readings(), 1)
		w.check("on hold", w.onHold(held), true)
		w.said("the disk has an error")
		rest(freshness.CheckTime)
		w.check("on hold after the check", w.onHold(held), false)
		w.check("gone", len(w.retired()), 0)
		w.check("unanswered", w.g.Counts()[freshness.HintUnanswered], 1)
	})
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		held := old.bare()
		w.hold(held, 5)
		w.names(held, 5)
		wanted, err := next.expect().MetadataHash()
		if err != nil {
			t.Fatal(err)
		}
		v := wire.Validate{Ref: theRef, Algorithm: content.SHA1Algorithm, Wanted: wanted}
		w.set(func() { w.broken = true })
		w.check("acknowledged", w.hear(9, v), "checking")
		w.check("readings", w.readings(), 1)
		rest(freshness.CheckTime)
		w.set(func() { w.broken, w.reads, w.held[0].SHA1Sum = false, 0, content.Digest{} })
		w.check("the next question", w.hear(9, v), "checking")
		w.check("readings", w.readings(), 1)
	})
}

// TestGeneration: a join's reply tells of a higher generation. The copy goes when Content Policy
// says so, and a lie harms nobody.
func TestGeneration(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.hold(old, 1)
		w.names(old, 1)
		w.g.Generation(theRef, 7)
		rest(2 * time.Second)
		w.check("gone after a lie", len(w.retired()), 0)
		w.check("on hold after a lie", w.onHold(old), false)
		w.names(next, 8)
		w.g.Generation(theRef, 8)
		rest(2 * time.Second)
		w.check("gone", w.retired(), []content.Digest{old.digest()})
	})
}

// TestOwnCopyGoes: a download that learns of a new issue retires the old copy of this device.
func TestOwnCopyGoes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.hold(old, 1)
		w.names(next, 2)
		w.set(func() { w.ever = map[content.Digest]bool{} })
		w.hold(next, 0) // its record is not written yet
		d := w.start(next, 2)
		d.wants(" seek use")
		rest(2 * time.Second)
		w.check("gone", w.retired(), []content.Digest{old.digest()})
		w.set(func() { w.check("the new one was on hold", w.ever[next.digest()], false) })
		w.check("confirmed", w.confirmed() > 0, true)
		d.job.End()
	})
}

// TestPeers: devices with a manifest that was turned down are told, on the subnet and singly; who
// does not acknowledge is left out, who goes on is banned, and both are forgiven when other
// metadata is expected.
func TestPeers(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(next)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) {
				w.policy = func() (*api.ContentPolicy, error) { return next.answer(2), nil }
				return &api.LszReply{Outcome: api.LszFits, ManifestDigest: next.digest().String()}, nil
			}
		})
		d := w.start(old, 1, next)
		d.take()
		good, deaf, gone := freshness.Device{1}, freshness.Device{2}, freshness.Device{3}
		for _, p := range []freshness.Device{good, deaf, gone} {
			d.job.Peer(p)
		}
		d.job.Named(good, old.digest(), 1)
		d.wants(" tell:01 tell:02 tell:03")
		w.check("broadcast", len(w.broadcasts()), 1)
		if v := w.broadcasts()[0]; v.Algorithm != content.SHA1Algorithm || v.Ref != theRef {
			t.Errorf("broadcast %+v", v)
		}
		w.g.Acknowledged(theRef, good, []byte{byte(freshness.AckChecking)})
		w.g.Acknowledged(theRef, good, nil)
		d.job.PeerGone(gone)
		rest(3 * time.Second)
		d.wants(" leave-out:02")
		rest(5 * time.Second)
		d.job.Named(good, old.digest(), 1)
		d.wants(" leave-out:01")
		w.check("bans", w.banned(), map[freshness.Device]bool{good: true})
		w.said(fmt.Sprintf("outcome=peer-banned content=app@1 manifest=%s device=%s banned=true", old.digest().Short(), good))
		w.names(old, 3)
		w.expects(old)
		rest(16 * time.Second)
		d.wants(" drop readmit ask seek use")
		w.check("bans", w.banned(), map[freshness.Device]bool{good: false})
		d.job.End()
	})
}

// TestRestart: a quarantine holds over a restart, for what is left of its time; a download that
// comes back knows what was turned down; findings are kept.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := twoIssues(t)
		w := newWorld(t)
		opt := w.options(filepath.Join(t.TempDir(), "freshness.json"))
		stop := w.boot(opt)
		w.hold(old, 1)
		w.set(func() {
			w.policy = func() (*api.ContentPolicy, error) { return nil, fmt.Errorf("%w: off", client.ErrUnreachable) }
		})
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) { return nil, &client.OriginStale{Problem: &api.Problem{}} }
		})
		rec, err := records.Of(old.answer(1))
		if err != nil {
			t.Fatal(err)
		}
		w.hear(9, wire.Validate{Ref: theRef, Rejected: old.digest()})
		w.expects(next)
		d := w.startWith(Request{Record: rec}, old)
		d.wants(" seek drop ask wait:origin-stale")
		rest(3 * time.Minute)
		rounds := w.forcings()
		stop()
		w.set(func() { clear(w.holds) })
		rest(5 * time.Minute)

		stop = w.boot(opt)
		w.check("on hold after a restart", w.onHold(old), true)
		if got := w.finding(); !strings.HasPrefix(got, "origin-stale") {
			t.Errorf("finding after a restart: %s", got)
		}
		d = w.startWith(Request{Record: rec}, old)
		rest(time.Minute)
		w.check("on hold a minute later", w.onHold(old), true)
		rest(2 * time.Minute)
		w.check("on hold after ten minutes", w.onHold(old), false)
		w.check("gone", len(w.retired()), 0)
		rest(30 * time.Minute)
		if n := w.forcings(); n > 2*freshness.MaxRounds+2 {
			t.Errorf("%d questions before the restart and %d after it, want five rounds in all", rounds, n-rounds)
		}
		d.job.End()
		stop()

		if err := os.WriteFile(opt.File, []byte(`{"State":`), 0o600); err != nil {
			t.Fatal(err)
		}
		stop = w.boot(opt)
		w.check("finding of a damaged file", w.finding(), "none")
		stop()
	})
}

// TestUnclaimed: what was known of a download that does not come back is forgotten.
func TestUnclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := twoIssues(t)
		w := newWorld(t)
		opt := w.options(filepath.Join(t.TempDir(), "freshness.json"))
		jobs := func() int {
			b, err := os.ReadFile(opt.File)
			if err != nil {
				t.Fatal(err)
			}
			var m memory
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			return len(m.State.Jobs)
		}
		stop := w.boot(opt)
		w.names(old, 1)
		w.expects(next)
		w.set(func() {
			w.sure = func(string) (*api.LszReply, error) { return nil, &client.OriginStale{Problem: &api.Problem{}} }
		})
		w.start(old, 1)
		rest(2 * time.Second)
		stop()
		w.check("kept", jobs(), 1)
		stop = w.boot(opt)
		rest(59 * time.Minute)
		stop()
		w.check("kept for an hour", jobs(), 1)
		stop = w.boot(opt)
		rest(time.Hour + time.Minute)
		stop()
		w.check("kept after it", jobs(), 0)
	})
}

// TestSaves: a change is on disk within two seconds, and many changes are not written one by one.
func TestSaves(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for n := range int64(50) {
			i := makeIssue(t, map[string]string{"a": fmt.Sprint(n)})
			d := w.start(i, n+1)
			d.job.End()
		}
		rest(2 * time.Second)
		b, err := os.ReadFile(w.g.opt.File)
		if err != nil {
			t.Fatal(err)
		}
		var m memory
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if len(m.State.Contents) != 1 || m.State.Contents[0].Generation != 50 {
			t.Errorf("on disk: %+v", m.State.Contents)
		}
		left, err := os.ReadDir(filepath.Dir(w.g.opt.File))
		if err != nil || len(left) != 1 {
			t.Errorf("files beside it: %v, %v", left, err)
		}
	})
}

// TestOtherVersion: a finding of another version costs nothing of what is remembered besides.
func TestOtherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, _ := twoIssues(t)
		w := newWorld(t)
		opt := w.options(filepath.Join(t.TempDir(), "freshness.json"))
		stop := w.boot(opt)
		w.hold(old, 1)
		w.set(func() {
			w.policy = func() (*api.ContentPolicy, error) { return nil, fmt.Errorf("%w: off", client.ErrUnreachable) }
		})
		w.hear(9, wire.Validate{Ref: theRef, Rejected: old.digest()})
		w.g.post(func() { w.g.findHeld(theRef, freshness.HintUnanswered) })
		synctest.Wait()
		stop()
		b, err := os.ReadFile(opt.File)
		if err == nil {
			err = os.WriteFile(opt.File, []byte(strings.ReplaceAll(string(b), "hint-unanswered", "of-tomorrow")), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.set(func() { clear(w.holds) })
		stop = w.boot(opt)
		defer stop()
		w.check("the quarantine holds", w.onHold(old), true)
		w.check("finding", w.finding(), "none")
	})
}

// TestSavesAgain: what could not be written is, when it can be.
func TestSavesAgain(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		if err := os.Mkdir(w.g.opt.File, 0o700); err != nil { // where a file is wanted
			t.Fatal(err)
		}
		w.start(old, 1).job.End()
		rest(3*saveAgain + saveAgain/2)
		w.check("warnings", w.count("remembering freshness"), 4)
		if err := os.Remove(w.g.opt.File); err != nil {
			t.Fatal(err)
		}
		rest(saveAgain)
		if _, err := os.Stat(w.g.opt.File); err != nil {
			t.Error(err)
		}
	})
}

// TestTwoOfOne: two downloads of one content have their own numbers, and decide for themselves.
func TestTwoOfOne(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		d, e := w.start(old, 1), w.start(old, 1)
		d.wants(" seek use")
		e.wants(" seek use")
		if d.job.id == e.job.id {
			t.Error("two downloads have one number")
		}
		first := d.job.id
		d.done(old)
		d.wants(" deliver")
		d.job.End()
		e.wants("")
		e.job.End()
		again := w.start(old, 1)
		w.check("the same again", again.job.id, first)
		again.job.End()
	})
}

// TestLateAnswers: what was asked before a step decides nothing after it.
func TestLateAnswers(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(old)
		w.names(next, 2)
		d := w.start(old, 1, next)
		d.mu.Lock()
		seek := d.orders[0]
		d.mu.Unlock()
		d.wants(" seek use")
		w.expects(next)
		rest(16 * time.Second)
		d.wants(" drop readmit ask seek use")
		d.job.Found(seek, old.bytes, old.parsed)
		d.wants("")
		d.job.End()
		d.done(old)
		d.job.Named(freshness.Device{1}, old.digest(), 1)
		d.wants("")
	})
}

// slow is a provider that takes its time.
type slow struct {
	*world
	looks, most int // under way, guarded by mu
}

func (p *slow) Lookup(ctx context.Context, ref content.Ref) (expected.Content, error) {
	p.set(func() { p.looks++; p.most = max(p.most, p.looks) })
	defer p.set(func() { p.looks-- })
	<-time.After(lookTime / 2)
	return p.world.Lookup(ctx, ref)
}

// TestSlowProvider: a download looks once at a time.
func TestSlowProvider(t *testing.T) {
	p := &slow{}
	inWorld(t, func(o *Options) { o.Provider, o.Look = p, time.Second }, func(w *world) {
		p.world = w
		old, next := twoIssues(t)
		w.expects(old)
		w.names(next, 2)
		d := w.start(old, 1, next)
		d.wants(" seek use")
		w.expects(next)
		rest(time.Minute)
		d.wants(" drop readmit ask seek use")
		w.set(func() { w.check("looks at once", p.most, 1) })
		d.job.End()
	})
}

// TestLateManifest: what fitted the metadata of before is not used by that of now.
func TestLateManifest(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.expects(old)
		w.names(old, 1)
		d := w.start(old, 1)
		d.job.End()
		d.take()
		d = &getter{w: w, mute: true}
		rec, err := records.Of(old.answer(1))
		if err != nil {
			t.Fatal(err)
		}
		if d.job, err = w.g.Start(context.Background(), Request{Record: rec, Answered: true, Download: d}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d.mu.Lock()
		seek := d.orders[0]
		d.mu.Unlock()
		d.wants(" seek")
		w.expects(next)
		rest(16 * time.Second)
		d.wants(" readmit ask seek")
		d.job.Found(seek, old.bytes, old.parsed)
		d.wants("")
		d.job.End()
	})
}

// TestSigned: without services, a pinned publisher's word is enough, for the groups that it names
// and while it holds.
func TestSigned(t *testing.T) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pinned := []policy.PublisherKey{{Pattern: "app", Key: strings.Split(public.String(), "\n")[0]}}
	for _, tt := range []struct {
		groups string
		holds  time.Duration
		want   string
	}{
		{"lab", time.Hour, " seek use"},
		{identity.AllGroups, time.Hour, " seek use"},
		{"office", time.Hour, " seek wait:unsigned"},
		{"lab", -time.Hour, " seek wait:signature-expired"},
	} {
		inWorld(t, func(o *Options) { o.Publishers.Keys = pinned }, func(w *world) {
			old, _ := twoIssues(t)
			rec, err := records.Of(old.answer(0))
			if err != nil {
				t.Fatal(err)
			}
			terms := identity.Terms{Generation: 3, Groups: []string{tt.groups}, Expires: time.Now().Add(tt.holds).Truncate(time.Second)}
			if rec.Signature, err = identity.SignFor(private, old.bytes, terms); err != nil {
				t.Fatal(err)
			}
			d := w.startWith(Request{Record: rec, Source: freshness.FromOrigin}, old)
			d.wants(tt.want)
			d.job.End()
		})
	}
}

// TestFlood: hints beyond what can be looked up are dropped, and nothing of them stays.
func TestFlood(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		w.hold(old, 1)
		w.names(old, 1)
		w.mu.Lock() // nothing is looked up
		for n := range 10 * maxLooking {
			w.g.Hint(freshness.Device{byte(n)}, wire.Validate{Ref: theRef, Rejected: content.Digest{byte(n), 1}}, nil)
		}
		if n := len(w.g.looking); n != maxLooking {
			t.Errorf("%d are looked up at once", n)
		}
		w.check("dropped", w.g.dropped.Load(), 9*maxLooking)
		w.mu.Unlock()
		synctest.Wait()
		w.check("looked up", len(w.g.looking), 0)
		rest(2 * askEvery)
		w.said(fmt.Sprintf("dropped=%d", 9*maxLooking))
		w.check("questions", w.questions(), 0)
	})
}

// TestHintsCrowdNothingOut: the services' word is heard while hints are more than can be looked up.
func TestHintsCrowdNothingOut(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, next := twoIssues(t)
		w.hold(old, 1)
		w.names(next, 2)
		for range maxLooking {
			w.g.looking <- struct{}{}
		}
		w.g.Generation(theRef, 2)
		rest(time.Second)
		w.check("retired", w.retired(), []content.Digest{old.digest()})
		for range maxLooking {
			<-w.g.looking
		}
	})
}

// TestNoLook: for a sender that is not heard, and for what was answered lately, nothing is looked up.
func TestNoLook(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old, _ := twoIssues(t)
		w.hold(old, 1)
		silent := func() (*api.ContentPolicy, error) { return nil, fmt.Errorf("%w: off", client.ErrUnreachable) }
		w.set(func() { w.policy = silent })
		v := wire.Validate{Ref: theRef, Rejected: old.digest()}
		w.check("a question", w.hear(9, v), "checking")
		before := w.lookups()
		w.check("the same again", w.hear(9, v), "checking")
		w.check("looks", w.lookups(), before)
		w.check("the same from another", w.hear(8, v), "checking")
		w.check("looks", w.lookups(), before+1)
		w.names(old, 1)
		rest(time.Minute)
		before = w.lookups()
		w.check("who was wrong", w.hear(9, wire.Validate{Ref: theRef, Rejected: content.Digest{1}}), "ignored")
		w.check("what was answered", w.hear(7, v), "kept")
		w.check("looks", w.lookups(), before)
		w.check("muted", w.g.Counts()[freshness.HintMuted], 1)
		w.check("repeated", w.g.Counts()[freshness.HintRepeated], 2)
		rest(2 * askEvery)
		for text, lines := range map[string]int{"outcome=hint-muted hints=1": 1, "outcome=hint-repeated hints=1": 2} {
			w.check("lines that say "+text, w.count(text), lines)
		}
	})
}

func TestFindingIsBounded(t *testing.T) {
	var d content.Diff
	for n := range 100 {
		d = append(d, content.Difference{Kind: content.Missing, Name: strings.Repeat("é", 200) + fmt.Sprint(n)})
	}
	var f Finding
	f.name(d)
	if len(f.Missing) != maxNames || f.More != 100-maxNames {
		t.Errorf("%d names and %d more", len(f.Missing), f.More)
	}
	for _, n := range f.Missing {
		if len(n) > maxName+len("…") || !strings.HasPrefix(n, "…é") {
			t.Errorf("%d bytes: %q", len(n), n)
		}
	}
	inWorld(t, nil, func(w *world) {
		for n := range maxFindings + 10 {
			w.g.post(func() { w.g.note(content.Ref{ID: content.ID(fmt.Sprint("c", n)), Version: 1}, f, false) })
		}
		synctest.Wait()
		n := 0
		for k := range maxFindings + 10 {
			if _, ok := w.g.Finding(content.Ref{ID: content.ID(fmt.Sprint("c", k)), Version: 1}); ok {
				n++
			}
		}
		w.check("kept", n, maxFindings)
		_, oldest := w.g.Finding(content.Ref{ID: "c0", Version: 1})
		w.check("the oldest is kept", oldest, false)
	})
}
