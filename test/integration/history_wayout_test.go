package integration

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

// This file follows the runbook: what it says by hand must work, and lead to
// every event once in Kafka.

// TestWayOut: something has made it unprovable that nothing was lost, and
// something was. The relay says so, and whoever follows the runbook ends with
// every event in Kafka, once, and in order.
func TestWayOut(t *testing.T) {
	for _, c := range []struct {
		name, condition string
		harm            func(p *pipeline)
	}{
		{"slot_missing", "slot_missing", func(p *pipeline) {
			p.commit(order(2, "a"))
			p.dropSlot()
			p.commit(order(3, "a"), order(4, "b"))
		}},
		{"slot_advanced", "slot_ahead_of_checkpoint", func(p *pipeline) {
			p.commit(order(2, "a"))
			p.commit(order(3, "a"), order(4, "b"))
			p.exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", p.name)
		}},
		{"publication_changed", "publication_changed", func(p *pipeline) {
			p.commit(order(2, "a"))
			p.exec("alter publication " + p.name + " drop table outbox")
			p.commit(order(3, "a"), order(4, "b"))
			p.exec("alter publication " + p.name + " add table outbox")
		}},
		{"publication_missing", "publication_missing", func(p *pipeline) {
			p.commit(order(2, "a"))
			p.exec("drop publication " + p.name)
			p.commit(order(3, "a"), order(4, "b"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachRelease(t, func(t *testing.T, pg *harness.PG) {
				p := newPipeline(t, pg)
				p.initialise()
				p.publish(order(1, "a"))
				c.harm(p)
				p.refuses(3, c.condition, "run")
				p.beginAnew()
				p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "b"), order(5, "a"))
			})
		})
	}
}

// TestWayOutOfAnotherHistory: what the server has lost stays in Kafka, what it
// has committed since in the same place comes to it.
func TestWayOutOfAnotherHistory(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"history_diverged": "true", "timeline_diverged": "touch standby.signal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, pg := volatile(t)
			keepVolume(t, pg)
			p.writeElsewhere()
			p.publish(order(2, "a"))
			p.restoreVolume(pg, command)
			if name == "timeline_diverged" {
				promote(t, pg)
			}
			p.refusesUntouched(name)
			p.commit(order(3, "a"), order(4, "b"))
			p.beginAnew()
			p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "b"), order(5, "a"))
		})
	}
}

// beginAnew is what docs/runbook.md calls that, and then commits order 5.
func (p *pipeline) beginAnew() {
	p.t.Helper()
	if harness.Value[bool](p.t, p.pg, "select exists (select from pg_replication_slots where slot_name = $1)", p.name) {
		p.dropSlot()
	}
	p.initialise("--existing=ignore")
	since := harness.Value[string](p.t, p.pg, "select now()::text")
	p.start()
	p.awaitConfirmed(lsn(p.t, p.pg, "pg_current_wal_lsn()") - 1)

	p.exec("set search_path = public")
	for _, sql := range runbookSQL(p.t) {
		if strings.HasPrefix(sql, `\copy`) {
			for _, r := range p.published() {
				p.exec("insert into published values ($1)", r.Header("id"))
			}
			continue
		}
		p.exec(strings.NewReplacer("<from>", "-infinity", "<until>", since).Replace(sql))
	}
	p.commit(order(5, "a"))
}

// runbookSQL are the statements by which the runbook finds the rows that were
// missed and has them published.
func runbookSQL(t *testing.T) (statements []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?ms)^ +CREATE TEMP TABLE published.*?^ +COMMIT;$`).FindString(string(text))
	for _, statement := range regexp.MustCompile(`(?s)\\copy[^\n]*|[A-Z][^;]*;`).FindAllString(block, -1) {
		statements = append(statements, strings.TrimSpace(statement))
	}
	if len(statements) != 7 {
		t.Fatalf("the runbook has these statements there: %q", statements)
	}
	return statements
}

// TestSlotIsLost: Postgres gave up waiting for its reader.
func TestSlotIsLost(t *testing.T) {
	t.Parallel()
	for _, release := range []harness.Release{harness.Newest, harness.Oldest} {
		pg := harness.DedicatedPostgres(t, release, map[string]string{"max_slot_wal_keep_size": "1MB"})
		p := newPipeline(t, pg.PG)
		p.initialise()
		p.publish(order(1, "a"))
		p.commit(order(2, "a"))
		harness.Eventually(t, patience, "the slot to be lost", func() error {
			pg.Exec(t, "select pg_switch_wal()")
			pg.Exec(t, "checkpoint")
			if status := harness.Value[string](t, pg.PG, "select wal_status from pg_replication_slots where slot_name = $1", p.name); status != "lost" {
				return fmt.Errorf("it is %s", status)
			}
			return nil
		})
		said := p.refusesUntouched("slot_lost")
		if reason := map[harness.Release]string{harness.Newest: "(wal_removed)", harness.Oldest: "(WAL removed)"}[release]; !strings.Contains(said, reason) {
			t.Errorf("it does not say why: %s", said)
		}
		p.beginAnew()
		p.awaitExactly(order(1, "a"), order(2, "a"), order(5, "a"))
	}
}
