package lan

import (
	"crypto/cipher"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"freshet/internal/api"
)

// maxKeys is more than the previous, current and next key of a group.
const maxKeys = 8

// KeyID names a LAN key in the open.
type KeyID [keyIDSize]byte

// Keys are the LAN keys of one group. They are immutable; the zero value has none. They say
// nothing of the secrets when they are printed or logged.
type Keys struct {
	group string
	keys  []key // by start
}

type key struct {
	id     KeyID
	starts time.Time
	aead   cipher.AEAD
}

// ParseKeys takes the LAN keys that KeyValue gave for a group. The error repeats no secret.
func ParseKeys(group string, given []api.LANKey) (Keys, error) {
	if len(given) > maxKeys {
		return Keys{}, fmt.Errorf("lan: %d keys for group %q, at most %d are allowed", len(given), group, maxKeys)
	}
	k := Keys{group: group}
	for i, g := range given {
		if len(g.ID) != keyIDSize {
			return Keys{}, fmt.Errorf("lan: key %d of group %q has an id of %d bytes, want %d", i, group, len(g.ID), keyIDSize)
		}
		aead, err := chacha20poly1305.NewX(g.Secret)
		if err != nil {
			return Keys{}, fmt.Errorf("lan: key %x of group %q has %d bytes, want %d", g.ID, group, len(g.Secret), chacha20poly1305.KeySize)
		}
		if k.find(KeyID(g.ID)) != nil {
			return Keys{}, fmt.Errorf("lan: two keys of group %q have the id %x", group, g.ID)
		}
		k.keys = append(k.keys, key{id: KeyID(g.ID), starts: time.Unix(g.Starts, 0), aead: aead})
	}
	slices.SortStableFunc(k.keys, func(a, b key) int { return a.starts.Compare(b.starts) })
	return k, nil
}

// Group returns whose keys they are.
func (k Keys) Group() string { return k.group }

// String names the group and the keys' ids.
func (k Keys) String() string {
	s := "lan keys of " + k.group + ":"
	for i := range k.keys {
		s += fmt.Sprintf(" %x", k.keys[i].id)
	}
	return s
}

// GoString is String.
func (k Keys) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// find returns the key with this id, nil for none.
func (k Keys) find(id KeyID) *key {
	for i := range k.keys {
		if k.keys[i].id == id {
			return &k.keys[i]
		}
	}
	return nil
}

// current returns the key to seal with: the last one that has started, so that a device that
// hears no service goes over to the next key by itself and then stays with it; nil for none.
func (k Keys) current(now time.Time) *key {
	for i := len(k.keys) - 1; i > 0; i-- {
		if !now.Before(k.keys[i].starts) {
			return &k.keys[i]
		}
	}
	if len(k.keys) == 0 {
		return nil
	}
	return &k.keys[0]
}
