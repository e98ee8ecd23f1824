package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Entry is one value as it was written.
type Entry struct {
	Name  string
	Value string
	At    string // where it stands, for errors: "agent.toml:7", a variable's name; "" for the provider
}

// Layer is what one provider says. A later entry of a name wins.
type Layer struct {
	Provider Provider
	Entries  []Entry
}

// Error says that a value cannot be used.
type Error struct {
	Entry
	Problem string // what is allowed, or what to write instead
}

// Error returns "agent.toml:7: DOMaxCacheAge = -3: must be 0 to 4294967295 seconds".
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s = %s: %s", e.At, e.Name, shown(e.Value), e.Problem)
}

// shown quotes what is not a plain number.
func shown(value string) string {
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return value
	}
	return strconv.Quote(value)
}

// Resolve lays the layers over the defaults; a later layer wins. It reports every wrong value,
// each an [*Error], joined. Unknown names are wrong in what is written on the device, and passed
// over in what services send.
func Resolve(layers ...Layer) (Settings, error) {
	var s Settings
	var errs []error
	for _, l := range layers {
		for _, e := range l.Entries {
			if err := s.set(l.Provider, e); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) > 0 {
		return Settings{}, errors.Join(errs...)
	}
	return s, nil
}

// Check reports whether provider p may set name to value. A service asks it before it stores
// a setting, so an unknown name is an error whatever the provider.
func Check(p Provider, name, value string) error {
	_, _, err := parse(p, Entry{Name: name, Value: value})
	return err
}

// Profile returns the defaults of a profile as the weakest layer: "freshet" (or "") is the
// table as it is, "do" has Delivery Optimization's defaults.
func Profile(name string) (Layer, error) {
	l := Layer{Provider: Default}
	switch name {
	case "", "freshet":
		return l, nil
	case "do":
	default:
		return Layer{}, fmt.Errorf("policy: unknown profile %q: must be freshet or do", name)
	}
	for _, s := range table {
		if s.DODefault != Unset {
			l.Entries = append(l.Entries, Entry{Name: s.Name, Value: s.Text(s.DODefault), At: "profile do"})
		}
	}
	return l, nil
}

func (s *Settings) set(p Provider, e Entry) error {
	if _, known := find(e.Name); !known && !p.local() {
		return nil
	}
	k, v, err := parse(p, e)
	if err != nil {
		return err
	}
	if table[k].LocalWins && !p.local() && s.values[k].Provider.local() {
		return nil
	}
	s.values[k] = Value{number: v, Provider: p, At: e.At}
	if table[k].Kind.isText() {
		s.values[k].text = e.Value
	}
	return nil
}

// parse checks name, scope and value of e.
func parse(p Provider, e Entry) (key, int64, error) {
	if e.At == "" {
		e.At = string(p)
	}
	k, known := find(e.Name)
	if !known {
		return 0, 0, &Error{e, unknown(e.Name)}
	}
	def := &table[k]
	if p != Default && !slices.Contains(def.Scopes, p) {
		return 0, 0, &Error{e, fmt.Sprintf("cannot come from %s, only from %s", p, list(def.Scopes))}
	}
	v, err := def.parse(e.Value)
	if err != nil {
		return 0, 0, &Error{e, err.Error()}
	}
	return k, v, nil
}

// unknown says what to write instead of name.
func unknown(name string) string {
	if near, ok := Nearest(name); ok {
		return "unknown setting; did you mean " + near + "?"
	}
	return "unknown setting; freshet config lists all"
}

// Nearest returns the setting whose name differs least from name, letter case and underscores
// aside; false when none is so near that name can be taken for a slip.
func Nearest(name string) (string, bool) {
	want := plain(name)
	best, least := "", len(want)/4+2 // a slip: one letter, and one more for every four, is below it
	for i := range table {
		if d := distance(want, plain(table[i].Name)); d < least {
			best, least = table[i].Name, d
		}
	}
	return best, best != ""
}

// plain drops what spellings of one name differ in.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
