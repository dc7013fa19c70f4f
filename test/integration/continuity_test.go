package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/test/harness"
)

// doubtful is a way to make it unprovable that nothing was lost.
type doubtful struct {
	name      string
	since     int // first major release of Postgres that knows it
	condition string
	meddle    func(p *pipeline)
}

// TestContinuityInDoubt: whatever somebody did to the slot, the checkpoint or
// the publication, the relay stops with exit code 3, the condition's name and a
// remedy, before it publishes or confirms anything.
func TestContinuityInDoubt(t *testing.T) {
	for _, d := range doubts() {
		t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
			onEachRelease(t, func(t *testing.T, pg *harness.PG) {
				if harness.Value[int](t, pg, "select current_setting('server_version_num')::int / 10000") < d.since {
					return // it can't happen here
				}
				p := prepared(t, pg)
				p.commit(order(1, "a"))
				d.meddle(p)
				before := p.confirmed()

				p.refuses(3, d.condition, "run")

				if after := p.confirmed(); after != before {
					t.Errorf("the slot has moved from %s to %s", checkpoint.LSN(before), checkpoint.LSN(after))
				}
				if records := p.published(); len(records) > 0 {
					t.Errorf("%d events were published", len(records))
				}
				if harness.Value[int](t, pg, "select count(*) from pg_replication_slots where slot_name = $1 and active", p.name) > 0 {
					t.Error("the slot is still held")
				}
			})
		})
	}
}

func doubts() []doubtful {
	all := append(slotDoubts(), recordDoubts()...)
	return append(all, publicationDoubts()...)
}

func slotDoubts() []doubtful {
	return []doubtful{
		{"the slot was dropped", 0, "slot_missing", func(p *pipeline) { p.dropSlot() }},
		{"the slot was advanced", 0, "slot_ahead_of_checkpoint", func(p *pipeline) {
			p.exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", p.name)
		}},
		{"the slot was made anew", 0, "slot_ahead_of_checkpoint", func(p *pipeline) {
			p.dropSlot()
			p.makeSlot("pgoutput")
		}},
	}
}

func (p *pipeline) makeSlot(plugin string) {
	p.t.Helper()
	p.exec("select pg_create_logical_replication_slot($1, $2)", p.name, plugin)
}

func (p *pipeline) dropSlot() {
	p.t.Helper()
	p.pg.Exec(p.t, "select pg_drop_replication_slot($1)", p.name)
}

func recordDoubts() []doubtful {
	foreign := func(what string, change func(*checkpoint.Record)) doubtful {
		return doubtful{"the checkpoint of another " + what, 0, "wrong_cluster", func(p *pipeline) { p.overwrite(change) }}
	}
	return []doubtful{
		{"no checkpoint", 0, "checkpoint_missing", func(p *pipeline) { p.overwriteRaw(nil) }},
		{"no checkpoint topic", 0, "checkpoint_missing", func(p *pipeline) { p.kafka.DeleteTopic(p.t, p.checkpointTopic) }},
		{"neither checkpoint nor slot", 0, "checkpoint_missing", func(p *pipeline) {
			p.overwriteRaw(nil)
			p.dropSlot()
		}},
		{"an init that did not finish", 0, "checkpoint_missing", func(p *pipeline) {
			p.overwrite(func(r *checkpoint.Record) { r.Phase = checkpoint.Intent })
		}},
		foreign("pipeline", func(r *checkpoint.Record) { r.Pipeline = "another" }),
		foreign("slot", func(r *checkpoint.Record) { r.Slot = "another" }),
		foreign("database", func(r *checkpoint.Record) { r.Database = "another" }),
		foreign("Postgres", func(r *checkpoint.Record) { r.SystemID = "7000000000000000000" }),
		foreign("Kafka", func(r *checkpoint.Record) { r.KafkaClusterID = "another" }),
		{"the checkpoint of another timeline", 0, "timeline_diverged", func(p *pipeline) {
			p.overwrite(func(r *checkpoint.Record) { r.Timeline++ })
		}},
		{"a checkpoint from the future", 0, "history_diverged", func(p *pipeline) {
			p.overwrite(func(r *checkpoint.Record) { r.Confirmed += 1 << 40 })
		}},
		{"the checkpoint of a later walpost", 0, "checkpoint_too_new", func(p *pipeline) {
			p.overwriteRaw([]byte(`{"v": 99, "shape": ["nobody knows"]}`))
		}},
		{"a checkpoint of garbage", 0, "history_diverged", func(p *pipeline) { p.overwriteRaw([]byte("\x00 no json")) }},
		{"a checkpoint with a field too many", 0, "history_diverged", func(p *pipeline) {
			value, err := p.record().Encode()
			if err != nil {
				p.t.Fatal(err)
			}
			p.overwriteRaw([]byte(strings.Replace(string(value), "{", `{"extra": 1, `, 1)))
		}},
	}
}

func publicationDoubts() []doubtful {
	publication := func(name string, since int, condition, sql string) doubtful {
		return doubtful{name, since, condition, func(p *pipeline) { p.exec(fmt.Sprintf(sql, p.name)) }}
	}
	return []doubtful{
		publication("no publication", 0, "publication_missing", "drop publication %s"),
		publication("a publication without the table", 0, "publication_changed", "alter publication %s drop table outbox"),
		publication("a publication of updates", 0, "publication_changed", "alter publication %s set (publish = 'update')"),
		publication("a publication with a row filter", 15, "publication_changed", "alter publication %s set table outbox where (aggregatetype = 'order')"),
		publication("a publication with another table", 0, "publication_changed", "create table other(); alter publication %s add table other"),
		publication("a table of the same name", 0, "publication_changed",
			"alter table outbox rename to outbox_old; "+outboxTable+"; alter publication %s set table outbox"),
	}
}

