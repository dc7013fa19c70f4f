package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bothAddresses is the least a configuration must say.
const bothAddresses = `postgres: {url: "postgres://walpost@db/app"}
kafka: {brokers: ["k:9092"]}
`

type malformedCase struct {
	name string
	yaml string
	want []string
}

func testEnviron(name string) (string, bool) {
	value, ok := map[string]string{
		"PIPELINE": "orders",
		"EMPTY":    "",
		"BROKERS":  "k1:9092, k2:9092",
		"EVENTS":   "500",
		"TRUE":     "true",
		"PASSWORD": "hunter2",
		"YAML":     "x\nkafka: {brokers: [evil:1]}",
	}[name]
	return value, ok
}

func mustParse(t *testing.T, yaml string) *Config {
	t.Helper()
	c, err := Parse("f.yaml", []byte(yaml), testEnviron)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMalformed(t *testing.T) {
	for _, tc := range malformed() {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tc.yaml), testEnviron)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want Problems", err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "7331") {
				t.Errorf("the message shows a secret: %v", err)
			}
			if problems.ExitCode() != 2 || problems.Remedy() == "" {
				t.Errorf("exit code %d, remedy %q", problems.ExitCode(), problems.Remedy())
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c := mustParse(t, bothAddresses)
	want := Config{
		Version:  1,
		Pipeline: "outbox",
		Postgres: Postgres{URL: c.Postgres.URL, Slot: "walpost_outbox", Publication: "walpost_outbox"},
		Outbox: Outbox{
			Table:   Table{Schema: "public", Name: "outbox"},
			Columns: Columns{ID: "id", AggregateType: "aggregatetype", AggregateID: "aggregateid", Type: "type", Payload: "payload"},
			Topic:   "outbox.event.{aggregate_type}",
		},
		Kafka: Kafka{
			Brokers:     []string{"k:9092"},
			Delivery:    "idempotent",
			GroupEvents: 20_000, MaxTransactionEvents: 100_000, Oversized: "split", TransactionTimeout: time.Minute,
			ClientID:        "walpost-outbox",
			Checkpoint:      Checkpoint{Topic: "walpost.checkpoint.outbox", TransactionalID: "walpost.outbox"},
			MaxMessageBytes: 1020 << 10,
			Topics:          Topics{Partitions: 6, ReplicationFactor: -1},
		},
		Limits:          Limits{MaxInFlightEvents: 20000, MaxInFlightBytes: 32 << 20},
		OnPoison:        "stop",
		OnStop:          OnStopExit,
		ShutdownTimeout: 20 * time.Second,
		HTTP:            HTTP{Listen: "127.0.0.1:8171"},
		Log:             Log{Level: "info", Format: "auto"},
	}
	if diff := cmp.Diff(want, *c, compareHidden()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// compareHidden compares what DSN and Secret hide.
func compareHidden() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b DSN) bool { return a.Reveal() == b.Reveal() }),
		cmp.Comparer(func(a, b Secret) bool {
			textA, errA := a.Read()
			textB, errB := b.Read()
			return textA == textB && (errA == nil) == (errB == nil)
		}),
	}
}

// Every default is what its key accepts: nothing else looks at it.
func TestDefaultsAreAccepted(t *testing.T) {
	for _, k := range keys(testEnviron) {
		if k.required || k.def == "" || k.def == "{}" {
			continue
		}
		def := strings.NewReplacer("<pipeline>", "p", "<pipeline_>", "p").Replace(k.def)
		if refused := k.set(&Config{}, scalar(def)); refused != nil {
			t.Errorf("%s: its default %q is refused", k.path, k.def)
		}
	}
}

