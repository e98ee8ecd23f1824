package store

import (
	"errors"
	"fmt"

	"freshet/internal/disk"
	"freshet/internal/store/index"
)

// IsFull reports whether an error is for want of room: in the cache, or on any disk.
func IsFull(err error) bool {
	return errors.Is(err, ErrFull) || disk.IsFull(err) || index.IsFull(err)
}

// explain makes an error for want of room a [FullError] too, which names the cache and the
// remedy. The system's own error tells a file at most.
func (s *Store) explain(err error, needed int64) error {
	if !IsFull(err) || errors.Is(err, ErrFull) {
		return err
	}
	free, _ := s.disk.Free()
	return fmt.Errorf("%w: %w", &FullError{Dir: s.dir, Needed: needed, Free: free}, err)
}
