package origin

import (
	"strings"
	"testing"

	"freshet/internal/identity"
)

// TestRoutes: each call is closed to those whom the table does not name.
func TestRoutes(t *testing.T) {
	const table = `
readers: GET /bytes/{manifestDigest}; GET /bytes/{manifestDigest}/{name...}; GET /metadata/{manifestDigest}; GET /pieceshash/{hashOfHashes}
publishers: PUT /v1/upload/{id}/{version}; PUT /v1/upload/{id}/{version}/{name...}; POST /v1/publish/{id}/{version}
askers: POST /lsz/{contentId}/{version}
`
	want := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(table)) {
		who, patterns, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for p := range strings.SplitSeq(patterns, "; ") {
			want[p] = who
		}
	}
	b, o, base, _ := registeredBench(t, map[string][]byte{"a": {1}})
	e, _ := o.current(testRef)
	names := map[access]string{readers: "readers", publishers: "publishers", askers: "askers"}
	for _, rt := range o.routes() {
		if names[rt.access] != want[rt.pattern] {
			t.Errorf("%s is for %s, want %q", rt.pattern, names[rt.access], want[rt.pattern])
		}
		delete(want, rt.pattern)
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = strings.NewReplacer("{manifestDigest}", e.record.Manifest.String(), "{hashOfHashes}", e.hoh.String(), "{id}", "tools", "{contentId}", "tools", "{version}", "3", "{name...}", "a").Replace(path)
		refused := map[access]int{readers: 404, publishers: 403, askers: 403}[rt.access]
		for name, who := range map[string]*identity.Credentials{"nobody": nil, "an origin": b.origin, "a device": b.device} {
			resp, body, _ := b.do(b.client(who), method, base+path)
			may := rt.access == askers && who == b.device // a bad body is told to who may call
			if resp.StatusCode != refused && !may || may && resp.StatusCode != 400 {
				t.Errorf("%s as %s: status %d %s, want %d", rt.pattern, name, resp.StatusCode, body, refused)
			}
		}
	}
	for p := range want {
		t.Errorf("%s is not in the table", p)
	}
}
