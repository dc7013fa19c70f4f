// Package integration tells what walpost promises as stories on a real
// Postgres, the oldest and the newest supported one, and a real Kafka: the
// production binary runs as a process of its own, and what is judged is what a
// consumer finds and where the slot stands.
package integration

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/test/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m,
		harness.SaramaMetrics(),
		// sarama's circuit breaker sleeps for 10 s after a failure.
		goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"),
	)
}
