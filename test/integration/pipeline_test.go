package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink/kafka"
	"github.com/walpost/walpost/test/harness"
)

// patience is how long a test waits for what should take a moment.
const patience = 30 * time.Second

// outboxTable has the columns of the default mapping.
const outboxTable = `create table outbox(id uuid primary key, aggregatetype varchar(255) not null,
	aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb)`

// onEachRelease tells a story on the oldest and the newest Postgres, side by
// side, each time in a database of its own.
func onEachRelease(t *testing.T, story func(t *testing.T, pg *harness.PG)) {
	t.Helper()
	t.Parallel()
	for _, r := range []struct {
		name    string
		release harness.Release
	}{{"oldest", harness.Oldest}, {"newest", harness.Newest}} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			story(t, harness.Postgres(t, r.release))
		})
	}
}

// pipeline is a test's own: configuration, slot, checkpoint topic and event
// topics bear names that no other test uses.
type pipeline struct {
	t     *testing.T
	pg    *harness.PG
	db    *pgx.Conn
	kafka *harness.Broker

	name            string // also of slot and publication
	checkpointTopic string
	settings        map[string]any // by path, as outbox.table
}

func newPipeline(t *testing.T, pg *harness.PG) *pipeline {
	t.Helper()
	return newPipelineTo(t, pg, harness.Kafka(t))
}

// newPipelineTo makes the topic of aggregate type order, with six partitions.
func newPipelineTo(t *testing.T, pg *harness.PG, broker *harness.Broker) *pipeline {
	t.Helper()
	p := &pipeline{t: t, pg: pg, db: pg.Connect(t), kafka: broker, name: harness.Name("p"), checkpointTopic: broker.Topic("checkpoint")}
	p.settings = map[string]any{
		"pipeline":               p.name,
		"postgres.url":           pg.URL,
		"postgres.slot":          p.name,
		"postgres.publication":   p.name,
		"outbox.topic":           p.topic("{aggregate_type}"),
		"kafka.brokers":          []string{broker.Addr},
		"kafka.checkpoint.topic": p.checkpointTopic,
		"http.listen":            "${" + harness.EnvHTTP + "}",
	}
	broker.CreateTopic(t, p.topic("order"), 6)
	return p
}

// prepared is a pipeline with the default table, initialised.
func prepared(t *testing.T, pg *harness.PG) *pipeline {
	t.Helper()
	p := newPipeline(t, pg)
	p.exec(outboxTable)
	p.initialise()
	return p
}

// topic is the event topic of an aggregate type.
func (p *pipeline) topic(aggregateType string) string { return p.kafka.Topic("event." + aggregateType) }

func (p *pipeline) set(path string, value any) { p.settings[path] = value }

