package integration

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/test/harness"
)

// TestInitFromNothing: one command makes everything; repeated, it finds nothing
// to do and changes nothing.
func TestInitFromNothing(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		said := p.initialise()
		for _, word := range []string{"table: created", "publication: created", "created at", "generation 1", "is initialised"} {
			if !strings.Contains(said, word) {
				t.Errorf("init does not say %q:\n%s", word, said)
			}
		}
		record, at := p.record(), p.confirmed()
		if record.Phase != checkpoint.Active || record.Generation != 1 || uint64(record.Confirmed) != at || record.Last != nil || record.Slot != p.name || record.Database != pg.Database {
			t.Errorf("the checkpoint is %+v, the slot stands at %s", record, checkpoint.LSN(at))
		}
		if published := harness.Value[string](t, pg, "select string_agg(concat_ws(' ', tablename, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot), ';') from pg_publication join pg_publication_tables using (pubname) where pubname = $1", p.name); published != "outbox t f f f t" {
			t.Errorf("the publication is %q", published)
		}

		p.commit(order(1, "a"))
		if said := p.initialise(); !strings.Contains(said, "nothing to do") {
			t.Errorf("repeated, init says:\n%s", said)
		}
		if p.confirmed() != at || *p.record() != *record {
			t.Error("repeated, init has changed something")
		}
		p.start()
		p.awaitExactly(order(1, "a"))
	})
}

// TestDryRun says what it would do, and does nothing of it.
func TestDryRun(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		said := p.initialise("--dry-run")
		for _, word := range []string{"nothing was changed", "table public.outbox", "slot " + p.name} {
			if !strings.Contains(said, word) {
				t.Errorf("the dry run does not say %q:\n%s", word, said)
			}
		}
		if topics := p.kafka.Topics(t, p.checkpointTopic); len(topics) > 0 {
			t.Errorf("it made %v", topics)
		}
		if n := harness.Value[int](t, pg, `select (select count(*) from pg_replication_slots where database = current_database())
			+ (select count(*) from pg_publication) + (select count(*) from pg_tables where schemaname = 'public')`); n > 0 {
			t.Errorf("it made %d objects in Postgres", n)
		}
	})
}

// restricted gives the pipeline a role without rights, by URL and password file.
func (p *pipeline) restricted() (role string) {
	p.t.Helper()
	role = harness.Name("role")
	at, err := url.Parse(p.pg.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	at.User = url.User(role)
	file := filepath.Join(p.t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret-of-"+role+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.set("postgres.url", at.String())
	p.set("postgres.password", map[string]string{"file": file})
	p.exec("revoke connect on database " + p.pg.Database + " from public")
	return role
}

// forget drops the role at the test's end, before the database goes.
func (p *pipeline) forget(role string) {
	p.t.Cleanup(func() { p.pg.Exec(p.t, `drop owned by "`+role+`"; drop role "`+role+`"`) })
}

// TestOwnerRunsTheSQL: the owner of the database runs what --print-sql prints,
// twice for good measure; a role that may do nothing else then inits and runs.
func TestOwnerRunsTheSQL(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		role := p.restricted()
		sql := p.initialise("--print-sql")
		for range 2 {
			p.exec(sql)
		}
		p.forget(role)
		p.exec(`alter role "` + role + `" password 'secret-of-` + role + `'`)

		code, _, stderr := p.walpost("init")
		if code != 1 || !strings.Contains(stderr, "SELECT") || !strings.Contains(stderr, "--existing=ignore") || p.confirmed() != 0 {
			t.Errorf("whether there are older rows can't be seen: exit code %d: %s", code, stderr)
		}
		p.initialise("--existing=ignore")
		if rights := harness.Value[string](t, pg, `select concat_ws(' ', rolcanlogin, rolreplication, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls,
			has_table_privilege(rolname, 'outbox', 'select,insert,update,delete')) from pg_roles where rolname = $1`, role); rights != "t t f f f f f" {
			t.Errorf("rights %s", rights)
		}
		relay := p.start()
		p.commit(order(1, "a"))
		p.awaitExactly(order(1, "a"))
		p.stop(relay)
		if strings.Contains(relay.Log(), "secret-of") {
			t.Error("the log shows the password")
		}
	})
}

