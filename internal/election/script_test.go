package election

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/scripts"
	"freshet/internal/wire"
)

// TestScripts runs the scripts of testdata. A script is what happens to device d0, event by
// event; below each event, indented, stands what the brain does. The events:
//
//	new [weight=N] [max=N] [stay] [battery] [metered] [busy] · conditions [stay] [battery] [metered] [busy]
//	entry C HELD/TOTAL [manifest=C] [ref=ID@VERSION] [generation=N] [sha1=C] [sha256=C] [hold]
//	want C [urgent] · gather C on|off · unwant C · piece C HELD [D] · damaged C HELD · hold C C · release C C · forget C C
//	lease C unknown|ours|other|none · unable C · rate C KIB · progress C · alive C D
//	leave · question D SUBJECT STANDING · answer D C SUBJECT [manifest=C] [generation=N] STANDING
//	beat D C HELD/TOTAL EPOCH [leads] [able] [stands] [moving] [outside] [urgent] [weight=N] [rate=KIB] [with=D]
//	resign D C EPOCH REASON [D] · gone D
//	seek SUBJECT [urgent] · sought SUBJECT · run DURATION · show C
//
// C is c0, c1 …, D is d1, d2 …; SUBJECT is C, sha1:C, sha256:C or ID@VERSION; STANDING is
// [able] [share=N] [weight=N] [urgent]. Time passes in "run" alone.
func TestScripts(t *testing.T) {
	scripts.Run(t, func(script *scripts.Script) func(verb string, args []string) {
		s := &scripted{Script: script}
		return s.do
	})
}

// scripted is a brain under the events of a script.
type scripted struct {
	*scripts.Script
	e   *Election
	now time.Duration
}

func (s *scripted) do(verb string, a []string) {
	if verb == "new" {
		o := s.options(a)
		s.e = New(Config{Self: deviceOf(0), Seed: 1, Weight: uint8(o.num("weight", WeightDesktop)), MaxContents: o.num("max", 0), Conditions: o.conditions()})
		return
	}
	for _, events := range []map[string]func([]string) []Action{s.ownEvents(), s.moreEvents(), s.heardEvents()} {
		if f := events[verb]; f != nil {
			s.print(f(a))
			return
		}
	}
	s.Fatalf("no event %q", verb)
}

func (s *scripted) ownEvents() map[string]func([]string) []Action {
	e := s.e
	return map[string]func([]string) []Action{
		"conditions": func(a []string) []Action { return e.OnConditions(s.now, s.options(a).conditions(), nil) },
		"entry":      func(a []string) []Action { return e.OnEntry(s.now, s.entry(a), nil) },
		"want":       func(a []string) []Action { return e.OnWant(s.now, s.content(a[0]), s.options(a[1:]).priority(), nil) },
		"gather":     func(a []string) []Action { return e.OnGather(s.now, s.content(a[0]), a[1] == "on", nil) },
		"unwant":     func(a []string) []Action { return e.OnUnwant(s.now, s.content(a[0]), nil) },
		"piece": func(a []string) []Action {
			var from wire.DeviceID
			if len(a) > 2 {
				from = s.device(a[2])
			}
			return e.OnPiece(s.now, s.content(a[0]), from, uint32(s.num(a[1])), nil)
		},
		"damaged": func(a []string) []Action { return e.OnDamaged(s.now, s.content(a[0]), uint32(s.num(a[1])), nil) },
		"hold": func(a []string) []Action {
			return e.OnHold(s.now, s.content(a[0]), s.content(a[1]), true, nil)
		},
		"release": func(a []string) []Action {
			return e.OnHold(s.now, s.content(a[0]), s.content(a[1]), false, nil)
		},
		"forget": func(a []string) []Action { return e.OnForget(s.now, s.content(a[0]), s.content(a[1]), nil) },
		"leave":  func(a []string) []Action { return e.OnLeave(s.now, nil) },
		"unable": func(a []string) []Action { return e.OnUnable(s.now, s.content(a[0]), nil) },
	}
}

