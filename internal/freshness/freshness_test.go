package freshness

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
)

func TestBelieve(t *testing.T) {
	for name, c := range map[string]struct {
		facts   Facts
		fit     content.Fit
		belief  Belief
		outcome Outcome
	}{
		"nothing":                      {Facts{}, content.Fits, NoBelief, NotBelieved},
		"catalog":                      {Facts{Catalog: true, Generation: 5}, content.FitUnknown, ByCatalog, OK},
		"catalog, lower":               {Facts{Catalog: true, Generation: 4}, content.FitUnknown, NoBelief, OlderGeneration},
		"catalog, publisher wanted":    {Facts{Catalog: true, Generation: 5, Pinned: true}, content.Fits, NoBelief, Unsigned},
		"publisher":                    {Facts{Pinned: true, Signed: true, SignedGeneration: 5, Expires: 101, Wall: 100}, content.FitUnknown, ByPublisher, OK},
		"publisher, lower":             {Facts{Pinned: true, Signed: true, SignedGeneration: 4}, content.FitUnknown, NoBelief, OlderGeneration},
		"publisher, expired":           {Facts{Pinned: true, Signed: true, SignedGeneration: 5, Expires: 100, Wall: 100}, content.FitUnknown, NoBelief, SignatureExpired},
		"both, the signature is older": {Facts{Catalog: true, Generation: 6, Pinned: true, Signed: true, SignedGeneration: 1}, content.FitUnknown, ByCatalog, OK},
		"origin":                       {Facts{OriginSigned: true}, content.Fits, ByOrigin, OK},
		"origin, no metadata":          {Facts{OriginSigned: true}, content.FitUnknown, NoBelief, NotBelieved},
		"origin, other files":          {Facts{OriginSigned: true}, content.Differs, NoBelief, NotBelieved},
		"origin, bytes not read":       {Facts{OriginSigned: true}, content.NeedsBytes, NoBelief, NotBelieved},
		"origin, publisher wanted":     {Facts{OriginSigned: true, Pinned: true}, content.Fits, NoBelief, Unsigned},
	} {
		if belief, outcome := Believe(c.facts, c.fit, 5); belief != c.belief || outcome != c.outcome {
			t.Errorf("%s: %v, %v, want %v, %v", name, belief, outcome, c.belief, c.outcome)
		}
	}
}