// TestMissingRights: what the role may not do is said, and what to do about it.
func TestMissingRights(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		role := p.restricted()
		p.exec(`create role "` + role + `" login`)
		p.forget(role)
		p.exec(`grant connect on database ` + pg.Database + ` to "` + role + `"`)
		p.exec(`revoke create on schema public from public`) // which 14 grants

		code, _, stderr := p.walpost("init")
		if code != 1 || !strings.Contains(stderr, "REPLICATION") {
			t.Errorf("without REPLICATION: exit code %d: %s", code, stderr)
		}
		p.exec(`alter role "` + role + `" replication`)
		for _, step := range []struct{ missing, then string }{
			{"table", outboxTable},
			{"publication", "create publication " + p.name + " for table outbox with (publish = 'insert')"},
		} {
			code, _, stderr := p.walpost("init", "--existing=ignore")
			if code != 1 || !strings.Contains(stderr, "create "+step.missing) || !strings.Contains(stderr, "remedy: let an owner") || !strings.Contains(stderr, "--print-sql") {
				t.Errorf("without the right to create the %s: exit code %d: %s", step.missing, code, stderr)
			}
			p.exec(step.then)
		}
		p.initialise("--existing=ignore")
	})
}

// TestRowsOlderThanTheSlot can't be read from it: somebody has to say that they
// may stay unpublished.
func TestRowsOlderThanTheSlot(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(outboxTable)
		p.commit(order(1, "a"))

		code, _, stderr := p.walpost("init")
		if code != 1 || !strings.Contains(stderr, "rows older than the slot") || !strings.Contains(stderr, "--existing=ignore") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if p.confirmed() != 0 {
			t.Error("the slot was not taken back")
		}
		p.refuses(3, "checkpoint_missing", "run")

		p.initialise("--existing=ignore")
		p.commit(order(2, "a"))
		p.start()
		p.awaitExactly(order(2, "a"))
	})
}

// TestPublicationThatMissesRows is refused before the slot is made: of what was
// committed since, the slot would not yield everything.
func TestPublicationThatMissesRows(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(outboxTable + " partition by range (id)")
		p.exec("create table outbox_all partition of outbox default; create table other()")
		for _, publishes := range []string{
			"for table other",
			"for table outbox with (publish = 'update, delete')",
			"for table outbox with (publish = 'insert')", // under the partition's name
		} {
			p.exec("create publication " + p.name + " " + publishes)
			code, _, stderr := p.walpost("init")
			if code != 3 || !strings.Contains(stderr, "publication "+p.name) || !strings.Contains(stderr, "--print-sql") || p.confirmed() != 0 {
				t.Errorf("%s: exit code %d: %s", publishes, code, stderr)
			}
			p.exec("drop publication " + p.name)
		}
	})
}

// TestAdoptSlot: a slot that somebody else has made and read is gone on from.
func TestAdoptSlot(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		p.exec(outboxTable)
		p.exec("create publication " + p.name + " for table outbox with (publish = 'insert')")
		if code, _, stderr := p.walpost("init", "--adopt-slot"); code != 3 || !strings.Contains(stderr, "no slot "+p.name) {
			t.Errorf("without a slot: exit code %d: %s", code, stderr)
		}
		p.makeSlot("pgoutput")
		p.commit(order(1, "a"))
		p.exec("select pg_replication_slot_advance($1, pg_current_wal_lsn())", p.name)
		p.commit(order(2, "a"))
		at := p.confirmed()

		if code, _, stderr := p.walpost("init"); code != 3 || !strings.Contains(stderr, "--adopt-slot") {
			t.Errorf("unasked: exit code %d: %s", code, stderr)
		}
		p.initialise("--adopt-slot")
		if record := p.record(); uint64(record.Confirmed) != at || p.confirmed() != at {
			t.Errorf("the checkpoint stands at %s, the slot at %s, want %s", record.Confirmed, checkpoint.LSN(p.confirmed()), checkpoint.LSN(at))
		}
		p.start()
		p.commit(order(3, "a"))
		p.awaitExactly(order(2, "a"), order(3, "a"))
	})
}

