package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// TestAPausedRelayDoesNotSendFromItsQueues: a relay is stopped with its queues
// full. When it wakes up another has taken over. It sends nothing more, becomes
// the standby, and says why.
//
// What its sockets hold goes out nevertheless, and completes at most the one
// request that was being written: a batch of each partition. The kernel sends on
// while the process stands still, so it has mostly arrived before the other relay
// looks, which then does not send it again.
func TestAPausedRelayDoesNotSendFromItsQueues(t *testing.T) {
	t.Parallel()
	const batch, partitions = 128 << 10, 6
	p, _, kafka := breakable(t, nil)
	p.set("kafka.max_message_bytes", "128KiB")
	first := p.start()
	load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200})
	progresses(t, first, 200)
	second := p.standby()

	kafka.Pause()
	p.flood(load.Ledger)
	var queued float64
	harness.Eventually(t, patience, "full queues", func() error {
		if queued = scrape(t, first)["walpost_in_flight_bytes"]; queued < 10*batch*partitions {
			return fmt.Errorf("%.0f bytes are in flight", queued)
		}
		return nil
	})
	first.Pause()
	kafka.Unpause()
	takesOver(t, second)
	first.Resume()

	harness.Eventually(t, patience, "the first is the standby", func() error {
		_, said, err := first.Get("/readyz?verbose")
		if !strings.Contains(said, "state standby") {
			return fmt.Errorf("%s, %w", said, err)
		}
		if !strings.Contains(first.Log(), "this process did not run for about") {
			return errors.New("its log does not say why")
		}
		return nil
	})
	load.Stop()
	p.settle(load.Ledger)
	records := p.published()
	report := load.Verify(records)
	// First occurrences may be out of order: the other relay has not waited.
	if lists := [][]string{report.Missing, report.RolledBack, report.Unknown, report.Altered, report.Split, report.LastOrder}; len(slices.Concat(lists...)) > 0 {
		t.Error(report, report.Err())
	}
	bytes := repeatedBytes(records)
	figure(t, "%.0f bytes were in flight at the pause; %d of %d events came twice, %d bytes of at most %d", queued, report.Duplicates, report.Committed, bytes, batch*partitions)
	if bytes > batch*partitions {
		t.Errorf("%d bytes came twice, more than a request of %d batches of %d", bytes, partitions, batch)
	}
	p.stop(first)
	p.stop(second)
}

// repeatedBytes are those of records whose event had one before, keys and values.
func repeatedBytes(records []harness.Record) (n int) {
	seen := map[string]bool{}
	for _, r := range records {
		id := r.Header(outbox.HeaderID)
		if seen[id] {
			n += len(r.Key) + len(r.Value)
		}
		seen[id] = true
	}
	return n
}
