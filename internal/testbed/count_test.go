package testbed

import (
	"strings"
	"testing"
)

func TestParseCounts(t *testing.T) {
	const listing = `{"nftables":[{"metainfo":{"version":"1"}},
		{"counter":{"family":"inet","name":"odd","table":"freshet","handle":1,"packets":0,"bytes":0}},
		{"counter":{"name":"down_origin_5","packets":2,"bytes":1080}},
		{"counter":{"name":"down_origin_8","packets":3,"bytes":4500}},
		{"counter":{"name":"down_origin_udp","packets":1,"bytes":128}},
		{"counter":{"name":"in_b2_8","packets":1,"bytes":1500}},
		{"counter":{"name":"up_other_15","packets":1,"bytes":80}}]}`
	got, err := parseCounts([]byte(listing))
	if err != nil {
		t.Fatal(err)
	}
	if s := got[Flow{"down", "origin"}]; s != (Sum{1000 + 4344 + 100, 6}) {
		t.Errorf("down from the origin %+v", s)
	}
	if s := got[Flow{"up", "other"}]; s != (Sum{0, 1}) || got.Total() != 5444 {
		t.Errorf("up to others %+v, in all %d", s, got.Total())
	}
	if n := got.Into(2); n != 1448 {
		t.Errorf("%d bytes came into the second subnet", n)
	}
	if d := got.Minus(Counts{{"down", "origin"}: {Payload: 444, Packets: 1}}); d.Total() != 5000 {
		t.Errorf("difference %+v", d)
	}
	for listing, want := range map[string]string{
		"":                "counters of nftables",
		`{"nftables":[]}`: "no counters",
		`{"nftables":[{"counter":{"name":"odd","packets":3}}]}`:  "3 packets",
		`{"nftables":[{"counter":{"name":"down_origin_x"}}]}`:    "none of ours",
		`{"nftables":[{"counter":{"name":"mine","packets":1}}]}`: "none of ours",
	} {
		if _, err := parseCounts([]byte(listing)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", listing, err, want)
		}
	}
}

func TestFigures(t *testing.T) {
	figures := []Figure{
		{Scenario: "one", What: "WAN of a ÷ size", Limit: 1.01, Got: 1.0099, Note: "5.00 MiB"},
		{Scenario: "one", What: "slowest ÷ bound", Limit: 1.1, Got: 2.1, IsTime: true},
		{Scenario: "two", What: "WAN of a ÷ size", Limit: 1.01, Got: 1.0101},
		{Scenario: "two", What: "slowest ÷ bound", Limit: 1.1, Got: 2.3, IsTime: true},
		{Scenario: "two", What: "lines", Limit: 3, Got: 3, AtLeast: true, Whole: true},
		{Scenario: "two", What: "lines", Limit: 3, Got: 2, AtLeast: true, Whole: true},
	}
	var b strings.Builder
	if err := PrintFigures(&b, figures); err != nil {
		t.Fatal(err)
	}
	const want = `SCENARIO  FIGURE           LIMIT   GOT     RESULT  IS
one       WAN of a ÷ size  1.0100  1.0099  ok      5.00 MiB
          slowest ÷ bound  1.100   2.100   over    
two       WAN of a ÷ size  1.0100  1.0101  FAILED  
          slowest ÷ bound  1.100   2.300   FAILED  
          lines            ≥ 3     3       ok      
          lines            ≥ 3     2       FAILED  
over: a time above its limit; it fails above 2 times that
`
	if b.String() != want {
		t.Errorf("table\n%s\nwant\n%s", b.String(), want)
	}
	if bad := Failures(figures); len(bad) != 3 || bad[2] != "lines: 2, at least 3 ()" {
		t.Errorf("failures %q", bad)
	}
}