func TestDefaultsFollowThePipeline(t *testing.T) {
	c := mustParse(t, bothAddresses+"pipeline: open-trainings_2\n")
	got := []string{c.Postgres.Slot, c.Postgres.Publication, c.Kafka.ClientID, c.Kafka.Checkpoint.TransactionalID, c.Kafka.Checkpoint.Topic}
	want := []string{"walpost_open_trainings_2", "walpost_open_trainings_2", "walpost-open-trainings_2", "walpost.open-trainings_2", "walpost.checkpoint.open-trainings_2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// The longest name makes a slot of 63 bytes, the most Postgres keeps.
func TestLongestPipeline(t *testing.T) {
	c := mustParse(t, bothAddresses+"pipeline: "+strings.Repeat("a", 55)+"\n")
	if len(c.Postgres.Slot) != 63 {
		t.Errorf("slot %q has %d bytes", c.Postgres.Slot, len(c.Postgres.Slot))
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	c := mustParse(t, `
version: 1
pipeline: trainings
postgres:
  url: postgresql://relay:hunter2@h1:5432,h2/app?sslmode=verify-full
  password: s3cret$$
  slot: s
  publication: P ub
outbox:
  table: '"My Schema"."Out""Box"'
  columns: {id: i, aggregate_type: at, aggregate_id: ai, type: t, payload: p}
  topic: fixed
kafka:
  brokers:
    - k1:9092
    - "[::1]:9092"
  delivery: exactly-once
  group_events: 9
  max_transaction_events: 10
  oversized: stop
  transaction_timeout: 90s
  client_id: me
  checkpoint: {topic: cp, transactional_id: tx}
  max_message_bytes: 2MB
  topics:
    create: true
    partitions: 3
    replication_factor: 2
    config: {min.insync.replicas: 2, compression.type: producer, flag: true}
limits:
  max_in_flight_events: 7
  max_in_flight_bytes: 4194304
on_poison: stop
on_stop: hold
shutdown_timeout: 1m30s
http: {listen: ""}
log: {level: debug, format: json}
`)
	want := Config{
		Version:  1,
		Pipeline: "trainings",
		Postgres: Postgres{URL: c.Postgres.URL, Password: NewSecret("s3cret$"), Slot: "s", Publication: "P ub"},
		Outbox: Outbox{
			Table:   Table{Schema: "My Schema", Name: `Out"Box`},
			Columns: Columns{ID: "i", AggregateType: "at", AggregateID: "ai", Type: "t", Payload: "p"},
			Topic:   "fixed",
		},
		Kafka: Kafka{
			Brokers:     []string{"k1:9092", "[::1]:9092"},
			Delivery:    "exactly-once",
			GroupEvents: 9, MaxTransactionEvents: 10, Oversized: "stop", TransactionTimeout: 90 * time.Second,
			ClientID:        "me",
			Checkpoint:      Checkpoint{Topic: "cp", TransactionalID: "tx"},
			MaxMessageBytes: 2_000_000,
			Topics: Topics{Create: true, Partitions: 3, ReplicationFactor: 2,
				Config: map[string]string{"min.insync.replicas": "2", "compression.type": "producer", "flag": "true"}},
		},
		Limits:          Limits{MaxInFlightEvents: 7, MaxInFlightBytes: 4 << 20},
		OnPoison:        "stop",
		OnStop:          OnStopHold,
		ShutdownTimeout: 90 * time.Second,
		Log:             Log{Level: "debug", Format: "json"},
	}
	if diff := cmp.Diff(want, *c, compareHidden()); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if got := c.Postgres.URL.Reveal(); got != "postgresql://relay:hunter2@h1:5432,h2/app?sslmode=verify-full" {
		t.Errorf("url %q", got)
	}
}

func TestVariables(t *testing.T) {
	c := mustParse(t, `
pipeline: ${PIPELINE}
postgres:
  url: "postgres://u@db/${EMPTY:-app}"
  publication: pre_${PIPELINE}_$$_$x_${NO_SUCH:-none}
kafka:
  brokers: ${BROKERS}
  client_id: "${EMPTY:-c1}"
  topics: {create: "${TRUE}"}
limits: {max_in_flight_events: "${EVENTS}"}
http: {listen: "${EMPTY}"}
`)
	got := []any{c.Pipeline, c.Postgres.URL.Database(), c.Postgres.Publication, c.Kafka.Brokers, c.Kafka.ClientID, c.Kafka.Topics.Create, c.Limits.MaxInFlightEvents, c.HTTP.Listen}
	want := []any{"orders", "app", "pre_orders_$_$x_none", []string{"k1:9092", "k2:9092"}, "c1", true, 500, ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestVariableNeverBecomesStructure(t *testing.T) {
	c := mustParse(t, bothAddresses+"outbox: {columns: {type: \"${YAML}\"}}\n")
	if !strings.Contains(c.Outbox.Columns.Type, "evil") || !slices.Equal(c.Kafka.Brokers, []string{"k:9092"}) {
		t.Errorf("type column %q, brokers %v", c.Outbox.Columns.Type, c.Kafka.Brokers)
	}
}

// YAML takes host:port for one text wherever it stands.
func TestAddressesInEveryNotation(t *testing.T) {
	for _, brokers := range []string{
		"kafka: {brokers: [k1:9092, k2.example:9093]}",
		"kafka: {brokers: [ k1:9092 , \"k2.example:9093\" ]}",
		"kafka: {brokers: \"k1:9092,k2.example:9093\"}",
		"kafka:\n  brokers: [k1:9092, k2.example:9093]",
		"kafka:\n  brokers:\n  - k1:9092\n  - k2.example:9093",
	} {
		c := mustParse(t, "postgres: {url: postgres://walpost:hunter2@db:5432/app}\nhttp: {listen: 127.0.0.1:8171}\n"+brokers+"\n")
		if diff := cmp.Diff([]string{"k1:9092", "k2.example:9093"}, c.Kafka.Brokers); diff != "" {
			t.Errorf("%s (-want +got):\n%s", brokers, diff)
		}
		if c.Postgres.URL.String() != "postgres://walpost@db:5432/app" || c.HTTP.Listen != "127.0.0.1:8171" {
			t.Errorf("url %s, listen %s", c.Postgres.URL, c.HTTP.Listen)
		}
	}
}

func TestSectionsMayBeLeftEmpty(t *testing.T) {
	mustParse(t, bothAddresses+"log:\n  # level: debug\nlimits:\n")
}

func TestResolvePath(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	named := func(name string) (string, bool) { return "env.yaml", name == PathVariable }
	for _, tc := range []struct {
		flag    string
		environ Environ
		want    string
	}{
		{"flag.yaml", named, "flag.yaml"},
		{"", named, "env.yaml"},
		{"", none, DefaultPath},
	} {
		if got := ResolvePath(tc.flag, tc.environ); got != tc.want {
			t.Errorf("ResolvePath(%q) = %q, want %q", tc.flag, got, tc.want)
		}
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), testEnviron)
	var coded interface {
		ExitCode() int
		Remedy() string
	}
	if !errors.Is(err, os.ErrNotExist) || !errors.As(err, &coded) || coded.ExitCode() != 2 || coded.Remedy() == "" {
		t.Errorf("got %v", err)
	}
}

func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	environ := func(name string) (string, bool) {
		value, ok := map[string]string{"DATABASE_URL": "postgres://walpost@db.example:5432/app"}[name]
		return value, ok
	}
	for _, file := range files {
		if _, err := Load(file, environ); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// The example names every key, so that it can't fall behind the table.
func TestExampleIsComplete(t *testing.T) {
	raw, err := os.ReadFile("../../examples/walpost.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys(testEnviron) {
		name := k.path[strings.LastIndexByte(k.path, '.')+1:]
		if !strings.Contains(string(raw), name+":") {
			t.Errorf("examples/walpost.yaml does not show %s", k.path)
		}
	}
}
