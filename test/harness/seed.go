package harness

import (
	"math/rand/v2"

	"go.uber.org/goleak"
)

// Seed is the one asked for, or where that is 0 a new one that can be read aloud.
func Seed(asked uint64) uint64 {
	if asked != 0 {
		return asked
	}
	return 1 + rand.Uint64N(1_000_000) //nolint:gosec // no secret
}

// SaramaMetrics is a goroutine that stays for good wherever sarama's client was
// used: that of go-metrics, with which it counts.
func SaramaMetrics() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick")
}
