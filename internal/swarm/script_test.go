package swarm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"freshet/internal/content"
	"freshet/internal/scripts"
)

// TestScripts runs the scripts of testdata. A script is what happens to one device, event by
// event; below each event, indented, stands what the brain does. The events:
//
//	new runs=N [origins=N] [led=yes] [held=SET] [last=BYTES] [outAfter=D] [stallAfter=D] [maxOpen=N] [slots=N]
//	peer P subnet|site|elsewhere · gone P · holds P SET · have P RUN · choke P · unchoke P
//	run P RUN ok|wrong · refused P RUN · acknowledged P · deliver P EACH COUNT
//	zone P subnet|site|elsewhere · prove P
//	request P RUN · cancel P RUN · sent RUN [failed]
//	reach all|site|subnet|unknown · origins named|unnamed … · bytes ID · fetched ID SET [wrong] · end ID done|failed|changed [RETRY]
//	damaged RUN · tick D · wait D · idle · show · show P
//
// SET is a list such as 0-4,7 or "all". "deliver" lets a peer answer its oldest requests, one
// each so long. Time passes with ticks, but in "wait" without.
func TestScripts(t *testing.T) {
	scripts.Run(t, func(script *scripts.Script) func(verb string, args []string) {
		s := &scripted{Script: script, asked: map[Peer][]int32{}}
		return s.do
	})
}

// scripted is a brain under the events of a script.
type scripted struct {
	*scripts.Script
	s     *Swarm
	now   time.Duration
	asked map[Peer][]int32 // open requests, oldest first
	sends []Action         // being sent, oldest first
}

func (s *scripted) do(verb string, args []string) {
	if verb == "new" {
		s.create(args)
		return
	}
	for _, events := range []map[string]func([]string) []Action{s.peerEvents(), s.otherEvents()} {
		if f := events[verb]; f != nil {
			s.print(f(args))
			return
		}
	}
	s.Fatalf("no event %q", verb)
}

func (s *scripted) peerEvents() map[string]func([]string) []Action {
	b := s.s
	return map[string]func([]string) []Action{
		"peer": func(a []string) []Action { return b.OnPeer(s.now, s.peer(a[0]), s.zone(a[1]), nil) },
		"gone": func(a []string) []Action {
			delete(s.asked, s.peer(a[0]))
			for i := range s.sends {
				if s.sends[i].Peer == s.peer(a[0]) {
					s.sends[i].Peer = None
				}
			}
			return b.OnPeerGone(s.now, s.peer(a[0]), nil)
		},
		"zone":    func(a []string) []Action { return b.OnZone(s.now, s.peer(a[0]), s.zone(a[1]), nil) },
		"prove":   func(a []string) []Action { return b.OnProve(s.now, s.peer(a[0]), nil) },
		"holds":   func(a []string) []Action { return b.OnHolds(s.now, s.peer(a[0]), s.set(a[1]), nil) },
		"have":    func(a []string) []Action { return b.OnHave(s.now, s.peer(a[0]), s.num(a[1]), nil) },
		"choke":   func(a []string) []Action { return b.OnChoke(s.now, s.peer(a[0]), true, nil) },
		"unchoke": func(a []string) []Action { return b.OnChoke(s.now, s.peer(a[0]), false, nil) },
		"refused": func(a []string) []Action { return b.OnRefused(s.now, s.peer(a[0]), s.num(a[1]), nil) },
		"request": func(a []string) []Action { return b.OnRequest(s.now, s.peer(a[0]), s.num(a[1]), nil) },
		"acknowledged": func(a []string) []Action {
			b.OnAcknowledged(s.peer(a[0]))
			return nil
		},
		"cancel": func(a []string) []Action {
			b.OnCancel(s.peer(a[0]), s.num(a[1]))
			return nil
		},
		"run": func(a []string) []Action {
			return s.arrive(s.peer(a[0]), s.num(a[1]), a[2] == "ok")
		},
		"deliver": func(a []string) []Action {
			for range s.num(a[2]) {
				s.pass(s.dur(a[1]))
				p := s.peer(a[0])
				if len(s.asked[p]) == 0 {
					s.Fatalf("nothing is asked of peer %d", p)
				}
				s.print(s.arrive(p, s.asked[p][0], true))
			}
			return nil
		},
	}
}

