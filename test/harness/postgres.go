package harness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/test/harness/servers"
)

// Release is a supported version of a server.
type Release = servers.Release

// The releases that tests run on.
const (
	Newest = servers.Newest
	Oldest = servers.Oldest
)

// queryTimeout bounds what a test asks a database.
const queryTimeout = 30 * time.Second

// PG is a database of a test's own.
type PG struct {
	// URL leads to the database as a superuser, over TCP without TLS.
	URL string
	// Database is its name.
	Database string
	// Addr is the server's host:port.
	Addr string
}

// DedicatedPG is a database on a server of the test's own.
type DedicatedPG struct {
	*PG
	Faulty
}

// Postgres gives the test an empty database on the shared server of a release.
// It is dropped at the test's end, with its slots.
func Postgres(t testing.TB, release Release) *PG {
	t.Helper()
	server, err := current.one(current.pg, release, func(ctx context.Context, set *servers.Set) (*servers.Server, error) {
		return set.Postgres(ctx, release, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	pg := newDatabase(t, server.Addr)
	t.Cleanup(func() { pg.drop(t) })
	return pg
}

// DedicatedPostgres gives the test a server of its own, with an empty database.
// settings go over the harness's own.
func DedicatedPostgres(t testing.TB, release Release, settings map[string]string) *DedicatedPG {
	t.Helper()
	server := current.dedicated(t, func(ctx context.Context, set *servers.Set) (*servers.Server, error) {
		return set.Postgres(ctx, release, settings)
	})
	return &DedicatedPG{PG: newDatabase(t, server.Addr), Faulty: Faulty{t: t, server: server}}
}

func newDatabase(t testing.TB, addr string) *PG {
	t.Helper()
	pg := &PG{Addr: addr, Database: Name("db")}
	pg.URL = servers.PostgresURL(addr, pg.Database)
	if err := withConn(servers.PostgresURL(addr, "postgres"), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "create database "+pg.Database)
		return err
	}); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	return pg
}

// Connect opens a connection that is closed at the test's end.
func (p *PG) Connect(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		t.Fatalf("connect to %s: %v", p.Database, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
		defer cancel()
		_ = conn.Close(ctx) // its server may be gone
	})
	return conn
}

// Exec runs statements on a connection of their own, so that it works after the
// server was away.
func (p *PG) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if err := withConn(p.URL, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	}); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Value returns the one value of a query's one row, asked on a connection of
// its own.
func Value[T any](t testing.TB, p *PG, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := withConn(p.URL, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sql, args...).Scan(&value)
	}); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func withConn(url string, use func(ctx context.Context, conn *pgx.Conn) error) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return use(ctx, conn)
}

// drop removes the database and its slots, which belong to the whole server.
func (p *PG) drop(t testing.TB) {
	t.Helper()
	err := withConn(servers.PostgresURL(p.Addr, "postgres"), func(ctx context.Context, conn *pgx.Conn) error {
		if err := p.dropSlots(ctx, conn); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "drop database "+p.Database+" with (force)")
		return err
	})
	if err != nil {
		t.Errorf("drop database %s: %v", p.Database, err)
	}
}

// dropSlots ends whoever holds a slot, then drops it; the holder takes a moment
// to let go.
func (p *PG) dropSlots(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var left int
		_, err1 := conn.Exec(ctx, "select pg_terminate_backend(active_pid) from pg_replication_slots where database = $1 and active", p.Database)
		_, err2 := conn.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active", p.Database)
		err3 := conn.QueryRow(ctx, "select count(*) from pg_replication_slots where database = $1", p.Database).Scan(&left)
		if err3 == nil && left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d slots are left: %w", left, errors.Join(ctx.Err(), err1, err2, err3))
		case <-tick.C:
		}
	}
}
