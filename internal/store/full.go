package store

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// IsFull reports whether an error is for want of room: in the cache, or on any disk.
func IsFull(err error) bool {
	return errors.Is(err, ErrFull) || isFull(err) || isFullIndex(err)
}

// isFullIndex reports whether SQLite found no room.
func isFullIndex(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// explain makes an error for want of room a [FullError] too, which names the cache and the
// remedy. The system's own error tells a file at most.
func (s *Store) explain(err error, needed int64) error {
	if !IsFull(err) || errors.Is(err, ErrFull) {
		return err
	}
	free, _ := s.disk.free()
	return fmt.Errorf("%w: %w", &FullError{Dir: s.dir, Needed: needed, Free: free}, err)
}
