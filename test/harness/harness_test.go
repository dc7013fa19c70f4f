package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

const outboxTable = `create table outbox(id uuid primary key, aggregatetype varchar(255) not null,
	aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb)`

func TestPostgresReleases(t *testing.T) {
	for release, want := range map[string]string{"newest": "18", "oldest": "14"} {
		t.Run(release, func(t *testing.T) {
			pg := Postgres(t, map[string]Release{"newest": Newest, "oldest": Oldest}[release])
			if got := Value[string](t, pg, "show server_version"); !strings.HasPrefix(got, want+".") {
				t.Errorf("version %s, want %s", got, want)
			}
			if got := Value[string](t, pg, "show wal_level"); got != "logical" {
				t.Errorf("wal_level %s", got)
			}
		})
	}
}

func TestADatabaseGoesWithItsTest(t *testing.T) {
	var gone *PG
	slot := Name("slot")
	t.Run("user", func(t *testing.T) {
		gone = Postgres(t, Newest)
		gone.Exec(t, "select pg_create_logical_replication_slot($1, 'pgoutput')", slot)
		gone.Connect(t)
	})
	other := Postgres(t, Newest)
	if n := Value[int](t, other, "select count(*) from pg_replication_slots where slot_name = $1", slot); n != 0 {
		t.Error("the slot is still there")
	}
	if n := Value[int](t, other, "select count(*) from pg_database where datname = $1", gone.Database); n != 0 {
		t.Error("the database is still there")
	}
}

func TestPostgresFaults(t *testing.T) {
	pg := DedicatedPostgres(t, Newest, map[string]string{"wal_sender_timeout": "7s"})
	if got := Value[string](t, pg.PG, "show wal_sender_timeout"); got != "7s" {
		t.Errorf("wal_sender_timeout %s, want 7s", got)
	}
	pg.Exec(t, "select pg_create_logical_replication_slot('kept', 'pgoutput')")
	answers := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, pg.URL)
		if err != nil {
			return err
		}
		return errors.Join(conn.Ping(ctx), conn.Close(ctx))
	}
	faults(t, pg.Faulty, answers)
	if n := Value[int](t, pg.PG, "select count(*) from pg_replication_slots"); n != 1 {
		t.Errorf("%d slots, want 1", n)
	}
}

func TestKafkaFaults(t *testing.T) {
	for name, release := range map[string]Release{"newest": Newest, "oldest": Oldest} {
		t.Run(name, func(t *testing.T) {
			broker := DedicatedKafka(t, release)
			topic := broker.Topic("kept")
			broker.CreateTopic(t, topic, 1)
			broker.Produce(t, Record{Topic: topic, Value: []byte("kept")})
			faults(t, broker.Faulty, func() error { return kafkaAnswers(t, broker.Addr) })
			if got := broker.Consume(t, topic); len(got) != 1 || string(got[0].Value) != "kept" {
				t.Errorf("records %v", got)
			}
		})
	}
}

