package testbed

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// forms are how lines look. Words in capitals stand for what they name, as a key of values; those
// in brackets may be missing, and come in any order. A verb may have several forms.
var forms = []string{
	"site NAME wan RATE [rtt TIME] [loss PERCENT]",
	"subnet NAME devices COUNT [hosts HOSTS]",
	"tcp NAME",
	"set NAME [on NODES]",

	"publish NAME SIZE [files FILES] [times TIMES] [signed] [found] [sha256-only]",
	"republish CONTENT changed PERCENT",
	"overwrite CONTENT changed PERCENT",
	"get CONTENT on NODES [expecting ISSUE] [foreground] [by BATCH]",
	"abandon CONTENT on NODES",
	"until CONTENT PERCENT on NODES",
	"until CONTENT waits WORDS on NODES",
	"kill NODES",
	"stop NODES",
	"start NODES",
	"freeze NODES",
	"thaw NODES",
	"cut NODES from FROM",
	"reject NODES from FROM",
	"hush NODES",
	"heal NODES",
	"run PROGRAM on HOST [with CONTENT] [for TIME]",
	"tasted NUMBER",
	"name ALIAS NODES",
	"mark",
	"pause TIME",
	"wait TIME",

	"expect hashes",
	"expect wan <= FACTOR size [+ SIZE]",
	"expect subnets <= FACTOR size [+ SIZE]",
	"expect slowest <= FACTOR bound",
	"expect stall <= TIME [on NODES]",
	"expect held CONTENT on NODES",
	"expect forgotten CONTENT on NODES",
	"expect leaders kept",
	"expect leads <= NUMBER on NODES",
	"expect spread <= FACTOR share",
	"expect lines WORDS <= NUMBER on NODES",
	"expect lines WORDS >= NUMBER on NODES",
	"expect memory <= SIZE on NODES",
	"expect given <= TIME",
	"expect withheld <= TIME",
}

// isPlace reports whether a word of a form stands for what it names.
func isPlace(word string) bool {
	return strings.ToLower(word) != word
}

// match finds the form of a line, and returns its verb and what stands in its places. A word in
// brackets that is there alone is "yes".
func match(words []string) (verb string, args map[string]string, err error) {
	var tried []string
	for _, f := range forms {
		head := strings.Fields(f)[0]
		if head == "expect" {
			head += " " + strings.Fields(f)[1]
		}
		if !strings.HasPrefix(strings.Join(words, " ")+" ", head+" ") {
			continue
		}
		if args, ok := fit(f, words); ok {
			return strings.TrimPrefix(head, "expect "), args, nil
		}
		tried = append(tried, fmt.Sprintf("%q", f))
	}
	if len(tried) == 0 {
		return "", nil, errors.New("there is no such line; the package comment of testbed has them all")
	}
	return "", nil, fmt.Errorf("it is not of the form %s", strings.Join(tried, " or "))
}

// fit puts the words of a line into the places of one form.
func fit(form string, words []string) (map[string]string, bool) {
	must, may, _ := strings.Cut(form, " [")
	args := map[string]string{}
	take := func(places []string) bool {
		if len(words) < len(places) {
			return false
		}
		for i, place := range places {
			if isPlace(place) {
				args[place] = words[i]
			} else if words[i] != place {
				return false
			}
		}
		if len(places) == 1 {
			args[places[0]] = words[0]
		}
		words = words[len(places):]
		return true
	}
	first := strings.Fields(must)
	if !take(first) {
		return nil, false
	}
	var options [][]string
	for _, o := range strings.Split(may, "[") {
		if o = strings.TrimSuffix(strings.TrimSpace(o), "]"); o != "" {
			options = append(options, strings.Fields(o))
		}
	}
	for len(words) > 0 {
		i := slices.IndexFunc(options, func(o []string) bool { return o[0] == words[0] })
		if i < 0 || !take(options[i]) {
			return nil, false
		}
		options = slices.Delete(options, i, i+1)
	}
	return args, true
}

// split cuts a line into words: at blanks, but for those between double quotes. What follows a #
// is a comment.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t")
		switch {
		case line == "" || line[0] == '#':
			return words, nil
		case line[0] == '"':
			word, rest, closed := strings.Cut(line[1:], `"`)
			if !closed || word == "" {
				return nil, errors.New(`a word that begins with a double quote ends with the next one, and has something in between`)
			}
			words, line = append(words, word), rest
		default:
			end := strings.IndexAny(line, " \t#")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
		}
	}
}
