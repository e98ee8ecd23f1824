package guard

import (
	"slices"
	"time"

	"freshet/internal/content"
	"freshet/internal/freshness"
)

// Bounds of findings, which are shown and sent.
const (
	maxFindings = 1024 // contents; the oldest are forgotten
	maxNames    = 8    // files of a kind that are named
	maxName     = 120  // bytes of a name that are shown
)

// Finding is what came of comparing a content last.
type Finding struct {
	Outcome  freshness.Outcome `json:"outcome"`
	Text     string            `json:"text"` // what it means, and what to do
	At       time.Time         `json:"at"`
	Missing  []string          `json:"missing,omitempty"`  // expected, not in the manifest
	Extra    []string          `json:"extra,omitempty"`    // in the manifest, not expected
	Changed  []string          `json:"changed,omitempty"`  // in both, with other hashes
	Unhashed []string          `json:"unhashed,omitempty"` // in both; the bytes decide
	More     int               `json:"more,omitempty"`     // files that differ and are not named
}

// findings are what is kept, the oldest first.
type findings []kept

type kept struct {
	Ref content.Ref
	Finding
}

// Finding returns what came of comparing a content last, false when there is nothing to tell.
func (g *Guard) Finding(ref content.Ref) (Finding, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := slices.IndexFunc(g.findings, func(k kept) bool { return k.Ref == ref })
	if at < 0 {
		return Finding{}, false
	}
	return g.findings[at].Finding, true
}

// find notes what came of a download's manifest. That all is well is worth a word only where
// something was expected, or wrong before.
func (g *Guard) find(j *Job, o freshness.Outcome) {
	f := Finding{Outcome: o, Text: o.Text(), At: g.opt.Now()}
	if o != freshness.OK {
		f.name(j.diff)
	}
	well := o == freshness.OK && j.expect.State == freshness.NotExpected
	g.note(j.ref, f, well)
}

// findHeld notes what came of a check of what is held.
func (g *Guard) findHeld(ref content.Ref, o freshness.Outcome) {
	if o == freshness.HintMuted || o == freshness.HintRepeated || o == freshness.HintCrowded {
		return
	}
	old, _ := g.Finding(ref)
	old.Outcome, old.Text, old.At = o, o.Text(), g.opt.Now()
	g.note(ref, old, false)
}

// noteDiff notes how what is held differs from the device's own metadata.
func (g *Guard) noteDiff(ref content.Ref, d content.Diff) {
	if len(d) == 0 {
		return
	}
	f := Finding{Outcome: freshness.ExpectedDiffers, Text: freshness.ExpectedDiffers.Text(), At: g.opt.Now()}
	f.name(d)
	g.note(ref, f, false)
}

func (g *Guard) note(ref content.Ref, f Finding, forget bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := len(g.findings)
	g.findings = slices.DeleteFunc(g.findings, func(k kept) bool { return k.Ref == ref })
	if forget {
		g.unsaved = g.unsaved || len(g.findings) != before
		return
	}
	g.unsaved = true
	g.findings = append(g.findings, kept{ref, f})
	if len(g.findings) > maxFindings {
		g.findings = g.findings[1:]
	}
}

// name lists the files that differ.
func (f *Finding) name(d content.Diff) {
	f.Missing, f.Extra, f.Changed, f.Unhashed, f.More = nil, nil, nil, nil, 0
	lists := map[content.DifferenceKind]*[]string{
		content.Missing: &f.Missing, content.Extra: &f.Extra, content.Changed: &f.Changed, content.Unhashed: &f.Unhashed,
	}
	for i := range d {
		list := lists[d[i].Kind]
		if len(*list) == maxNames {
			f.More++
			continue
		}
		*list = append(*list, shortened(d[i].Name))
	}
}

// shortened keeps the end of a long name, which tells files apart.
func shortened(name string) string {
	if len(name) <= maxName {
		return name
	}
	r := []rune(name)
	for len(string(r)) > maxName {
		r = r[1:]
	}
	return "…" + string(r)
}
