package origin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"syscall"

	"freshet/internal/blob"
	"freshet/internal/content"
)

// unreadable is the error of a directory that cannot be hashed as it is: a file that may not be
// read, a name that no manifest takes, a file that changes meanwhile.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// blame returns the error of a hashing as unreadable where the directory itself tells it. What the
// system says of itself is none of that, such as EIO and ESTALE of a mount, or EMFILE: another time
// the same directory may be read.
func blame(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return unreadable{err}
}

// failure is a reading that could not be done, and is not tried again before something of the
// directory has changed; where the directory is not to blame, before Watch looks at it next.
type failure struct {
	look content.Digest // see lookAt; taken before the reading, so that what changed during it counts
	all  bool           // every byte was to be read
	err  error
}

// lookAt returns a digest of all that tells without reading that a directory is as it was: names,
// modes and stamps, and what cannot be looked at.
func lookAt(dir string) content.Digest {
	h := sha256.New()
	_ = fs.WalkDir(os.DirFS(dir), ".", func(at string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if err != nil {
			fmt.Fprintf(h, "%q %v\n", at, err)
			return nil
		}
		fmt.Fprintf(h, "%q %v %v\n", at, info.Mode(), blob.StampOf(info))
		return nil
	})
	return content.Digest(h.Sum(nil))
}

// noteReading remembers a reading that failed, and forgets it when one succeeds.
func (o *Origin) noteReading(ref content.Ref, f failure) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.err == nil {
		delete(o.failed, ref)
	} else {
		o.failed[ref] = f
	}
}

// forgetPassing lets be tried again what failed for another reason than the directory.
func (o *Origin) forgetPassing() {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.failed, func(_ content.Ref, f failure) bool { return !errors.As(f.err, new(unreadable)) })
}

// failedBefore returns why the directory of ref could not be read, when it is still as it was
// then; else nil. It is no blob.ErrChanged any more. That a reading of all bytes failed does
// not say that one of what changed would.
func (o *Origin) failedBefore(ref content.Ref, all bool) error {
	o.mu.Lock()
	f, ok := o.failed[ref]
	o.mu.Unlock()
	if !ok || f.all && !all {
		return nil
	}
	if dir, _ := o.dirOf(ref); lookAt(dir) != f.look {
		return nil
	}
	err := fmt.Errorf("origin: content %s is as it was when it could not be read: %v", ref, f.err)
	if errors.As(f.err, new(unreadable)) {
		return unreadable{err}
	}
	return err
}

// changedSince reports whether a reading failed for a directory that has changed since it began.
func (o *Origin) changedSince(ref content.Ref, err error) bool {
	return errors.As(err, new(unreadable)) && o.failedBefore(ref, true) == nil
}
