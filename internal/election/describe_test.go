package election

import (
	"fmt"
	"strings"

	"freshet/internal/content"
	"freshet/internal/wire"
)

var kindNames = map[Kind]string{
	Broadcast: "say", Send: "tell", Find: "find", Lead: "lead", StopLeading: "stop leading", Follow: "follow", GoAlone: "go alone", StandBy: "stand by", Raise: "raise",
	GoOut: "go out", StayIn: "stay in", Hurry: "hurry", Prove: "prove", Shun: "shun", Found: "found", AskOutside: "ask outside",
}

// describe writes an action in a line.
func describe(a Action) string {
	words := []string{kindNames[a.Kind]}
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if a.Kind == Send || a.Kind == Follow || a.Kind == StandBy || a.Kind == Prove || a.Kind == Shun || a.Kind == Find || a.Kind == StopLeading && !a.Device.IsZero() {
		say("%s", short(a.Device))
	}
	if a.Message == nil && !a.Content.IsZero() {
		say("%s", shortContent(a.Content))
	}
	switch a.Kind {
	case Lead:
		say("epoch %d priority %d", a.Epoch, a.Priority)
	case Follow, Raise:
		say("epoch %d", a.Epoch)
	case StopLeading:
		say("epoch %d %s", a.Epoch, a.Reason)
	case Hurry:
		say("priority %d", a.Priority)
	case Find, AskOutside, Found:
		say("%s", subject(a.Subject))
	}
	for _, h := range a.Holdings {
		say("| %s manifest %s generation %d of %s", shortContent(h.HashOfHashes), shortContent(h.Manifest), h.Generation, short(h.Device))
	}
	if a.Message != nil {
		say("%s", message(a.Message))
	}
	return strings.Join(words, " ")
}

func short(d wire.DeviceID) string {
	if d.IsZero() {
		return "nobody"
	}
	return "d" + fmt.Sprint(d[3])
}

func shortContent(d content.Digest) string { return "c" + fmt.Sprint(d[3]) }

func subject(s wire.Subject) string {
	switch s.By {
	case wire.ByRef:
		return s.Ref.String()
	case wire.ByMetadataHash:
		return fmt.Sprintf("%s metadata %s", s.Algorithm, shortContent(s.Digest))
	}
	return shortContent(s.Digest)
}

func standing(s wire.Standing) string {
	able := ""
	if s.Able {
		able = " able"
	}
	return fmt.Sprintf("share %d weight %d priority %d%s", s.Share, s.Weight, s.Priority, able)
}

func message(m wire.LANMessage) string {
	switch m := m.(type) {
	case wire.Question:
		return "who has " + subject(m.Subject) + "? " + standing(m.Standing)
	case wire.Answer:
		return fmt.Sprintf("I have %s manifest %s generation %d: %s", shortContent(m.HashOfHashes), shortContent(m.Manifest), m.Generation, standing(m.Standing))
	case wire.Resign:
		return fmt.Sprintf("resign %s epoch %d %s for %s", shortContent(m.HashOfHashes), m.Epoch, m.Reason, short(m.Successor))
	case wire.Heartbeat:
		var b strings.Builder
		fmt.Fprintf(&b, "beat weight %d", m.Weight)
		for _, x := range m.Beats {
			fmt.Fprintf(&b, " | %s %d/%d epoch %d flags %#x priority %d %s", shortContent(x.HashOfHashes), x.Held, x.Total, x.Epoch, uint8(x.Flags), x.Priority, short(x.Device))
		}
		return b.String()
	}
	return fmt.Sprintf("%+v", m)
}
