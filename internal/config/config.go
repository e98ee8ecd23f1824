// Package config reads freshet's settings from where people write them: a TOML file, the
// environment, and flags. It gives package policy one layer for each, weakest first.
//
// # File
//
// TOML, one key a setting with the setting's own name, no tables:
//
//	DOMaxCacheAge = 86400
//	wholeFileCheck = false
//
// An unknown key, a wrong value and a setting that may not come from a file are errors that
// name file, line and what is allowed. At most 1 MiB.
//
// # Environment
//
// FRESHET_ and the setting's name in upper case, with an underscore before each word: before
// an upper-case letter that follows a lower-case one, and before the last letter of a run of
// upper-case letters when a lower-case one follows it. See [EnvName]:
//
//	FRESHET_DO_MAX_CACHE_AGE=86400
//	FRESHET_DO_MIN_RAM_ALLOWED_TO_PEER=2
//	FRESHET_WHOLE_FILE_CHECK=false
//
// A variable that begins with FRESHET_DO_, or whose name is a slip away from a setting's, and is
// none is an error; other FRESHET_ variables belong to someone else and are left alone.
//
// # Other products
//
// CompatibilityFlags, Nomad's number, stands for metadataValidation in file, environment and
// flags: enforce with the bit 0x40000000, off without. The word of freshet's own setting wins.
package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"freshet/internal/policy"
)

// maxFile is the largest settings file, in bytes.
const maxFile = 1 << 20

// Options says where settings come from. The zero value reads nothing.
type Options struct {
	Profile string            // whose defaults: "freshet" (also "") or "do"
	File    string            // path of a TOML file; "" for none
	Environ []string          // NAME=VALUE, as os.Environ gives it
	Flags   map[string]string // setting names and values
}

// Load returns the layers of o, weakest first, checked: policy.Resolve takes them as they are,
// and with the layers of the services after them. Every mistake of every layer is reported.
func Load(o Options) ([]policy.Layer, error) {
	defaults, err := policy.Profile(o.Profile)
	if err != nil {
		return nil, err
	}
	file, fileErr := fileLayer(o.File)
	env, envErr := envLayer(o.Environ)
	layers := []policy.Layer{defaults, file, env, flagLayer(o.Flags)}
	var importErr error
	for i := range layers {
		var err error
		layers[i], err = imported(layers[i])
		importErr = errors.Join(importErr, err)
	}
	_, err = policy.Resolve(layers...)
	if err := errors.Join(fileErr, envErr, importErr, err); err != nil {
		return nil, err
	}
	return layers, nil
}

func fileLayer(path string) (policy.Layer, error) {
	l := policy.Layer{Provider: policy.File}
	if path == "" {
		return l, nil
	}
	data, err := readFile(path)
	if err != nil {
		return l, fmt.Errorf("config: %w", err)
	}
	l.Entries, err = parseTOML(path, data)
	return l, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("read %s: larger than %d bytes, which no settings file is", path, maxFile)
	}
	return data, err
}

// flagLayer orders flags by name, so that errors come in one order.
func flagLayer(flags map[string]string) policy.Layer {
	l := policy.Layer{Provider: policy.Flag}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		l.Entries = append(l.Entries, policy.Entry{Name: name, Value: flags[name]})
	}
	return l
}

const envPrefix = "FRESHET_"

func envLayer(environ []string) (policy.Layer, error) {
	names := map[string]string{EnvName(compatibilityFlags): compatibilityFlags}
	for _, s := range policy.Table() {
		names[EnvName(s.Name)] = s.Name
	}
	l := policy.Layer{Provider: policy.Env}
	var errs []error
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if setting, ok := names[name]; ok {
			l.Entries = append(l.Entries, policy.Entry{Name: setting, Value: value, At: name})
		} else if err := checkUnknownEnv(name); err != nil {
			errs = append(errs, err)
		}
	}
	return l, errors.Join(errs...)
}

// checkUnknownEnv reports a variable that is no setting but looks like one.
func checkUnknownEnv(name string) error {
	rest, ours := strings.CutPrefix(name, envPrefix)
	if !ours {
		return nil
	}
	if near, ok := policy.Nearest(rest); ok {
		return fmt.Errorf("%s: unknown setting; did you mean %s (%s)?", name, EnvName(near), near)
	}
	if strings.HasPrefix(rest, "DO_") {
		return fmt.Errorf("%s: unknown setting; freshet config lists all", name)
	}
	return nil
}

// EnvName returns the environment variable of a setting.
func EnvName(setting string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	r := []rune(setting)
	for i, c := range r {
		if i > 0 && unicode.IsUpper(c) && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(c))
	}
	return b.String()
}
