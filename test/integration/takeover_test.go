package integration

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

// TestTakingTurns: two instances take turns under load, each until it is killed, or stopped, in either
// delivery mode. The one that waits is healthy meanwhile, and works as soon as
// the slot is free.
func TestTakingTurns(t *testing.T) {
	for _, mode := range []string{"idempotent", "exactly-once"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t, harness.Postgres(t, harness.Newest))
			p.set("kafka.delivery", mode)
			p.exec(outboxTable)
			p.initialise()
			holder := p.start()
			load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200})
			for round := range 4 {
				waiting := p.standby()
				if code, said, err := waiting.Get("/readyz"); code != http.StatusOK {
					t.Errorf("the instance that waits is not healthy: %d %s %v", code, said, err)
				}
				progresses(t, holder, 200)
				held := p.holder()
				if round == 3 {
					p.stop(holder)
				} else {
					holder.Kill()
				}
				p.awaitRelease(held)
				figure(t, "round %d: streaming %s after the slot was free", round, takesOver(t, waiting))
				holder = waiting
			}
			report := p.finish(load)
			figure(t, "%d events, %d missing, %d came twice", report.Committed, len(report.Missing), report.Duplicates)
			if mode == "exactly-once" && report.Duplicates > 0 {
				t.Errorf("%d events came twice", report.Duplicates)
			}
		})
	}
}

// holder is the backend that holds the slot, 0 if it is free.
func (p *pipeline) holder() int {
	p.t.Helper()
	return harness.Value[int](p.t, p.pg, "select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = $1", p.name)
}

// awaitRelease waits until a backend no longer holds the slot; another may.
func (p *pipeline) awaitRelease(backend int) {
	p.t.Helper()
	harness.Eventually(p.t, patience, "the slot is free", func() error {
		if p.holder() == backend {
			return fmt.Errorf("backend %d still holds it", backend)
		}
		return nil
	})
}
