package blob

import (
	"context"
	"io/fs"
	"time"
)

// Stamp is what tells without reading that a file is as it was: where one of these differs,
// the file is taken to have changed.
type Stamp struct {
	Size  int64 `json:"size"`  // bytes
	Mtime int64 `json:"mtime"` // Unix nanoseconds
	Ctime int64 `json:"ctime"` // Unix nanoseconds; 0 where the system has none
}

// StampOf returns the stamp of a file with this information.
func StampOf(info fs.FileInfo) Stamp {
	return Stamp{Size: info.Size(), Mtime: info.ModTime().UnixNano(), Ctime: ctimeOf(info)}
}

// tick is the longest time within which two writes may leave the same mtime and ctime.
const tick = 20 * time.Millisecond

// settle waits until a write to a file with this stamp would change the stamp, so that a
// file that was written a moment ago is not mistaken later for one that never changed.
func settle(ctx context.Context, s Stamp) error {
	age := time.Since(time.Unix(0, max(s.Mtime, s.Ctime)))
	if age < 0 || age >= tick { // a time in the future is the owner's, and no tick is due
		return nil
	}
	t := time.NewTimer(tick - age)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
