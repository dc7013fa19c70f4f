package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

// This file is about rows that are in no stream: nothing that the relay reads
// says so, and it must find out by looking.

const partitionedTable = `create table outbox(id uuid, aggregatetype varchar(255) not null, aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb,
	day date not null default '2030-01-01', primary key (id, day)) partition by range (day)`

// daily is the partition of a day of January 2030.
func daily(day string) string {
	return "outbox_" + day + " partition of outbox for values from ('2030-01-" + day + "') to (date '2030-01-" + day + "' + 1)"
}

const insertInto = `insert into outbox (id, aggregatetype, aggregateid, type, payload, day) values ($1, 'order', 'a', 't', '{}', $2)`

func partitioned(t *testing.T, pg *harness.PG) *pipeline {
	t.Helper()
	p := newPipeline(t, pg)
	p.exec(partitionedTable)
	p.exec("create table " + daily("01"))
	return p
}

// TestPartitionsComeAndGo: that is normal life, and stops nothing. But one that
// was away may have been written to.
func TestPartitionsComeAndGo(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := partitioned(t, pg)
		p.initialise()
		relay := p.start()
		p.exec(insertInto, eventID(1), "2030-01-01")
		p.exec("create table " + daily("02"))
		p.exec("create table outbox_03 (like outbox including all)")
		p.exec("alter table outbox attach partition outbox_03 for values from ('2030-01-03') to ('2030-01-04')")
		p.exec(insertInto, eventID(2), "2030-01-02")
		p.exec(insertInto, eventID(3), "2030-01-03")
		p.exec("alter table outbox detach partition outbox_01")
		p.exec("drop table outbox_02")
		p.await(3)
		p.stop(relay)

		relay = p.start() // the checkpoint knew other partitions
		p.exec(insertInto, eventID(4), "2030-01-03")
		p.await(4)
		harness.Eventually(t, patience, "the relay to notice", func() error {
			p.exec("alter table outbox detach partition outbox_03; alter table outbox attach partition outbox_03 for values from ('2030-01-03') to ('2030-01-04')")
			select {
			case <-relay.Done():
				return nil
			default:
				return errors.New("it runs")
			}
		})
		if log := p.ends(relay, 3, "publication_changed"); !strings.Contains(log, "outbox_03") {
			t.Errorf("the partition is not named:\n%s", log)
		}
	})
}

// TestUnloggedPartition: what is inserted into it is in no WAL. It is refused by
// init, at each start, and while the relay runs.
func TestUnloggedPartition(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := partitioned(t, pg)
		p.exec("create unlogged table " + daily("02"))
		p.refusesInit("partition outbox_02 of table public.outbox is UNLOGGED")
		p.exec("alter table outbox_02 set logged")
		p.initialise()
		relay := p.start()
		p.exec(insertInto, eventID(1), "2030-01-02")
		p.await(1)

		p.exec("create unlogged table " + daily("03"))
		p.exec(insertInto, eventID(2), "2030-01-03")
		if log := p.ends(relay, 3, "publication_changed"); !strings.Contains(log, "partition outbox_03 of table public.outbox is UNLOGGED") {
			t.Errorf("the partition is not named:\n%s", log)
		}
		p.refusesUntouched("publication_changed")
		p.exec("alter table outbox detach partition outbox_03")
		p.publishOne(3, "2030-01-02")
		wantIDs(t, p.published(), eventID(1), eventID(3)) // the second never comes by itself
	})
}

// publishOne runs a relay until it has published one more event.
func (p *pipeline) publishOne(n int, day string) {
	p.t.Helper()
	relay := p.start()
	want := len(p.published()) + 1
	p.exec(insertInto, eventID(n), day)
	p.await(want)
	p.stop(relay)
}

// refusesInit wants init to fail with a word about why, and to leave no slot.
func (p *pipeline) refusesInit(word string) {
	p.t.Helper()
	code, _, stderr := p.walpost("init")
	if code != 3 || !strings.Contains(stderr, word) {
		p.t.Errorf("init: exit code %d, want 3 for %s: %s", code, word, stderr)
	}
	if harness.Value[bool](p.t, p.pg, "select exists (select from pg_replication_slots where slot_name = $1)", p.name) {
		p.t.Error("init has made a slot")
	}
}

// TestPublicationMeddledWithWhileRunning: no row comes that would tell; the
// relay finds out by looking, says so, and says so again at the next start.
func TestPublicationMeddledWithWhileRunning(t *testing.T) {
	for _, c := range []struct {
		name, condition string
		meddle          func(p *pipeline)
	}{
		{"altered_and_put_back", "publication_changed", func(p *pipeline) {
			p.exec("alter publication " + p.name + " drop table outbox")
			p.commit(order(2, "a"))
			p.exec("alter publication " + p.name + " add table outbox")
		}},
		{"dropped", "publication_missing", func(p *pipeline) { p.exec("drop publication " + p.name) }},
		{"dropped_and_made_anew", "publication_changed", func(p *pipeline) {
			p.exec("drop publication " + p.name)
			p.exec("create publication " + p.name + " for table outbox with (publish = 'insert', publish_via_partition_root = true)")
		}},
		{"table_renamed_and_made_anew", "publication_changed", func(p *pipeline) {
			p.exec("alter table outbox rename to outbox_old")
			p.exec(outboxTable)
			p.commit(order(2, "a")) // nobody publishes the new one
		}},
		{"all_tables_of_a_schema_too", "publication_changed", func(p *pipeline) {
			if harness.Value[int](p.t, p.pg, "select current_setting('server_version_num')::int") < 150000 {
				p.exec("create table other ()")
				p.exec("alter publication " + p.name + " add table other")
				return
			}
			p.exec("alter publication " + p.name + " add tables in schema public") // there is but this one
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachRelease(t, func(t *testing.T, pg *harness.PG) {
				p := prepared(t, pg)
				relay := p.start()
				p.commit(order(1, "a"))
				p.await(1)
				c.meddle(p)
				p.ends(relay, 3, c.condition)
				p.refusesUntouched(c.condition)
				p.awaitExactly(order(1, "a"))
			})
		})
	}
}

// TestMonitorNeedsNoRights: a role that may log in and replicate, and nothing
// else, sees all of that.
func TestMonitorNeedsNoRights(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := partitioned(t, pg)
		role := p.restricted()
		p.exec(p.initialise("--print-sql"))
		p.forget(role)
		p.exec(`alter role "` + role + `" password 'secret-of-` + role + `'`)
		p.initialise("--existing=ignore")
		relay := p.start()
		p.exec(insertInto, eventID(1), "2030-01-01")
		p.await(1)
		p.exec("create unlogged table " + daily("02"))
		p.ends(relay, 3, "publication_changed")
		p.refusesUntouched("publication_changed")
	})
}
