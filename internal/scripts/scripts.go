// Package scripts runs the text scripts that tests of brains consist of. A script is what
// happens to a brain, one event a line: a verb and its arguments; a line that begins with #
// is a remark. Below each event, indented by four blanks, stands what the brain does. A
// script passes when the brain does exactly that; with -rewrite, what it does is written
// down instead.
package scripts

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts of testdata give into them")

const indent = "    "

// Script is one script under way.
type Script struct {
	T    *testing.T
	line int // of the event, counted from 1
	out  bytes.Buffer
}

// Run runs testdata/*.txt, each as a test of its own. begin makes a fresh brain and returns
// what does one event to it.
func Run(t *testing.T, begin func(s *Script) func(verb string, args []string)) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := &Script{T: t}
			got := s.run(want, begin(s))
			if bytes.Equal(got, want) {
				return
			}
			if !*rewrite {
				t.Fatalf("%s: the brain does something else; -rewrite writes it down:\n%s", path, firstDifference(string(want), string(got)))
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// run returns the script with what the brain does.
func (s *Script) run(script []byte, event func(verb string, args []string)) []byte {
	for i, line := range strings.Split(strings.TrimRight(string(script), "\n"), "\n") {
		if strings.HasPrefix(line, indent) {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			s.line = i + 1
			event(words[0], words[1:])
		}
	}
	return s.out.Bytes()
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, w[i], g[i])
		}
	}
	return "one is longer"
}

// Say writes one line of what the brain does.
func (s *Script) Say(format string, args ...any) { fmt.Fprintf(&s.out, indent+format+"\n", args...) }

// Fatalf ends the script with an error that names the event's line.
func (s *Script) Fatalf(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("line %d: "+format, append([]any{s.line}, args...)...)
}
