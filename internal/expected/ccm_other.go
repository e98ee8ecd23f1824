//go:build !windows

package expected

import "context"

// SystemRows is [ErrNoClient]: the client runs on Windows alone.
func SystemRows(context.Context) ([]Row, error) { return nil, ErrNoClient }
