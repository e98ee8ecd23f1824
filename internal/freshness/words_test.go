package freshness

import (
	"strconv"
	"strings"
	"time"

	"freshet/internal/content"
)

// words are the arguments of an event.
type words struct {
	s    *scripted
	args []string
}

func (w words) at(i int) string {
	if i < len(w.args) {
		return w.args[i]
	}
	return ""
}

func (w words) has(word string) bool {
	for _, a := range w.args {
		if a == word {
			return true
		}
	}
	return false
}

func (w words) option(name string) string {
	for _, a := range w.args {
		if value, ok := strings.CutPrefix(a, name+"="); ok {
			return value
		}
	}
	return ""
}

func (w words) number(text string) uint64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		w.s.Fatalf("%v", err)
	}
	return n
}

func (w words) num(i int) uint64            { return w.number(w.at(i)) }
func (w words) job(i int) Job               { return Job(w.num(i)) }
func (w words) digest(i int) content.Digest { return w.s.digest(w.at(i)) }
func (w words) device(i int) Device         { return w.s.device(w.at(i)) }
func (w words) dur(i int) time.Duration     { return w.s.dur(w.at(i)) }

func (s *scripted) dur(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return d
}

func (w words) fit() content.Fit {
	switch {
	case w.has("fits"):
		return content.Fits
	case w.has("differs"):
		return content.Differs
	case w.has("bytes"):
		return content.NeedsBytes
	}
	return content.FitUnknown
}

func (w words) offer() Offer {
	o := Offer{Job: w.job(0), Digest: w.digest(1), Fit: w.fit()}
	switch from := w.at(2); from {
	case "services":
	case "origin":
		o.Source = FromOrigin
	case "cache":
		o.Source = FromCacheHost
	default:
		o.Source, o.Device = FromDevice, w.s.device(from)
	}
	f := &o.Facts
	f.Generation, f.Catalog = w.number(w.option("catalog")), w.option("catalog") != ""
	f.SignedGeneration, f.Signed = w.number(w.option("signed")), w.option("signed") != ""
	f.Pinned = f.Signed || w.has("pinned")
	f.Expires, f.Wall = int64(w.number(w.option("expires"))), 1000
	f.OriginSigned = w.has("vouched")
	return o
}

func (w words) forced() Forced {
	f := Forced{Job: w.job(0)}
	switch w.at(1) {
	case "fits":
		f.Result = ForceFits
	case "differs":
		f.Result = ForceDiffers
	case "stale":
		f.Result = ForceStale
	case "unavailable":
		f.Result = ForceUnavailable
	}
	if retry := w.option("retry"); retry != "" {
		f.RetryAfter = w.s.dur(retry)
	} else if w.at(2) != "" {
		f.Digest = w.digest(2)
	}
	return f
}

func (w words) holds() []Held {
	var all []Held
	for _, text := range strings.Split(w.option("holds"), ",") {
		parts := strings.Split(text, ":")
		if len(parts) < 3 {
			continue
		}
		h := Held{Digest: w.s.digest(parts[0]), Generation: w.number(parts[1]), Leads: len(parts) == 4}
		if parts[2] != "?" {
			h.SHA1Sum = w.s.digest(parts[2])
		}
		all = append(all, h)
	}
	return all
}

func (s *scripted) digest(name string) content.Digest {
	if name == "" {
		s.Fatalf("a digest is missing")
	}
	d := content.DigestOf([]byte(name))
	s.names[d] = name
	return d
}

func (s *scripted) device(name string) Device {
	sum := content.DigestOf([]byte("device " + name))
	d := Device(sum[:16])
	s.devices[d] = name
	return d
}

func (s *scripted) expected(sum, by string) Expected {
	e := Expected{State: IsExpected, Hash: s.digest(sum), Algorithm: content.SHA1Algorithm}
	switch by {
	case "sha256":
		e.Algorithm = content.SHA256Algorithm
	case "mixed":
		e.Algorithm = 0
	}
	return e
}
