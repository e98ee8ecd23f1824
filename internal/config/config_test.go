package config

import (
	"bytes"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"freshet/internal/policy"
)

// inDir makes the test's folder the current one, with these bytes as agent.toml.
func inDir(t *testing.T, toml string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("agent.toml", []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLayers(t *testing.T) {
	inDir(t, "# cache\nDOMaxCacheAge = 60\nuploadSlots = \"3\"\nmaxPeers = 4\nwholeFileCheck = false\n")
	layers, err := Load(Options{
		Profile: "do",
		File:    "agent.toml",
		Environ: []string{"HOME=/", "FRESHET_UPLOAD_SLOTS=5", "FRESHET_MAX_PEERS=6", "FRESHET_STATE=x"},
		Flags:   map[string]string{"maxPeers": "7", "joinInterval": "8"},
	})
	if err != nil {
		t.Fatal(err)
	}
	fleet := policy.Layer{Provider: policy.Fleet, Entries: []policy.Entry{{Name: "joinInterval", Value: "9"}}}
	s, err := policy.Resolve(append(layers, fleet)...)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		value    any
		provider policy.Provider
		at       string
	}
	got := map[string]row{}
	for _, v := range s.View() {
		got[v.Name] = row{v.Value, v.Provider, v.At}
	}
	for name, want := range map[string]row{
		"DOMinFileSizeToCache": {int64(50), policy.Default, "profile do"},
		"DOMaxCacheAge":        {int64(60), policy.File, "agent.toml:2"},
		"wholeFileCheck":       {false, policy.File, "agent.toml:5"},
		"uploadSlots":          {int64(5), policy.Env, "FRESHET_UPLOAD_SLOTS"},
		"maxPeers":             {int64(7), policy.Flag, ""},
		"joinInterval":         {int64(9), policy.Fleet, ""},
		"pieceBuffers":         {int64(24), policy.Default, ""},
	} {
		if got[name] != want {
			t.Errorf("%s is %+v, want %+v", name, got[name], want)
		}
	}
}

func TestNothing(t *testing.T) {
	layers, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.Resolve(layers...)
	if err != nil || !reflect.DeepEqual(s, policy.Settings{}) {
		t.Errorf("no source gives %+v, %v", s, err)
	}
}

func TestErrors(t *testing.T) {
	tests := map[string]struct {
		toml    string
		options Options
		want    string
	}{
		"range":              {"\n\n\n\n\n\nDOMaxCacheAge = -3", Options{}, "agent.toml:7: DOMaxCacheAge = -3: must be 0 to 4294967295 seconds"},
		"type":               {`DOMaxCacheAge = "a week"`, Options{}, `agent.toml:1: DOMaxCacheAge = "a week": must be 0 to 4294967295 seconds`},
		"float":              {`maxPeers = 3.0`, Options{}, `agent.toml:1: maxPeers = "3.0": must be 1 to 1024 connections`},
		"list":               {`maxPeers = [1, 2]`, Options{}, `agent.toml:1: maxPeers = "[…]": must be 1 to 1024 connections`},
		"date":               {`maxPeers = 2026-01-02`, Options{}, `agent.toml:1: maxPeers = "2026-01-02": must be 1 to 1024 connections`},
		"bool for a number":  {`maxPeers = true`, Options{}, `agent.toml:1: maxPeers = "true": must be 1 to 1024 connections`},
		"refused mode":       {`DODownloadMode = 100`, Options{}, "agent.toml:1: DODownloadMode = 100: must be 0, 1, 2, 3 or 99; 100 (bypass) hands the download to BITS, which freshet does not use: take 0 for HTTP without peers or 99 for simple mode"},
		"unknown, near":      {"maxPeers = 3\nmaxPers = 4", Options{}, "agent.toml:2: maxPers = 4: unknown setting; did you mean maxPeers?"},
		"letter case counts": {"MaxPeers = 3", Options{}, "agent.toml:1: MaxPeers = 3: unknown setting; did you mean maxPeers?"},
		"unknown":            {`colour = "red"`, Options{}, `agent.toml:1: colour = "red": unknown setting; freshet config lists all`},
		"table":              {"[cache]\nage = 3", Options{}, `agent.toml:1: cache = "{…}": unknown setting; freshet config lists all`},
		"dotted":             {"cache.age = 3", Options{}, `agent.toml:1: cache.age = 3: unknown setting; freshet config lists all`},
		"syntax":             {"maxPeers = 3\nuploadSlots", Options{}, "agent.toml:2: column 11: toml: "},
		"key twice":          {"maxPeers = 3\nmaxPeers = 4", Options{}, "agent.toml:2: column 1: toml: "},
		"no file":            {"", Options{File: "absent.toml"}, "config: open absent.toml: no such file or directory"},
		"huge file":          {strings.Repeat("#", maxFile+1), Options{}, "config: read agent.toml: larger than 1048576 bytes, which no settings file is"},
		"env":                {"", Options{Environ: []string{"FRESHET_MAX_PEERS=0"}}, "FRESHET_MAX_PEERS: maxPeers = 0: must be 1 to 1024 connections"},
		"env, near":          {"", Options{Environ: []string{"FRESHET_DO_MAX_CACHEAGE=3"}}, "FRESHET_DO_MAX_CACHEAGE: unknown setting; did you mean FRESHET_DO_MAX_CACHE_AGE (DOMaxCacheAge)?"},
		"env, DO":            {"", Options{Environ: []string{"FRESHET_DO_WINDOW=3"}}, "FRESHET_DO_WINDOW: unknown setting; freshet config lists all"},
		"flag":               {"", Options{Flags: map[string]string{"maxPeers": "x"}}, `flag: maxPeers = "x": must be 1 to 1024 connections`},
		"profile":            {"", Options{Profile: "d"}, `policy: unknown profile "d": must be freshet or do`},
		"all at once": {"maxPeers = 0", Options{Environ: []string{"FRESHET_DO_X=1", "FRESHET_MAX_PEERS="}, Flags: map[string]string{"d": "1", "c": "1", "b": "1", "a": "1"}},
			"FRESHET_DO_X: unknown setting; freshet config lists all\n" +
				"agent.toml:1: maxPeers = 0: must be 1 to 1024 connections\n" +
				"FRESHET_MAX_PEERS: maxPeers = \"\": must be 1 to 1024 connections\n" +
				"flag: a = 1: unknown setting; freshet config lists all\n" +
				"flag: b = 1: unknown setting; freshet config lists all\n" +
				"flag: c = 1: unknown setting; freshet config lists all\n" +
				"flag: d = 1: unknown setting; freshet config lists all"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inDir(t, tt.toml)
			if tt.options.File == "" {
				tt.options.File = "agent.toml"
			}
			layers, err := Load(tt.options)
			if err == nil {
				t.Fatalf("no error, want %s", tt.want)
			}
			got := err.Error()
			if strings.HasSuffix(tt.want, ": toml: ") { // the rest are the parser's words
				got = got[:min(len(tt.want), len(got))]
			}
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if layers != nil {
				t.Errorf("layers come with the error: %v", layers)
			}
		})
	}
}

