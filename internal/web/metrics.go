package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Metrics holds a process's counters and gauges and serves them in Prometheus' text format,
// version 0.0.4. There is one per process, handed to whoever counts.
type Metrics struct {
	mu       sync.Mutex // guards the following
	families []family   // in order of name
}

// family is the samples under one name.
type family interface {
	name() string
	appendTo(b []byte) []byte
}

// NewMetrics returns an empty registry.
func NewMetrics() *Metrics { return &Metrics{} }

// add panics when the name is taken or not one: both are defects of the caller.
func (m *Metrics) add(f family) {
	if !validMetric(f.name()) {
		panic(fmt.Sprintf("web: %q is not a metric's name", f.name()))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, found := slices.BinarySearchFunc(m.families, f.name(), func(f family, n string) int { return strings.Compare(f.name(), n) })
	if found {
		panic(fmt.Sprintf("web: metric %q is registered twice", f.name()))
	}
	m.families = slices.Insert(m.families, i, f)
}

func validMetric(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// ServeHTTP writes all samples.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(m.Append(nil)) // the caller is gone when this fails
}

// Append appends the text of all samples.
func (m *Metrics) Append(b []byte) []byte {
	m.mu.Lock()
	families := slices.Clone(m.families)
	m.mu.Unlock()
	for _, f := range families {
		b = f.appendTo(b)
	}
	return b
}

func appendHead(b []byte, name, help, kind string) []byte {
	help = strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help)
	return fmt.Appendf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// Counters are counters that grow, one for each value of a label.
type Counters struct {
	title, help, label string

	mu sync.Mutex // guards the following
	by map[string]*Counter
}

// Counter only grows. It is safe for concurrent use.
type Counter struct{ n atomic.Int64 }

// Add adds n, which is not negative.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Value returns the count.
func (c *Counter) Value() int64 { return c.n.Load() }

// Counters registers counters that differ in one label. By custom the name ends in _total.
// It panics when the name is taken.
func (m *Metrics) Counters(name, help, label string) *Counters {
	c := &Counters{title: name, help: help, label: label, by: map[string]*Counter{}}
	m.add(c)
	return c
}

// With returns the counter for a value of the label. Values come from configuration, never
// from what strangers send: each lives as long as the process.
func (c *Counters) With(value string) *Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.by[value]
	if n == nil {
		n = new(Counter)
		c.by[value] = n
	}
	return n
}

func (c *Counters) name() string { return c.title }

func (c *Counters) appendTo(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	values := make([]string, 0, len(c.by))
	for v := range c.by {
		values = append(values, v)
	}
	slices.Sort(values)
	b = appendHead(b, c.title, c.help, "counter")
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	for _, v := range values {
		b = fmt.Appendf(b, "%s{%s=\"%s\"} %d\n", c.title, c.label, escape.Replace(v), c.by[v].Value())
	}
	return b
}

// gauge is a figure that is taken when it is asked for.
type gauge struct {
	title, help string
	value       func() float64
}

// Gauge registers a figure that value returns at each scrape, concurrently. It panics when
// the name is taken.
func (m *Metrics) Gauge(name, help string, value func() float64) {
	m.add(&gauge{name, help, value})
}

func (g *gauge) name() string { return g.title }

func (g *gauge) appendTo(b []byte) []byte {
	b = appendHead(b, g.title, g.help, "gauge")
	b = append(append(b, g.title...), ' ')
	return append(strconv.AppendFloat(b, g.value(), 'g', -1, 64), '\n')
}