func (s *scripted) otherEvents() map[string]func([]string) []Action {
	b := s.s
	return map[string]func([]string) []Action{
		"sent": func(a []string) []Action { return s.sent(s.num(a[0]), len(a) == 1) },
		"reach": func(a []string) []Action {
			reach, ok := map[string]Reach{"unknown": ReachUnknown, "subnet": ReachSubnet, "site": ReachSite, "all": ReachAll}[a[0]]
			if !ok {
				s.Fatalf("no reach %q", a[0])
			}
			return b.OnReach(s.now, reach, nil)
		},
		"origins": func(a []string) []Action {
			var named []bool
			for _, is := range a {
				named = append(named, is == "named")
			}
			return b.OnOrigins(s.now, named, nil)
		},
		"bytes": func(a []string) []Action {
			b.OnFetchBytes(s.now, s.num(a[0]))
			return nil
		},
		"writing": func(a []string) []Action {
			b.OnFetchWriting(s.now, s.num(a[0]))
			return nil
		},
		"fetched": func(a []string) []Action {
			for r := range s.set(a[1]).All {
				s.print(b.OnFetched(s.now, s.num(a[0]), int32(r), len(a) == 2, nil))
			}
			return nil
		},
		"end": func(a []string) []Action {
			res := map[string]FetchResult{"done": FetchDone, "failed": FetchFailed, "changed": FetchChanged, "stopped": FetchStopped}[a[1]]
			var retry time.Duration
			if len(a) > 2 {
				retry = s.dur(a[2])
			}
			return b.OnFetchEnd(s.now, s.num(a[0]), res, retry, nil)
		},
		"damaged": func(a []string) []Action { return b.OnDamaged(s.now, s.num(a[0]), nil) },
		"tick": func(a []string) []Action {
			s.pass(s.dur(a[0]))
			return nil
		},
		"wait": func(a []string) []Action {
			s.now += s.dur(a[0])
			return nil
		},
		"idle": func([]string) []Action {
			s.Say("the WAN was idle for %v", b.Stats().WANIdle)
			return nil
		},
		"show": func(a []string) []Action {
			s.show(a)
			return nil
		},
	}
}

// pass lets time pass with ticks.
func (s *scripted) pass(d time.Duration) {
	for end := s.now + d; s.now < end; {
		s.now = min(end, s.now+TickInterval)
		s.print(s.s.OnTick(s.now, nil))
	}
}

// sent ends the oldest send of a run.
func (s *scripted) sent(run int32, ok bool) []Action {
	for i, a := range s.sends {
		if a.Run == run {
			s.sends = slices.Delete(s.sends, i, i+1)
			return s.s.OnSent(s.now, a.Peer, run, ok, nil)
		}
	}
	s.Fatalf("run %d is not being sent", run)
	return nil
}

// arrive delivers a run of a peer.
func (s *scripted) arrive(p Peer, run int32, ok bool) []Action {
	s.drop(p, run)
	return s.s.OnRun(s.now, p, run, ok, nil)
}

func (s *scripted) drop(p Peer, run int32) {
	for i, r := range s.asked[p] {
		if r == run {
			s.asked[p] = append(s.asked[p][:i], s.asked[p][i+1:]...)
			return
		}
	}
}

func (s *scripted) create(args []string) {
	cfg := Config{Seed: 1, Lens: func(int) int { return content.PieceSize }}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "runs":
			cfg.Runs = int(s.num(value))
		case "origins":
			cfg.Origins = int(s.num(value))
		case "led":
			cfg.Led = value == "yes"
		case "maxOpen":
			cfg.MaxOpen = int(s.num(value))
		case "slots":
			cfg.Slots = int(s.num(value))
		case "outAfter":
			cfg.OutAfter = s.dur(value)
		case "stallAfter":
			cfg.StallAfter = s.dur(value)
		case "held":
			s.s = New(cfg) // for the number of runs
			cfg.Held = s.set(value)
		case "last":
			last := int(s.num(value))
			cfg.Lens = func(run int) int {
				if run == cfg.Runs-1 {
					return last
				}
				return content.PieceSize
			}
		default:
			s.Fatalf("no option %q", name)
		}
	}
	s.s = New(cfg)
}

