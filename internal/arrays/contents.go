package arrays

import (
	"context"
	"errors"
	"sync"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
)

// Bounds of the memory of contents.
const (
	contentAge  = 2 * time.Second
	maxContents = 10_000
	maxNames    = api.MaxURL + 128 // bytes of id and URL; what is longer is not remembered
)

// contents remembers for a moment what the catalog said, so that a join costs no look-up there.
type contents struct {
	in catalog.Finder

	mu sync.Mutex // guards the following
	by map[catalog.Asked]found
}

// found is an answer of the catalog.
type found struct {
	at      time.Time
	content catalog.Content
	err     error // of a content that is not there
}

func newContents(in catalog.Finder) *contents {
	return &contents{in: in, by: map[catalog.Asked]found{}}
}

// find is catalog.Find, remembered. What the catalog could not tell is asked again.
func (c *contents) find(ctx context.Context, now time.Time, a catalog.Asked) (catalog.Content, error) {
	c.mu.Lock()
	known, ok := c.by[a]
	c.mu.Unlock()
	if ok && now.Sub(known.at) < contentAge {
		return known.content, known.err
	}
	f := found{at: now}
	f.content, f.err = catalog.Find(ctx, c.in, a)
	if f.err != nil && !errors.Is(f.err, catalog.ErrNotFound) || len(a.ID)+len(a.URL) > maxNames {
		return f.content, f.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.by) >= maxContents {
		clear(c.by)
	}
	c.by[a] = f
	return f.content, f.err
}