func TestModes(t *testing.T) {
	for _, m := range []Mode{Enforce, Report, Off} {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("ParseMode(%q) = %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("on"); err == nil {
		t.Error("ParseMode of another word is no error")
	}
	for flags, want := range map[uint32]Mode{0: Off, 504889354: Off, 1578631178: Enforce, 0x40000000: Enforce, 0xbfffffff: Off} {
		if got := FromCompatibilityFlags(flags); got != want {
			t.Errorf("CompatibilityFlags %#x: %v, want %v", flags, got, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	codes := map[string]bool{}
	for o := NoOutcome; o <= HintCrowded; o++ {
		if _, known := outcomes[o]; !known {
			continue
		}
		text, err := o.MarshalText()
		var back Outcome
		if err != nil || back.UnmarshalText(text) != nil || back != o || codes[string(text)] || o.Text() == "" {
			t.Errorf("outcome %d: %q, %v, read as %d", o, text, err, back)
		}
		codes[string(text)] = true
	}
	if len(codes) != len(outcomes) || codes[""] {
		t.Errorf("%d codes of %d outcomes", len(codes), len(outcomes))
	}
	other := OK
	if err := other.UnmarshalText([]byte("?")); err != nil || other != NoOutcome {
		t.Errorf("an unknown code is read as %s, %v", other, err)
	}
}

// TestUnknownReason: a download whose reason to wait another version said begins anew, so that
// none waits without a reason.
func TestUnknownReason(t *testing.T) {
	b := New(Config{State: State{Jobs: []JobState{{Job: 1, Rounds: MaxRounds}}}})
	acts := b.OnStart(0, Start{Job: 1, Ref: ref(1)}, b.OnBoot(0, nil))
	if len(acts) == 0 || acts[0].Kind != Begin {
		t.Errorf("%+v", acts)
	}
}

func ref(n int) content.Ref { return content.Ref{ID: content.ID(fmt.Sprintf("c%d", n)), Version: 1} }

// wrongHint lets a device be wrong on content n: the catalog names what is held.
func wrongHint(b *Brain, now time.Duration, from Device, n int) (checked bool) {
	good := content.DigestOf([]byte("good"))
	h := Hint{Ref: ref(n), Algorithm: content.SHA1Algorithm, Wanted: content.DigestOf(fmt.Appendf(nil, "%d %v %x", n, now, from))}
	b.OnHint(now, Received{h, from, true, []Held{{Digest: good, Generation: 1, SHA1Sum: good}}}, nil)
	checked = len(b.checks) > 0
	b.OnPolicy(now, ref(n), Policy{true, good, 1}, nil)
	return checked
}

// TestSixWrongHints: the sixth wrong hint mutes a sender for everything, for an hour.
func TestSixWrongHints(t *testing.T) {
	b, liar, other := New(Config{}), Device{1}, Device{2}
	for n := range 6 {
		if !wrongHint(b, 0, liar, n) {
			t.Errorf("hint %d is not checked", n)
		}
		if wrongHint(b, time.Minute, liar, n) {
			t.Errorf("a second hint on content %d is checked", n)
		}
	}
	if wrongHint(b, time.Minute, liar, 7) {
		t.Error("a hint on another content is checked after six wrong ones")
	}
	if !wrongHint(b, time.Minute, other, 7) {
		t.Error("another device is not heard")
	}
	b = New(Config{State: b.State(time.Minute)})
	if wrongHint(b, 58*time.Minute, liar, 8) {
		t.Error("a restart forgets who is muted")
	}
	if !wrongHint(b, time.Hour, liar, 8) {
		t.Error("an hour later the device is still muted")
	}
}

// TestMemoryIsBounded: more contents, senders, questions and mutes than there is room for.
func TestMemoryIsBounded(t *testing.T) {
	b := New(Config{})
	for n := range maxContents + 100 {
		b.OnPolicy(time.Duration(n), ref(n), Policy{true, content.Digest{1}, 1}, nil)
	}
	if n := len(b.contents); n > maxContents || n < maxContents/2 {
		t.Errorf("%d contents are remembered", n)
	}
	if b.contents[ref(maxContents+99)] == nil || b.contents[ref(0)] != nil {
		t.Error("the least recently used contents are not those that were forgotten")
	}
	for n := range maxRecent + 100 {
		from := Device{byte(n), byte(n >> 8)}
		if checked := wrongHint(b, time.Minute, from, n); checked != (n < maxSenders) {
			t.Fatalf("hint %d: checked %v", n, checked)
		}
	}
	if len(b.senders) > maxSenders || len(b.recent) > maxRecent || len(b.checks) > 0 {
		t.Errorf("%d senders, %d questions, %d checks", len(b.senders), len(b.recent), len(b.checks))
	}
	if !wrongHint(b, 2*time.Hour, Device{0xff, 0xff}, 1) {
		t.Error("there is no room when all that was remembered is over")
	}
	for n := range 2 * maxMutes {
		b.wrong(3*time.Hour, Device{3}, ref(n), false)
	}
	if n := len(b.senders[Device{3}].mutes); n > maxMutes {
		t.Errorf("%d mutes of a sender", n)
	}
}

// TestChecksAreBounded floods a device with hints on different contents at once.
func TestChecksAreBounded(t *testing.T) {
	b := New(Config{})
	ignored := 0
	for n := range maxChecks + 10 {
		h := Hint{Ref: ref(n), Rejected: content.Digest{1}}
		for _, a := range b.OnHint(0, Received{h, Device{byte(n)}, true, []Held{{Digest: content.Digest{1}}}}, nil) {
			if a.Kind == Answer && a.Ack == AckIgnored {
				ignored++
			}
		}
	}
	if len(b.checks) != maxChecks || ignored != 10 {
		t.Errorf("%d checks, %d hints ignored", len(b.checks), ignored)
	}
}

func TestAckRefuses(t *testing.T) {
	if _, err := ParseAck(nil); err == nil {
		t.Error("an empty acknowledgement is no error")
	}
}

// TestPageListsEveryOutcome: an administrator looks a code up in docs/freshness.md.
func TestPageListsEveryOutcome(t *testing.T) {
	page, err := os.ReadFile("../../docs/freshness.md")
	if err != nil {
		t.Fatal(err)
	}
	for o := range outcomes {
		if row := fmt.Sprintf("\n| `%s` | ", o); o != NoOutcome && !strings.Contains(string(page), row) {
			t.Errorf("docs/freshness.md has no row for %s", o)
		}
	}
}
