//go:build !linux

package replication

import "net"

// hungUp can't be told here without reading. The next write will tell.
func hungUp(net.Conn) bool { return false }
