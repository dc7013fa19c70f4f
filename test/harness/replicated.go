package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/test/harness/servers"
)

// Replication says how a primary treats its standby.
type Replication struct {
	// Synchronous makes a commit wait until the standby has it
	// (synchronous_standby_names).
	Synchronous bool
	// Guarded makes failover slots wait as well, so that nobody reads from them
	// what the standby lacks (synchronized_standby_slots).
	Guarded bool
	// Settings of both servers, over the harness's own.
	Settings map[string]string
}

// ReplicatedPG is a database on two servers of the test's own: a primary and a
// hot standby that streams from it and synchronises its failover slots. The
// test may break the primary, promote the standby, and make a new standby where
// the old primary was, again and again.
type ReplicatedPG struct {
	// PG leads to whichever server is the primary: its URL names both. Its Addr
	// is the first primary's.
	*PG
	t      testing.TB
	config Replication
	group  *servers.Group
	nodes  [2]*servers.Server
	// primary is the place of the primary; the standby has the other.
	primary int
}

// ReplicatedPostgres gives the test a primary and a standby of the newest
// release, with an empty database. It returns when the standby streams.
func ReplicatedPostgres(t testing.TB, config Replication) *ReplicatedPG {
	t.Helper()
	ctx, set, cancel := current.begin(t)
	defer cancel()
	r := &ReplicatedPG{t: t, config: config}
	var err error
	if r.group, err = set.Group(ctx, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { retireGroup(t, r.group, r.nodes[:]...) })
	if r.nodes[0], err = r.group.Postgres(ctx, 0, config.Settings); err != nil {
		t.Fatal(err)
	}
	r.PG = newDatabase(t, r.nodes[0].Addr)
	r.URL = servers.PostgresURL(r.group.Addr(0)+","+r.group.Addr(1), r.Database) + "&target_session_attrs=primary"
	r.follow()
	return r
}

func (r *ReplicatedPG) standby() int { return 1 - r.primary }

// Primary is the server that was the primary last, also after its end.
func (r *ReplicatedPG) Primary() Faulty { return Faulty{t: r.t, server: r.nodes[r.primary]} }

// Standby is the other server.
func (r *ReplicatedPG) Standby() Faulty { return Faulty{t: r.t, server: r.nodes[r.standby()]} }

// PrimaryURL leads to the primary only.
func (r *ReplicatedPG) PrimaryURL() string { return r.urlOf(r.primary, r.Database) }

// StandbyURL leads to the standby only.
func (r *ReplicatedPG) StandbyURL() string { return r.urlOf(r.standby(), r.Database) }

func (r *ReplicatedPG) urlOf(place int, database string) string {
	return servers.PostgresURL(r.group.Addr(place), database)
}

// Promote makes the standby the primary. The old one must have been killed or
// stopped: two primaries would be the test's own fault. Nothing waits for a
// standby until Rejoin.
func (r *ReplicatedPG) Promote() {
	r.t.Helper()
	r.query(r.standby(), func(ctx context.Context, conn *pgx.Conn) error {
		var done bool
		err := conn.QueryRow(ctx, "select pg_promote()").Scan(&done) // waits for 60 s
		if err == nil && !done {
			err = errors.New("the standby was not promoted")
		}
		return err
	})
	r.primary = r.standby()
}

// Rejoin replaces what is left of the old primary by a new standby at the same
// address, and returns when it streams.
func (r *ReplicatedPG) Rejoin() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
	defer cancel()
	old := r.nodes[r.standby()]
	r.nodes[r.standby()] = nil
	if err := old.Remove(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.follow()
}

// follow starts a standby, and then has the primary wait for it as configured.
func (r *ReplicatedPG) follow() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var err error
	if r.nodes[r.standby()], err = r.group.Standby(ctx, r.standby(), r.primary, r.config.Settings); err != nil {
		r.t.Fatal(err)
	}
	name := servers.StandbyName(r.standby())
	// Only now: a base backup takes these settings along.
	if r.config.Synchronous {
		r.alter("synchronous_standby_names", name)
	}
	if r.config.Guarded {
		r.alter("synchronized_standby_slots", name)
	}
	Eventually(r.t, faultTimeout, "the standby streams", func() error {
		var state, sync string
		err := withConn(r.PrimaryURL(), func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "select state, sync_state from pg_stat_replication where application_name = $1", name).Scan(&state, &sync)
		})
		if err == nil && (state != "streaming" || r.config.Synchronous != (sync == "sync")) {
			err = fmt.Errorf("it is %s, %s", state, sync)
		}
		return err
	})
}

// alter changes a setting of the running primary.
func (r *ReplicatedPG) alter(name, value string) {
	r.t.Helper()
	r.query(r.primary, func(ctx context.Context, conn *pgx.Conn) error {
		_, err1 := conn.Exec(ctx, fmt.Sprintf("alter system set %s = '%s'", name, value))
		_, err2 := conn.Exec(ctx, "select pg_reload_conf()")
		return errors.Join(err1, err2)
	})
	Eventually(r.t, faultTimeout, name, func() error {
		return withConn(r.PrimaryURL(), func(ctx context.Context, conn *pgx.Conn) error {
			var now string
			err := conn.QueryRow(ctx, "select current_setting($1)", name).Scan(&now)
			if err == nil && now != value {
				err = fmt.Errorf("it is still %q", now)
			}
			return err
		})
	})
}

// AwaitSynced waits until the standby has a copy of a failover slot that will
// outlive a promotion. That takes a reader who confirms: the slot must have
// moved past where the standby was when it first saw it.
func (r *ReplicatedPG) AwaitSynced(slot string) {
	r.t.Helper()
	Eventually(r.t, faultTimeout, "the standby has the slot", func() error {
		// What a slot may move to is logged every 15 s, else.
		r.query(r.primary, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "select pg_log_standby_snapshot()")
			return err
		})
		return withConn(r.StandbyURL(), func(ctx context.Context, conn *pgx.Conn) error { return synced(ctx, conn, slot) })
	})
}

func synced(ctx context.Context, conn *pgx.Conn, slot string) error {
	var kept bool
	err := conn.QueryRow(ctx, `select coalesce(bool_or(synced and not temporary and invalidation_reason is null), false)
		from pg_replication_slots where slot_name = $1`, slot).Scan(&kept)
	if err != nil || kept {
		return err
	}
	// The signal wakes the worker, which sleeps for up to 30 s.
	_, err = conn.Exec(ctx, "select pg_reload_conf(), pg_sleep(0.2)")
	return errors.Join(errors.New("there is none, or a temporary one"), err)
}

func (r *ReplicatedPG) query(place int, use func(context.Context, *pgx.Conn) error) {
	r.t.Helper()
	if err := withConn(r.urlOf(place, "postgres"), use); err != nil {
		r.t.Fatal(strings.TrimSpace(err.Error()))
	}
}
