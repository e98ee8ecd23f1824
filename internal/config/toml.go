package config

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"freshet/internal/policy"
)

// parseTOML reads the keys of a file with the lines that they stand on. It does not judge names
// and values; path is for errors alone.
func parseTOML(path string, data []byte) ([]policy.Entry, error) {
	values := map[string]any{}
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, syntaxError(path, err)
	}
	// Strict mode tells line and name of each key that the target has no field for. A target
	// without fields makes it tell those of all keys.
	decoder := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	err := decoder.Decode(&struct{}{})
	var all *toml.StrictMissingError
	if err != nil && !errors.As(err, &all) {
		return nil, syntaxError(path, err)
	}
	if all == nil {
		return nil, nil
	}
	entries := make([]policy.Entry, 0, len(all.Errors))
	for i := range all.Errors {
		key := all.Errors[i].Key()
		line, _ := all.Errors[i].Position()
		entries = append(entries, policy.Entry{
			Name:  strings.Join(key, "."),
			Value: text(lookup(values, key)),
			At:    fmt.Sprintf("%s:%d", path, line),
		})
	}
	return entries, nil
}

func syntaxError(path string, err error) error {
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Errorf("%s:%d: column %d: %w", path, line, column, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// lookup follows key into tables; nil for what is not there.
func lookup(values map[string]any, key toml.Key) any {
	var v any = values
	for _, part := range key {
		table, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = table[part]
	}
	return v
}

// text writes a value as policy reads it. What no setting takes is only named.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if v == math.Trunc(v) {
			return fmt.Sprintf("%.1f", v) // never looks like a whole number
		}
	case []any:
		return "[…]"
	case map[string]any:
		return "{…}"
	}
	return fmt.Sprint(v)
}
