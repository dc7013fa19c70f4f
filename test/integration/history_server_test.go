package integration

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/test/harness"
)

// This file is about which server a relay is connected to, and what that server
// says of its past.

// shell runs a command in the server's data directory.
func shell(t *testing.T, pg *harness.PG, command string) {
	t.Helper()
	pg.Exec(t, "copy (select) to program '"+strings.ReplaceAll("cat >/dev/null; "+command, "'", "''")+"'")
}

// enterRecovery restarts the server as a standby that follows nobody.
func enterRecovery(t *testing.T, pg *harness.DedicatedPG) {
	t.Helper()
	shell(t, pg.PG, "touch standby.signal")
	pg.Restart()
	if !harness.Value[bool](t, pg.PG, "select pg_is_in_recovery()") {
		t.Fatal("the server is not in recovery")
	}
}

// promote makes a standby the primary, on a timeline of its own.
func promote(t *testing.T, pg *harness.DedicatedPG) {
	t.Helper()
	pg.Exec(t, "select pg_promote()") // waits
}

// look asks as a relay does.
func look(t *testing.T, pg *harness.PG, slot string) replication.Facts {
	t.Helper()
	facts, err := replication.Look(t.Context(), replication.Config{URL: pg.URL, Slot: slot, Publication: slot})
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// TestSlotForStandbys: a slot that init makes is copied to standbys where the
// server can do that; one that it adopts may not be, and then it says so.
func TestSlotForStandbys(t *testing.T) {
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := prepared(t, pg)
		facts := look(t, pg, p.name)
		able := facts.ServerVersion >= 170000
		slot := facts.Slot
		if slot.Failover != able || slot.Synced || slot.Conflicting || slot.InvalidationReason != "" || slot.WALStatus != "reserved" || facts.LacksFailover() {
			t.Errorf("version %d: the slot is %+v", facts.ServerVersion, slot)
		}
		if facts.Timeline != 1 || facts.History != nil || facts.BackendPID == 0 {
			t.Errorf("the facts are %+v", facts)
		}

		p.dropSlot()
		p.makeSlot("pgoutput")
		said := p.initialise("--adopt-slot")
		if strings.Contains(said, "ALTER_REPLICATION_SLOT "+p.name+" (FAILOVER true)") != able {
			t.Errorf("version %d: init says:\n%s", facts.ServerVersion, said)
		}
		if able { // what it says works
			conf, err := pgconn.ParseConfig(pg.URL)
			if err != nil {
				t.Fatal(err)
			}
			conf.RuntimeParams["replication"] = "database"
			conn, err := pgconn.ConnectConfig(t.Context(), conf)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if _, err := conn.Exec(t.Context(), "ALTER_REPLICATION_SLOT "+p.name+" (FAILOVER true)").ReadAll(); err != nil {
				t.Fatal(err)
			}
			if !look(t, pg, p.name).Slot.Failover {
				t.Error("the slot is as it was")
			}
		}
		relay := p.start()
		p.commit(order(1, "a"))
		p.awaitExactly(order(1, "a"))
		p.stop(relay)
	})
}

// TestHistoryOfAPromotedServer: it tells where its first timeline ended, which
// is where whoever was promoted with it parts from whoever was not.
func TestHistoryOfAPromotedServer(t *testing.T) {
	t.Parallel()
	for _, release := range []harness.Release{harness.Newest, harness.Oldest} {
		pg := harness.DedicatedPostgres(t, release, nil)
		enterRecovery(t, pg)
		facts := look(t, pg.PG, "none")
		if !facts.InRecovery || facts.Timeline != 1 || facts.History != nil {
			t.Errorf("in recovery, the facts are %+v", facts)
		}
		end := lsn(t, pg.PG, "pg_last_wal_replay_lsn()")
		promote(t, pg)
		facts = look(t, pg.PG, "none")
		if facts.InRecovery || facts.Timeline != 2 || len(facts.History) != 1 || facts.History[0].Timeline != 1 || facts.History[0].LSN < end || facts.History[0].LSN > facts.WALPosition {
			t.Errorf("promoted at %s, the facts are %+v", replication.FormatLSN(end), facts)
		}
	}
}

// TestThePrimaryOfSeveralHosts: one host refuses, one is a standby: the relay
// works on the third. A URL that names no primary waits for one.
func TestThePrimaryOfSeveralHosts(t *testing.T) {
	t.Parallel()
	pg := harness.Postgres(t, harness.Newest)
	standby := harness.DedicatedPostgres(t, harness.Newest, nil)
	standby.Exec(t, "create database "+pg.Database) // a standby has what its primary has
	enterRecovery(t, standby)
	nobody := net.JoinHostPort("127.0.0.1", strconv.Itoa(harness.FreePort(t)))
	hosts := func(params string, addrs ...string) string {
		at, err := url.Parse(pg.URL)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable%s", at.User, strings.Join(addrs, ","), pg.Database, params)
	}

	p := newPipeline(t, pg)
	p.set("postgres.url", hosts("", nobody, standby.Addr, pg.Addr))
	p.initialise()
	n := 0
	for _, params := range []string{"", "&target_session_attrs=read-write", "&target_session_attrs=primary"} {
		p.set("postgres.url", hosts(params, nobody, standby.Addr, pg.Addr))
		relay := p.start()
		n++
		p.commit(order(n, "a"))
		p.await(n)
		p.stop(relay)
	}

	before := p.confirmed()
	p.set("postgres.url", hosts("", nobody, standby.Addr))
	waiting := harness.StartRelay(t, p.yaml())
	awaitCondition(t, waiting, "server_in_recovery")
	promote(t, standby) // it is another cluster, with nothing of this pipeline
	p.ends(waiting, 3, "wrong_cluster")
	if p.confirmed() != before || len(p.published()) != n {
		t.Error("something was published or confirmed")
	}
}
