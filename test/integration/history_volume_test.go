package integration

import (
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/test/harness"
)

// This file is about servers that have another past than the checkpoint: a
// volume that was restored from a copy, a standby that was promoted.

// volatile is a pipeline on a server of its own, which has published order 1.
func volatile(t *testing.T) (*pipeline, *harness.DedicatedPG) {
	t.Helper()
	pg := harness.DedicatedPostgres(t, harness.Newest, map[string]string{"autovacuum": "off"})
	p := newPipeline(t, pg.PG)
	p.initialise()
	p.publish(order(1, "a"))
	return p, pg
}

// publish commits events and has a relay publish and confirm them.
func (p *pipeline) publish(events ...harness.Event) {
	p.t.Helper()
	relay := p.start()
	want := len(p.published()) + len(events)
	p.commit(events...)
	p.await(want)
	p.stop(relay)
}

// writeElsewhere grows the WAL by about a megabyte that is none of the relay's
// business, more than a restart writes by itself.
func (p *pipeline) writeElsewhere() {
	p.t.Helper()
	p.exec("create table if not exists other (n int)")
	p.exec("insert into other select generate_series(1, 20000)")
}

// keepVolume copies the data directory, in which nothing moves meanwhile: no
// relay runs, nobody writes, and what was written is on disk.
func keepVolume(t *testing.T, pg *harness.DedicatedPG) {
	t.Helper()
	pg.Exec(t, "checkpoint")
	shell(t, pg.PG, `mkdir kept && for f in *; do case $f in kept|postmaster.pid) ;; *) cp -a "$f" kept/;; esac; done`)
}

// restoreVolume puts the copy in the place of what has become of it, then runs a
// last command in it and starts the server anew.
func (p *pipeline) restoreVolume(pg *harness.DedicatedPG, command string) {
	p.t.Helper()
	shell(p.t, pg.PG, `mkdir gone && for f in *; do case $f in kept|gone) ;; *) mv "$f" gone/;; esac; done && mv kept/* . && `+command)
	pg.Kill()
	pg.Start()
	p.db = pg.Connect(p.t)
}

// refusesUntouched wants `walpost run` to stop for a condition before it has
// published or confirmed anything, and returns what it said.
func (p *pipeline) refusesUntouched(condition string) string {
	p.t.Helper()
	confirmed, published, record := p.confirmed(), len(p.published()), p.record()
	said := p.refuses(3, condition, "run")
	if after := p.confirmed(); after != confirmed {
		p.t.Errorf("the slot has moved from %s to %s", checkpoint.LSN(confirmed), checkpoint.LSN(after))
	}
	if after := len(p.published()); after != published {
		p.t.Errorf("%d events were published", after-published)
	}
	if after := p.record(); after.Confirmed != record.Confirmed || after.Generation != record.Generation {
		p.t.Errorf("the checkpoint has moved from %+v to %+v", record, after)
	}
	return said
}

// TestVolumeRestored: a copy of the server is put in its place. Identifier and
// timeline are the same, and what was published since is not in it; what it
// commits now takes the same positions.
func TestVolumeRestored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		grow func(p *pipeline)
	}{
		{"to_before_the_checkpoint", func(*pipeline) {}},
		{"and_grown_past_it_by_an_event_first", func(p *pipeline) {
			p.commit(order(3, "a"))
			p.writeElsewhere()
			p.writeElsewhere()
		}},
		{"and_grown_past_it_by_others_then_an_event", func(p *pipeline) {
			p.writeElsewhere()
			p.writeElsewhere()
			p.commit(order(3, "a"))
		}},
		{"and_grown_past_it_by_others_alone", func(p *pipeline) {
			p.writeElsewhere()
			p.writeElsewhere()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, pg := volatile(t)
			keepVolume(t, pg)
			p.writeElsewhere()
			p.publish(order(2, "a"))
			p.restoreVolume(pg, "true")
			c.grow(p)
			if past := lsn(t, pg.PG, "pg_current_wal_flush_lsn()") >= uint64(p.record().Confirmed); past != (c.name != "to_before_the_checkpoint") {
				t.Fatalf("the WAL has grown past the checkpoint: %t", past)
			}
			p.refusesUntouched("history_diverged")
		})
	}
}

// TestPromotionThatLostEvents: the standby had not received what was published.
func TestPromotionThatLostEvents(t *testing.T) {
	t.Parallel()
	p, pg := volatile(t)
	keepVolume(t, pg)
	p.writeElsewhere()
	p.publish(order(2, "a"))
	p.restoreVolume(pg, "touch standby.signal")
	promote(t, pg)
	p.commit(order(3, "a"), order(4, "b"))
	p.refusesUntouched("timeline_diverged")
}

// TestPromotionThatLostNothing: a relay that was pointed at a standby waits for
// its promotion, and goes on where it was.
func TestPromotionThatLostNothing(t *testing.T) {
	t.Parallel()
	p, pg := volatile(t)
	p.commit(order(2, "a"))
	enterRecovery(t, pg)
	before := p.confirmed()

	relay := harness.StartRelay(t, p.yaml())
	awaitCondition(t, relay, "server_in_recovery", "was not promoted")
	if p.confirmed() != before || len(p.published()) != 1 {
		t.Error("it has not waited")
	}
	promote(t, pg)
	relay.WaitReady(patience)
	p.db = pg.Connect(t)
	p.commit(order(3, "a"))
	p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"))
	p.stop(relay)
	p.publish(order(4, "a")) // the checkpoint is of the new timeline now
	p.awaitExactly(order(1, "a"), order(2, "a"), order(3, "a"), order(4, "a"))
}

// TestVolumeRestoredBeforeAnyEvent: nothing was published yet that could be read
// again, and yet the checkpoint speaks of WAL that the server does not have.
func TestVolumeRestoredBeforeAnyEvent(t *testing.T) {
	t.Parallel()
	pg := harness.DedicatedPostgres(t, harness.Newest, map[string]string{"autovacuum": "off"})
	p := newPipeline(t, pg.PG)
	p.initialise()
	keepVolume(t, pg)
	p.writeElsewhere()
	relay := p.start()
	p.awaitConfirmed(lsn(t, pg.PG, "pg_current_wal_lsn()") - 1)
	p.stop(relay)
	p.restoreVolume(pg, "true")
	p.commit(order(1, "a"))
	p.writeElsewhere()
	p.writeElsewhere()
	p.refusesUntouched("history_diverged")
}
