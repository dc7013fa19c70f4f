package harness

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPromotionAgainAndAgain: what was committed, and the failover slot, outlive
// the loss of one primary after the other.
func TestPromotionAgainAndAgain(t *testing.T) {
	pg := ReplicatedPostgres(t, Replication{Synchronous: true, Guarded: true, Settings: map[string]string{"wal_sender_timeout": "7s"}})
	pg.Exec(t, "create table kept(n int)")
	pg.Exec(t, "select pg_create_logical_replication_slot('kept', 'pgoutput', failover => true)")
	system := Value[string](t, pg.PG, "select system_identifier::text from pg_control_system()")
	for n := range 3 {
		pg.Exec(t, "insert into kept values ($1)", n)
		stop := reads(pg.PG)
		pg.AwaitSynced("kept")
		stop()

		lost := pg.PrimaryURL()
		pg.Primary().Kill()
		pg.Promote()

		if rows := Value[int](t, pg.PG, "select count(*) from kept"); rows != n+1 {
			t.Errorf("%d rows, want %d", rows, n+1)
		}
		if timeline := Value[int](t, pg.PG, "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)::int"); timeline != n+2 {
			t.Errorf("timeline %d, want %d", timeline, n+2)
		}
		if usable := Value[bool](t, pg.PG, "select failover and not temporary and invalidation_reason is null from pg_replication_slots where slot_name = 'kept'"); !usable {
			t.Error("the slot can't be used")
		}
		pg.Rejoin()
		if pg.StandbyURL() != lost {
			t.Errorf("the new standby is at %s, want %s", pg.StandbyURL(), lost)
		}
	}
	if now := Value[string](t, pg.PG, "select system_identifier::text from pg_control_system()"); now != system {
		t.Errorf("the cluster is now %s, was %s", now, system)
	}
	if got := Value[string](t, pg.PG, "show wal_sender_timeout"); got != "7s" {
		t.Errorf("wal_sender_timeout %s, want 7s", got)
	}
}

// reads moves the slot on, as a relay would, until stopped.
func reads(pg *PG) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = withConn(pg.URL, func(ctx context.Context, conn *pgx.Conn) error { // the next try may succeed
				_, err1 := conn.Exec(ctx, "create table if not exists moved(); insert into moved default values")
				_, err2 := conn.Exec(ctx, "select pg_replication_slot_advance('kept', pg_current_wal_flush_lsn())")
				return errors.Join(err1, err2)
			})
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); reader.Wait() }
}
