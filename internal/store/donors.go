package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"

	"freshet/internal/content"
	"freshet/internal/store/index"
)

const (
	maxDonors  = 256      // entries that pieces are taken from
	openDonors = maxIdle  // of these at a time: the pieces of one run may lie in so many
	maxRanked  = 1024     // entries with pieces that are lacking that are looked at closely
	maxKeys    = 16 << 20 // pieces of the index that are looked at: the latest entries', half a second
	minLacking = 64 << 10 // bytes; less is fetched sooner than it is found
)

// candidate is an entry with pieces that another one lacks.
type candidate struct {
	digest content.Digest
	bytes  int64 // of these pieces
}

// donors returns the entries to take from what e lacks, the one with the most of it first. Of
// complete ones each has something that those before it have not.
func (s *Store) donors(ctx context.Context, e *Entry, group string) ([]content.Digest, error) {
	if e.layout.Size()-e.HeldBytes() <= minLacking {
		return nil, nil
	}
	lacking := e.lacking()
	ranked, err := s.rank(ctx, e, lacking)
	if err != nil {
		return nil, err
	}
	var out []content.Digest
	for _, c := range ranked {
		h, err := s.idx.Holder(ctx, c.digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(h.Groups, group) || !hasAny(lacking, h.Keys) {
			continue
		}
		if out = append(out, c.digest); len(out) == maxDonors {
			break
		}
		if h.Complete {
			for key := range index.Keys(h.Keys) {
				delete(lacking, key)
			}
		}
	}
	return out, nil
}

// rank returns the entries with pieces that e lacks, the one with the most bytes of them first.
func (s *Store) rank(ctx context.Context, e *Entry, lacking map[index.Key]int) ([]candidate, error) {
	var all []candidate
	left := maxKeys
	err := s.idx.EachPieces(ctx, func(d content.Digest, keys []byte) bool {
		c := candidate{digest: d}
		for key := range index.Keys(keys) {
			c.bytes += int64(lacking[key])
		}
		if c.bytes > 0 && d != e.digest {
			all = append(all, c)
		}
		left -= len(keys) / index.KeySize
		return left > 0
	})
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.bytes, a.bytes) })
	return all[:min(len(all), maxRanked)], err
}

// hasAny reports whether some of the keys are of pieces that are lacking.
func hasAny(lacking map[index.Key]int, keys []byte) bool {
	for key := range index.Keys(keys) {
		if _, ok := lacking[key]; ok {
			return true
		}
	}
	return false
}
