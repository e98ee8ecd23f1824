package testbed

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const twoSites = `# A header.
site a wan 100Mbit
site b wan 8Mbit rtt 20ms loss 1.5%
subnet a.1 devices 2 hosts 1
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
publish many 1KiB times 2 files 4
publish s 1MiB sha256-only found
name lazy leader
get c on all,-lazy,-b.1.3 expecting new foreground
until c waits "no # word" on a
run taste on a.1.h1 with c for 10s
reject b.1.2-3 from origin
expect lines "x y" >= 3 on a.1.h1
expect memory <= 8MiB on all
expect leaders kept
tasted 3
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Scenario{Name: "x", TCP: "reno",
		Sites: []Site{
			{Name: "a", Rate: 12_500_000, Subnets: []Subnet{{"a.1", 2, 1}, {"a.2", 1, 0}}},
			{Name: "b", Rate: 1_000_000, RTT: 20 * time.Millisecond, Loss: 0.015, Subnets: []Subnet{{"b.1", 12, 0}}},
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
			{Line: 18, Text: "publish many 1KiB times 2 files 4", Verb: "publish", Content: "many", Size: 1 << 10, Files: 4, Times: 2},
			{Line: 19, Text: "publish s 1MiB sha256-only found", Verb: "publish", Content: "s", Size: 1 << 20, Files: 1, Old: true, Found: true},
			{Line: 20, Text: "name lazy leader", Verb: "name", Name: "lazy", On: Nodes{"leader"}},
			{Line: 21, Text: "get c on all,-lazy,-b.1.3 expecting new foreground", Verb: "get", Content: "c", On: Nodes{"all", "-lazy", "-b.1.3"}, Issue: NewIssue, Hurry: true},
			{Line: 22, Text: `until c waits "no # word" on a`, Verb: "until", Content: "c", Words: "no # word", On: Nodes{"a"}},
			{Line: 23, Text: "run taste on a.1.h1 with c for 10s", Verb: "run", Program: "taste", On: Nodes{"a.1.h1"}, Content: "c", Time: 10 * time.Second},
			{Line: 24, Text: "reject b.1.2-3 from origin", Verb: "reject", On: Nodes{"b.1.2", "b.1.3"}, From: Nodes{"origin"}},
			{Line: 25, Text: `expect lines "x y" >= 3 on a.1.h1`, Verb: "lines", Words: "x y", Limit: 3, AtLeast: true, On: Nodes{"a.1.h1"}},
			{Line: 26, Text: "expect memory <= 8MiB on all", Verb: "memory", Size: 8 << 20, On: all},
			{Line: 27, Text: "expect leaders kept", Verb: "leaders"},
			{Line: 28, Text: "tasted 3", Verb: "tasted", Limit: 3},
		}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("parsed\n%+v\nwant\n%+v", s, want)
	}
	if d := s.devices(); len(d) != 15 || d[3] != (device{"b.1.1", place{2, 1, 1}}) {
		t.Errorf("devices %v", d)
	}
	if h := s.hosts(); len(h) != 1 || h[0] != (device{"a.1.h1", place{1, 1, 201}}) {
		t.Errorf("hosts %v", h)
	}
	if got := s.names("many"); !slices.Equal(got, []string{"many-1", "many-2"}) {
		t.Errorf("many stands for %q", got)
	}
	if got, want := s.written(), int64(15*2*(128<<20)); got != want {
		t.Errorf("%d bytes are written, want %d", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                            "no steps",
		"dance a":                                     `line 9: "dance a": there is no such line`,
		"expect":                                      "there is no such line",
		"expect rain":                                 "there is no such line",
		"pause":                                       `not of the form "pause TIME"`,
		"pause 2":                                     `"2" is no time`,
		"pause 2s 3s":                                 "not of the form",
		"publish c 12":                                `"12" is no size`,
		"publish c 9999999999GiB":                     "is no size",
		"publish c 1MiB files 0":                      `"0" is no number`,
		"publish ../c 1MiB":                           `"../c`,
		"publish c 1MiB\npublish c 1MiB":              `line 10: "publish c 1MiB": "c" is published already`,
		"get c on all":                                `"c" is not published above`,
		"publish c 1MiB\nget c on d":                  `"d" names nothing`,
		"publish c 1MiB\nget c on a.3":                `"a.3" names nothing`,
		"publish c 1MiB\nget c on a.1.3":              `"a.1.3" names nothing`,
		"publish c 1MiB\nget c on ":                   "not of the form",
		"publish c 1MiB\nuntil c 101% on all":         `"101%" is not 0% to 100%`,
		"publish c 1MiB\nuntil c NaN% on all":         "is not 0%",
		"kill leader:c":                               `"leader:c" names nothing`,
		"kill a,":                                     `"" names nothing`,
		"pause 1s\nsite c wan 1Mbit":                  "comes before what happens",
		"site a wan 1Mbit":                            "no name for one more site",
		"site server wan 1Mbit":                       "no name for one more site",
		"site c wan fast":                             `"fast" is not a number`,
		"site c wan 1Mbit rtt 1s rtt 2s":              "not of the form",
		"site c wan 1Mbit loss 5":                     `"5" is not 0%`,
		"subnet a.1 devices 2":                        "no name for one more subnet",
		"subnet c.1 devices 2":                        "with a site from above",
		"subnet a.x devices 201":                      `"201" is no number from 1 to 200`,
		"tcp vegas":                                   "none of cubic",
		"set X":                                       "not NAME=VALUE",
		"expect wan <= 1 size - 1MiB":                 "not of the form",
		"expect wan <= x size":                        `"x" is no factor`,
		"publish c 1MiB\nuntil c on all":              `not of the form "until CONTENT PERCENT on NODES" or "until CONTENT waits WORDS on NODES"`,
		"publish c 1MiB\nuntil c waits \"x on all":    "ends with the next one",
		"publish c 1MiB\nget c on all expecting rain": `"rain" is none of`,
		"publish c 1MiB times 0":                      `"0" is no number from 1`,
		"publish c 1MiB times 2 signed":               "publish them one by one",
		"publish c 1MiB times 2\nrepublish c changed 1%": `"c" stands for 2 contents`,
		"publish c 1MiB signed found":                    "not signed by a publisher",
		"republish c changed 1%":                         `"c" is not published above`,
		"run taste on a.1.h1":                            "needs a content",
		"run dance on a.1.h1":                            "no program of package hostile",
		"run flood on a.1.1":                             `"a.1.1" is no host`,
		"run flood on a.1.h2":                            `"a.1.h2" is no host`,
		"subnet a.3 devices 1 hosts 51":                  `"51" is no number from 1 to 50`,
		"subnet a.3-4 devices 1":                         "no name for one more subnet",
		"kill -a.1.1":                                    "takes away from nothing",
		"kill a,-c":                                      `"-c" names nothing`,
		"kill a.1.1-3":                                   `"a.1.1-3" names nothing`,
		"kill a.1.2-1":                                   `"a.1.2-1" names nothing`,
		"kill lazy\nname lazy a":                         `"lazy" names nothing`,
		"name all a":                                     `"all" is no name for nodes`,
		"expect lines x < 3 on all":                      `not of the form "expect lines WORDS <= NUMBER on NODES" or`,
		"expect leads <= 1.5 on all":                     `"1.5" is no number`,
		"expect leaders":                                 `not of the form "expect leaders kept"`,
	} {
		_, err := Parse("x", strings.NewReader(twoSites+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
