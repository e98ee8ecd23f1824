package freshness

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/scripts"
)

// TestScripts runs the scripts of testdata. A script is what happens to one device, event by
// event; below each event, indented, stands what the brain does. The events:
//
//	new [mode=M] [match=M]
//	start JOB [expect=SUM] [by=sha1|sha256|mixed] [subset]      expected JOB SUM|none|unread
//	policy none | policy MANIFEST GENERATION                    news GENERATION [holds=…]
//	offer JOB MANIFEST services|origin|cache|DEVICE [catalog=G] [signed=G] [pinned] [expires=T] [vouched] [fits|differs|bytes]
//	forced JOB fits|differs|stale|unavailable [MANIFEST] [retry=D]
//	named JOB DEVICE MANIFEST [GENERATION]                      done JOB [fits|differs|bytes]    end JOB
//	peer JOB DEVICE · gone JOB DEVICE · ack JOB DEVICE nothing|checking|kept|ignored
//	hint DEVICE wants=SUM|rejects=MANIFEST [single] [holds=…]   own MANIFEST fits|differs|bytes|none|unread [SUM]
//	sums MANIFEST SUM · dropped MANIFEST
//	tick D · restart [D] · reason JOB
//
// Manifests, sums and devices have names. holds=MANIFEST:GENERATION:SUM[:leads],… is what the
// device holds, by SHA-1; a SUM of ? is not known. There is one content. Time passes with ticks.
func TestScripts(t *testing.T) {
	scripts.Run(t, func(script *scripts.Script) func(verb string, args []string) {
		s := &scripted{Script: script, names: map[content.Digest]string{}, devices: map[Device]string{}}
		return s.do
	})
}

var theRef = content.Ref{ID: "update", Version: 1}

// scripted is a brain under the events of a script.
type scripted struct {
	*scripts.Script
	cfg     Config
	b       *Brain
	now     time.Duration
	names   map[content.Digest]string
	devices map[Device]string
}

func (s *scripted) do(verb string, args []string) {
	if verb == "new" {
		s.create(args)
		return
	}
	for _, events := range []map[string]func(words) []Action{s.jobEvents(), s.holderEvents()} {
		if f := events[verb]; f != nil {
			w := words{s, args}
			s.print(f(w))
			return
		}
	}
	s.Fatalf("no event %q", verb)
}

func (s *scripted) create(args []string) {
	w := words{s, args}
	s.cfg = Config{Seed: 1}
	var err error
	if m := w.option("mode"); m != "" {
		if s.cfg.Mode, err = ParseMode(m); err != nil {
			s.Fatalf("%v", err)
		}
	}
	if m := w.option("match"); m != "" {
		if s.cfg.Match, err = content.ParseMatch(m); err != nil {
			s.Fatalf("%v", err)
		}
	}
	s.b = New(s.cfg)
	s.print(s.b.OnBoot(s.now, nil))
}

func (s *scripted) jobEvents() map[string]func(words) []Action {
	b, now := s.b, s.now
	return map[string]func(words) []Action{
		"start": func(w words) []Action {
			e := Expected{}
			if sum := w.option("expect"); sum == "unread" {
				e.State = Unread
			} else if sum != "" {
				e = s.expected(sum, w.option("by"))
			}
			match := content.Exact
			if w.has("subset") {
				match = content.Subset
			}
			return b.OnStart(now, Start{w.job(0), theRef, match, e}, nil)
		},
		"expected": func(w words) []Action {
			switch w.at(1) {
			case "none":
				return b.OnExpected(now, w.job(0), Expected{}, nil)
			case "unread":
				return b.OnExpected(now, w.job(0), Expected{State: Unread}, nil)
			}
			return b.OnExpected(now, w.job(0), s.expected(w.at(1), ""), nil)
		},
		"offer":  func(w words) []Action { return b.OnOffer(now, w.offer(), nil) },
		"forced": func(w words) []Action { return b.OnForced(now, w.forced(), nil) },
		"named": func(w words) []Action {
			return b.OnNamed(now, Named{w.job(0), w.device(1), w.digest(2), w.num(3)}, nil)
		},
		"done": func(w words) []Action { return b.OnDone(now, w.job(0), w.fit(), nil) },
		"end":  func(w words) []Action { return b.OnEnd(now, w.job(0), nil) },
		"peer": func(w words) []Action { return b.OnPeer(now, w.job(0), w.device(1), nil) },
		"gone": func(w words) []Action { return b.OnPeerGone(now, w.job(0), w.device(1), nil) },
		"ack": func(w words) []Action {
			for a := AckNothing; a <= AckIgnored; a++ {
				if a.String() == w.at(2) {
					return b.OnAck(now, w.job(0), w.device(1), a, nil)
				}
			}
			s.Fatalf("no acknowledgement %q", w.at(2))
			return nil
		},
		"reason": func(w words) []Action {
			s.Say("%s", b.Reason(w.job(0)))
			return nil
		},
	}
}

