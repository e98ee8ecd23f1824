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

	"freshet/internal/content"
	"freshet/internal/origin"
)

// Limits, so that addresses and names fit.
const (
	maxSites   = 200
	maxSubnets = 200
	maxDevices = 200 // of a subnet
	maxHosts   = 50  // of a subnet, besides
)

// Parse reads a scenario. An error names the line.
func Parse(name string, r io.Reader) (*Scenario, error) {
	p := parser{s: &Scenario{Name: name, TCP: "cubic"}}
	lines := bufio.NewScanner(r)
	n := 0
	for lines.Scan() {
		n++
		words, err := split(lines.Text())
		if err == nil && len(words) == 0 {
			continue
		}
		p.step = Step{Line: n, Text: quoted(words)}
		if err == nil {
			err = p.line(words)
		}
		if err != nil {
			return nil, fmt.Errorf("testbed: %s, line %d: %q: %w", name, n, strings.TrimSpace(lines.Text()), err)
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

// quoted joins words as a line has them.
func quoted(words []string) string {
	list := slices.Clone(words)
	for i, w := range list {
		if strings.ContainsAny(w, " \t#") {
			list[i] = `"` + w + `"`
		}
	}
	return strings.Join(list, " ")
}

// parser takes one line after the other.
type parser struct {
	s         *Scenario
	published map[string]int // contents by how many they stand for; 0: one
	aliases   []string
	step      Step // that this line becomes
}

// line takes the words of a line.
func (p *parser) line(words []string) error {
	verb, args, err := match(words)
	if err != nil {
		return err
	}
	p.step.Verb = verb
	switch verb {
	case "site", "subnet", "tcp", "set":
		if len(p.s.Steps) > 0 {
			return errors.New("what there is comes before what happens")
		}
		return p.declare(verb, args)
	}
	return p.addStep(args)
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
		return p.subnet(args)
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

func (p *parser) subnet(args map[string]string) error {
	name := args["NAME"]
	siteName, own, ok := strings.Cut(name, ".")
	i := slices.IndexFunc(p.s.Sites, func(s Site) bool { return s.Name == siteName })
	if !ok || i < 0 {
		return fmt.Errorf("%q is not SITE.NAME with a site from above", name)
	}
	site := &p.s.Sites[i]
	taken := slices.ContainsFunc(site.Subnets, func(s Subnet) bool { return s.Name == name })
	if own == "" || strings.ContainsAny(own, ".,:-") || len(own) > 10 || taken || len(site.Subnets) == maxSubnets {
		return fmt.Errorf("%q is no name for one more subnet", name)
	}
	sub := Subnet{Name: name}
	var err error
	if sub.Devices, err = parseCount(args["COUNT"], maxDevices); err == nil && args["HOSTS"] != "" {
		sub.Hosts, err = parseCount(args["HOSTS"], maxHosts)
	}
	site.Subnets = append(site.Subnets, sub)
	return err
}

// addStep takes a line of what happens.
func (p *parser) addStep(args map[string]string) (err error) {
	s := &p.step
	s.Signed, s.Found, s.Old = args["signed"] != "", args["found"] != "", args["sha256-only"] != ""
	s.Hurry, s.AtLeast = args["foreground"] != "", strings.Contains(s.Text, " >= ")
	for _, place := range []struct {
		key  string
		read func(string) error
	}{
		{"NAME", func(v string) error { return p.publish(v, args["TIMES"]) }},
		{"CONTENT", p.content},
		{"NODES", func(v string) error { s.On, err = p.nodes(v); return err }},
		{"FROM", func(v string) error { s.From, err = p.nodes(v); return err }},
		{"HOST", p.host},
		{"ALIAS", p.alias},
		{"PROGRAM", func(v string) error { s.Program = v; return checkProgram(v, args["CONTENT"]) }},
		{"ISSUE", func(v string) error { s.Issue, err = parseIssue(v); return err }},
		{"WORDS", func(v string) error { s.Words = v; return nil }},
		{"SIZE", func(v string) error { s.Size, err = parseSize(v); return err }},
		{"FILES", func(v string) error { s.Files, err = parseCount(v, 100_000); return err }},
		{"BATCH", func(v string) error { s.Batch, err = parseCount(v, 10_000); return err }},
		{"PERCENT", func(v string) error { s.Percent, err = parsePercent(v); return err }},
		{"TIME", func(v string) error { s.Time, err = parseTime(v); return err }},
		{"FACTOR", func(v string) error { s.Limit, err = parseFactor(v); return err }},
		{"NUMBER", func(v string) error { s.Limit, err = parseNumber(v); return err }},
	} {
		if v := args[place.key]; v != "" {
			if err := place.read(v); err != nil {
				return err
			}
		}
	}
	if s.Signed && (s.Found || s.Old) {
		return errors.New("what a distribution point finds by itself is not signed by a publisher")
	}
	if s.Verb == "publish" && s.Files == 0 {
		s.Files = 1
	}
	p.s.Steps = append(p.s.Steps, *s)
	return nil
}

// publish takes the name of a new content, or of several.
func (p *parser) publish(name, times string) (err error) {
	if _, err := content.ParseRef(name + "@1"); err != nil {
		return err
	}
	if p.has(name) {
		return fmt.Errorf("%q is published already", name)
	}
	if times != "" {
		if p.step.Times, err = parseCount(times, 10_000); err != nil {
			return err
		}
		if p.step.Signed || p.step.Old {
			return errors.New("several contents at once are neither signed nor sha256-only; publish them one by one")
		}
	}
	if p.published == nil {
		p.published = map[string]int{}
	}
	p.published[name] = p.step.Times
	p.step.Content = name
	return nil
}

func (p *parser) has(name string) bool {
	_, ok := p.published[name]
	return ok
}

func (p *parser) content(name string) error {
	if !p.has(name) {
		return fmt.Errorf("%q is not published above", name)
	}
	if p.published[name] > 0 && (p.step.Verb == "republish" || p.step.Verb == "overwrite") {
		return fmt.Errorf("%q stands for %d contents: publish one for itself to change it", name, p.published[name])
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
		bare := strings.TrimPrefix(name, "-")
		if bare != name && len(n) == 0 {
			return nil, fmt.Errorf("%q takes away from nothing: names come before it", name)
		}
		if several, ok := expand(bare); ok {
			if bare != name || !p.known(several[0]) || !p.known(several[len(several)-1]) {
				return nil, fmt.Errorf("%q names nothing that there is", name)
			}
			n = append(n, several...)
			continue
		}
		if !p.known(bare) {
			return nil, fmt.Errorf("%q names nothing that there is", name)
		}
		n = append(n, name)
	}
	return n, nil
}

// known reports whether a name is that of something.
func (p *parser) known(name string) bool {
	if slices.Contains(p.aliases, name) || slices.ContainsFunc(p.s.hosts(), func(h device) bool { return h.name == name }) {
		return true
	}
	scope, isLeader := strings.CutPrefix(name, "leader:")
	if slices.ContainsFunc(p.s.devices(), func(d device) bool { return within(d.name, scope) }) {
		return true
	}
	return !isLeader && slices.Contains(reserved, name)
}

var rangeForm = regexp.MustCompile(`^(.+)\.(\d+)-(\d+)$`)

// expand returns the devices that SUBNET.3-7 names.
func expand(name string) (names []string, ok bool) {
	m := rangeForm.FindStringSubmatch(name)
	if m == nil {
		return nil, false
	}
	first, err1 := strconv.Atoi(m[2])
	last, err2 := strconv.Atoi(m[3])
	if err1 != nil || err2 != nil || first > last || last > maxDevices {
		return nil, false
	}
	for n := first; n <= last; n++ {
		names = append(names, deviceName(m[1], n))
	}
	return names, true
}

func (p *parser) host(name string) error {
	if !slices.ContainsFunc(p.s.hosts(), func(h device) bool { return h.name == name }) {
		return fmt.Errorf(`%q is no host: "subnet NAME devices N hosts N" makes some, NAME.h1 and so on`, name)
	}
	p.step.On = Nodes{name}
	return nil
}

func (p *parser) alias(name string) error {
	if !nameForm.MatchString(name) || slices.Contains(reserved, name) || slices.ContainsFunc(p.s.Sites, func(s Site) bool { return s.Name == name }) {
		return fmt.Errorf("%q is no name for nodes", name)
	}
	p.aliases = append(p.aliases, name)
	p.step.Name = name
	return nil
}

func deviceName(subnet string, n int) string { return subnet + "." + strconv.Itoa(n) }
