package freshness

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

// shell is what a brain sees of a world in which anything may happen at any time.
type shell struct {
	t       *rapid.T
	cfg     Config
	b       *Brain
	now     time.Duration
	fits    map[Job]map[content.Digest]content.Fit // what was offered or done last
	quarant map[content.Digest]time.Duration       // quarantined manifests, and until when
	highest map[content.Ref]uint64
	policy  Policy // the last answer
}

var (
	drawDigest = rapid.Custom(func(t *rapid.T) content.Digest {
		return content.DigestOf(fmt.Appendf(nil, "m%d", rapid.IntRange(0, 4).Draw(t, "digest")))
	})
	drawDevice = rapid.Custom(func(t *rapid.T) Device {
		return Device{1 + byte(rapid.IntRange(0, 9).Draw(t, "device"))}
	})
	drawFit = rapid.SampledFrom([]content.Fit{content.FitUnknown, content.Fits, content.Differs, content.NeedsBytes})
	drawJob = rapid.Custom(func(t *rapid.T) Job { return Job(rapid.IntRange(1, 4).Draw(t, "job")) })
	drawGen = rapid.Uint64Range(0, 6)

	drawExpected = rapid.Custom(func(t *rapid.T) Expected {
		e := Expected{State: ExpectedState(rapid.IntRange(0, 2).Draw(t, "state"))}
		if e.State == IsExpected {
			e.Hash = drawDigest.Draw(t, "hash")
			e.Algorithm = content.Algorithm(rapid.IntRange(0, 2).Draw(t, "algorithm"))
		}
		return e
	})
	drawHint = rapid.Custom(func(t *rapid.T) Hint {
		h := Hint{Ref: theRef, Algorithm: content.Algorithm(rapid.IntRange(0, 2).Draw(t, "algorithm"))}
		if h.Algorithm == 0 {
			h.Rejected = drawDigest.Draw(t, "rejected")
		} else {
			h.Wanted = drawDigest.Draw(t, "wanted")
		}
		return h
	})
	drawHeld = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Held {
		h := Held{Digest: drawDigest.Draw(t, "held"), Generation: drawGen.Draw(t, "generation"), Leads: rapid.Bool().Draw(t, "leads")}
		if rapid.Bool().Draw(t, "hashed") {
			h.SHA1Sum = h.Digest
		}
		return h
	}), 0, 3, func(h Held) content.Digest { return h.Digest })
)

// do checks the actions of an event against what the brain was told.
func (sh *shell) do(acts []Action) {
	saved := false
	for _, a := range acts {
		if saved {
			sh.t.Fatalf("%+v after Save", a)
		}
		switch a.Kind {
		case Use, Deliver:
			sh.checkTaken(a)
		case Quarantine:
			sh.quarant[a.Digest] = sh.now + a.For
			if a.For < 0 || a.For > CheckTime {
				sh.t.Fatalf("quarantine for %v", a.For)
			}
		case Release, Retire:
			if a.Kind == Retire && sh.policy.Known && sh.policy.Digest == a.Digest {
				sh.t.Fatal("what the catalog names is retired")
			}
			delete(sh.quarant, a.Digest)
		case Wait, Pause:
			if a.For <= 0 || a.For > maxRetryAfter+PauseTime || a.Outcome == NoOutcome || a.Outcome.Text() == "" {
				sh.t.Fatalf("%+v", a)
			}
		case Tally:
			if a.Outcome.Text() == "" {
				sh.t.Fatalf("%+v: no text", a)
			}
		case Save:
			saved = true
		}
	}
	sh.check()
}

func (sh *shell) checkTaken(a Action) {
	j := sh.b.job(a.Job)
	fit := sh.fits[a.Job][a.Digest]
	if sh.cfg.Mode != Enforce {
		return
	}
	if fit == content.Differs {
		sh.t.Fatalf("%+v: it differs from what is expected", a)
	}
	if a.Kind == Use && (j == nil || j.rejects(a.Digest)) {
		sh.t.Fatalf("%+v was rejected", a)
	}
}

