package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"freshet/internal/content"
	"freshet/internal/origin"
)

// Limits, so that addresses and names fit.
const (
	maxSites   = 200
	maxSubnets = 200
	maxDevices = 200 // of a subnet
)

// Parse reads a scenario. An error names the line.
func Parse(name string, r io.Reader) (*Scenario, error) {
	p := parser{s: &Scenario{Name: name, TCP: "cubic"}}
	lines := bufio.NewScanner(r)
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		p.words = strings.Fields(text)
		if len(p.words) == 0 {
			continue
		}
		p.step = Step{Line: n, Text: strings.Join(p.words, " ")}
		if err := p.line(); err != nil {
			return nil, fmt.Errorf("testbed: %s, line %d: %q: %w", name, n, p.step.Text, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("testbed: %s, line %d: %w", name, n+1, err)
	}
	if len(p.s.devices()) == 0 || len(p.s.Steps) == 0 {
		return nil, fmt.Errorf("testbed: %s has no devices or no steps", name)
	}
	return p.s, nil
}

// parser takes one line after the other.
type parser struct {
	s         *Scenario
	published []string
	words     []string // of this line
	step      Step     // that this line becomes
}

// forms are how the lines of each verb look. Words in capitals stand for what they name; those behind
// "?" may be missing.
var forms = map[string]string{
	"site":           "site NAME wan RATE ? rtt TIME loss PERCENT",
	"subnet":         "subnet NAME devices COUNT",
	"tcp":            "tcp NAME",
	"set":            "set NAME ? on NODES",
	"publish":        "publish NAME SIZE ? files COUNT",
	"get":            "get CONTENT on NODES",
	"until":          "until CONTENT PERCENT on NODES",
	"kill":           "kill NODES",
	"stop":           "stop NODES",
	"start":          "start NODES",
	"freeze":         "freeze NODES",
	"thaw":           "thaw NODES",
	"cut":            "cut NODES from NODES",
	"heal":           "heal NODES",
	"hush":           "hush NODES",
	"pause":          "pause TIME",
	"wait":           "wait TIME",
	"expect hashes":  "expect hashes",
	"expect wan":     "expect wan <= FACTOR size ? + SIZE",
	"expect slowest": "expect slowest <= FACTOR bound",
}

// line takes the words of a line.
func (p *parser) line() error {
	verb := p.words[0]
	if verb == "expect" && len(p.words) > 1 {
		verb += " " + p.words[1]
	}
	form, ok := forms[verb]
	if !ok {
		return errors.New("no such line; the package comment of testbed has them all")
	}
	p.step.Verb = strings.TrimPrefix(verb, "expect ")
	args, err := match(form, p.words)
	if err != nil {
		return err
	}
	switch verb {
	case "site", "subnet", "tcp", "set":
		if len(p.s.Steps) > 0 {
			return errors.New("what there is comes before what happens")
		}
		return p.declare(verb, args)
	}
	return p.addStep(args)
}

// match puts the words of a line into the places of a form: by the name of the place, or by
// the word before it, where there is one.
func match(form string, words []string) (map[string]string, error) {
	must, may, _ := strings.Cut(form, " ? ")
	args := map[string]string{}
	wrong := fmt.Errorf("it is not of the form %q", strings.ReplaceAll(form, "? ", "and perhaps "))
	take := func(places []string) bool {
		if len(words) < len(places) {
			return false
		}
		for i, place := range places {
			if place != strings.ToUpper(place) || place == "<=" || place == "+" {
				if words[i] != place {
					return false
				}
				continue
			}
			key := place
			if args[key] != "" {
				key = places[i-1]
			}
			args[key] = words[i]
		}
		words = words[len(places):]
		return true
	}
	if !take(strings.Fields(must)) {
		return nil, wrong
	}
	for options := slices.Collect(slices.Chunk(strings.Fields(may), 2)); len(words) > 0; {
		i := slices.IndexFunc(options, func(o []string) bool { return o[0] == words[0] })
		if i < 0 || !take(options[i]) {
			return nil, wrong
		}
		options = slices.Delete(options, i, i+1)
	}
	return args, nil
}

var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,9}$`)
	tcpForm  = []string{"cubic", "reno", "bbr"}
)

// declare takes a line of what there is.
func (p *parser) declare(verb string, args map[string]string) error {
	switch verb {
	case "site":
		return p.site(args)
	case "subnet":
		return p.subnet(args["NAME"], args["COUNT"])
	case "tcp":
		p.s.TCP = args["NAME"]
		if !slices.Contains(tcpForm, p.s.TCP) {
			return fmt.Errorf("%q is none of %s", p.s.TCP, strings.Join(tcpForm, ", "))
		}
		return nil
	default:
		set := Setting{Assign: args["NAME"], On: all}
		if name, _, ok := strings.Cut(set.Assign, "="); !ok || name == "" {
			return fmt.Errorf("%q is not NAME=VALUE", set.Assign)
		}
		var err error
		if args["NODES"] != "" {
			set.On, err = p.nodes(args["NODES"])
		}
		p.s.Settings = append(p.s.Settings, set)
		return err
	}
}

func (p *parser) site(args map[string]string) (err error) {
	site := Site{Name: args["NAME"]}
	taken := slices.ContainsFunc(p.s.Sites, func(s Site) bool { return s.Name == site.Name })
	if !nameForm.MatchString(site.Name) || slices.Contains(reserved, site.Name) || taken || len(p.s.Sites) == maxSites {
		return fmt.Errorf("%q is no name for one more site", site.Name)
	}
	if site.Rate, err = origin.ParseRate(args["RATE"]); err != nil {
		return err
	}
	if t := args["TIME"]; t != "" {
		if site.RTT, err = parseTime(t); err != nil {
			return err
		}
	}
	if l := args["PERCENT"]; l != "" {
		if site.Loss, err = parsePercent(l); err != nil {
			return err
		}
	}
	p.s.Sites = append(p.s.Sites, site)
	return nil
}

func (p *parser) subnet(name, count string) error {
	siteName, own, ok := strings.Cut(name, ".")
	i := slices.IndexFunc(p.s.Sites, func(s Site) bool { return s.Name == siteName })
	if !ok || i < 0 {
		return fmt.Errorf("%q is not SITE.NAME with a site from above", name)
	}
	site := &p.s.Sites[i]
	taken := slices.ContainsFunc(site.Subnets, func(s Subnet) bool { return s.Name == name })
	if own == "" || strings.ContainsAny(own, ".,:") || len(own) > 10 || taken || len(site.Subnets) == maxSubnets {
		return fmt.Errorf("%q is no name for one more subnet", name)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxDevices {
		return fmt.Errorf("%q is no number of devices from 1 to %d", count, maxDevices)
	}
	site.Subnets = append(site.Subnets, Subnet{Name: name, Devices: n})
	return nil
}

// addStep takes a line of what happens.
func (p *parser) addStep(args map[string]string) (err error) {
	s := &p.step
	for _, place := range []struct {
		key  string
		read func(string) error
	}{
		{"NAME", p.publish},
		{"CONTENT", p.content},
		{"NODES", func(v string) error { s.On, err = p.nodes(v); return err }},
		{"from", func(v string) error { s.From, err = p.nodes(v); return err }},
		{"SIZE", func(v string) error { s.Size, err = parseSize(v); return err }},
		{"COUNT", func(v string) error { s.Files, err = parseCount(v); return err }},
		{"PERCENT", func(v string) error { s.Percent, err = parsePercent(v); return err }},
		{"TIME", func(v string) error { s.Time, err = parseTime(v); return err }},
		{"FACTOR", func(v string) error { s.Limit, err = parseFactor(v); return err }},
	} {
		if v := args[place.key]; v != "" {
			if err := place.read(v); err != nil {
				return err
			}
		}
	}
	if s.Verb == "publish" && s.Files == 0 {
		s.Files = 1
	}
	p.s.Steps = append(p.s.Steps, *s)
	return nil
}

func (p *parser) publish(name string) error {
	if _, err := content.ParseRef(name + "@1"); err != nil {
		return err
	}
	if slices.Contains(p.published, name) {
		return fmt.Errorf("%q is published already", name)
	}
	p.published = append(p.published, name)
	p.step.Content = name
	return nil
}

func (p *parser) content(name string) error {
	if !slices.Contains(p.published, name) {
		return fmt.Errorf("%q is not published above", name)
	}
	p.step.Content = name
	return nil
}

// reserved are names of nodes that are no devices.
var reserved = []string{"all", "server", "origin", "leader", "killed"}

// nodes reads names, each of which must be there.
func (p *parser) nodes(list string) (Nodes, error) {
	var n Nodes
	for _, name := range strings.Split(list, ",") {
		scope, isLeader := strings.CutPrefix(name, "leader:")
		known := slices.ContainsFunc(p.s.devices(), func(d device) bool { return within(d.name, scope) })
		if !known && (isLeader || !slices.Contains(reserved, name)) {
			return nil, fmt.Errorf("%q names nothing that there is", name)
		}
		n = append(n, name)
	}
	return n, nil
}

func deviceName(subnet string, n int) string { return subnet + "." + strconv.Itoa(n) }

func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > time.Hour {
		return 0, fmt.Errorf("%q is no time up to an hour, such as 20ms or 1m30s", s)
	}
	return d, nil
}

func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("%q is not 0%% to 100%%", s)
	}
	return v / 100, nil
}

func parseFactor(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1000) {
		return 0, fmt.Errorf("%q is no factor from 0 to 1000", s)
	}
	return v, nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 100_000 {
		return 0, fmt.Errorf("%q is no number from 1 to 100000", s)
	}
	return n, nil
}

// parseSize reads 5B, 64KiB, 128MiB or 1GiB.
func parseSize(s string) (int64, error) {
	for _, u := range []struct {
		suffix string
		shift  int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"B", 0}} {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n < 0 || n > 1<<40>>u.shift {
				break
			}
			return n << u.shift, nil
		}
	}
	return 0, fmt.Errorf("%q is no size, such as 5B, 64KiB, 128MiB or 1GiB", s)
}