// TestInitWasKilled between the slot and the record: the next one finishes, and
// what was committed since the slot is published.
func TestInitWasKilled(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.overwrite(func(r *checkpoint.Record) {
			r.Phase, r.Confirmed, r.Publication = checkpoint.Intent, 0, ""
		})
		p.commit(order(1, "a"))
		p.refuses(3, "checkpoint_missing", "run")
		p.initialise()
		if record := p.record(); record.Phase != checkpoint.Active || record.Generation != 1 {
			t.Errorf("the checkpoint is %+v", record)
		}
		p.start()
		p.awaitExactly(order(1, "a"))
	})
}

// TestInitWasKilledBeforeTheSlot: then there is none to adopt, and the next one
// makes it.
func TestInitWasKilledBeforeTheSlot(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		p.overwrite(func(r *checkpoint.Record) { r.Phase = checkpoint.Intent })
		p.dropSlot()
		p.refuses(3, "checkpoint_missing", "run")
		p.initialise()
		p.start()
		p.commit(order(1, "a"))
		p.awaitExactly(order(1, "a"))
	})
}

// TestInitBesideARelay disturbs nothing.
func TestInitBesideARelay(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		code, _, stderr := p.walpost("init")
		if code != 3 || !strings.Contains(stderr, "is held by") || !strings.Contains(stderr, p.name) {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		p.commit(order(1, "a"))
		p.awaitExactly(order(1, "a"))
		p.stop(relay)
		if strings.Contains(relay.Log(), "condition entered") {
			t.Errorf("the relay was disturbed:\n%s", relay.Log())
		}
	})
}

// TestSlotIsMadeAnew only for who says that what was in the old one may be
// left. Positions of the new generation come after all of the old.
func TestSlotIsMadeAnew(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		relay := p.start()
		p.commit(order(1, "a"))
		p.await(1)
		p.stop(relay)
		p.dropSlot()
		p.commit(order(2, "a")) // in no WAL that can be decoded

		code, _, stderr := p.walpost("init")
		if code != 3 || !strings.Contains(stderr, "--existing=ignore") || !strings.Contains(stderr, "generation 2") || p.confirmed() != 0 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		p.initialise("--existing=ignore")
		if record := p.record(); record.Generation != 2 || record.Last != nil { // a new slot yields nothing that was before it
			t.Errorf("the checkpoint is %+v", record)
		}
		p.start()
		p.commit(order(3, "a"))
		p.awaitExactly(order(1, "a"), order(3, "a"))
		records := p.published()
		first, last := position(t, records[0]), position(t, records[1])
		if first.Generation != 1 || last.Generation != 2 || first.Compare(last) >= 0 {
			t.Errorf("positions %s and %s", first, last)
		}
	})
}

// TestValidate needs nothing but the file.
func TestValidate(t *testing.T) {
	good := "postgres: {url: postgres://u:hidden@nowhere.invalid/db}\nkafka: {brokers: nowhere.invalid:9092}\n"
	code, stdout, stderr := harness.RunWalpost(t, good, "validate")
	if code != 0 || !strings.Contains(stdout, ": ok\n") || !strings.Contains(stdout, "walpost.checkpoint.outbox") || strings.Contains(stdout+stderr, "hidden") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, command := range []string{"validate", "run", "init"} {
		code, _, stderr := harness.RunWalpost(t, good+"outbox:\n  tabel: x\nlog: {level: loud}\n", command)
		if code != 2 || !strings.Contains(stderr, ".yaml:4:") || !strings.Contains(stderr, "outbox.tabel") || !strings.Contains(stderr, ".yaml:5:") || !strings.Contains(stderr, "log.level") {
			t.Errorf("%s: exit code %d:\n%s", command, code, stderr)
		}
	}
}
