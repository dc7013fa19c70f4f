package integration

import (
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// TestKillingTheRelayLosesNothing ends the relay with SIGKILL at random points
// under load, in the middle of opening as well as of streaming, and starts it
// again at once.
func TestKillingTheRelayLosesNothing(t *testing.T) {
	for _, test := range []struct {
		name    string
		release harness.Release
		kills   int
	}{
		{"newest", harness.Newest, 20},
		{"oldest", harness.Oldest, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			chance := random(t)
			p := prepared(t, harness.Postgres(t, test.release))
			load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 400, Seed: chance.Uint64()})
			for kill := range test.kills {
				relay := p.launch()
				if kill%4 > 0 { // every fourth may die before it streams
					relay.WaitReady(patience)
				}
				lasting(t, relay, time.Duration(chance.Int64N(int64(1500*time.Millisecond))))
				relay.Kill()
			}
			p.launch()
			report := p.finish(load)
			figure(t, "%d kills, %d events, %d missing, %d came twice", test.kills, report.Committed, len(report.Missing), report.Duplicates)
		})
	}
}
