package harness

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness/process"
)

// Name returns a name that nobody else uses: prefix, an underscore and eight
// hex digits. It can be a pipeline, a slot, a publication or a database.
func Name(prefix string) string {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return prefix + "_" + hex.EncodeToString(raw[:])
}

// FreePort returns a loopback TCP port that nobody listens on, outside the range
// of outgoing connections.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Eventually tries until it succeeds, and fails the test with the last error
// after the timeout. It returns how long it took.
func Eventually(t testing.TB, timeout time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	start := time.Now()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(start)
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, timeout, err)
		case <-tick.C:
		}
	}
}

// lastLines is the end of a log.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