// TestSlotOfAnotherKind: a slot of that name was made by somebody else, and
// nothing is read from it.
func TestSlotOfAnotherKind(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		for _, create := range []string{
			"select pg_create_logical_replication_slot($1, 'test_decoding')",
			"select pg_create_physical_replication_slot($1)",
		} {
			p := prepared(t, pg)
			p.dropSlot()
			p.exec(create, p.name)
			p.commit(order(1, "a"))
			before := p.confirmed()
			code, _, stderr := p.walpost("run")
			if code != 3 || !strings.Contains(stderr, "wrong_cluster") || !strings.Contains(stderr, "slot "+p.name+" uses plugin") || !strings.Contains(stderr, "postgres.slot") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if p.confirmed() != before || len(p.published()) > 0 {
				t.Error("it was read from all the same")
			}
			p.dropSlot()
			pg.Exec(t, "drop table outbox")
		}
	})
}

// TestSlotMadeByHand: a slot alone is no beginning.
func TestSlotMadeByHand(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(outboxTable)
		p.exec("create publication " + p.name + " for table outbox with (publish = 'insert')")
		p.makeSlot("pgoutput")
		before := p.confirmed()
		p.commit(order(1, "a"))
		p.refuses(3, "checkpoint_missing", "run")
		if p.confirmed() != before || len(p.published()) > 0 {
			t.Error("it went on all the same")
		}
	})
}

// TestPublicationGoesWhileRunning: the first event that needs it stops the
// relay, and is not confirmed.
func TestPublicationGoesWhileRunning(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)

		p.exec("drop publication " + p.name)
		p.commit(order(2, "a"))
		committed := lsn(t, pg, "pg_current_wal_insert_lsn()")

		p.ends(relay, 3, "publication_missing")
		if at := p.confirmed(); at >= committed {
			t.Errorf("the slot stands at %s, past the event before %s", checkpoint.LSN(at), checkpoint.LSN(committed))
		}
		p.refuses(3, "publication_missing", "run")
		p.awaitExactly(order(1, "a"))
	})
}

// TestPublicationIsNarrowedWhileRunning: what it leaves out is in no stream, so
// the relay looks at it from outside, and stops before it is anybody's guess.
func TestPublicationIsNarrowedWhileRunning(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)
		p.exec("alter publication " + p.name + " set (publish = 'update')")
		p.commit(order(2, "a")) // is never decoded
		p.ends(relay, 3, "publication_changed")
	})
}

// TestPublicationIsChangedAndPutBack: the rows inserted in between are lost to
// the stream, and what is there now does not look it.
func TestPublicationIsChangedAndPutBack(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.exec("alter publication " + p.name + " drop table outbox")
		p.commit(order(1, "a"))
		p.exec("alter publication " + p.name + " add table outbox")
		p.refuses(3, "publication_changed", "run")
	})
}

// TestTableRenamedWhileRunning: the publication follows the table, whose rows
// are now another table's.
func TestTableRenamedWhileRunning(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)

		p.exec("alter table outbox rename to outbox_old")
		p.exec(outboxTable)
		p.exec("insert into outbox_old values ($1, 'order', 'a', 't', '1')", eventID(2))
		committed := lsn(t, pg, "pg_current_wal_insert_lsn()")

		log := p.ends(relay, 3, "publication_changed")
		if !strings.Contains(log, "outbox_old") {
			t.Errorf("the table is not named:\n%s", log)
		}
		if at := p.confirmed(); at >= committed {
			t.Errorf("the slot stands at %s, past the event before %s", checkpoint.LSN(at), checkpoint.LSN(committed))
		}
		p.refuses(3, "publication_changed", "run")
		p.awaitExactly(order(1, "a"))
	})
}

// TestHold: a relay that is to hold stays to tell why it stopped, without the
// slot.
func TestHold(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.set("on_stop", "hold")
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)
		p.exec("drop publication " + p.name)
		p.commit(order(2, "a"))

		awaitCondition(t, relay, "publication_missing")
		harness.Eventually(t, patience, "the relay to have stopped", func() error {
			code, body, err := relay.Get("/readyz")
			if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "state stopped") {
				return fmt.Errorf("code %d: %s %w", code, body, err)
			}
			return nil
		})
		if code, body, err := relay.Get("/livez"); code != http.StatusOK || err != nil {
			t.Errorf("livez: code %d, %s, %v", code, body, err)
		}
		if _, metrics, err := relay.Get("/metrics"); err != nil || !strings.Contains(metrics, `walpost_condition{condition="publication_missing",pipeline="`+p.name+`",shard="0"} 1`) {
			t.Errorf("metrics don't tell of the condition: %v", err)
		}
		p.dropSlot() // nobody holds it
		select {
		case <-relay.Done():
			t.Error("it did not hold")
		default:
		}
		relay.SIGTERM()
		if code := relay.Wait(patience); code != 3 {
			t.Errorf("exit code %d", code)
		}
	})
}
