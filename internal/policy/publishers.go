package policy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"freshet/internal/content"
)

// Limits of the publisherKeys setting.
const (
	maxPublisherKeys = 256
	maxPublisherText = 64 << 10 // bytes
	minisignKeySize  = 42       // bytes: "Ed", 8 of key id, 32 of key
)

// PublisherKey pins a publisher's key for the contents whose id fits a pattern: only what one
// of the keys for its id signed is theirs.
type PublisherKey struct {
	Pattern string // a content id, or its beginning and *
	Key     string // minisign's public key, base64
}

// Covers reports whether the key is pinned for id.
func (k PublisherKey) Covers(id content.ID) bool {
	if prefix, open := strings.CutSuffix(k.Pattern, "*"); open {
		return strings.HasPrefix(string(id), prefix)
	}
	return string(id) == k.Pattern
}

// ParsePublisherKeys reads "PATTERN=KEY", several parted by commas or blanks. A pattern is a
// content id, the beginning of one and *, or * alone.
func ParsePublisherKeys(text string) ([]PublisherKey, error) {
	if len(text) > maxPublisherText {
		return nil, fmt.Errorf("must have at most %d bytes", maxPublisherText)
	}
	var keys []PublisherKey
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		k, err := parsePublisherKey(field)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) > maxPublisherKeys {
		return nil, fmt.Errorf("must be at most %d keys", maxPublisherKeys)
	}
	return keys, nil
}

// parsePublisherKey splits at the last =, since ids may hold some; a key's 42 bytes need none
// as padding.
func parsePublisherKey(field string) (PublisherKey, error) {
	at := strings.LastIndexByte(field, '=')
	if at < 0 {
		return PublisherKey{}, fmt.Errorf("must be PATTERN=KEY, not %q", field)
	}
	k := PublisherKey{Pattern: field[:at], Key: field[at+1:]}
	if prefix, open := strings.CutSuffix(k.Pattern, "*"); !open || prefix != "" {
		if _, err := content.ParseID(prefix); err != nil {
			return PublisherKey{}, fmt.Errorf("must begin with a content id, or the beginning of one and *: %w", err)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(k.Key)
	if err == nil && (len(raw) != minisignKeySize || string(raw[:2]) != "Ed") {
		err = errors.New("it is of another form")
	}
	if err != nil {
		return PublisherKey{}, fmt.Errorf("must name a minisign public key, the second line of minisign.pub, for %q: %w", k.Pattern, err)
	}
	return k, nil
}

// PublisherKeys are the publishers' keys that are pinned.
func (s Settings) PublisherKeys() []PublisherKey {
	keys, err := ParsePublisherKeys(s.value(publisherKeys).text)
	if err != nil {
		panic("policy: checked keys do not parse: " + err.Error())
	}
	return keys
}

// RequireSignature says whether every manifest needs a pinned publisher's signature, and not
// only those of the contents that a key is pinned for.
func (s Settings) RequireSignature() bool { return s.bool(requireSignature) }
