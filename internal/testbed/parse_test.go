package testbed

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const twoSites = `# A header.
site a wan 100Mbit
site b wan 8Mbit rtt 20ms loss 1.5%
subnet a.1 devices 2
subnet a.2 devices 1
subnet b.1 devices 12
tcp reno
set DODownloadMode=2 on a.2,b
`

func TestParse(t *testing.T) {
	s, err := Parse("x", strings.NewReader(twoSites+`
publish c 128MiB files 3
get c on all            # all of them
until c 30% on leader:a
cut a.1.2,b from server
wait 5m
expect hashes
expect wan <= 1.01 size + 4MiB
expect slowest <= 1.10 bound
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Scenario{Name: "x", TCP: "reno",
		Sites: []Site{
			{Name: "a", Rate: 12_500_000, Subnets: []Subnet{{"a.1", 2}, {"a.2", 1}}},
			{Name: "b", Rate: 1_000_000, RTT: 20 * time.Millisecond, Loss: 0.015, Subnets: []Subnet{{"b.1", 12}}},
		},
		Settings: []Setting{{"DODownloadMode=2", Nodes{"a.2", "b"}}},
		Steps: []Step{
			{Line: 10, Text: "publish c 128MiB files 3", Verb: "publish", Content: "c", Size: 128 << 20, Files: 3},
			{Line: 11, Text: "get c on all", Verb: "get", Content: "c", On: all},
			{Line: 12, Text: "until c 30% on leader:a", Verb: "until", Content: "c", Percent: 0.3, On: Nodes{"leader:a"}},
			{Line: 13, Text: "cut a.1.2,b from server", Verb: "cut", On: Nodes{"a.1.2", "b"}, From: Nodes{"server"}},
			{Line: 14, Text: "wait 5m", Verb: "wait", Time: 5 * time.Minute},
			{Line: 15, Text: "expect hashes", Verb: "hashes"},
			{Line: 16, Text: "expect wan <= 1.01 size + 4MiB", Verb: "wan", Limit: 1.01, Size: 4 << 20},
			{Line: 17, Text: "expect slowest <= 1.10 bound", Verb: "slowest", Limit: 1.10},
		}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("parsed\n%+v\nwant\n%+v", s, want)
	}
	if d := s.devices(); len(d) != 15 || d[3] != (device{"b.1.1", place{2, 1, 1}}) {
		t.Errorf("devices %v", d)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "no steps",
		"dance a":                             `line 9: "dance a": no such line`,
		"expect":                              "no such line",
		"expect rain":                         "no such line",
		"pause":                               `not of the form "pause TIME"`,
		"pause 2":                             `"2" is no time`,
		"pause 2s 3s":                         "not of the form",
		"publish c 12":                        `"12" is no size`,
		"publish c 9999999999GiB":             "is no size",
		"publish c 1MiB files 0":              `"0" is no number`,
		"publish ../c 1MiB":                   `"../c`,
		"publish c 1MiB\npublish c 1MiB":      `line 10: "publish c 1MiB": "c" is published already`,
		"get c on all":                        `"c" is not published above`,
		"publish c 1MiB\nget c on d":          `"d" names nothing`,
		"publish c 1MiB\nget c on a.3":        `"a.3" names nothing`,
		"publish c 1MiB\nget c on a.1.3":      `"a.1.3" names nothing`,
		"publish c 1MiB\nget c on ":           "not of the form",
		"publish c 1MiB\nuntil c 101% on all": `"101%" is not 0% to 100%`,
		"publish c 1MiB\nuntil c NaN% on all": "is not 0%",
		"kill leader:c":                       `"leader:c" names nothing`,
		"kill a,":                             `"" names nothing`,
		"pause 1s\nsite c wan 1Mbit":          "comes before what happens",
		"site a wan 1Mbit":                    "no name for one more site",
		"site server wan 1Mbit":               "no name for one more site",
		"site c wan fast":                     `"fast" is not a number`,
		"site c wan 1Mbit rtt 1s rtt 2s":      "not of the form",
		"site c wan 1Mbit loss 5":             `"5" is not 0%`,
		"subnet a.1 devices 2":                "no name for one more subnet",
		"subnet c.1 devices 2":                "with a site from above",
		"subnet a.x devices 201":              "no number of devices",
		"tcp vegas":                           "none of cubic",
		"set X":                               "not NAME=VALUE",
		"expect wan <= 1 size - 1MiB":         "not of the form",
		"expect wan <= x size":                `"x" is no factor`,
	} {
		_, err := Parse("x", strings.NewReader(twoSites+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
