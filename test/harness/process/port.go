package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below the range that kernels give to outgoing
// connections: a server that restarts must find its port free again.
const (
	firstPort = 20000
	lastPort  = 29999
)

// FreePort returns a loopback TCP port that nobody listens on at the moment.
// Somebody may take it before its use: try again with another then.
func FreePort() (int, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1) //nolint:gosec // no secret
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("find a free port: 100 tries between %d and %d failed", firstPort, lastPort)
}
