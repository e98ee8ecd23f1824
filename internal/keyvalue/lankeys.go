package keyvalue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
)

const (
	lanKeyLife = 7 * 24 * time.Hour // a LAN key is sealed with for so long
	// lanKeyLead is how long before its first use a key is handed out. Devices ask each minute,
	// so that all have it when it begins.
	lanKeyLead = 3 * time.Minute
	lanKeySize = 32 // bytes
	maxSwaps   = 5  // attempts, when other servers change the same group's keys
)

// LANKeys hands out the groups' LAN keys, and sees to it that there are some: a new one each
// week, and one for all that is to come when a device of the group was revoked. What is kept
// alone says what is due, so any number of servers may do it, and one that was off for long
// goes on from what devices still hold.
type LANKeys struct {
	Store catalog.LANKeys
	Now   func() time.Time
}

// Of returns the previous, current and next key of a group; none for no group.
func (l *LANKeys) Of(ctx context.Context, group string) ([]api.LANKey, error) {
	if group == "" {
		return nil, nil
	}
	keys, err := l.due(ctx, group)
	if err != nil {
		return nil, err
	}
	out := make([]api.LANKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, api.LANKey{ID: k.ID[:], Secret: k.Secret, Starts: k.Starts.Unix()})
	}
	return out, nil
}

// due returns a group's keys after changing what had to be.
func (l *LANKeys) due(ctx context.Context, group string) ([]catalog.LANKey, error) {
	for range maxSwaps {
		old, revoked, err := l.Store.LANKeys(ctx, group)
		if err != nil {
			return nil, err
		}
		keys, changed := rotate(old, revoked, l.Now())
		if !changed {
			return keys, nil
		}
		if err = l.Store.SwapLANKeys(ctx, group, old, keys); err == nil {
			return keys, nil
		}
		if !errors.Is(err, catalog.ErrChanged) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("keyvalue: lan keys of group %q: changed by others %d times in a row", group, maxSwaps)
}

// rotate returns what a group's keys, sorted by start, ought to be: the previous, the current
// and the next one.
func rotate(old []catalog.LANKey, revoked int64, now time.Time) (keys []catalog.LANKey, changed bool) {
	now = now.Truncate(time.Second) // as keys are kept
	current := len(old) - 1
	for current > 0 && old[current].Starts.After(now) {
		current--
	}
	if current < 0 {
		first := newLANKey(now, revoked)
		return []catalog.LANKey{first, newLANKey(now.Add(lanKeyLife), revoked)}, true
	}
	keys = append(keys, old[max(0, current-1):]...)
	current = min(current, 1)
	changed = len(keys) != len(old)
	if last := keys[len(keys)-1]; last.Revoked != revoked {
		keys = append(keys[:current+1], newLANKey(now.Add(lanKeyLead), revoked))
		changed = true
	}
	if current == len(keys)-1 {
		starts := keys[current].Starts.Add(lanKeyLife)
		if soonest := now.Add(lanKeyLead); starts.Before(soonest) {
			starts = soonest
		}
		keys = append(keys, newLANKey(starts, revoked))
		changed = true
	}
	return keys, changed
}

func newLANKey(starts time.Time, revoked int64) catalog.LANKey {
	k := catalog.LANKey{Secret: make(api.Secret, lanKeySize), Starts: starts, Revoked: revoked}
	rand.Read(k.ID[:])  // never fails
	rand.Read(k.Secret) // never fails
	return k
}