func (s *scripted) show(args []string) {
	b := s.s
	if len(args) == 0 {
		st := b.Stats()
		s.Say("left %d, from peers %d KiB, from origins %d KiB, twice %d KiB, wrong %d KiB, sent %d KiB", b.Left(), st.FromPeers>>10, st.FromOrigin>>10, st.Wasted>>10, st.Wrong>>10, st.Sent>>10)
		s.Say("hedges %d, bans %d, going out %v, stranded %v, choking %v, idle %v", st.Hedges, st.Bans, b.GoingOut(), b.Stranded(), b.Choking(), b.Idle())
		return
	}
	p := b.peer(s.peer(args[0]))
	s.Say("window %d KiB, rate %.0f KiB/s, latency %v, owed %d KiB, may be asked %v, stuck %v, trusted %v, wrong %d", b.window(p)>>10, p.rate/1024, p.latency, p.owed>>10, b.mayAsk(p), p.stuck, b.trusted.Has(int(p.id)), p.wrong)
}

// print writes actions, those of the same kind and peer on one line.
func (s *scripted) print(acts []Action) {
	for i := 0; i < len(acts); {
		a := acts[i]
		text := verb(a)
		n := i
		for ; n < len(acts) && verb(acts[n]) == text; n++ {
			switch b := acts[n]; b.Kind {
			case Request:
				s.asked[b.Peer] = append(s.asked[b.Peer], b.Run)
			case Cancel:
				s.drop(b.Peer, b.Run)
			case Ban:
				delete(s.asked, b.Peer)
			case Send:
				s.sends = append(s.sends, b)
			}
		}
		var runs string
		if withRun(a.Kind) {
			for _, b := range acts[i:n] {
				runs += fmt.Sprintf(" %d", b.Run)
			}
		}
		s.Say("%v %s%s", s.now, text, runs)
		i = n
	}
}

func withRun(k Kind) bool {
	switch k {
	case Request, Cancel, Tell, TellAll, Send, Charge:
		return true
	}
	return false
}

// verb says what an action does, without the run where there may be several.
func verb(a Action) string {
	switch a.Kind {
	case Request:
		return fmt.Sprintf("ask peer %d for", a.Peer)
	case Cancel:
		return fmt.Sprintf("cancel at peer %d", a.Peer)
	case Tell:
		return fmt.Sprintf("tell peer %d alone", a.Peer)
	case TellAll:
		return "tell all"
	case Choke:
		return "choke"
	case Unchoke:
		return "unchoke"
	case Send:
		return fmt.Sprintf("send peer %d", a.Peer)
	case Charge:
		return fmt.Sprintf("charge peer %d with", a.Peer)
	case Ban:
		return fmt.Sprintf("ban peer %d", a.Peer)
	case Fetch:
		return fmt.Sprintf("fetch %d: runs %d to %d of origin %d", a.ID, a.Run, a.End-1, a.Source)
	case Stop:
		return fmt.Sprintf("stop fetch %d", a.ID)
	case Changed:
		return fmt.Sprintf("origin %d changed", a.Source)
	case Complete:
		return "complete"
	}
	return fmt.Sprintf("%+v", a)
}

func (s *scripted) peer(text string) Peer { return Peer(s.num(text)) }

func (s *scripted) zone(text string) Zone {
	z, ok := map[string]Zone{"subnet": SameSubnet, "site": SameSite, "elsewhere": Elsewhere}[text]
	if !ok {
		s.Fatalf("no zone %q", text)
	}
	return z
}

func (s *scripted) num(text string) int32 {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return int32(n)
}

func (s *scripted) dur(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return d
}

func (s *scripted) set(text string) content.Bits {
	b := content.NewBits(s.s.cfg.Runs)
	if text == "all" {
		return content.FullBits(s.s.cfg.Runs)
	}
	for _, part := range strings.Split(text, ",") {
		from, to, is := strings.Cut(part, "-")
		if !is {
			to = from
		}
		for r := s.num(from); r <= s.num(to); r++ {
			b.Add(int(r))
		}
	}
	return b
}
