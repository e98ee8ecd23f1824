//go:build !windows

package expected

import "context"

// SystemRows is [ErrNoClient].
func SystemRows(context.Context) ([]Row, error) { return nil, ErrNoClient }