func (s *scripted) moreEvents() map[string]func([]string) []Action {
	e := s.e
	return map[string]func([]string) []Action{
		"lease": func(a []string) []Action {
			l := map[string]Lease{"unknown": LeaseUnknown, "ours": LeaseOurs, "other": LeaseOther, "none": LeaseNone}[a[1]]
			return e.OnLease(s.now, s.content(a[0]), l, nil)
		},
		"alive": func(a []string) []Action {
			e.OnAlive(s.now, s.content(a[0]), s.device(a[1]))
			return nil
		},
		"progress": func(a []string) []Action {
			e.OnProgress(s.now, s.content(a[0]))
			return nil
		},
		"rate": func(a []string) []Action {
			e.OnRate(s.content(a[0]), 1024*float64(s.num(a[1])))
			return nil
		},
		"seek": func(a []string) []Action {
			return e.OnSeek(s.now, s.subject(a[0]), s.options(a[1:]).priority(), nil)
		},
		"sought": func(a []string) []Action {
			e.OnSought(s.subject(a[0]))
			return nil
		},
		"run": func(a []string) []Action {
			s.pass(s.dur(a[0]))
			return nil
		},
		"show": func(a []string) []Action {
			s.show(s.content(a[0]))
			return nil
		},
	}
}

func (s *scripted) heardEvents() map[string]func([]string) []Action {
	e := s.e
	return map[string]func([]string) []Action{
		"question": func(a []string) []Action {
			return s.hear(a[0], wire.Question{Subject: s.subject(a[1]), Standing: s.options(a[2:]).standing()})
		},
		"answer": func(a []string) []Action {
			o, subject := s.options(a[3:]), s.subject(a[2])
			m := wire.Answer{Tag: subject.Tag(), HashOfHashes: s.content(a[1]), Manifest: o.content("manifest", a[1]), Generation: int64(o.num("generation", 1)), Standing: o.standing()}
			return s.hear(a[0], m)
		},
		"beat": func(a []string) []Action {
			return s.hear(a[0], wire.Heartbeat{Weight: uint8(s.options(a[4:]).num("weight", WeightDesktop)), Beats: []wire.Beat{s.beat(a)}})
		},
		"resign": func(a []string) []Action {
			r := wire.Resign{HashOfHashes: s.content(a[1]), Epoch: s.epoch(a[2])}
			for reason := wire.Unable; reason <= wire.Unwanted; reason++ {
				if reason.String() == a[3] {
					r.Reason = reason
				}
			}
			if len(a) > 4 {
				r.Successor = s.device(a[4])
			}
			return s.hear(a[0], r)
		},
		"gone": func(a []string) []Action { return e.OnGone(s.now, s.device(a[0]), nil) },
	}
}

// hear gives the brain a message as it comes over the wire.
func (s *scripted) hear(from string, m wire.LANMessage) []Action {
	read, err := wire.ParseLAN(m.AppendLAN(nil))
	if err != nil {
		s.Fatalf("%v", err)
	}
	return hear(s.e, s.now, s.device(from), read)
}

// pass lets time pass, tick by tick.
func (s *scripted) pass(d time.Duration) {
	end := s.now + d
	for s.e.Next() <= end {
		s.now = max(s.now, s.e.Next())
		s.print(s.e.OnTick(s.now, nil))
	}
	s.now = end
}

func (s *scripted) entry(a []string) Entry {
	o := s.options(a[2:])
	held, total := s.share(a[1])
	e := Entry{
		HashOfHashes: s.content(a[0]), Manifest: o.content("manifest", a[0]), Generation: int64(o.num("generation", 1)),
		Held: held, Total: total, OnHold: o.has["hold"] != "",
	}
	ref := s.subject(o.text("ref", "demo@1"))
	e.Ref = ref.Ref
	if o.has["sha1"] != "" {
		e.MetadataSHA1 = s.content(o.has["sha1"])
	}
	if o.has["sha256"] != "" {
		e.MetadataSHA256 = s.content(o.has["sha256"])
	}
	return e
}

