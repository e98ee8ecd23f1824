package policy

import (
	"encoding/json"
	"errors"
	"freshet/internal/content"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func resolve(t *testing.T, layers ...Layer) Settings {
	t.Helper()
	s, err := Resolve(layers...)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	return s
}

// layer makes a layer of pairs of name and value.
func layer(p Provider, pairs ...string) Layer {
	l := Layer{Provider: p}
	for i := 0; i < len(pairs); i += 2 {
		l.Entries = append(l.Entries, Entry{Name: pairs[i], Value: pairs[i+1]})
	}
	return l
}

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for k, s := range table {
		if s.Name == "" || seen[s.Name] {
			t.Errorf("setting %d has the name %q, empty or used twice", k, s.Name)
		}
		seen[s.Name] = true
		if s.Help == "" || !strings.HasSuffix(s.Help, ".") {
			t.Errorf("%s: help %q is not a sentence", s.Name, s.Help)
		}
		if len(s.Scopes) == 0 {
			t.Errorf("%s may come from nowhere", s.Name)
		}
		for _, v := range []int64{s.Default, s.DODefault} {
			if v == Unset {
				continue
			}
			got, err := s.parse(s.Text(v))
			if err != nil || got != v {
				t.Errorf("%s: default %d reads back as %d, %v", s.Name, v, got, err)
			}
		}
	}
}

// The design's defaults, which are ours so that a new fleet peers at once.
func TestZeroSettingsAreTheDefaults(t *testing.T) {
	var s Settings
	got := []any{s.DownloadMode(), s.MinFileSizeToCache(), s.MinRAMAllowedToPeer(), s.MinDiskSizeAllowedToPeer(),
		s.MaxCacheAge(), s.PieceBuffers(), s.WholeFileCheck(), s.PlainSwarm(), s.JoinInterval(), s.MaxPeers(), s.UploadSlots()}
	want := []any{SameSite, int64(0), int64(1e9), int64(8e9), 30 * 24 * time.Hour, 24, true, false, 10 * time.Second, 40, 4}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults are %v, want %v", got, want)
	}
	for _, v := range s.View() {
		if v.Provider != Default {
			t.Errorf("%s comes from %s, want default", v.Name, v.Provider)
		}
	}
}

func TestProfileDO(t *testing.T) {
	l, err := Profile("do")
	if err != nil {
		t.Fatal(err)
	}
	s := resolve(t, l)
	got := []any{s.MinFileSizeToCache(), s.MinRAMAllowedToPeer(), s.MinDiskSizeAllowedToPeer(), s.MaxCacheAge(), s.PieceBuffers()}
	want := []any{int64(50e6), int64(4e9), int64(32e9), 72 * time.Hour, 24}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("profile do gives %v, want %v", got, want)
	}
	s = resolve(t, l, layer(File, "DOMinFileSizeToCache", "7"))
	if s.MinFileSizeToCache() != 7e6 {
		t.Errorf("a file's value gives way to the profile: %d", s.MinFileSizeToCache())
	}
	if _, err := Profile("sccm"); err == nil || err.Error() != `policy: unknown profile "sccm": must be freshet or do` {
		t.Errorf("Profile(sccm): %v", err)
	}
}