// check looks at the brain from inside.
func (sh *shell) check() {
	t, b := sh.t, sh.b
	for ref, k := range b.contents {
		if k.generation < sh.highest[ref] {
			t.Fatalf("generation fell from %d to %d", sh.highest[ref], k.generation)
		}
		sh.highest[ref] = k.generation
		if slices.Contains(k.superseded, k.digest) || len(k.superseded) > maxSuperseded {
			t.Fatalf("superseded %v, current %v", k.superseded, k.digest)
		}
	}
	for i, j := range b.jobs {
		if (j.phase == using) != !j.digest.IsZero() {
			t.Fatalf("job %d: phase %d with manifest %v", j.id, j.phase, j.digest)
		}
		if i > 0 && b.jobs[i-1].id >= j.id {
			t.Fatal("jobs are not in order")
		}
		if j.rounds > MaxRounds && j.phase == waiting || len(j.rejected) > maxRejected || len(j.sent) > maxSent {
			t.Fatalf("job %d: %d rounds, %d rejected, %d hints", j.id, j.rounds, len(j.rejected), len(j.sent))
		}
	}
	for digest, until := range sh.quarant {
		if sh.now > until {
			t.Fatalf("%v is in quarantine since longer than it may: until %v", digest.Short(), until)
		}
	}
	if len(b.checks) > maxChecks || len(b.senders) > maxSenders {
		t.Fatalf("%d checks, %d senders", len(b.checks), len(b.senders))
	}
}

// pass lets time pass with the ticks that the brain asks for.
func (sh *shell) pass(d time.Duration) {
	end := sh.now + d
	for calls := 0; ; calls++ {
		at, ok := sh.b.Next()
		if !ok || at > end {
			break
		}
		if calls > 10_000 {
			sh.t.Fatalf("the brain wants to be called at %v again and again", at)
		}
		sh.now = max(sh.now, at)
		sh.do(sh.b.OnTick(sh.now, nil))
	}
	sh.now = end
}

func (sh *shell) restart() {
	state := sh.b.State(sh.now)
	sh.cfg.State = state
	sh.now = 0
	clear(sh.quarant)
	clear(sh.highest)
	sh.b = New(sh.cfg)
	if again := sh.b.State(0); !reflect.DeepEqual(again, state) {
		sh.t.Fatalf("state %+v is restored as %+v", state, again)
	}
	sh.do(sh.b.OnBoot(0, nil))
}

func (sh *shell) offer(t *rapid.T) {
	o := Offer{
		Job: drawJob.Draw(t, "job"), Digest: drawDigest.Draw(t, "digest"), Source: Source(rapid.IntRange(0, 3).Draw(t, "source")),
		Fit: drawFit.Draw(t, "fit"),
		Facts: Facts{
			Catalog: rapid.Bool().Draw(t, "catalog"), Generation: drawGen.Draw(t, "generation"), Signed: rapid.Bool().Draw(t, "signed"),
			SignedGeneration: drawGen.Draw(t, "signed generation"), OriginSigned: rapid.Bool().Draw(t, "origin signed"),
		},
	}
	if o.Source == FromDevice {
		o.Device = drawDevice.Draw(t, "device")
	}
	sh.note(o.Job, o.Digest, o.Fit)
	sh.do(sh.b.OnOffer(sh.now, o, nil))
}

func (sh *shell) note(id Job, digest content.Digest, fit content.Fit) {
	if j := sh.b.job(id); j == nil || j.expected.State != IsExpected {
		fit = content.FitUnknown
	}
	if sh.fits[id] == nil {
		sh.fits[id] = map[content.Digest]content.Fit{}
	}
	sh.fits[id][digest] = fit
}

func (sh *shell) jobEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"start": func(t *rapid.T) {
			s := Start{Job: drawJob.Draw(t, "job"), Ref: theRef, Match: content.Match(rapid.IntRange(0, 1).Draw(t, "match")), Expected: drawExpected.Draw(t, "expected")}
			sh.do(sh.b.OnStart(sh.now, s, nil))
		},
		"end":   func(t *rapid.T) { sh.do(sh.b.OnEnd(sh.now, drawJob.Draw(t, "job"), nil)) },
		"offer": sh.offer,
		"expected": func(t *rapid.T) {
			sh.do(sh.b.OnExpected(sh.now, drawJob.Draw(t, "job"), drawExpected.Draw(t, "expected"), nil))
		},
		"forced": func(t *rapid.T) {
			f := Forced{drawJob.Draw(t, "job"), ForceResult(rapid.IntRange(1, 4).Draw(t, "result")), drawDigest.Draw(t, "digest"), time.Duration(rapid.Int64().Draw(t, "retry"))}
			sh.do(sh.b.OnForced(sh.now, f, nil))
		},
		"named": func(t *rapid.T) {
			sh.do(sh.b.OnNamed(sh.now, Named{drawJob.Draw(t, "job"), drawDevice.Draw(t, "device"), drawDigest.Draw(t, "digest"), drawGen.Draw(t, "generation")}, nil))
		},
		"done": func(t *rapid.T) {
			id, fit := drawJob.Draw(t, "job"), drawFit.Draw(t, "fit")
			if j := sh.b.job(id); j != nil && j.phase == using {
				sh.note(id, j.digest, fit)
			}
			sh.do(sh.b.OnDone(sh.now, id, fit, nil))
		},
		"peer": func(t *rapid.T) {
			sh.do(sh.b.OnPeer(sh.now, drawJob.Draw(t, "job"), drawDevice.Draw(t, "device"), nil))
		},
		"gone": func(t *rapid.T) {
			sh.do(sh.b.OnPeerGone(sh.now, drawJob.Draw(t, "job"), drawDevice.Draw(t, "device"), nil))
		},
		"ack": func(t *rapid.T) {
			sh.do(sh.b.OnAck(sh.now, drawJob.Draw(t, "job"), drawDevice.Draw(t, "device"), Ack(rapid.IntRange(0, 5).Draw(t, "ack")), nil))
		},
	}
}

