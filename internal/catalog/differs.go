package catalog

import (
	"context"
	"time"

	"freshet/internal/content"
	"freshet/internal/wire"
)

// Difference is a device's word that the current manifest is not what its management system
// expects (outcome expected-differs).
type Difference struct {
	Ref          content.Ref
	Device       wire.DeviceID
	Manifest     content.Digest // that does not fit
	MetadataHash content.Digest // of what is expected; zero where no hash says it
	Summary      string         // for people
	At           time.Time
}

// Differences keeps what devices expect that a manifest is not. They go with the manifest: a
// re-issue or recall forgets them.
type Differences interface {
	// AddDifference keeps a device's last word. ErrChanged when the manifest is not the current one.
	AddDifference(ctx context.Context, d Difference) error
	// Differences returns those of one version, the newest first, then by device.
	Differences(ctx context.Context, ref content.Ref) ([]Difference, error)
}