func (s *scripted) beat(a []string) wire.Beat {
	o := s.options(a[4:])
	held, total := s.share(a[2])
	b := wire.Beat{HashOfHashes: s.content(a[1]), Held: held, Total: total, Epoch: s.epoch(a[3]), Priority: o.priority(), Rate: uint32(o.num("rate", 0))}
	for name, flag := range map[string]wire.BeatFlags{"leads": wire.Leads, "able": wire.Able, "stands": wire.Stands, "moving": wire.Moving, "outside": wire.Outside} {
		if o.has[name] != "" {
			b.Flags |= flag
		}
	}
	if o.has["with"] != "" {
		b.Device = s.device(o.has["with"])
	}
	return b
}

func (s *scripted) show(d content.Digest) {
	c := s.e.contests[d]
	if c == nil {
		s.Say("not kept")
		return
	}
	lead := "nobody"
	if c.lead.alive(s.now) {
		lead = short(c.lead.device)
	}
	s.Say("%s, leader %s, epoch %d, held %d/%d, out %v, patience %v, stands %v", c.role, lead, c.epoch, c.held, c.total, c.out, s.e.patience(c), s.e.stands(s.now, c))
}

func (s *scripted) print(acts []Action) {
	for _, a := range acts {
		s.Say("%v %s", s.now.Round(time.Millisecond), describe(a))
	}
}

func (s *scripted) subject(text string) wire.Subject {
	for prefix, alg := range map[string]content.Algorithm{"sha1:": content.SHA1Algorithm, "sha256:": content.SHA256Algorithm} {
		if c, ok := strings.CutPrefix(text, prefix); ok {
			return wire.Subject{By: wire.ByMetadataHash, Algorithm: alg, Digest: s.content(c)}
		}
	}
	if !strings.Contains(text, "@") {
		return wire.Subject{By: wire.ByHashOfHashes, Digest: s.content(text)}
	}
	ref, err := content.ParseRef(strings.TrimSuffix(text, "@newest"))
	if err != nil {
		s.Fatalf("%v", err)
	}
	return wire.Subject{By: wire.ByRef, Ref: ref}
}

func (s *scripted) content(text string) content.Digest { return hohOf(s.index(text, "c")) }

func (s *scripted) device(text string) wire.DeviceID { return deviceOf(s.index(text, "d")) }

func (s *scripted) index(text, prefix string) int {
	n, ok := strings.CutPrefix(text, prefix)
	if !ok {
		s.Fatalf("%q does not begin with %s", text, prefix)
	}
	return s.num(n)
}

func (s *scripted) num(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return n
}

func (s *scripted) epoch(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return n
}

func (s *scripted) share(text string) (held, total uint32) {
	h, t, _ := strings.Cut(text, "/")
	return uint32(s.num(h)), uint32(s.num(t))
}

func (s *scripted) dur(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return d
}

// options are words and NAME=VALUE of an event.
type options struct {
	s   *scripted
	has map[string]string // the word itself where there is no value
}

func (s *scripted) options(words []string) options {
	o := options{s, map[string]string{}}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			value = w
		}
		o.has[name] = value
	}
	return o
}

func (o options) text(name, without string) string {
	if v := o.has[name]; v != "" {
		return v
	}
	return without
}

func (o options) num(name string, without int) int {
	return o.s.num(o.text(name, strconv.Itoa(without)))
}

func (o options) content(name, without string) content.Digest {
	return o.s.content(o.text(name, without))
}

func (o options) priority() wire.Priority {
	if o.has["urgent"] != "" {
		return wire.Foreground
	}
	return wire.Background
}

func (o options) standing() wire.Standing {
	return wire.Standing{Able: o.has["able"] != "", Share: uint8(o.num("share", 0)), Weight: uint8(o.num("weight", WeightDesktop)), Priority: o.priority()}
}

func (o options) conditions() Conditions {
	return Conditions{MayGoOut: o.has["stay"] == "", Battery: o.has["battery"] != "", Metered: o.has["metered"] != "", Busy: o.has["busy"] != ""}
}
