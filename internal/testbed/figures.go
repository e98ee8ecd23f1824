package testbed

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Figure is what one expectation found.
type Figure struct {
	Scenario string
	What     string
	Limit    float64
	Got      float64
	Note     string
	IsTime   bool // told, and fails only above timeSlack times its limit
	AtLeast  bool // the limit is a lower one
	Whole    bool // counted, not measured
}

// timeSlack is by how much a time may be over its limit before the scenario fails: the machine
// may be busy with other things.
const timeSlack = 2

// Failed reports whether the figure makes its scenario fail.
func (f Figure) Failed() bool {
	switch {
	case f.AtLeast:
		return !(f.Got >= f.Limit)
	case f.IsTime:
		return !(f.Got <= timeSlack*f.Limit)
	}
	return !(f.Got <= f.Limit)
}

// result says how the figure is, in a word.
func (f Figure) result() string {
	switch {
	case f.Failed():
		return "FAILED"
	case !f.AtLeast && !(f.Got <= f.Limit):
		return "over"
	}
	return "ok"
}

func (f Figure) String() string {
	limit := f.number(f.Limit)
	if f.AtLeast {
		limit = "≥ " + limit
	}
	return strings.Join([]string{f.What, limit, f.number(f.Got), f.result(), f.Note}, "\t")
}

// number writes one of the figure's numbers.
func (f Figure) number(v float64) string {
	digits := 4
	if f.IsTime {
		digits = 3
	}
	if v == math.Trunc(v) && f.Whole {
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// PrintFigures prints figures as a table that fits a terminal. The times that are over their
// limit, and do not fail, are named below it.
func PrintFigures(w io.Writer, figures []Figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tFIGURE\tLIMIT\tGOT\tRESULT\tIS")
	last, over := "", 0
	for _, f := range figures {
		name := f.Scenario
		if name == last {
			name = ""
		}
		last = f.Scenario
		fmt.Fprintf(t, "%s\t%s\n", name, f)
		if f.result() == "over" {
			over++
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if over > 0 {
		_, err := fmt.Fprintf(w, "over: a time above its limit; it fails above %d times that\n", timeSlack)
		return err
	}
	return nil
}

// Failures are the figures that fail.
func Failures(figures []Figure) []string {
	var bad []string
	for _, f := range figures {
		if f.Failed() {
			most := "most"
			if f.AtLeast {
				most = "least"
			}
			bad = append(bad, fmt.Sprintf("%s: %s, at %s %s (%s)", f.What, f.number(f.Got), most, f.number(f.Limit), f.Note))
		}
	}
	return bad
}

// mib writes bytes for people.
func mib(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
