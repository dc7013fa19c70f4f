package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/test/harness/process"
)

// group runs servers that reach each other.
type group interface {
	postgres(ctx context.Context, port int, settings map[string]string, backup []byte) (*Server, error)
	// kafka starts a broker and does not wait until it serves.
	kafka(ctx context.Context, port int, clusterID string, settings map[string]string) (*Server, error)
	// listenHost is what a server binds to be reached by its neighbours and the
	// tests.
	listenHost() string
	close(ctx context.Context) error
}

// Group is a number of places for servers that talk to each other. A place is a
// loopback address that is the same for its neighbours and for the tests, and
// that whoever takes the place over keeps.
type Group struct {
	set   *Set
	run   group
	ports []int
}

// Group prepares size places.
func (s *Set) Group(ctx context.Context, size int) (*Group, error) {
	run, ports, err := s.group(ctx, size)
	if err != nil {
		return nil, err
	}
	return &Group{set: s, run: run, ports: ports}, nil
}

// Close gives the places up. The servers must have been removed.
func (g *Group) Close(ctx context.Context) error { return g.run.close(ctx) }

// Addr is host:port of a place.
func (g *Group) Addr(place int) string {
	return loopback(g.ports[place])
}

// Postgres starts a server of the newest release that can have standbys, with a
// fresh cluster.
func (g *Group) Postgres(ctx context.Context, place int, settings map[string]string) (*Server, error) {
	server, err := g.run.postgres(ctx, g.ports[place], replicaSettings(settings), nil)
	return g.set.started(ctx, server, err)
}

// StandbyName is what the standby at a place is called in
// synchronous_standby_names, and its slot in synchronized_standby_slots.
func StandbyName(place int) string { return fmt.Sprint("standby_", place) }

// Standby starts a hot standby that streams from the server at another place,
// over a physical slot. The place must be empty.
func (g *Group) Standby(ctx context.Context, place, primary int, settings map[string]string) (*Server, error) {
	// The slot holds the WAL from before the backup on.
	if err := makePhysicalSlot(ctx, g.Addr(primary), StandbyName(place)); err != nil {
		return nil, err
	}
	backup, err := standbyBackup(ctx, g.Addr(primary))
	if err != nil {
		return nil, err
	}
	settings = replicaSettings(settings)
	// The database is for the worker that synchronises slots.
	settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable application_name=%s",
		g.ports[primary], Superuser, StandbyName(place))
	settings["primary_slot_name"] = StandbyName(place)
	server, err := g.run.postgres(ctx, g.ports[place], settings, backup)
	return g.set.started(ctx, server, err)
}

// replicaSettings serve either role. What is changed while a server runs must
// not be here: these settings go to the command line, which has the last word.
func replicaSettings(over map[string]string) map[string]string {
	settings := postgresSettings(map[string]string{
		"hot_standby_feedback":        "on", // or slots can't be synchronised
		"sync_replication_slots":      "on",
		"wal_retrieve_retry_interval": "200ms",
	})
	maps.Copy(settings, over)
	return settings
}

func makePhysicalSlot(ctx context.Context, addr, name string) (err error) {
	conn, err := pgx.Connect(ctx, PostgresURL(addr, "postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, "select pg_create_physical_replication_slot($1, true)", name)
	return err
}

// freePorts picks ports for a group.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		var err error
		if ports[i], err = process.FreePort(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}
