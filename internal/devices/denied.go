package devices

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync/atomic"

	"freshet/internal/catalog"
	"freshet/internal/identity"
	"freshet/internal/web"
	"freshet/internal/wire"
)

// Denied is the deny list in memory, signed. It is safe for concurrent use.
type Denied struct {
	source catalog.DenyList
	key    ed25519.PrivateKey
	list   atomic.Pointer[denyList]
}

// denyList is one state of the list. It is immutable.
type denyList struct {
	identity.DenyList
	signed []byte
	tag    string
}

// NewDenied reads the list.
func NewDenied(ctx context.Context, source catalog.DenyList, key ed25519.PrivateKey) (*Denied, error) {
	d := &Denied{source: source, key: key}
	return d, d.Reload(ctx)
}

// Reload reads the list again; call it after a device was revoked.
func (d *Denied) Reload(ctx context.Context) error {
	ids, version, err := d.source.Revoked(ctx)
	if err != nil {
		return err
	}
	l, err := identity.NewDenyList(version, ids)
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	signed := identity.SignDenyList(d.key, l)
	d.list.Store(&denyList{DenyList: l, signed: signed, tag: web.ETag(signed)})
	return nil
}

// Has reports whether a device is on the list.
func (d *Denied) Has(id wire.DeviceID) bool { return d.list.Load().Has(id) }

// Version returns the list's version.
func (d *Denied) Version() int64 { return d.list.Load().Version }
