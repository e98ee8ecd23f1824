//go:build !linux

package peer

// sendfile is for Linux; elsewhere runs are read and written.
func (c *Conn) sendfile(send) (write blockWriter, release func(), ok bool) { return nil, nil, false }
