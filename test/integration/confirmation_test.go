package integration

import (
	"fmt"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// moment is the state of things at one moment under load, each part taken after
// the one before it.
type moment struct {
	confirmed uint64          // by the slot
	recorded  checkpoint.LSN  // by the checkpoint
	published map[string]bool // event ids in Kafka
}

func (p *pipeline) moment() moment {
	p.t.Helper()
	s := moment{confirmed: p.confirmed(), recorded: p.record().Confirmed, published: map[string]bool{}}
	for _, r := range p.published() {
		s.published[r.Header(outbox.HeaderID)] = true
	}
	return s
}

// TestConfirmationFollowsKafka: at no moment has the slot passed an event that
// a consumer can't have, or a position that the checkpoint does not remember.
func TestConfirmationFollowsKafka(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		load := harness.StartLoad(t, pg, harness.LoadConfig{Rate: 300})
		var samples []moment
		moved := 0
		harness.Eventually(t, patience, "the slot to move under load", func() error {
			s := p.moment()
			if n := len(samples); n > 0 && s.confirmed > samples[n-1].confirmed {
				moved++
			}
			if samples = append(samples, s); moved < 4 {
				return fmt.Errorf("it has moved %d times", moved)
			}
			return nil
		})
		load.Stop()

		records := p.await(load.Committed())
		p.stop(relay)
		for i, s := range samples {
			if uint64(s.recorded) < s.confirmed {
				t.Errorf("sample %d: the checkpoint stands at %s, the slot at %s", i, s.recorded, checkpoint.LSN(s.confirmed))
			}
			for _, r := range records {
				if pos := position(t, r); pos.Commit < s.confirmed && !s.published[r.Header(outbox.HeaderID)] {
					t.Errorf("sample %d: the slot stands at %s, past event %s, which was not in Kafka", i, checkpoint.LSN(s.confirmed), pos)
				}
			}
		}
	})
}

// TestStopConfirmsEverything: after a stop in good order slot and checkpoint
// stand at the same position, past every event, and the next start sends none
// again.
func TestStopConfirmsEverything(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"), order(2, "a"))
		p.commit(order(3, "b"))
		records := p.await(3)
		p.stop(relay)

		last := recordOf(t, records, eventID(3))
		record := p.record()
		if at := p.confirmed(); at <= position(t, last).Commit || checkpoint.LSN(at) != record.Confirmed {
			t.Errorf("the slot stands at %s, the checkpoint at %s, the last event at %s", checkpoint.LSN(at), record.Confirmed, position(t, last))
		}
		if record.Last == nil || record.Last.ID != eventID(3) || record.Last.Position != position(t, last) || record.Last.CommitTime.UnixMilli() != last.Time.UnixMilli() {
			t.Errorf("the checkpoint's last event is %+v, want %s at %s", record.Last, eventID(3), position(t, last))
		}

		p.start()
		p.commit(order(4, "a"))
		wantIDs(t, p.await(4), eventID(1), eventID(2), eventID(3), eventID(4))
	})
}

// TestIdleOutboxReleasesWAL: where only other tables are written to, the slot
// follows all the same, and Postgres may remove the WAL.
func TestIdleOutboxReleasesWAL(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.exec("create table busy(n int, filler text)")
		p.start()
		p.commit(order(1, "a"))
		p.await(1)

		p.exec("insert into busy select n, repeat('x', 200) from generate_series(1, 20000) n")
		written := lsn(t, pg, "pg_current_wal_lsn()")
		p.awaitConfirmed(written)
		if record := p.record(); uint64(record.Confirmed) < written || record.Last.ID != eventID(1) {
			t.Errorf("the checkpoint stands at %s, want past %s; its last event is %+v", record.Confirmed, checkpoint.LSN(written), record.Last)
		}
		harness.Eventually(t, patience, "the WAL to be let go", func() error {
			p.exec("checkpoint") // notes a point at which decoding could begin
			restart := lsn(t, pg, "(select restart_lsn from pg_replication_slots where slot_name = $1)", p.name)
			if restart <= written {
				return fmt.Errorf("the slot still needs it from %s on, before %s", checkpoint.LSN(restart), checkpoint.LSN(written))
			}
			return nil
		})
	})
}
