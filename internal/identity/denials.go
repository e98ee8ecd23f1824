package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Denials is the deny list that a device or distribution point goes by: of those that it was given,
// the one of the highest version, over restarts too. One goroutine at a time calls its methods.
type Denials struct {
	creds   *Credentials
	path    string
	version int64
	tag     string // of the list seen last; empty: none in this run
}

// NewDenials has handshakes with c go by the list that is kept in dir, the directory of c, and by what
// [Denials.Take] is given. An error says that the list cannot be used, and nobody is denied before
// Take. The list goes when the identity is removed: its version says nothing in another fleet.
func NewDenials(c *Credentials, dir string) (*Denials, error) {
	path := filepath.Join(dir, deniedFile)
	d := &Denials{creds: c, path: path}
	signed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil && len(signed) < ed25519.SignatureSize {
		err = errShort
	}
	if err != nil {
		return d, fmt.Errorf("identity: deny list in %q: %w", path, err)
	}
	// It was verified when it was written, and no service may be there yet to name the keys.
	l, err := ParseDenyList(signed[:len(signed)-ed25519.SignatureSize])
	if err != nil {
		return d, fmt.Errorf("deny list in %q: %w", path, err)
	}
	d.use(l)
	return d, nil
}

// Tag returns the tag of the list that Take was given last.
func (d *Denials) Tag() string { return d.tag }

// Take goes by a list from now on that one of keys signed, and keeps it. A lower version than one
// taken before is an error: somebody shows an old list, or the services' catalog is an old copy. Of
// two that differ and have one version the catalog was set back between them, and the later one names
// who was revoked since: it counts.
func (d *Denials) Take(keys []ed25519.PublicKey, signed []byte, tag string) error {
	l, err := VerifyDenyList(keys, signed)
	if err != nil {
		return err
	}
	d.tag = tag // also of what is not taken: it stays so, and is told once
	if l.Version < d.version {
		return fmt.Errorf("identity: deny list of version %d is not taken, %d was there before; if the catalog was restored from an old copy, the next revocation's list is taken: revoke again then who is missing", l.Version, d.version)
	}
	d.use(l)
	return writeFile(d.path, signed)
}

func (d *Denials) use(l DenyList) {
	d.version = l.Version
	d.creds.SetDenied(l.Has)
}