func (p *pipeline) yaml() string {
	p.t.Helper()
	root := map[string]any{}
	for path, value := range p.settings {
		keys := strings.Split(path, ".")
		section := root
		for _, key := range keys[:len(keys)-1] {
			if section[key] == nil {
				section[key] = map[string]any{}
			}
			section = section[key].(map[string]any)
		}
		section[keys[len(keys)-1]] = value
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// initialise runs `walpost init`, which must succeed, and returns what it said.
func (p *pipeline) initialise(flags ...string) string {
	p.t.Helper()
	code, stdout, stderr := p.walpost("init", flags...)
	if code != 0 {
		p.t.Fatalf("init %v: exit code %d\n%s%s", flags, code, stdout, stderr)
	}
	return stdout
}

func (p *pipeline) walpost(command string, flags ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	return harness.RunWalpost(p.t, p.yaml(), append([]string{command}, flags...)...)
}

// start runs the relay and waits until it is ready.
func (p *pipeline) start() *harness.Relay {
	p.t.Helper()
	relay := harness.StartRelay(p.t, p.yaml())
	relay.WaitReady(patience)
	return relay
}

// stop asks the relay to end, which it must do in good order.
func (p *pipeline) stop(relay *harness.Relay) {
	p.t.Helper()
	relay.SIGTERM()
	if code := relay.Wait(patience); code != 0 {
		p.t.Fatalf("exit code %d after SIGTERM", code)
	}
}

// refuses runs a command that must fail with an exit code and, on stderr, a
// condition and a remedy. It returns stderr.
func (p *pipeline) refuses(exit int, condition, command string, flags ...string) string {
	p.t.Helper()
	code, _, stderr := p.walpost(command, flags...)
	p.checkVerdict(code, stderr, exit, condition)
	return stderr
}

// ends waits until a relay has stopped by itself, and returns its log.
func (p *pipeline) ends(relay *harness.Relay, exit int, condition string) string {
	p.t.Helper()
	code := relay.Wait(patience)
	p.checkVerdict(code, relay.Log(), exit, condition)
	return relay.Log()
}

// checkVerdict looks at the last words of a relay.
func (p *pipeline) checkVerdict(code int, stderr string, exit int, condition string) {
	p.t.Helper()
	last := stderr[max(0, strings.LastIndex(stderr, "walpost: ")):]
	if code != exit || !strings.HasPrefix(last, "walpost: stopped: "+condition+": ") || !strings.Contains(last, "\nremedy: ") {
		p.t.Errorf("exit code %d, want %d with condition %s and a remedy; stderr:\n%s", code, exit, condition, stderr)
	}
}

func (p *pipeline) exec(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.db.Exec(p.t.Context(), sql, args...); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

const insertEvent = `insert into outbox (id, aggregatetype, aggregateid, type, payload) values ($1, 'order', $2, 'OrderPlaced', $3)`

// commit writes events of aggregate type order in one transaction.
func (p *pipeline) commit(events ...harness.Event) {
	p.t.Helper()
	var batch pgx.Batch // is a transaction
	for _, e := range events {
		batch.Queue(insertEvent, e.ID, e.Key, e.Value)
	}
	if err := p.db.SendBatch(p.t.Context(), &batch).Close(); err != nil {
		p.t.Fatal(err)
	}
}

// order is the n-th event of a key, with a payload as jsonb prints it.
func order(n int, key string) harness.Event {
	return harness.Event{ID: eventID(n), Key: key, Value: fmt.Sprintf(`{"n": %d}`, n)}
}

func eventID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// published reads all event topics. Records of a partition are in its order.
func (p *pipeline) published() []harness.Record {
	p.t.Helper()
	topics := p.kafka.Topics(p.t, p.topic(""))
	if len(topics) == 0 {
		return nil
	}
	return p.kafka.Consume(p.t, topics...)
}

// await returns all records once there are n.
func (p *pipeline) await(n int) []harness.Record {
	p.t.Helper()
	var records []harness.Record
	harness.Eventually(p.t, patience, fmt.Sprintf("%d records", n), func() error {
		if records = p.published(); len(records) < n {
			return fmt.Errorf("there are %d", len(records))
		}
		return nil
	})
	return records
}

// awaitExactly wants these events, once each, and no other.
func (p *pipeline) awaitExactly(events ...harness.Event) {
	p.t.Helper()
	ledger := harness.NewLedger()
	ledger.Commit(events...)
	report := ledger.Verify(p.await(len(events)))
	if report.Err() != nil || report.Duplicates > 0 {
		p.t.Errorf("%s: %v", report, report.Err())
	}
}

// ids are the event ids of records, in their order.
func ids(records []harness.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Header(outbox.HeaderID))
	}
	return all
}

// wantIDs compares the records' event ids, whatever their order.
func wantIDs(t *testing.T, records []harness.Record, want ...string) {
	t.Helper()
	if got := slices.Sorted(slices.Values(ids(records))); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// position is what a record says about where its event stands.
func position(t *testing.T, r harness.Record) outbox.Position {
	t.Helper()
	var pos outbox.Position
	if err := pos.UnmarshalText([]byte(r.Header(outbox.HeaderPosition))); err != nil {
		t.Fatal(err)
	}
	return pos
}

// confirmed is the slot's confirmed position, 0 if there is no slot.
func (p *pipeline) confirmed() uint64 {
	p.t.Helper()
	return lsn(p.t, p.pg, "(select confirmed_flush_lsn from pg_replication_slots where slot_name = $1)", p.name)
}

// lsn is the value of an SQL expression, 0 for NULL.
func lsn(t *testing.T, pg *harness.PG, expression string, args ...any) uint64 {
	t.Helper()
	return uint64(harness.Value[int64](t, pg, "select coalesce("+expression+" - '0/0'::pg_lsn, 0)::bigint", args...))
}

// awaitConfirmed waits until the slot's position is past lsn.
func (p *pipeline) awaitConfirmed(past uint64) {
	p.t.Helper()
	harness.Eventually(p.t, patience, "confirmation", func() error {
		if at := p.confirmed(); at <= past {
			return fmt.Errorf("the slot stands at %s, not past %s", checkpoint.LSN(at), checkpoint.LSN(past))
		}
		return nil
	})
}

// record is the checkpoint as a successor would find it; nil: there is none. A
// consumer may see it a moment later than its writer was told of it.
func (p *pipeline) record() *checkpoint.Record {
	p.t.Helper()
	store, err := kafka.New(kafka.Config{Brokers: []string{p.kafka.Addr}, Pipeline: p.name, CheckpointTopic: p.checkpointTopic})
	if err != nil {
		p.t.Fatal(err)
	}
	marks, err := store.Marks(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	mark, found := marks[checkpoint.MarkName(p.name, "0")]
	if !found {
		return nil
	}
	record, err := checkpoint.Decode(mark)
	if err != nil {
		p.t.Fatal(err)
	}
	return record
}

// overwrite puts a changed copy of the checkpoint in its place.
func (p *pipeline) overwrite(change func(*checkpoint.Record)) {
	p.t.Helper()
	record := p.record()
	change(record)
	value, err := record.Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	p.overwriteRaw(value)
}

func (p *pipeline) overwriteRaw(value []byte) {
	p.t.Helper()
	p.kafka.Produce(p.t, harness.Record{Topic: p.checkpointTopic, Key: []byte(checkpoint.MarkName(p.name, "0")), Value: value})
}