func TestEnvName(t *testing.T) {
	for setting, want := range map[string]string{
		"DOMaxCacheAge":                     "FRESHET_DO_MAX_CACHE_AGE",
		"DOMinRAMAllowedToPeer":             "FRESHET_DO_MIN_RAM_ALLOWED_TO_PEER",
		"DODelayForegroundDownloadFromHttp": "FRESHET_DO_DELAY_FOREGROUND_DOWNLOAD_FROM_HTTP",
		"DOMinBackgroundQoS":                "FRESHET_DO_MIN_BACKGROUND_QO_S",
		"DODownloadMode":                    "FRESHET_DO_DOWNLOAD_MODE",
		"uploadSlots":                       "FRESHET_UPLOAD_SLOTS",
	} {
		if got := EnvName(setting); got != want {
			t.Errorf("EnvName(%q) = %q, want %q", setting, got, want)
		}
	}
	seen := map[string]string{}
	for _, s := range policy.Table() {
		name := EnvName(s.Name)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s share %s", s.Name, other, name)
		}
		seen[name] = s.Name
	}
}

func FuzzParseTOML(f *testing.F) {
	f.Add([]byte("DOMaxCacheAge = 60\n# x\nuploadSlots = \"3\"\n"))
	f.Add([]byte("[a]\nb.c = [1]\n[[d]]\ne = {f = 1e3}\n"))
	f.Add([]byte("\"a.b\" = 'x'\nmaxPeers = 0x10"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTOML("f", data)
		values := map[string]any{}
		if bad := toml.Unmarshal(data, &values); (bad == nil) != (err == nil) {
			t.Fatalf("parseTOML: %v, the parser itself: %v", err, bad)
		}
		if err != nil {
			return
		}
		if (len(values) == 0) != (len(entries) == 0) {
			t.Fatalf("%d entries of a file with %d keys", len(entries), len(values))
		}
		lines := bytes.Count(data, []byte("\n")) + 1
		for _, e := range entries {
			line, err := strconv.Atoi(strings.TrimPrefix(e.At, "f:"))
			if err != nil || line < 1 || line > lines {
				t.Fatalf("%+v of a file with %d lines", e, lines)
			}
			if v, ok := values[e.Name]; ok && text(v) != e.Value {
				t.Fatalf("%+v, the file says %v", e, v)
			}
		}
		_, _ = policy.Resolve(policy.Layer{Provider: policy.File, Entries: entries})
	})
}

// TestCompatibilityFlags: Nomad's number stands for metadataValidation, unless that is set.
func TestCompatibilityFlags(t *testing.T) {
	for _, tt := range []struct {
		toml string
		env  string
		want string // "" for an error
	}{
		{"CompatibilityFlags = 1578631178", "", "enforce"},
		{"CompatibilityFlags = 504889354", "", "off"},
		{"CompatibilityFlags = 504889354\nmetadataValidation = \"report\"", "", "report"},
		{"metadataValidation = \"report\"\nCompatibilityFlags = 504889354", "", "report"},
		{"", "FRESHET_COMPATIBILITY_FLAGS=0x1E18000A", "off"},
		{"CompatibilityFlags = 504889354", "FRESHET_COMPATIBILITY_FLAGS=0x40000000", "enforce"},
		{"CompatibilityFlags = -1", "", ""},
		{"CompatibilityFlags = 4294967296", "", ""},
		{"CompatibilityFlags = true", "", ""},
	} {
		inDir(t, tt.toml)
		o := Options{File: "agent.toml"}
		if tt.env != "" {
			o.Environ = []string{tt.env}
		}
		layers, err := Load(o)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "agent.toml:1: CompatibilityFlags") {
				t.Errorf("%q: %v", tt.toml, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.toml, err)
			continue
		}
		s, err := policy.Resolve(layers...)
		if err != nil || s.MetadataValidation() != tt.want {
			t.Errorf("%q with %q: %s, %v; want %s", tt.toml, tt.env, s.MetadataValidation(), err, tt.want)
		}
	}
}
