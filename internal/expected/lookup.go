package expected

import (
	"cmp"
	"errors"
	"fmt"

	"freshet/internal/content"
)

// ErrNone is the lookup of a content that the provider says nothing of.
var ErrNone = errors.New("expected: no metadata for this content")

// source is one text that a provider read: a file, a row.
type source struct {
	name string // for errors
	text
	err error // why not all of it is known
}

// lookup finds ref in sources. Two that say different things of it are an error, since nobody
// could tell which is right. What is found nowhere may stand in a source that cannot be read, or
// say something wrong there: that is an error too, not ErrNone.
func lookup(sources []source, ref content.Ref) (Content, error) {
	var found *Content
	var where string
	var broken error
	for i := range sources {
		s := &sources[i]
		if err := cmp.Or(s.bad[ref], s.err); err != nil && broken == nil {
			broken = fmt.Errorf("expected: look up %s: %s: %w", ref, s.name, err)
		}
		for j := range s.contents {
			c := &s.contents[j]
			if c.Ref != ref {
				continue
			}
			if found != nil && !same(found, c) {
				return Content{}, fmt.Errorf("expected: look up %s: %s and %s say different things of it; keep one of them", ref, where, s.name)
			}
			found, where = c, s.name
		}
	}
	switch {
	case found != nil:
		return *found, nil
	case broken != nil:
		return Content{}, broken
	}
	return Content{}, ErrNone
}

// same reports whether a and b expect the same files.
func same(a, b *Content) bool {
	x, err := a.MetadataHash()
	if err != nil {
		return false
	}
	y, err := b.MetadataHash()
	return err == nil && x == y
}
