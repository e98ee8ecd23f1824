//go:build !linux

package peer

// sendfile is for Linux; elsewhere runs are read and written.
func (c *Conn) sendfile(send, []block) (error, bool) { return nil, false }