// faults breaks a server in every way; answers tells whether it serves.
func faults(t *testing.T, server Faulty, answers func() error) {
	t.Helper()
	for _, fault := range []struct {
		name       string
		down, back func()
	}{
		{"stop", server.Stop, server.Start},
		{"kill", server.Kill, server.Start},
		{"pause", server.Pause, server.Unpause},
	} {
		fault.down()
		if err := answers(); err == nil {
			t.Errorf("%s: it still serves", fault.name)
		}
		fault.back()
		took := Eventually(t, 30*time.Second, fault.name+": back", answers)
		t.Logf("%s: serves %s after it was back", fault.name, took)
	}
	server.Restart()
	if err := answers(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// kafkaAnswers asks a broker which API versions it speaks: request 18, version
// 0, correlation 1, no client id.
func kafkaAnswers(t *testing.T, addr string) error {
	t.Helper()
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestConsumeReadsEveryPartitionInOrder(t *testing.T) {
	broker := Kafka(t)
	topic, empty := broker.Topic("some"), broker.Topic("empty")
	broker.CreateTopic(t, topic, 3, "retention.ms", "-1")
	broker.CreateTopic(t, empty, 2)
	var sent []Record
	for i := range 30 {
		sent = append(sent, Record{Topic: topic, Partition: int32(i % 3), Value: fmt.Append(nil, i), Headers: []Header{{"n", fmt.Append(nil, i)}}})
	}
	broker.Produce(t, sent...)

	got := broker.Consume(t, topic, empty)
	if len(got) != 30 {
		t.Fatalf("%d records, want 30", len(got))
	}
	next := map[int32]int64{}
	for _, r := range got {
		want := fmt.Sprint(3*r.Offset + int64(r.Partition))
		if r.Offset != next[r.Partition] || string(r.Value) != want || r.Header("n") != want || r.Key != nil {
			t.Errorf("record %+v, want offset %d and value %s", r, next[r.Partition], want)
		}
		next[r.Partition]++
	}
}

func TestTopicsGoWithTheirTest(t *testing.T) {
	var gone *Broker
	t.Run("user", func(t *testing.T) {
		gone = Kafka(t)
		gone.CreateTopic(t, gone.Topic("x"), 1)
		if got := gone.Topics(t, gone.Prefix); len(got) != 1 {
			t.Errorf("topics %v", got)
		}
	})
	Eventually(t, 10*time.Second, "topics deleted", func() error {
		if left := gone.Topics(t, gone.Prefix); len(left) > 0 {
			return fmt.Errorf("%v is left", left)
		}
		return nil
	})
}

// TestLoadKnowsWhatWasCommitted breaks the server under load and compares the
// ledger with the table, where what was deleted again can't be seen.
func TestLoadKnowsWhatWasCommitted(t *testing.T) {
	pg := DedicatedPostgres(t, Newest, nil)
	pg.Exec(t, outboxTable)
	pg.Exec(t, `create table deleted(id uuid);
		create function keep() returns trigger language plpgsql as 'begin insert into deleted values (old.id); return old; end';
		create trigger keep before delete on outbox for each row execute function keep()`)
	load := StartLoad(t, pg.PG, LoadConfig{Types: []string{"a", "b"}})
	for step, fault := range []func(){pg.Restart, func() { pg.Kill(); pg.Start() }, func() { pg.Pause(); pg.Unpause() }} {
		load.AwaitCommitted(load.Committed()+200*(step+1), time.Minute)
		fault()
	}
	load.AwaitCommitted(load.Committed()+200, time.Minute)
	load.Stop()

	rows, err := pg.Connect(t).Query(t.Context(), `select id::text from outbox union all select id::text from deleted`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	for _, id := range ids {
		e := load.events[id]
		records = append(records, at(0, 0, Event{ID: id, Key: e.Key, Value: e.Value}))
	}
	report := load.Verify(records)
	t.Log(report)
	if len(report.Missing)+len(report.RolledBack)+len(report.Unknown)+report.Duplicates > 0 {
		t.Errorf("the ledger and the table differ: %s", report)
	}
	if report.Discarded == 0 {
		t.Error("nothing was rolled back")
	}
}

func TestLoadKeepsItsRate(t *testing.T) {
	pg := Postgres(t, Newest)
	pg.Exec(t, outboxTable)
	load := StartLoad(t, pg, LoadConfig{Rate: 1000, MaxRows: 1, Writers: 2})
	load.AwaitCommitted(20, time.Minute)
	load.Stop()
	after := load.Committed()
	load.Stop()
	if load.Committed() != after {
		t.Error("it goes on after Stop")
	}
	for id, e := range load.events {
		if row := Value[*string](t, pg, "select max(payload::text) from outbox where id = $1", id); row != nil && *row != e.Value {
			t.Errorf("the table holds %s, the ledger says %s", *row, e.Value)
		}
	}
}

func TestRelayProcess(t *testing.T) {
	if code, out, errs := RunWalpost(t, "", "version"); code != 0 || out == "" {
		t.Fatalf("walpost version: exit code %d, %q, %q", code, out, errs)
	}
	relay := StartRelay(t, "version: 1\nno_such_key: ${GREETING}\n", "GREETING=hello")
	if code := relay.Wait(time.Minute); code != 2 || relay.Log() == "" {
		t.Errorf("a wrong configuration: exit code %d, log %q", code, relay.Log())
	}
	if code, _, err := relay.Get("/livez"); code != 0 || err == nil {
		t.Errorf("a relay that has ended answers %d, %v", code, err)
	}
}