func (sh *shell) holderEvents() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"policy": func(t *rapid.T) {
			sh.policy = Policy{rapid.Bool().Draw(t, "known"), drawDigest.Draw(t, "digest"), drawGen.Draw(t, "generation")}
			sh.do(sh.b.OnPolicy(sh.now, theRef, sh.policy, nil))
		},
		"news": func(t *rapid.T) {
			sh.do(sh.b.OnGeneration(sh.now, News{theRef, drawGen.Draw(t, "generation"), drawHeld.Draw(t, "held")}, nil))
		},
		"hint": func(t *rapid.T) {
			r := Received{drawHint.Draw(t, "hint"), drawDevice.Draw(t, "sender"), rapid.Bool().Draw(t, "single"), drawHeld.Draw(t, "held")}
			ack, settled := sh.b.Settled(sh.now, r.Sender, r.Hint)
			acts := sh.b.OnHint(sh.now, r, nil)
			answers := 0
			for _, a := range acts {
				if a.Kind != Answer {
					continue
				}
				answers++
				repeated := ack == AckKept || ack == AckChecking
				if settled != NoOutcome && a.Ack != AckNothing && a.Ack != ack && !(repeated && (a.Ack == AckKept || a.Ack == AckChecking)) {
					t.Fatalf("settled as %s (%s), answered %s", settled, ack, a.Ack)
				}
			}
			if answers > 1 || (answers == 1) != r.Single {
				t.Fatalf("%d answers to a hint, single %v", answers, r.Single)
			}
			sh.do(acts)
		},
		"own": func(t *rapid.T) {
			o := Own{theRef, drawDigest.Draw(t, "digest"), drawExpected.Draw(t, "expected"), drawFit.Draw(t, "fit")}
			if k := sh.b.check(o.Ref, o.Digest); k == nil || !k.ownAsked || sh.policyMoved(k) {
				return // it answers a question, and the catalog did not answer anew since
			}
			sh.do(sh.b.OnOwn(sh.now, o, nil))
		},
		"sums": func(t *rapid.T) {
			d := drawDigest.Draw(t, "digest")
			sh.do(sh.b.OnSums(sh.now, theRef, Held{Digest: d, SHA1Sum: drawDigest.Draw(t, "sum")}, nil))
		},
		"unread": func(t *rapid.T) { sh.b.OnUnread(theRef, drawDigest.Draw(t, "digest")) },
		"dropped": func(t *rapid.T) {
			d := drawDigest.Draw(t, "digest")
			delete(sh.quarant, d)
			sh.do(sh.b.OnGone(sh.now, theRef, d, nil))
		},
		"pass": func(t *rapid.T) {
			sh.policy = Policy{}
			sh.pass(time.Duration(rapid.SampledFrom([]int{1, 100, 3_000, 20_000, 700_000, 4_000_000}).Draw(t, "ms")) * time.Millisecond)
		},
		"restart": func(*rapid.T) { sh.restart() },
	}
}

// policyMoved reports whether the catalog's last answer is another than the one k goes by.
func (sh *shell) policyMoved(k *check) bool { return k.policy != sh.policy }

// TestInvariants lets anything happen, and checks the promises after each event.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sh := &shell{
			t: t, fits: map[Job]map[content.Digest]content.Fit{},
			quarant: map[content.Digest]time.Duration{}, highest: map[content.Ref]uint64{},
		}
		sh.cfg = Config{Seed: rapid.Uint64().Draw(t, "seed"), Mode: Mode(rapid.IntRange(0, 2).Draw(t, "mode")), Match: content.Match(rapid.IntRange(0, 1).Draw(t, "match"))}
		sh.b = New(sh.cfg)
		sh.do(sh.b.OnBoot(0, nil))
		events := sh.jobEvents()
		for name, f := range sh.holderEvents() {
			events[name] = f
		}
		t.Repeat(events)
	})
}
