//go:build !linux

package fetch

import "net"

func isBound(net.Conn) bool { return false }