func TestLaterLayerWins(t *testing.T) {
	s := resolve(t,
		layer(File, "maxPeers", "5", "uploadSlots", "6", "DODownloadMode", "0"),
		layer(Env, "maxPeers", "7", "uploadSlots", "8"),
		layer(Flag, "maxPeers", "9", "maxPeers", "10"),
		layer(Fleet, "DODownloadMode", "2", "settingOfANewerFleet", "x"))
	if s.MaxPeers() != 10 || s.UploadSlots() != 8 || s.DownloadMode() != WholeGroup {
		t.Errorf("got %d, %d, %d, want 10, 8, 2", s.MaxPeers(), s.UploadSlots(), s.DownloadMode())
	}
	providers := map[string]Provider{}
	for _, v := range s.View() {
		providers[v.Name] = v.Provider
	}
	for name, want := range map[string]Provider{"maxPeers": Flag, "uploadSlots": Env, "DODownloadMode": Fleet, "pieceBuffers": Default} {
		if providers[name] != want {
			t.Errorf("%s comes from %q, want %q", name, providers[name], want)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		provider Provider
		entry    Entry
		want     string
	}{
		{File, Entry{"DOMaxCacheAge", "-3", "agent.toml:7"}, "agent.toml:7: DOMaxCacheAge = -3: must be 0 to 4294967295 seconds"},
		{Fleet, Entry{"DOMaxCacheAge", "4294967296", ""}, "fleet: DOMaxCacheAge = 4294967296: must be 0 to 4294967295 seconds"},
		{Env, Entry{"DOMaxCacheSize", "0", "FRESHET_DO_MAX_CACHE_SIZE"}, "FRESHET_DO_MAX_CACHE_SIZE: DOMaxCacheSize = 0: must be 1 to 100 percent"},
		{Flag, Entry{"pieceBuffers", "24MiB", ""}, `flag: pieceBuffers = "24MiB": must be 4 to 4096 MiB`},
		{Flag, Entry{"pieceBuffers", "", ""}, `flag: pieceBuffers = "": must be 4 to 4096 MiB`},
		{Flag, Entry{"uploadSlots", "99999999999999999999", ""}, `flag: uploadSlots = "99999999999999999999": must be 1 to 1024 pieces`},
		{Flag, Entry{"wholeFileCheck", "yes", ""}, `flag: wholeFileCheck = "yes": must be true or false`},
		{Flag, Entry{"DODownloadMode", "4", ""}, "flag: DODownloadMode = 4: must be 0, 1, 2, 3 or 99"},
		{Flag, Entry{"DODownloadMode", "100", ""}, "flag: DODownloadMode = 100: must be 0, 1, 2, 3 or 99; 100 (bypass) hands the download to BITS, which freshet does not use: take 0 for HTTP without peers or 99 for simple mode"},
		{File, Entry{"DOMaxCachAge", "3", "agent.toml:1"}, "agent.toml:1: DOMaxCachAge = 3: unknown setting; did you mean DOMaxCacheAge?"},
		{File, Entry{"colour", "red", "agent.toml:1"}, `agent.toml:1: colour = "red": unknown setting; freshet config lists all`},
		{Fleet, Entry{"plainSwarm", "true", ""}, `fleet: plainSwarm = "true": cannot come from fleet, only from file, env or flag`},
		{Content, Entry{"maxPeers", "3", ""}, `content: maxPeers = 3: cannot come from content, only from file, env, flag, fleet, site, group or device`},
	}
	for _, tt := range tests {
		_, err := Resolve(Layer{tt.provider, []Entry{tt.entry}})
		if err == nil || err.Error() != tt.want {
			t.Errorf("Resolve:\n got %v\nwant %s", err, tt.want)
		}
		var e *Error
		if !errors.As(err, &e) || e.Name != tt.entry.Name {
			t.Errorf("%v is not an *Error of %s", err, tt.entry.Name)
		}
	}
}

func TestEveryWrongValueIsReported(t *testing.T) {
	_, err := Resolve(layer(File, "maxPeers", "0"), layer(Flag, "uploadSlots", "0", "pieceBuffers", "8"))
	want := "file: maxPeers = 0: must be 1 to 1024 connections\nflag: uploadSlots = 0: must be 1 to 1024 pieces"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(Fleet, "maxPeers", "3"); err != nil {
		t.Errorf("a good value: %v", err)
	}
	want := "fleet: maxPers = 3: unknown setting; did you mean maxPeers?"
	if err := Check(Fleet, "maxPers", "3"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"domaxcacheage":             "DOMaxCacheAge",
		"DO_MAX_CACHE_AGE":          "DOMaxCacheAge",
		"DOMaxCacheSise":            "DOMaxCacheSize",
		"uploadSlot":                "uploadSlots",
		"DODelayDownloadFromHttp":   "",
		"state":                     "",
		"":                          "",
		"DOMinRAMAllowedToPeers":    "DOMinRAMAllowedToPeer",
		"DOAbsoluteMaxCacheSizeInG": "DOAbsoluteMaxCacheSize",
	} {
		if got, ok := Nearest(name); got != want || ok != (want != "") {
			t.Errorf("Nearest(%q) = %q, %t, want %q", name, got, ok, want)
		}
	}
}

func TestDistanceIsAMetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ab]{0,6}`)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		ab, ba := distance(a, b), distance(b, a)
		switch {
		case ab != ba:
			t.Fatalf("distance is %d one way and %d back", ab, ba)
		case (ab == 0) != (a == b):
			t.Fatalf("distance of %q and %q is %d", a, b, ab)
		case distance(a, c) > ab+distance(b, c):
			t.Fatalf("the way over %q is shorter", b)
		case ab > max(len(a), len(b)):
			t.Fatalf("distance %d is longer than both words", ab)
		}
	})
}

// Whatever number is given, either it is refused or it is shown as it was given.
func TestNumbersComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		def := rapid.SampledFrom(Table()).Filter(func(s Setting) bool { return !s.Kind.isText() && s.Kind != Word }).Draw(t, "setting")
		v := rapid.OneOf(rapid.Int64Range(-2, 200), rapid.Int64()).Draw(t, "value")
		text := def.Text(v)
		if v == Unset {
			text = "-1"
		}
		s, err := Resolve(layer(File, def.Name, text))
		allowed := v >= def.Min && v <= def.Max
		switch def.Kind {
		case Bool:
			allowed = v != Unset
		case Enum:
			allowed = slices.Contains(def.Choices, v)
		}
		if allowed != (err == nil) {
			t.Fatalf("%s = %s: %v", def.Name, text, err)
		}
		if err != nil {
			return
		}
		k, _ := find(def.Name)
		if got := def.Text(s.number(k)); got != text {
			t.Fatalf("%s = %s reads back as %s", def.Name, text, got)
		}
	})
}

func TestViewAsJSON(t *testing.T) {
	s := resolve(t, Layer{Env, []Entry{{"DOMaxCacheAge", "60", "FRESHET_DO_MAX_CACHE_AGE"}, {"plainSwarm", "1", ""}}})
	got := map[string]string{}
	for _, v := range s.View() {
		v.Description = ""
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got[v.Name] = string(b)
	}
	for name, want := range map[string]string{
		"DOMaxCacheAge":          `{"name":"DOMaxCacheAge","value":60,"unit":"seconds","provider":"env","at":"FRESHET_DO_MAX_CACHE_AGE","default":2592000,"description":""}`,
		"plainSwarm":             `{"name":"plainSwarm","value":true,"provider":"env","default":false,"description":""}`,
		"DOAbsoluteMaxCacheSize": `{"name":"DOAbsoluteMaxCacheSize","value":null,"unit":"GB","provider":"default","default":null,"description":""}`,
	} {
		if got[name] != want {
			t.Errorf("%s is shown as\n     %s\nwant %s", name, got[name], want)
		}
	}
	if len(got) != len(table) {
		t.Errorf("%d settings shown, the table has %d", len(got), len(table))
	}
}

func TestMayPeer(t *testing.T) {
	do, err := Profile("do")
	if err != nil {
		t.Fatal(err)
	}
	good := DeviceFacts{RAM: 4e9, Disk: 32e9}
	tests := []struct {
		name   string
		layers []Layer
		device DeviceFacts
		size   int64
		want   string // the reason; "" for yes
	}{
		{"every limit is inclusive", []Layer{do}, good, 50e6, ""},
		{"one byte of file short", []Layer{do}, good, 50e6 - 1, "DOMinFileSizeToCache is 50 MB (default), the content has 49.9 MB"},
		{"RAM", []Layer{do}, DeviceFacts{3.99e9, 32e9}, 50e6, "DOMinRAMAllowedToPeer is 4 GB (default), the device has 3.9 GB"},
		{"disk", []Layer{do}, DeviceFacts{4e9, 32e9 - 1}, 50e6, "DOMinDiskSizeAllowedToPeer is 32 GB (default), the cache's disk has 31.9 GB"},
		{"small file, fleet's limit", []Layer{layer(Fleet, "DOMinFileSizeToCache", "1")}, good, 12, "DOMinFileSizeToCache is 1 MB (fleet), the content has 12 bytes"},
		{"our defaults take one byte", nil, DeviceFacts{1e9, 8e9}, 1, ""},
		{"HTTP only", []Layer{layer(File, "DODownloadMode", "0")}, good, 50e6, "DODownloadMode is 0 (file), which allows no peers"},
		{"simple", []Layer{layer(Env, "DODownloadMode", "99")}, good, 50e6, "DODownloadMode is 99 (env), which allows no peers"},
		{"group", []Layer{layer(Env, "DODownloadMode", "2")}, good, 50e6, ""},
		{"internet", []Layer{layer(Env, "DODownloadMode", "3")}, good, 50e6, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := MayPeer(resolve(t, tt.layers...), tt.device, tt.size)
			if want := (Decision{tt.want == "", tt.want}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestModeReaches(t *testing.T) {
	for mode, want := range map[Mode][2]bool{
		HTTPOnly: {false, false}, SameSite: {true, false}, WholeGroup: {true, true}, AcrossNAT: {true, true}, Simple: {false, false},
	} {
		if got := [2]bool{mode.Reaches(true), mode.Reaches(false)}; got != want {
			t.Errorf("mode %d reaches the same site, another: %v, want %v", mode, got, want)
		}
	}
}

func TestCacheLimit(t *testing.T) {
	const hugest = math.MaxInt64
	for _, tt := range []struct {
		pairs      []string
		free, used int64
		want       int64
	}{
		{nil, 80e9, 20e9, 20e9},
		{[]string{"DOMaxCacheSize", "50"}, 80e9, 20e9, 50e9},
		{[]string{"DOMaxCacheSize", "100"}, hugest, 0, hugest / 100 * 100},
		{[]string{"DOAbsoluteMaxCacheSize", "3"}, 80e9, 20e9, 3e9},
		{[]string{"DOAbsoluteMaxCacheSize", "0"}, 80e9, 20e9, hugest},
		{[]string{"DOAbsoluteMaxCacheSize", "4294967295"}, 80e9, 20e9, 4294967295e9},
	} {
		if got := CacheLimit(resolve(t, layer(File, tt.pairs...)), tt.free, tt.used); got != tt.want {
			t.Errorf("%v with %d free and %d used: %d, want %d", tt.pairs, tt.free, tt.used, got, tt.want)
		}
	}
}

func TestHTTPDelay(t *testing.T) {
	s := resolve(t, layer(File, "DODelayForegroundDownloadFromHttp", "30", "DODelayBackgroundDownloadFromHttp", "4294967295"))
	for _, tt := range []struct {
		foreground, mayPeer bool
		want                time.Duration
	}{
		{true, true, 30 * time.Second},
		{false, true, 4294967295 * time.Second},
		{true, false, 0},
		{false, false, 0},
	} {
		if got := HTTPDelay(s, tt.foreground, tt.mayPeer); got != tt.want {
			t.Errorf("foreground %t, mayPeer %t: %v, want %v", tt.foreground, tt.mayPeer, got, tt.want)
		}
	}
}

func TestPublisherKeys(t *testing.T) {
	const a, b = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", "RWQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	keys, err := ParsePublisherKeys("tools=" + a + ", x=y*=" + b + "\n*=" + b)
	want := []PublisherKey{{"tools", a}, {"x=y*", b}, {"*", b}}
	if err != nil || !slices.Equal(keys, want) {
		t.Fatalf("got %v, %v; want %v", keys, err, want)
	}
	for id, fits := range map[content.ID][]bool{"tools": {true, false, true}, "tools2": {false, false, true}, "x=y": {false, true, true}, "x=yz": {false, true, true}} {
		for i, want := range fits {
			if got := keys[i].Covers(id); got != want {
				t.Errorf("%s covers %s: %v, want %v", keys[i].Pattern, id, got, want)
			}
		}
	}
	for _, bad := range []string{"tools", "tools=", "=" + a, "../x=" + a, "to*ls=" + a, "tools=" + a[1:], "tools=AAAA" + a[4:], strings.Repeat("a="+a+" ", 257), strings.Repeat("a", 65<<10)} {
		if got, err := ParsePublisherKeys(bad); err == nil {
			t.Errorf("%.60q was read as %v", bad, got)
		}
	}
}

// TestOwnTrustStands: what a device was told on itself to require, no service takes back.
func TestOwnTrustStands(t *testing.T) {
	const key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
	fleet := Layer{Provider: Fleet, Entries: []Entry{{Name: "publisherKeys", Value: "*=" + key}, {Name: "requireSignature", Value: "false"}}}
	own := Layer{Provider: File, Entries: []Entry{{Name: "publisherKeys", Value: "tools=" + key}, {Name: "requireSignature", Value: "true"}}}
	s, err := Resolve(own, fleet)
	if err != nil || !s.RequireSignature() || len(s.PublisherKeys()) != 1 || s.PublisherKeys()[0].Pattern != "tools" {
		t.Errorf("got %v, %v, %v", s.RequireSignature(), s.PublisherKeys(), err)
	}
	s, err = Resolve(fleet)
	if err != nil || s.RequireSignature() || len(s.PublisherKeys()) != 1 || s.PublisherKeys()[0].Pattern != "*" {
		t.Errorf("of the fleet alone: %v, %v, %v", s.RequireSignature(), s.PublisherKeys(), err)
	}
	for _, shown := range (Settings{}).View() {
		if shown.Name == "publisherKeys" && shown.Value != nil {
			t.Errorf("no keys are shown as %v", shown.Value)
		}
	}
}

func TestMetadataSettings(t *testing.T) {
	var s Settings
	if s.MetadataValidation() != "enforce" || s.MetadataMatch() != "exact" || s.MetadataDirectory() != "" {
		t.Errorf("defaults %q, %q, %q", s.MetadataValidation(), s.MetadataMatch(), s.MetadataDirectory())
	}
	dir := t.TempDir()
	s = resolve(t, layer(File, "metadataValidation", "report", "metadataDirectory", dir), layer(Fleet, "metadataValidation", "off", "metadataMatch", "subset"))
	if s.MetadataValidation() != "report" || s.MetadataMatch() != "subset" || s.MetadataDirectory() != dir {
		t.Errorf("got %q, %q, %q; the device's own word is report, the fleet's subset", s.MetadataValidation(), s.MetadataMatch(), s.MetadataDirectory())
	}
	for _, wrong := range []Layer{
		layer(File, "metadataValidation", "0"), layer(File, "metadataMatch", ""), layer(File, "metadataDirectory", "metadata"), layer(Fleet, "metadataDirectory", dir),
	} {
		if _, err := Resolve(wrong); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	for _, v := range s.View() {
		want := map[string]any{"metadataValidation": "report", "metadataMatch": "subset", "metadataDirectory": dir}[v.Name]
		if want != nil && v.Value != want {
			t.Errorf("%s is shown as %v, want %v", v.Name, v.Value, want)
		}
	}
}

func TestDeviceStates(t *testing.T) {
	for value, want := range map[string][2]bool{"": {false, true}, "auto": {false, true}, "yes": {true, true}, "no": {false, false}} {
		var s Settings
		if value != "" {
			s = resolve(t, layer(File, "onBattery", value, "metered", value))
		}
		for i, found := range []bool{false, true} {
			if b, m := s.OnBattery().Or(found), s.Metered().Or(found); b != want[i] || m != want[i] {
				t.Errorf("%q, found %v: on battery %v, metered %v; want %v", value, found, b, m, want[i])
			}
		}
	}
	if _, err := Resolve(layer(Fleet, "onBattery", "yes")); err == nil {
		t.Error("the fleet says whether a device runs on its battery")
	}
}