func (s *scripted) holderEvents() map[string]func(words) []Action {
	b, now := s.b, s.now
	return map[string]func(words) []Action{
		"policy": func(w words) []Action {
			if w.at(0) == "none" {
				return b.OnPolicy(now, theRef, Policy{}, nil)
			}
			return b.OnPolicy(now, theRef, Policy{true, w.digest(0), w.num(1)}, nil)
		},
		"news": func(w words) []Action { return b.OnGeneration(now, News{theRef, w.num(0), w.holds()}, nil) },
		"hint": func(w words) []Action {
			h := Hint{Ref: theRef}
			if sum := w.option("wants"); sum != "" {
				h.Algorithm, h.Wanted = content.SHA1Algorithm, s.digest(sum)
			} else {
				h.Rejected = s.digest(w.option("rejects"))
			}
			return b.OnHint(now, Received{h, w.device(0), w.has("single"), w.holds()}, nil)
		},
		"own": func(w words) []Action {
			o := Own{Ref: theRef, Digest: w.digest(0), Fit: w.fit()}
			switch {
			case w.has("unread"):
				o.Expected.State = Unread
			case !w.has("none"):
				o.Expected = s.expected(w.at(2), "")
			}
			return b.OnOwn(now, o, nil)
		},
		"sums": func(w words) []Action {
			return b.OnSums(now, theRef, Held{Digest: w.digest(0), Generation: 1, SHA1Sum: w.digest(1)}, nil)
		},
		"unread": func(w words) []Action {
			b.OnUnread(theRef, w.digest(0))
			return nil
		},
		"dropped": func(w words) []Action { return b.OnGone(now, theRef, w.digest(0), nil) },
		"tick": func(w words) []Action {
			s.pass(w.dur(0))
			return nil
		},
		"restart": func(w words) []Action {
			s.cfg.State = b.State(now)
			s.cfg.Away = 0
			if len(w.args) > 0 {
				s.cfg.Away = w.dur(0)
			}
			s.b, s.now = New(s.cfg), 0
			if s.cfg.Away == 0 {
				if again := s.b.State(0); !reflect.DeepEqual(again, s.cfg.State) {
					s.Fatalf("state %+v is restored as %+v", s.cfg.State, again)
				}
			}
			return s.b.OnBoot(0, nil)
		},
	}
}

// pass lets time pass; the brain is called when it asks for it, and never more than it must.
func (s *scripted) pass(d time.Duration) {
	end := s.now + d
	for calls := 0; ; calls++ {
		at, ok := s.b.Next()
		if !ok || at > end {
			break
		}
		if calls > 1000 {
			s.Fatalf("the brain wants to be called at %v again and again", at)
		}
		s.now = max(s.now, at)
		s.print(s.b.OnTick(s.now, nil))
	}
	s.now = end
}

func (s *scripted) print(acts []Action) {
	for _, a := range acts {
		s.Say("%v %s", s.now, s.text(a))
	}
}

// text says what an action does.
func (s *scripted) text(a Action) string {
	if (a.Ref != theRef && a.Kind != Save) || a.For < 0 {
		s.Fatalf("%+v", a)
	}
	m, dev := s.names[a.Digest], s.devices[a.Device]
	job := ""
	if a.Job != 0 {
		job = fmt.Sprintf("job %d: ", a.Job)
	}
	switch a.Kind {
	case Begin:
		return job + "begin"
	case Use:
		if a.Alone {
			return fmt.Sprintf("%suse %s alone (%s)", job, m, a.Outcome)
		}
		return fmt.Sprintf("%suse %s (%s)", job, m, a.Outcome)
	case Refuse:
		return strings.TrimSpace(fmt.Sprintf("%srefuse %s (%s) %s", job, m, a.Outcome, dev))
	case Drop:
		return job + "drop " + m
	case Force:
		return job + "force"
	case Fetch:
		return job + "fetch " + m + " from the origin"
	case Broadcast:
		return job + "broadcast " + s.hint(a.Hint)
	case Tell:
		return job + "tell " + dev + " " + s.hint(a.Hint)
	case LeaveOut:
		return job + "leave out " + dev
	case Ban:
		return job + "ban " + dev + " for " + m
	case Readmit:
		return job + "readmit all"
	case Unban:
		return job + "unban " + dev + " for " + m
	case TellCatalog:
		return job + "tell catalog that " + m + " differs"
	case Wait:
		return fmt.Sprintf("%swait %v (%s)", job, a.For, a.Outcome)
	case Pause:
		return fmt.Sprintf("%spause %v (%s)", job, a.For, a.Outcome)
	case Deliver:
		return job + "deliver " + m
	}
	return s.holderText(a, m, dev, job)
}

func (s *scripted) holderText(a Action, m, dev, job string) string {
	switch a.Kind {
	case AskPolicy:
		return "ask content policy"
	case ReadBytes:
		return "read the bytes of " + m
	case AskOwn:
		return "ask own metadata of " + m
	case Quarantine:
		return fmt.Sprintf("quarantine %s for %v", m, a.For)
	case Release:
		return "release " + m
	case Retire:
		return fmt.Sprintf("retire %s, stock for %v", m, a.For)
	case Answer:
		return "answer " + dev + " " + a.Ack.String()
	case Tally:
		return strings.TrimSpace(strings.Join(strings.Fields(fmt.Sprintf("%stally %s %s %s", job, a.Outcome, m, dev)), " "))
	case Save:
		return "save"
	}
	return fmt.Sprintf("%+v", a)
}

func (s *scripted) hint(h Hint) string {
	if h.Algorithm == 0 {
		return "rejects " + s.names[h.Rejected]
	}
	return fmt.Sprintf("wants %s by %s", s.names[h.Wanted], h.Algorithm)
}
