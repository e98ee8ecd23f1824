// Package policy holds freshet's settings and what follows from them: one typed table
// (see [Table]), the layers that values come from, and pure evaluations such as [MayPeer].
// It does no I/O; reading files, environment and flags is package config's task.
//
// # Names and units
//
// Settings that Delivery Optimization (DO) has bear DO's names, units and ranges; freshet's
// own begin with a lower-case letter. MB and GB are 10^6 and 10^9 bytes, as memory and disks
// are sold, so that a device of "4 GB" passes a minimum of 4 although firmware keeps a part;
// MiB is 2^20 bytes.
//
// # Precedence
//
// Layers are given to [Resolve] from weakest to strongest: default, file, env, flag, then
// what KeyValue sends: fleet, site, group, device, content. As with DO, where what the
// management sets wins over what the device says, a fleet's value wins over a local one;
// a value's provider tells which layer it came from.
package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Provider says where a value came from.
type Provider string

// The providers, weakest first.
const (
	Default Provider = "default" // the table, or the profile that replaces its defaults
	File    Provider = "file"
	Env     Provider = "env"
	Flag    Provider = "flag"
	Fleet   Provider = "fleet"
	Site    Provider = "site"
	Group   Provider = "group"
	Device  Provider = "device"
	Content Provider = "content"
)

// local reports whether values of p are written on the device itself, where an unknown name is
// a mistake. Services may be newer than the device: their unknown names are passed over.
func (p Provider) local() bool { return p == Default || p == File || p == Env || p == Flag }

// Kind is the type of a setting's value.
type Kind string

// The kinds.
const (
	Int      Kind = "int"
	Bool     Kind = "bool"
	Duration Kind = "duration" // a whole number of the setting's unit
	Enum     Kind = "enum"     // one of a few numbers
	Word     Kind = "word"     // one of a few words; its number is the word's place

	PublicKeys Kind = "keys"      // see ParsePublisherKeys; nothing in it is secret
	Directory  Kind = "directory" // an absolute path
)

// isText reports whether values of k are text, and no number stands for them.
func (k Kind) isText() bool { return k == PublicKeys || k == Directory }

// Unset is the value of a setting that has no default and was not set.
const Unset = -1

// Setting describes one setting.
type Setting struct {
	Name      string
	Kind      Kind
	Unit      string // "seconds", "MB", "GB", "MiB", "percent", "connections"; "" for none
	Min, Max  int64  // bounds of Int and Duration, both allowed
	Choices   []int64
	Words     []string         // of Word
	Refused   map[int64]string // choices that DO has and freshet has not: why, and what to do
	Default   int64            // Unset for none; for Bool 0 or 1
	DODefault int64            // Unset where DO sets nothing or has no such setting
	Scopes    []Provider       // where it may come from, besides Default
	LocalWins bool             // what is set on the device itself, no service replaces
	Help      string
}

// Range says which values are allowed, for errors and documentation.
func (s Setting) Range() string {
	switch s.Kind {
	case Bool:
		return "true or false"
	case Enum:
		return list(s.Choices)
	case Word:
		return list(s.Words)
	case PublicKeys:
		return "PATTERN=KEY, …"
	case Directory:
		return "an absolute path"
	}
	r := fmt.Sprintf("%d to %d", s.Min, s.Max)
	if s.Unit != "" {
		r += " " + s.Unit
	}
	return r
}

// Text writes v, a value of s, as it is written in files; "" for Unset.
func (s Setting) Text(v int64) string {
	switch {
	case v == Unset:
		return ""
	case s.Kind == Bool:
		return strconv.FormatBool(v != 0)
	case s.Kind == Word:
		return s.Words[v]
	}
	return strconv.FormatInt(v, 10)
}

// parse reads a value. The error says only what is allowed; the caller names the rest.
func (s Setting) parse(text string) (int64, error) {
	switch s.Kind {
	case Bool:
		return parseBool(text)
	case Word:
		if at := slices.Index(s.Words, text); at >= 0 {
			return int64(at), nil
		}
		return 0, fmt.Errorf("must be %s", s.Range())
	case PublicKeys:
		_, err := ParsePublisherKeys(text)
		return 0, err
	case Directory:
		if !filepath.IsAbs(text) {
			return 0, fmt.Errorf("must be %s", s.Range())
		}
		return 0, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("must be %s", s.Range())
	}
	if s.Kind == Enum {
		if why, ok := s.Refused[v]; ok {
			return 0, fmt.Errorf("must be %s; %s", s.Range(), why)
		}
		if !slices.Contains(s.Choices, v) {
			return 0, fmt.Errorf("must be %s", s.Range())
		}
		return v, nil
	}
	if v < s.Min || v > s.Max {
		return 0, fmt.Errorf("must be %s", s.Range())
	}
	return v, nil
}

// parseBool reads true and false, and DO's 1 and 0.
func parseBool(text string) (int64, error) {
	switch text {
	case "true", "1":
		return 1, nil
	case "false", "0":
		return 0, nil
	}
	return 0, fmt.Errorf("must be true or false")
}

// list writes "0, 1 or 2".
func list[T any](items []T) string {
	var b strings.Builder
	for i, it := range items {
		switch {
		case i == 0:
		case i == len(items)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprint(&b, it)
	}
	return b.String()
}
